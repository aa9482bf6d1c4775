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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
