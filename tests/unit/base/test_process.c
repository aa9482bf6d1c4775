#include "base/process.h"

#include "../test.h"

#include <stdlib.h>
#include <string.h>

static void grows_with_what_is_touched(void **state)
{
    (void)state;
    enum { BYTES = 32 << 20 };
    em_process_memory before = em_process_memory_now();
    assert_true(before.rss_bytes > 0 && before.rss_peak_bytes >= before.rss_bytes);
    char *p = malloc(BYTES);
    assert_non_null(p);
    memset(p, 1, BYTES);
    em_process_memory with = em_process_memory_now();
    assert_true(p[BYTES - 1] == 1 && with.rss_bytes > before.rss_bytes + BYTES / 2);
    free(p);
    em_process_memory after = em_process_memory_now();
    assert_true(after.rss_bytes < with.rss_bytes);
    assert_true(after.rss_peak_bytes >= with.rss_bytes - (1 << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows_with_what_is_touched)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
