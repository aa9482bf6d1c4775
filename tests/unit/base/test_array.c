#include "base/array.h"

#include "base/alloc.h"

#include "../test.h"

static void items_stay_where_they_were_pushed(void **state)
{
    (void)state;
    int *v = NULL;
    size_t n = 0, cap = 0;
    for (int i = 0; i < 1000; i++) assert_true(EM_PUSH(v, n, cap, 3 * i));
    assert_int_equal(n, 1000);
    assert_true(cap >= n);
    for (int i = 0; i < 1000; i++) assert_int_equal(v[i], 3 * i);
    em_free(v);
}

/* A thousand pushes are a handful of reallocations. */
static void room_doubles(void **state)
{
    (void)state;
    char *v = NULL;
    size_t n = 0, cap = 0;
    uint64_t calls = em_alloc_calls();
    for (int i = 0; i < 1024; i++) assert_true(EM_PUSH(v, n, cap, 'x'));
    assert_int_equal(em_alloc_calls() - calls, 8); /* 8, 16, … 1024 */
    assert_true(em_array_grow((void **)&v, &cap, n, 0, 1));
    assert_int_equal(cap, 1024);
    assert_true(em_array_grow((void **)&v, &cap, n, 5000, 1));
    assert_int_equal(cap, 8192);
    em_free(v);
}

static void a_failure_changes_nothing(void **state)
{
    (void)state;
    void *items = NULL;
    size_t cap = 0;
    assert_false(em_array_grow(&items, &cap, SIZE_MAX, 1, 1));     /* the count overflows */
    assert_false(em_array_grow(&items, &cap, 0, SIZE_MAX, 1));     /* so does doubling */
    assert_false(em_array_grow(&items, &cap, 0, SIZE_MAX / 4, 8)); /* and the size in bytes */
    em_alloc_fail_at(1, false);
    assert_false(em_array_grow(&items, &cap, 0, 1, 1));
    em_alloc_fail_at(0, false);
    assert_null(items);
    assert_int_equal(cap, 0);

    int *v = NULL;
    size_t n = 0;
    for (int i = 0; i < 8; i++) assert_true(EM_PUSH(v, n, cap, i));
    em_alloc_fail_at(1, false);
    assert_false(EM_PUSH(v, n, cap, 8));
    em_alloc_fail_at(0, false);
    assert_int_equal(n, 8);
    assert_int_equal(cap, 8);
    for (int i = 0; i < 8; i++) assert_int_equal(v[i], i);
    em_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_stay_where_they_were_pushed),
        cmocka_unit_test(room_doubles),
        cmocka_unit_test(a_failure_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
