#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Straight from the kernel: a run's arena is one block of gigabytes that is untouched, and so costs
 * nothing, until it is used. Not counted by em_alloc: device memory has its own budget. */
static em_status cpu_alloc(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    (void)d;
    void *p = mmap(NULL, size_bytes ? size_bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return em_fail_errno(err, errno, "no room for %zu bytes of scratch", size_bytes);
    *out = p;
    return EM_OK;
}

static void cpu_free(em_device *d, void *p, size_t size_bytes)
{
    (void)d;
    if (p) munmap(p, size_bytes ? size_bytes : 1);
}

/* Every copy is complete when it returns, so there is nothing that an event could wait for. */
static em_status cpu_copy(em_device *d, void *dst, const void *src, size_t size_bytes, em_err *err)
{
    (void)d;
    (void)err;
    memcpy(dst, src, size_bytes);
    return EM_OK;
}

/* A number in kilobytes from /proc/meminfo, 0 when the key is not there. */
static uint64_t meminfo_bytes(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    char line[128];
    unsigned long long kb = 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && sscanf(line + n, " %llu", &kb) == 1) break;
    fclose(f);
    return (uint64_t)kb << 10;
}

static uint64_t cgroup_limit_bytes(void)
{
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re");
    if (!f) return 0;
    unsigned long long v = 0;
    int n = fscanf(f, "%llu", &v); /* "max" does not parse: no limit */
    fclose(f);
    return n == 1 ? v : 0;
}

static void cpu_memory_info(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes)
{
    (void)d;
    *total_bytes = meminfo_bytes("MemTotal:");
    *free_bytes = meminfo_bytes("MemAvailable:");
    uint64_t limit = cgroup_limit_bytes();
    if (limit && limit < *total_bytes) *total_bytes = limit;
    if (limit && limit < *free_bytes) *free_bytes = limit;
}

static em_status cpu_sync(em_device *d, em_err *err)
{
    return (void)d, (void)err, EM_OK;
}

static em_status cpu_event_create(em_device *d, em_event **out, em_err *err)
{
    (void)d, (void)err;
    *out = NULL;
    return EM_OK;
}

static void cpu_event_destroy(em_device *d, em_event *e)
{
    (void)d, (void)e;
}

static em_status cpu_event_record(em_device *d, em_event *e, em_queue q, em_err *err)
{
    return (void)d, (void)e, (void)q, (void)err, EM_OK;
}

static em_status cpu_queue_wait(em_device *d, em_queue q, em_event *e, em_err *err)
{
    return (void)d, (void)q, (void)e, (void)err, EM_OK;
}

static em_status cpu_event_sync(em_device *d, em_event *e, em_err *err)
{
    return (void)d, (void)e, (void)err, EM_OK;
}

em_device em_device_host = {
    .name = "cpu",
    .host_addressable = true,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .memory_info = cpu_memory_info,
    .upload = cpu_copy,
    .download = cpu_copy,
    .download_async = cpu_copy,
    .sync = cpu_sync,
    .host_alloc = cpu_alloc,
    .host_free = cpu_free,
    .copy_async = cpu_copy,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .queue_wait = cpu_queue_wait,
    .event_sync = cpu_event_sync,
};
