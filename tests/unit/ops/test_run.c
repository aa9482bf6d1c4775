#include "far/far.h"
#include "on_ref.h"

#include <string.h>

static void the_first_failure_stays(void **state)
{
    em_run *r = *state;
    assert_false(em_run_stopped(r));
    assert_true(em_tensor_is_empty(em_run_fail(r, EM_FORMAT, "tensor %d", 7)));
    assert_true(em_tensor_is_empty(em_run_fail(r, EM_IO, "later")));
    assert_true(em_run_stopped(r));
    assert_int_equal(r->err.code, EM_FORMAT);
    assert_string_equal(r->err.msg, "tensor 7");
}

static void nothing_is_taken_after_a_failure(void **state)
{
    em_run *r = *state;
    em_run_fail(r, EM_FORMAT, "broken");
    assert_true(em_tensor_is_empty(em_run_tensor(r, EM_F32, EM_SHAPE(4))));
    assert_true(em_tensor_is_empty(em_run_keep(r, EM_F32, EM_SHAPE(4))));
    assert_int_equal(r->arena.peak_bytes, 0);
}

static void a_cancel_becomes_the_failure(void **state)
{
    em_run *r = *state;
    static atomic_bool cancel = false;
    r->cancel = &cancel;
    assert_false(em_run_stopped(r));
    atomic_store(&cancel, true);
    assert_true(em_tensor_is_empty(em_run_tensor(r, EM_F32, EM_SHAPE(4))));
    assert_int_equal(r->err.code, EM_CANCELLED);
    atomic_store(&cancel, false); /* too late */
    assert_true(em_run_stopped(r));
}

static void a_failure_beats_a_later_cancel(void **state)
{
    em_run *r = *state;
    static atomic_bool cancel = true;
    r->cancel = &cancel;
    em_run_fail(r, EM_FORMAT, "broken");
    assert_true(em_run_stopped(r));
    assert_int_equal(r->err.code, EM_FORMAT);
}

static void scratch_comes_from_both_ends(void **state)
{
    em_run *r = *state;
    em_mark start = em_run_mark(r);
    em_tensor kept = em_run_keep(r, EM_BF16, EM_SHAPE(3, 5)),
              low = em_run_tensor(r, EM_F32, EM_SHAPE(2, 8));
    assert_int_equal(kept.dtype, EM_BF16);
    EXPECT_SHAPE(kept, EM_SHAPE(3, 5));
    EXPECT_SHAPE(low, EM_SHAPE(2, 8));
    assert_ptr_equal(low.data, r->arena.base);
    assert_ptr_equal(kept.data, r->arena.base + r->arena.size_bytes - EM_ARENA_ALIGN);
    em_run_release(r, start);
    assert_int_equal(r->arena.low_bytes, 0);
    assert_int_equal(r->arena.high_bytes, EM_ARENA_ALIGN);
    em_run_release_all(r, start);
    assert_int_equal(r->arena.high_bytes, 0);
}

static void a_full_arena_says_for_what(void **state)
{
    em_run *r = *state;
    em_tensor t = em_run_tensor(r, EM_F32, EM_SHAPE(512, 1536));
    assert_true(em_tensor_is_empty(t));
    assert_int_equal(r->err.code, EM_NOMEM);
    assert_string_equal(r->err.msg, "scratch of 1048576 bytes is full: no room for a tensor "
                                    "(512, 1536) of F32");
    static em_device card;
    static em_ops there;
    card = em_device_host;
    there = *r->ops;
    there.device = &card;
    r->ops = &there;
    r->err = (em_err){0};
    em_run_keep(r, EM_F32, EM_SHAPE(512, 1536));
    assert_int_equal(r->err.code, EM_NOVRAM);
}

static void weights_are_pinned_where_there_is_a_residency(void **state)
{
    em_run *r = *state;
    em_group g = {.size_bytes = 40};
    em_run_pin(r, &g); /* without one they are simply there */
    em_run_unpin(r, &g);
    static em_residency weights = {.drop_unpinned = true};
    r->residency = &weights;
    em_run_pin(r, &g);
    assert_int_equal(weights.resident_bytes, 40);
    em_run_unpin(r, &g);
    assert_int_equal(weights.resident_bytes, 0);
    assert_int_equal(weights.peak_bytes, 40);
}

typedef struct counter {
    atomic_bool *cancel;
    atomic_int pieces;
    size_t stop_at;
} counter;

static void piece(void *arg, size_t i, int worker)
{
    (void)worker;
    counter *c = arg;
    atomic_fetch_add(&c->pieces, 1);
    if (i == c->stop_at) atomic_store(c->cancel, true);
}

static void a_cancel_stops_a_loop(void **state)
{
    em_run *r = *state;
    static atomic_bool cancel = false;
    r->cancel = &cancel;
    counter c = {.cancel = &cancel, .stop_at = SIZE_MAX};
    em_run_parallel(r, 100, piece, &c);
    assert_int_equal(c.pieces, 100);
    c = (counter){.cancel = &cancel, .stop_at = 9};
    em_run_parallel(r, 100, piece, &c);
    assert_int_equal(c.pieces, 10);

    em_err err = {0};
    assert_ok(em_pool_create(&r->pool, 3, NULL, &err), err);
    atomic_store(&cancel, false);
    c = (counter){.cancel = &cancel, .stop_at = SIZE_MAX};
    em_run_parallel(r, 100, piece, &c);
    assert_int_equal(c.pieces, 100);
    atomic_store(&cancel, true);
    em_run_parallel(r, 100, piece, &c);
    assert_int_equal(c.pieces, 100);
    em_pool_destroy(&r->pool);
}

/* ---- recordings ------------------------------------------------------------------------------ */

static void far_run(em_run *r)
{
    em_err err = {0};
    far_register();
    for (int s = 0; s < FAR_STEPS; s++) far_watch((far_step)s, 0);
    *r = (em_run){.ops = em_ops_find("far:1"), .dtype = EM_F32};
    assert_ok(em_arena_open(&r->arena, r->ops->device, 1 << 16, false, &err), err);
}

static float first_of(em_run *r, em_tensor x)
{
    float v[2];
    em_download(r, x, v);
    assert_ok(r->err.code, r->err);
    return v[0];
}

/* x = x W^T, W = 2 I, through scratch; pins that would fail a residency that has no room */
static void twice(em_run *r, em_tensor x, em_tensor w, em_group *g)
{
    em_mark m = em_run_mark(r);
    em_run_pin(r, g);
    em_copy(r, x, em_linear(r, x, w, (em_tensor){0}, EM_ACT_NONE));
    em_run_unpin(r, g);
    em_run_release(r, m);
}

static bool record_twice(em_run *r, em_recording *g, em_tensor x, em_tensor w, em_group *weights)
{
    if (!em_run_record_begin(r, g)) return false;
    twice(r, x, w, weights);
    em_run_record_end(r, g);
    return g->graph != NULL;
}

static void a_recording_is_computed_by_replays(void **state)
{
    (void)state;
    em_run on_far, *r = &on_far;
    far_run(r);
    em_recording g = {0};
    em_residency none = {.device = r->ops->device, .dtype = EM_F32};
    em_group weights = {.rule = EM_WEIGHTS_STORED, .size_bytes = 1 << 20};
    em_tensor x = T(EM_SHAPE(1, 2), 1, 3), w = T(EM_SHAPE(2, 2), 2, 0, 0, 2);
    assert_false(em_run_replay(r, &g)); /* there is nothing yet */
    r->residency = &none;
    assert_true(record_twice(r, &g, x, w, &weights));
    assert_ptr_equal(r->residency, &none);
    assert_int_equal(none.clock, 0); /* nothing was pinned */
    assert_true(first_of(r, x) == 1 && r->flops == 0 && r->products == 0);
    for (int i = 1; i <= 3; i++) {
        assert_true(em_run_replay(r, &g));
        assert_true(first_of(r, x) == (float)(1 << i));
        assert_true(r->flops == i * 8.0 && r->products == i);
    }
    em_mark m = em_run_mark(r);
    em_tensor y = T(EM_SHAPE(2), 5, 6); /* lies where the recording has its scratch */
    assert_false(em_run_replay(r, &g));
    assert_true(first_of(r, y) == 5 && first_of(r, x) == 8 && g.graph && !g.err.code);
    em_run_release(r, m);
    assert_true(em_run_replay(r, &g));
    assert_true(first_of(r, x) == 16);
    em_run_record_close(r, &g);
    assert_null(g.graph);
    assert_false(em_run_replay(r, &g));
    em_arena_close(&r->arena);
}

static void a_recording_that_fails_costs_nothing_else(void **state)
{
    (void)state;
    em_run on_far, *r = &on_far;
    far_run(r);
    em_recording g = {0};
    em_group weights = {0};
    em_tensor x = T(EM_SHAPE(1, 2), 1, 3), w = T(EM_SHAPE(2, 2), 2, 0, 0, 2);
    size_t low = r->arena.low_bytes;
    for (int s = 0; s < FAR_LAUNCH; s++) {
        far_watch((far_step)s, 1);
        assert_false(record_twice(r, &g, x, w, &weights));
        assert_non_null(strstr(g.err.msg, "enough of graphs"));
        assert_true(!r->err.code && r->flops == 0 && r->arena.low_bytes == low);
    }
    assert_true(em_run_record_begin(r, &g)); /* the host would wait for the device */
    em_run_tensor(r, EM_F32, EM_SHAPE(2));   /* nobody comes to release it */
    em_run_sync(r);
    em_run_tensor(r, EM_F32, EM_SHAPE(1 << 20)); /* and scratch is full */
    em_run_record_end(r, &g);
    assert_true(!g.graph && g.err.code && !r->err.code && r->arena.low_bytes == low);

    assert_true(record_twice(r, &g, x, w, &weights));
    far_watch(FAR_LAUNCH, 1);
    assert_false(em_run_replay(r, &g));
    assert_true(!g.graph && g.err.code == EM_DEVICE && !r->err.code && r->flops == 0);
    twice(r, x, w, &weights);
    assert_true(first_of(r, x) == 2);
    em_arena_close(&r->arena);
}

static void a_cancel_ends_a_recording(void **state)
{
    (void)state;
    em_run on_far, *r = &on_far;
    far_run(r);
    atomic_bool cancel = false;
    em_recording g = {0}, whole = {0};
    em_group weights = {0};
    em_tensor x = T(EM_SHAPE(1, 2), 1, 3), w = T(EM_SHAPE(2, 2), 2, 0, 0, 2);
    assert_true(record_twice(r, &whole, x, w, &weights));
    r->cancel = &cancel;
    assert_true(em_run_record_begin(r, &g));
    twice(r, x, w, &weights);
    atomic_store(&cancel, true);
    em_run_record_end(r, &g);
    assert_int_equal(r->err.code, EM_CANCELLED);
    assert_true(!g.graph && !g.err.code);
    assert_false(em_run_record_begin(r, &g));
    assert_false(em_run_replay(r, &whole));
    assert_true(whole.graph && !whole.err.code);
    em_run_record_close(r, &whole);
    em_arena_close(&r->arena);
}

/* The host has no graphs, and a plan computes nothing. */
static void not_everything_records(void **state)
{
    em_run *r = *state, on_far;
    em_recording g = {0};
    assert_false(em_run_record_begin(r, &g));
    assert_false(g.err.code || r->err.code);
    far_run(&on_far);
    on_far.plans = true;
    assert_false(em_run_record_begin(&on_far, &g));
    assert_int_equal(far_watched(FAR_CAPTURE_BEGIN), 0);
    em_arena_close(&on_far.arena);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, ref_setup, ref_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(the_first_failure_stays),
        ROW(nothing_is_taken_after_a_failure),
        ROW(a_cancel_becomes_the_failure),
        ROW(a_failure_beats_a_later_cancel),
        ROW(scratch_comes_from_both_ends),
        ROW(a_full_arena_says_for_what),
        ROW(weights_are_pinned_where_there_is_a_residency),
        ROW(a_cancel_stops_a_loop),
        ROW(a_recording_is_computed_by_replays),
        ROW(a_recording_that_fails_costs_nothing_else),
        ROW(a_cancel_ends_a_recording),
        ROW(not_everything_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
