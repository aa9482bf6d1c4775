/* Bytes and time on one device; no mathematics.
 *
 * A device hands out few large blocks (a run's arena), never one a tensor. Memory on a device that
 * the host cannot address is reached through upload and download only. */
#ifndef EM_DEVICE_DEVICE_H
#define EM_DEVICE_DEVICE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct em_device em_device;
struct em_device {
    const char *name; /* "cpu": what --device selects */
    /* 64-byte aligned, contents undefined. Owned by the caller: free. */
    em_status (*alloc)(em_device *d, void **out, size_t size_bytes, em_err *err);
    void (*free)(em_device *d, void *p, size_t size_bytes); /* NULL is allowed */
    em_status (*upload)(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                        em_err *err);
    em_status (*download)(em_device *d, void *host_dst, const void *src, size_t size_bytes,
                          em_err *err);
    /* What is installed and what a new allocation could get now. */
    void (*memory_info)(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes);
};

/* The host as a device: "cpu". */
extern em_device em_device_host;

#endif
