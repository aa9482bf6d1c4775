#include "pipeline/prompt_cache.h"

#include "base/alloc.h"

#include "../test.h"

#include <stdio.h>
#include <string.h>

static em_prompt_cache *opened(void)
{
    em_err err = {0};
    em_prompt_cache *c = NULL;
    assert_ok(em_prompt_cache_open(&c, &err), err);
    return c;
}

static em_prompt *add(em_prompt_cache *c, const char *text)
{
    em_err err = {0};
    em_prompt *p = NULL;
    const int32_t ids[] = {7, 300, 1};
    assert_ok(em_prompt_cache_add(&p, c, text, ids, 3, 4, &err), err);
    return p;
}

static void what_was_added_is_found(void **state)
{
    (void)state;
    em_prompt_cache *c = opened();
    assert_null(em_prompt_cache_find(c, "hello"));
    assert_null(em_prompt_cache_find(c, ""));
    char text[] = "hello"; /* copied: may change afterwards */
    em_prompt *p = add(c, text);
    text[0] = 'j';
    assert_ptr_equal(em_prompt_cache_find(c, "hello"), p);
    assert_null(em_prompt_cache_find(c, "jello"));
    assert_null(em_prompt_cache_find(c, "hell"));
    assert_int_equal(p->n, 3);
    assert_int_equal(p->ids[1], 300);
    assert_false(p->encoded);
    for (int i = 0; i < 12; i++) p->rows[i] = 1; /* room for n rows of dim */
    add(c, "");
    assert_non_null(em_prompt_cache_find(c, ""));
    em_prompt_cache_close(&c);
    assert_null(c);
    em_prompt_cache_close(&c);
}

static void the_oldest_goes_first(void **state)
{
    (void)state;
    em_prompt_cache *c = opened();
    char text[16];
    for (int i = 0; i < EM_PROMPT_CACHE_ENTRIES + 3; i++) {
        snprintf(text, sizeof text, "prompt %d", i);
        em_prompt *p = add(c, text);
        p->encoded = true;
        assert_ptr_equal(em_prompt_cache_find(c, text), p);
    }
    for (int i = 0; i < EM_PROMPT_CACHE_ENTRIES + 3; i++) {
        snprintf(text, sizeof text, "prompt %d", i);
        assert_int_equal(em_prompt_cache_find(c, text) != NULL, i >= 3);
    }
    assert_false(add(c, "again")->encoded); /* nothing of the one that it pushed out */
    em_prompt_cache_close(&c);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    em_err err = {0};
    em_prompt *p = NULL;
    em_prompt_cache *c = opened();
    const int32_t id = 1;
    assert_int_equal(em_prompt_cache_add(&p, c, "x", &id, 1, INT64_MAX, &err), EM_NOMEM);
    assert_null(p);
    assert_null(em_prompt_cache_find(c, "x"));
    em_prompt_cache_close(&c);
}

/* A failed add leaves the cache as it was, the entry that would have gone included. */
static void survives_failing_allocations(void **state)
{
    (void)state;
    const int32_t ids[] = {7, 1};
    em_err err = {0};
    em_prompt_cache *c = NULL;
    em_alloc_fail_at(1, false);
    assert_int_equal(em_prompt_cache_open(&c, &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_null(c);

    c = opened();
    char text[16];
    for (int i = 0; i < EM_PROMPT_CACHE_ENTRIES; i++) {
        snprintf(text, sizeof text, "prompt %d", i);
        add(c, text);
    }
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_prompt *p = NULL;
        em_alloc_fail_at(n, false);
        st = em_prompt_cache_add(&p, c, "new", ids, 2, 4, &err);
        em_alloc_fail_at(0, false);
        assert_int_equal(st, n <= 3 ? EM_NOMEM : EM_OK); /* text, ids, rows */
        assert_int_equal(p != NULL, st == EM_OK);
        assert_int_equal(em_prompt_cache_find(c, "prompt 0") != NULL, st != EM_OK);
        assert_int_equal(em_prompt_cache_find(c, "new") != NULL, st == EM_OK);
    }
    em_prompt_cache_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_added_is_found),
        cmocka_unit_test(the_oldest_goes_first),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
