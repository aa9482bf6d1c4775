#include "base/process.h"

#include "../test.h"

#include <string.h>
#include <sys/mman.h>

static void grows_with_what_is_touched(void **state)
{
    (void)state;
    enum { BYTES = 32 << 20 };
    em_process_memory before = em_process_memory_now();
    assert_true(before.rss_bytes > 0 && before.rss_peak_bytes >= before.rss_bytes);
    /* From the kernel and back to it: an allocator may keep what is freed. */
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    memset(p, 1, BYTES);
    em_process_memory with = em_process_memory_now();
    assert_true(p[BYTES - 1] == 1 && with.rss_bytes > before.rss_bytes + BYTES / 2);
    munmap(p, BYTES);
    em_process_memory after = em_process_memory_now();
    assert_true(after.rss_bytes < with.rss_bytes);
    assert_true(after.rss_peak_bytes >= with.rss_bytes - (1 << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows_with_what_is_touched)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
