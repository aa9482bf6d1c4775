#include "memory/residency.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../test.h"
#include "../tmpdir.h"

/* Two groups of one and two tensors: 100 and 60 bytes. */
typedef struct weights {
    em_tensor a, b, c;
    em_group large, small;
} weights;

static float floats[25];

static void fill(weights *w)
{
    *w = (weights){0};
    w->a = em_tensor_of(floats, EM_F32, EM_SHAPE(5, 5));
    w->b = em_tensor_of(floats, EM_F32, EM_SHAPE(10));
    w->c = em_tensor_of(floats, EM_BF16, EM_SHAPE(10));
    assert_true(em_group_add(&w->large, &w->a));
    assert_true(em_group_add(&w->small, &w->b));
    assert_true(em_group_add(&w->small, &w->c));
}

static void empty(weights *w)
{
    em_group_close(&w->large);
    em_group_close(&w->small);
}

static void groups_know_their_size(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    assert_int_equal(w.large.size_bytes, 100);
    assert_int_equal(w.small.size_bytes, 60);
    assert_int_equal(w.small.count, 2);
    assert_ptr_equal(w.small.tensor[1], &w.c);
    em_alloc_fail_at(1, false);
    em_group none = {0};
    assert_false(em_group_add(&none, &w.a));
    em_alloc_fail_at(0, false);
    assert_int_equal(none.size_bytes, 0);
    empty(&w);
    assert_null(w.small.tensor);
    em_group_close(&w.small);
}

/* A group counts once, however often it is pinned, and until the last unpin. */
static void pins_are_counted(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency r = {.drop_unpinned = true, .counts_only = true};
    em_residency_pin(&r, &w.large);
    em_residency_pin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 100);
    em_residency_pin(&r, &w.small);
    assert_int_equal(r.resident_bytes, 160);
    em_residency_unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 160);
    em_residency_unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 60);
    em_residency_unpin(&r, &w.small);
    assert_int_equal(r.resident_bytes, 0);
    assert_int_equal(r.peak_bytes, 160);
    empty(&w);
}

static void what_is_kept_stays_counted(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency r = {0};
    for (int i = 0; i < 3; i++) {
        em_residency_pin(&r, &w.large);
        em_residency_unpin(&r, &w.large);
        em_residency_pin(&r, &w.small);
        em_residency_unpin(&r, &w.small);
        assert_int_equal(r.resident_bytes, 160);
    }
    assert_int_equal(r.peak_bytes, 160);
    empty(&w);
}

static size_t planned_peak(weights *w, bool drop, unsigned serial)
{
    em_residency plan = {.drop_unpinned = drop, .counts_only = true, .serial = serial};
    em_residency_pin(&plan, &w->large);
    em_residency_unpin(&plan, &w->large);
    em_residency_pin(&plan, &w->small);
    em_residency_unpin(&plan, &w->small);
    return plan.peak_bytes;
}

/* Any number of plans, before, between and inside real uses: neither side sees the other's. */
static void plans_count_for_themselves(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency real = {0};
    assert_int_equal(planned_peak(&w, false, 1), 160);
    em_residency_pin(&real, &w.large);
    assert_int_equal(real.resident_bytes, 100);
    assert_int_equal(planned_peak(&w, false, 2), 160);
    assert_int_equal(planned_peak(&w, true, 3), 100);
    assert_int_equal(real.resident_bytes, 100);
    em_residency_unpin(&real, &w.large);
    assert_int_equal(planned_peak(&w, false, 4), 160);
    em_residency_pin(&real, &w.large); /* still warm: not counted again */
    em_residency_unpin(&real, &w.large);
    assert_int_equal(real.resident_bytes, 100);
    assert_int_equal(real.peak_bytes, 100);
    empty(&w);
}

enum { PAGES = 64 };

/* Pages that were given back read the same: they come from the file again. */
static void dropped_pages_come_back(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = PAGES * page;
    unsigned char *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(i * 31 + i / page);
    const char *path = tmpdir_write(state, "weights.bin", bytes, size);
    em_map map = {0};
    em_err err = {0};
    assert_ok(em_file_map(&map, path, false, &err), err);

    /* Two tensors that share a page, and do not begin where a page does. */
    char *data = (char *)(uintptr_t)map.data;
    em_tensor first = em_tensor_of(data + 100, EM_U8, EM_SHAPE((int64_t)(20 * page))),
              second = em_tensor_of(data + 100 + 20 * page, EM_U8, EM_SHAPE((int64_t)(40 * page)));
    em_group g = {0};
    assert_true(em_group_add(&g, &first));
    assert_true(em_group_add(&g, &second));
    for (int drop = 0; drop < 2; drop++) {
        em_residency r = {.drop_unpinned = drop};
        for (int use = 0; use < 2; use++) {
            em_residency_pin(&r, &g);
            assert_memory_equal(first.data, bytes + 100, 20 * page);
            assert_memory_equal(second.data, bytes + 100 + 20 * page, 40 * page);
            em_residency_unpin(&r, &g);
        }
        assert_int_equal(r.resident_bytes, drop ? 0 : 60 * page);
        g.real = (em_group_use){0}; /* the next policy starts cold */
    }
    assert_memory_equal(map.data, bytes, size);
    em_group_close(&g);
    em_map_close(&map);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_know_their_size),
        cmocka_unit_test(pins_are_counted),
        cmocka_unit_test(what_is_kept_stays_counted),
        cmocka_unit_test(plans_count_for_themselves),
        cmocka_unit_test_setup_teardown(dropped_pages_come_back, tmpdir_setup, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
