#include "base/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kilobytes behind "\nkey", as bytes. */
static uint64_t value_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? (uint64_t)strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

em_process_memory em_process_memory_now(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return (em_process_memory){0};
    text[n] = 0;
    return (em_process_memory){.rss_bytes = value_of(text, "\nVmRSS:"),
                               .rss_peak_bytes = value_of(text, "\nVmHWM:")};
}
