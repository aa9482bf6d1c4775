#include "memory/stopwatch.h"

#include "base/alloc.h"
#include "far/far.h"
#include "ops/table.h"

#include "../test.h"

static em_device *far;
static em_err err;

static int set_up(void **state)
{
    (void)state;
    far_register();
    far = em_ops_find("far")->device;
    return 0;
}

enum { BYTES = 1000 }; /* a thousandth of a millisecond on the far device's clock */

static void lap(em_stopwatch *w, void *block, const char *from)
{
    assert_ok(em_stopwatch_begin(w, &err), err);
    assert_ok(far->copy_async(far, block, from, BYTES, &err), err);
    assert_ok(em_stopwatch_end(w, 1, &err), err);
}

static void laps_add_up(void **state)
{
    (void)state;
    static const char bytes[BYTES];
    em_stopwatch *w = NULL;
    em_event *e = NULL;
    void *block = NULL;
    assert_ok(far->alloc(far, &block, BYTES, &err), err);
    assert_ok(far->event_create(far, &e, &err), err);
    assert_ok(em_stopwatch_open(&w, far, EM_QUEUE_COPY, &err), err);
    lap(w, block, bytes);
    assert_ok(far->copy_async(far, block, bytes, BYTES, &err), err); /* between laps: not counted */
    assert_ok(far->event_record(far, e, EM_QUEUE_COPY, &err), err);
    lap(w, block, bytes);
    assert_ok(em_stopwatch_read(w, &err), err);
    assert_true(w->ms == 0); /* none is over: nobody has waited for the copies */
    assert_ok(far->event_sync(far, e, &err), err);
    assert_ok(em_stopwatch_read(w, &err), err);
    assert_float_equal(w->ms, 1e-3, 1e-9); /* the first one */
    w->ms = 0;
    for (int i = 0; i < 2 * EM_LAPS; i++) lap(w, block, bytes); /* the oldest give way */
    assert_true(w->begun - w->read == EM_LAPS);
    assert_ok(far->event_record(far, e, EM_QUEUE_COPY, &err), err);
    assert_ok(far->event_sync(far, e, &err), err);
    assert_ok(em_stopwatch_read(w, &err), err);
    assert_float_equal(w->ms, (2 * EM_LAPS + 1) * 1e-3, 1e-9);
    em_stopwatch_close(&w);
    assert_null(w);
    far->event_destroy(far, e);
    far->free(far, block, BYTES);
}

/* The host has no queues to time. */
static void no_clock_is_none(void **state)
{
    (void)state;
    em_stopwatch *w = NULL;
    assert_ok(em_stopwatch_open(&w, &em_device_host, EM_QUEUE_COPY, &err), err);
    assert_null(w);
    assert_ok(em_stopwatch_begin(w, &err), err);
    assert_ok(em_stopwatch_end(w, 1, &err), err);
    assert_ok(em_stopwatch_read(w, &err), err);
    em_stopwatch_close(&w);
}

static int events, fail_at;

static em_status event_or_fail(em_device *d, em_event **out, em_err *e)
{
    if (++events == fail_at) return em_fail(e, EM_NOVRAM, "no more events");
    return far->event_create_timed(d, out, e);
}

static void events_that_fail(void **state)
{
    (void)state;
    em_device few = *far;
    em_stopwatch *w = NULL;
    few.event_create_timed = event_or_fail;
    for (fail_at = 1; fail_at <= 2 * EM_LAPS; fail_at += 51) {
        events = 0;
        assert_int_equal(em_stopwatch_open(&w, &few, EM_QUEUE_COPY, &err), EM_NOVRAM);
        assert_null(w);
    }
    em_alloc_fail_at(1, false);
    assert_int_equal(em_stopwatch_open(&w, far, EM_QUEUE_COPY, &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_null(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(laps_add_up),
        cmocka_unit_test(no_clock_is_none),
        cmocka_unit_test(events_that_fail),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
