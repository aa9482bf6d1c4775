/* How long a retry waits. What goes over a wire is in tests/net. */
#include "io/http.h"

#include "../test.h"

enum { FIRST = 1000, MOST = 30000, ASKED_MOST = 120000 };

static em_fetch_options options(void)
{
    em_fetch_options o = em_fetch_options_default();
    o.backoff_ms = FIRST;
    o.backoff_max_ms = MOST;
    o.retry_after_max_ms = ASKED_MOST;
    return o;
}

/* The bound doubles up to the cap, and the pause is anything below it. */
static void test_back_off(void **state)
{
    (void)state;
    static const double bound[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    const em_fetch_options o = options();
    for (int i = 0; i < 8; i++) {
        assert_true(em_http_pause_ms(&o, i + 2, 0, 0) == 0);
        assert_true(em_http_pause_ms(&o, i + 2, 0, 0x80000000u) == bound[i] / 2);
        double most = em_http_pause_ms(&o, i + 2, 0, UINT32_MAX);
        assert_true(most < bound[i] && most > 0.999 * bound[i]);
    }
    assert_true(em_http_pause_ms(&o, 2000, 0, UINT32_MAX) <= MOST);
}

/* What the server asks for is the least, up to a bound; less than nothing is nothing. */
static void test_retry_after(void **state)
{
    (void)state;
    const em_fetch_options o = options();
    assert_true(em_http_pause_ms(&o, 2, 5000, UINT32_MAX) == 5000);
    assert_true(em_http_pause_ms(&o, 4, 100, 0x80000000u) == 2000);
    assert_true(em_http_pause_ms(&o, 2, 1e9, 0) == ASKED_MOST);
    assert_true(em_http_pause_ms(&o, 2, -1e9, 0) == 0);
}

/* Many clients that failed together do not come back together. */
static void test_random(void **state)
{
    (void)state;
    uint32_t any = 0, all = UINT32_MAX;
    for (int i = 0; i < 64; i++) {
        uint32_t x = em_http_random();
        any |= x;
        all &= x;
    }
    assert_true(any == UINT32_MAX && all == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_off),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
