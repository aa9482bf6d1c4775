/* Blocks of every size: what a stage leaves to weights, what is copied, and what does not fit. */
#include "memory/budget.h"

#include "../test.h"

#include <stdlib.h>

enum { GROUPS = 6, VALUES = 4000, ROUNDS = 4, STAGES = 2 };

static float values[GROUPS][VALUES];
static em_tensor slot[GROUPS];
static em_group group[GROUPS];
static unsigned serials;

/* Stage 0 uses the first two groups once, stage 1 the others in turn, several times. */
static void record(em_trace *t, em_stage_need *need)
{
    em_err err = {0};
    em_residency plan = {.dtype = EM_BF16, .counts_only = true, .record = t};
    plan.capacity_bytes = SIZE_MAX;
    plan.serial = ++serials;
    for (int i = 0; i < 2 + ROUNDS * (GROUPS - 2); i++) {
        em_group *g = &group[i < 2 ? i : 2 + (i - 2) % (GROUPS - 2)];
        if (i == 2) need[0].end = need[1].begin = t->count;
        assert_ok(em_residency_pin(&plan, g, &err), err);
        assert_ok(em_residency_unpin(&plan, g, &err), err);
    }
    need[1].end = t->count;
    em_residency_close(&plan);
    em_trace_link(t);
    need[0].scratch_bytes = 10000;
    need[1].scratch_bytes = 30001;
}

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < GROUPS; i++) {
        slot[i] = em_tensor_of(values[i], EM_F32, EM_SHAPE(VALUES));
        if (!em_group_add(&group[i], &slot[i], NULL)) return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < GROUPS; i++) em_group_close(&group[i]);
    return 0;
}

static void more_room_fewer_copies(void **state)
{
    (void)state;
    em_trace t = {0};
    em_stage_need need[STAGES] = {{0}};
    const em_residency like = {.dtype = EM_BF16};
    em_budget b;
    em_err err = {0};
    record(&t, need);
    assert_ok(em_budget_open(&b, need, STAGES, &t, &like, &serials, &err), err);
    size_t image = group[0].image_bytes;
    assert_int_equal(b.all_bytes, GROUPS * image);
    assert_int_equal(b.smallest_bytes, 30208 + image);
    assert_int_equal(b.largest_bytes, 30208 + GROUPS * image);
    assert_false(em_budget_try(&b, b.smallest_bytes - 256));
    size_t copied = SIZE_MAX;
    for (int i = 1; i <= GROUPS; i++) {
        assert_true(em_budget_try(&b, 30208 + (size_t)i * image));
        assert_true(b.copied_bytes <= copied);
        copied = b.copied_bytes;
        assert_int_equal(need[0].copied_bytes + need[1].copied_bytes, copied);
        assert_int_equal(need[1].weights_bytes, (size_t)i * image);
        assert_true(need[1].store_peak_bytes <= need[1].weights_bytes);
        assert_int_equal(need[0].streamed_bytes, 0); /* used once */
    }
    assert_int_equal(copied, GROUPS * image);
    assert_int_equal(need[1].streamed_bytes, 0);
    assert_true(em_budget_try(&b, b.smallest_bytes));
    assert_int_equal(b.copied_bytes, (2 + ROUNDS * (GROUPS - 2)) * image);
    assert_int_equal(need[1].streamed_bytes, (GROUPS - 2) * image);
    em_trace_close(&t);
}

static void a_limit_is_kept(void **state)
{
    (void)state;
    em_trace t = {0};
    em_stage_need need[STAGES] = {{0}};
    const em_residency like = {.dtype = EM_BF16};
    em_budget b;
    em_err err = {0};
    size_t block = 0;
    record(&t, need);
    assert_ok(em_budget_open(&b, need, STAGES, &t, &like, &serials, &err), err);
    assert_ok(em_budget_fit(&b, SIZE_MAX, &block, &err), err);
    assert_int_equal(block, b.largest_bytes);
    assert_ok(em_budget_fit(&b, b.smallest_bytes + 1000, &block, &err), err);
    assert_int_equal(block, b.smallest_bytes + 1000);
    assert_int_equal(em_budget_fit(&b, b.smallest_bytes - 1, &block, &err), EM_NOVRAM);
    em_trace_close(&t);
}

/* Room for what is in use and for the next, however often one group is used in a row. */
static void one_group_again_and_again(void **state)
{
    (void)state;
    em_trace t = {0};
    em_stage_need need = {0};
    const em_residency like = {.dtype = EM_BF16, .prefetch = true};
    em_residency plan = {.dtype = EM_BF16,
                         .counts_only = true,
                         .record = &t,
                         .capacity_bytes = SIZE_MAX};
    em_budget b;
    em_err err = {0};
    plan.serial = ++serials;
    for (int i = 0; i < 3 * (GROUPS + 3); i++) {
        em_group *g = &group[i % (GROUPS + 3) < 4 ? 0 : i % (GROUPS + 3) - 3];
        assert_ok(em_residency_pin(&plan, g, &err), err);
        assert_ok(em_residency_unpin(&plan, g, &err), err);
    }
    need.end = t.count;
    em_residency_close(&plan);
    em_trace_link(&t);
    assert_ok(em_budget_open(&b, &need, 1, &t, &like, &serials, &err), err);
    assert_int_equal(need.least_bytes, 2 * group[0].image_bytes);
    assert_true(em_budget_try(&b, b.smallest_bytes));
    em_trace_close(&t);
}

/* With room for images the host reads every file once, whatever is streamed to the device. */
static void files_are_read_once(void **state)
{
    (void)state;
    em_trace t = {0};
    em_stage_need need[STAGES] = {{0}};
    em_device elsewhere = em_device_host;
    elsewhere.host_addressable = false;
    em_residency like = {.device = &elsewhere, .dtype = EM_BF16, .prefetch = true};
    em_budget b;
    em_err err = {0};
    record(&t, need);
    for (int i = 0; i < GROUPS; i++) em_group_settle(&group[i], EM_BF16, false);
    like.images_bytes = GROUPS * group[0].image_bytes;
    assert_ok(em_budget_open(&b, need, STAGES, &t, &like, &serials, &err), err);
    assert_true(em_budget_try(&b, b.smallest_bytes));
    assert_int_equal(b.packed_bytes, b.all_bytes);
    assert_true(b.copied_bytes > b.all_bytes);
    assert_true(b.image_bytes > 0 && b.image_bytes < b.all_bytes);
    b.like.images_bytes = 0;
    assert_true(em_budget_try(&b, b.smallest_bytes));
    assert_int_equal(b.packed_bytes, b.copied_bytes);
    em_trace_close(&t);
}

/* Ahead of their pins groups go where they can stay, and only the next one may cost those that are
 * needed again: of groups that are used in turn and do not all fit, two at most take turns in the
 * room of two, the one in use and the next; the others stay. */
static void reading_ahead_wastes_nothing(void **state)
{
    (void)state;
    em_trace t = {0};
    em_stage_need need[STAGES] = {{0}};
    em_device elsewhere = em_device_host;
    elsewhere.host_addressable = false;
    const em_residency like = {.device = &elsewhere, .dtype = EM_BF16, .prefetch = true};
    em_budget b;
    em_err err = {0};
    record(&t, need);
    for (int i = 0; i < GROUPS; i++) em_group_settle(&group[i], EM_BF16, false);
    assert_ok(em_budget_open(&b, need, STAGES, &t, &like, &serials, &err), err);
    for (size_t room = 2; room <= GROUPS; room++) {
        const size_t turn = GROUPS - 2, again = room < turn ? turn - room + 2 : 0;
        assert_true(em_budget_try(&b, 30208 + room * group[0].image_bytes));
        assert_true(b.copied_bytes <= (GROUPS + (ROUNDS - 1) * again) * group[0].image_bytes);
    }
    em_trace_close(&t);
}

/* Those of a turn that do not fit are not neighbours, so that each copy has the others' time; and
 * they are the ones that come in every time. */
static void streamed_groups_are_spread(void **state)
{
    (void)state;
    enum { TURNS = 9 };
    em_trace t = {0};
    em_stage_need need = {0};
    em_device elsewhere = em_device_host;
    elsewhere.host_addressable = false;
    const em_residency like = {.device = &elsewhere, .dtype = EM_BF16, .prefetch = true};
    em_residency plan = {.device = &elsewhere,
                         .dtype = EM_BF16,
                         .counts_only = true,
                         .record = &t,
                         .capacity_bytes = SIZE_MAX,
                         .serial = ++serials};
    em_budget b;
    em_err err = {0};
    for (int i = 0; i < TURNS * GROUPS; i++) {
        assert_ok(em_residency_pin(&plan, &group[i % GROUPS], &err), err);
        assert_ok(em_residency_unpin(&plan, &group[i % GROUPS], &err), err);
    }
    need.end = t.count;
    em_residency_close(&plan);
    em_trace_link(&t);
    assert_ok(em_budget_open(&b, &need, 1, &t, &like, &serials, &err), err);
    assert_true(em_budget_try(&b, (GROUPS - 1) * group[0].image_bytes));
    int streamed = 0;
    for (int i = 0; i < GROUPS; i++) {
        if (!group[i].streamed) continue;
        streamed++;
        assert_false(group[(i + 1) % GROUPS].streamed);
        assert_true(group[i].planned.loads >= TURNS - 1);
    }
    assert_in_range(streamed, 2, 3);
    assert_in_range(need.streamed_bytes / group[0].image_bytes, streamed, streamed + 1);
    em_trace_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_room_fewer_copies),
        cmocka_unit_test(a_limit_is_kept),
        cmocka_unit_test(one_group_again_and_again),
        cmocka_unit_test(files_are_read_once),
        cmocka_unit_test(reading_ahead_wastes_nothing),
        cmocka_unit_test(streamed_groups_are_spread),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
