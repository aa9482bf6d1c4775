#include "memory/arena.h"

#include "base/rng.h"

#include "../test.h"

#include <string.h>

static em_arena opened(size_t size_bytes)
{
    em_arena a;
    em_err err = {0};
    assert_ok(em_arena_open(&a, &em_device_host, size_bytes, true, &err), err);
    return a;
}

static bool all_poison(const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i] != 0xFF) return false;
    return true;
}

enum { U = EM_ARENA_ALIGN }; /* what every size is rounded up to */

static void two_ends_meet(void **state)
{
    (void)state;
    em_arena a = opened(16 * U);
    unsigned char *low = em_arena_take(&a, 1, false), *high = em_arena_take(&a, U + 1, true);
    assert_ptr_equal(low, a.base);
    assert_ptr_equal(high, a.base + 14 * U);
    assert_ptr_equal(em_arena_take(&a, U, false), a.base + U);
    assert_ptr_equal(em_arena_take(&a, U, true), a.base + 13 * U);
    assert_null(em_arena_take(&a, 11 * U + 1, false));
    assert_non_null(em_arena_take(&a, 11 * U, false));
    assert_null(em_arena_take(&a, 1, true));
    assert_null(em_arena_take(&a, 1, false));
    assert_non_null(em_arena_take(&a, 0, false)); /* nothing always fits */
    assert_int_equal(a.peak_bytes, 16 * U);
    em_arena_close(&a);
    assert_null(a.base);
    em_arena_close(&a);
}

/* A take that fails leaves no trace, sizes that would wrap around included. */
static void a_full_arena_stays_as_it_is(void **state)
{
    (void)state;
    em_arena a = opened(2 * U);
    assert_non_null(em_arena_take(&a, 100, false));
    const size_t too_large[] = {U + 1, 2 * U, SIZE_MAX, SIZE_MAX - U + 2, SIZE_MAX - 2 * U + 1};
    for (size_t i = 0; i < 5; i++) {
        assert_null(em_arena_take(&a, too_large[i], i % 2));
        assert_int_equal(a.low_bytes, U);
        assert_int_equal(a.high_bytes, 0);
        assert_int_equal(a.peak_bytes, U);
    }
    em_arena_close(&a);
}

/* Whatever the block's size, both ends hand out aligned addresses. */
static void addresses_are_aligned(void **state)
{
    (void)state;
    for (size_t size = 15 * U + 40; size < 17 * U; size += 3) {
        em_arena a = opened(size);
        for (int i = 0; i < 10; i++) {
            void *p = em_arena_take(&a, (size_t)i * 7 + 1, i % 2);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % EM_ARENA_ALIGN, 0);
        }
        em_arena_close(&a);
    }
    em_arena a;
    em_arena_open_virtual(&a);
    for (int i = 0; i < 4; i++) {
        void *p = em_arena_take(&a, 5, i % 2);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % EM_ARENA_ALIGN, 0);
    }
    em_arena_close(&a);
}

static void release_gives_back_to_the_mark(void **state)
{
    (void)state;
    em_arena a = opened(64 * U);
    em_arena_take(&a, U, false);
    em_arena_take(&a, U, true);
    em_mark m = em_arena_mark(&a);
    em_arena_take(&a, 2 * U, false);
    em_arena_take(&a, 3 * U, true);
    em_arena_release(&a, m); /* the high end stays */
    assert_int_equal(a.low_bytes, U);
    assert_int_equal(a.high_bytes, 4 * U);
    em_arena_take(&a, 10 * U, false);
    em_arena_release_all(&a, m);
    assert_int_equal(a.low_bytes, U);
    assert_int_equal(a.high_bytes, U);
    em_arena_close(&a);
}

static void peaks_are_of_both_ends_together(void **state)
{
    (void)state;
    em_arena a = opened(64 * U);
    em_mark start = em_arena_mark(&a);
    em_arena_take(&a, 16 * U, false);
    em_arena_take(&a, 8 * U, true);
    em_arena_release(&a, start);
    em_arena_take(&a, 2 * U, false);
    assert_int_equal(a.peak_bytes, 24 * U);
    em_arena_stage_begin(&a); /* from what is in use: 8 + 2 units */
    assert_int_equal(a.stage_peak_bytes, 10 * U);
    em_arena_take(&a, U, false);
    assert_int_equal(a.stage_peak_bytes, 11 * U);
    assert_int_equal(a.peak_bytes, 24 * U);
    em_arena_release_all(&a, start);
    assert_int_equal(a.stage_peak_bytes, 11 * U);
    em_arena_close(&a);
}

static void released_bytes_are_poison(void **state)
{
    (void)state;
    em_arena a = opened(16 * U);
    assert_true(all_poison(a.base, 16 * U));
    em_mark start = em_arena_mark(&a);
    unsigned char *kept_low = em_arena_take(&a, 64, false);
    unsigned char *kept_high = em_arena_take(&a, 64, true);
    memset(kept_low, 1, 64);
    memset(kept_high, 2, 64);
    em_mark m = em_arena_mark(&a);
    unsigned char *low = em_arena_take(&a, 100, false), *high = em_arena_take(&a, 100, true);
    memset(low, 3, U);
    memset(high, 4, U);
    em_arena_release(&a, m);
    assert_true(all_poison(low, U));
    assert_int_equal(high[0], 4);
    em_arena_release_all(&a, m);
    assert_true(all_poison(high, U));
    assert_int_equal(kept_low[63], 1);
    assert_int_equal(kept_high[0], 2);
    em_arena_release_all(&a, start);
    assert_true(all_poison(a.base, 16 * U));
    em_arena_close(&a);
}

/* Without poison memory is left alone. */
static void poison_is_for_tests(void **state)
{
    (void)state;
    em_arena a;
    em_err err = {0};
    assert_ok(em_arena_open(&a, &em_device_host, 256, false, &err), err);
    em_mark m = em_arena_mark(&a);
    unsigned char *p = em_arena_take(&a, 64, false);
    assert_int_equal(p[0], 0); /* fresh from the kernel */
    p[0] = 9;
    em_arena_release(&a, m);
    assert_int_equal(p[0], 9);
    em_arena_close(&a);
}

/* One random program of takes, marks and releases on a virtual arena and on a real one. */
static void a_plan_is_the_program(void **state)
{
    (void)state;
    em_mt19937 g;
    em_mt19937_seed(&g, 20240611);
    for (int round = 0; round < 20; round++) {
        em_arena virtual, real = opened(1 << 20);
        em_arena_open_virtual(&virtual);
        em_mark mark[2][64];
        int depth = 0;
        for (int i = 0; i < 400; i++) {
            uint32_t what = em_mt19937_next(&g) % 8, size = em_mt19937_next(&g) % 2000;
            if (what < 4) {
                assert_non_null(em_arena_take(&virtual, size, what == 3));
                assert_non_null(em_arena_take(&real, size, what == 3));
            } else if (what == 4 && depth < 64) {
                mark[0][depth] = em_arena_mark(&virtual);
                mark[1][depth++] = em_arena_mark(&real);
            } else if (what == 5) {
                em_arena_stage_begin(&virtual);
                em_arena_stage_begin(&real);
            } else if (depth) { /* everything, so that no later mark lies above */
                em_arena_release_all(&virtual, mark[0][--depth]);
                em_arena_release_all(&real, mark[1][depth]);
            }
            assert_int_equal(virtual.low_bytes, real.low_bytes);
            assert_int_equal(virtual.high_bytes, real.high_bytes);
            assert_int_equal(virtual.peak_bytes, real.peak_bytes);
            assert_int_equal(virtual.stage_peak_bytes, real.stage_peak_bytes);
        }
        assert_true(real.peak_bytes > 0);
        em_arena_close(&real);
        em_arena_close(&virtual);
    }
}

static em_status no_room(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    (void)d, (void)out;
    return em_fail(err, EM_NOVRAM, "%zu bytes are too many", size_bytes);
}

static void opening_can_fail(void **state)
{
    (void)state;
    em_device full = em_device_host;
    em_err err = {0};
    em_arena a = {.size_bytes = 77};
    full.alloc = no_room;
    assert_int_equal(em_arena_open(&a, &full, 1000, false, &err), EM_NOVRAM);
    assert_int_equal(em_arena_open(&a, &em_device_host, SIZE_MAX, false, &err), EM_NOMEM);
    assert_int_equal(em_arena_open(&a, &em_device_host, SIZE_MAX / 2, false, &err), EM_NOMEM);
    assert_int_equal(a.size_bytes, 77);
}

/* The floor moves while only kept blocks are there; a mark from before it means the same after. */
static void marks_outlive_a_moving_floor(void **state)
{
    (void)state;
    em_arena a = opened(4096);
    em_arena_set_floor(&a, 1024);
    em_mark before = em_arena_mark(&a);
    assert_non_null(em_arena_take(&a, 64, true));
    em_arena_set_floor(&a, 256);
    assert_ptr_equal(em_arena_take(&a, 64, false), a.base + 256);
    em_arena_release_all(&a, before);
    assert_int_equal(a.low_bytes, 256);
    assert_int_equal(a.high_bytes, 0);
    em_arena_set_floor(&a, 2048);
    em_arena_release_all(&a, before);
    assert_int_equal(a.low_bytes, 2048);
    em_arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_outlive_a_moving_floor),
        cmocka_unit_test(two_ends_meet),
        cmocka_unit_test(a_full_arena_stays_as_it_is),
        cmocka_unit_test(addresses_are_aligned),
        cmocka_unit_test(release_gives_back_to_the_mark),
        cmocka_unit_test(peaks_are_of_both_ends_together),
        cmocka_unit_test(released_bytes_are_poison),
        cmocka_unit_test(poison_is_for_tests),
        cmocka_unit_test(a_plan_is_the_program),
        cmocka_unit_test(opening_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
