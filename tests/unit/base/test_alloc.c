#include "base/alloc.h"

#include "../test.h"

#include <string.h>

static void memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    for (size_t n = 1; n < 400; n += 7) {
        unsigned char *p = em_alloc(n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 0xAA, n); /* what the next round would see if it were not zeroed */
        em_free(p);
    }
    assert_null(em_alloc(0));
    em_free(NULL);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    size_t out = 7;
    assert_false(em_size_mul(&out, SIZE_MAX / 2 + 1, 2));
    assert_false(em_size_add(&out, SIZE_MAX, 1));
    assert_int_equal(out, 7);
    assert_true(em_size_mul(&out, SIZE_MAX / 2, 2));
    assert_int_equal(out, SIZE_MAX - 1);
    assert_true(em_size_add(&out, SIZE_MAX - 1, 1));
    assert_int_equal(out, SIZE_MAX);

    assert_null(em_alloc_array(SIZE_MAX / 2 + 2, 2)); /* 2 bytes, were it to wrap */
    char *p = em_alloc_array(3, 4);
    assert_non_null(p);
    memcpy(p, "kept bytes!", 12);
    assert_null(em_realloc_array(p, SIZE_MAX / 2 + 2, 2));
    assert_null(em_realloc_array(p, 0, 4));
    assert_string_equal(p, "kept bytes!");
    char *larger = em_realloc_array(p, 1000, 4);
    assert_non_null(larger);
    assert_string_equal(larger, "kept bytes!");
    em_free(larger);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *whole = em_strdup("portrait"), *part = em_strndup("portrait", 4),
         *shorter = em_strndup("po", 4), *none = em_strdup("");
    assert_string_equal(whole, "portrait");
    assert_string_equal(part, "port");
    assert_string_equal(shorter, "po");
    assert_string_equal(none, "");
    em_free(whole);
    em_free(part);
    em_free(shorter);
    em_free(none);
}

static bool succeeds(void)
{
    void *p = em_alloc(1);
    em_free(p);
    return p != NULL;
}

static void the_nth_allocation_fails_once(void **state)
{
    (void)state;
    em_alloc_fail_at(3, false);
    assert_true(succeeds());
    assert_true(succeeds());
    assert_false(succeeds());
    assert_true(succeeds());
    em_alloc_fail_at(1, false);
    assert_null(em_strdup("x"));
    em_alloc_fail_at(1, false);
    char *p = em_alloc(4);
    assert_null(p);
    em_alloc_fail_at(2, false);
    p = em_alloc(4);
    assert_non_null(p);
    assert_null(em_realloc_array(p, 8, 1)); /* p is still ours */
    em_free(p);
    em_alloc_fail_at(0, false);
}

static void and_then_all_of_them(void **state)
{
    (void)state;
    em_alloc_fail_at(2, true);
    assert_true(succeeds());
    for (int i = 0; i < 5; i++) assert_false(succeeds());
    em_alloc_fail_at(0, true);
    assert_true(succeeds());
}

/* Reallocation counts, freeing does not, and a failure is a call too. */
static void calls_are_counted(void **state)
{
    (void)state;
    uint64_t before = em_alloc_calls();
    char *p = em_alloc(1);
    p = em_realloc_array(p, 2, 1);
    em_free(p);
    em_alloc_fail_at(1, false);
    assert_false(succeeds());
    em_alloc_fail_at(0, false);
    assert_int_equal(em_alloc_calls() - before, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(the_nth_allocation_fails_once),
        cmocka_unit_test(and_then_all_of_them),
        cmocka_unit_test(calls_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
