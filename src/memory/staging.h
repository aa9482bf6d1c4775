/* A ring of page-locked buffers between files and a device. The pool's threads fill as many at once
 * as they are, each its own, and queue the copy of each as soon as it is full: nobody waits for
 * anybody until all is sent, the device copies while others read. Bounded, allocated once.
 *
 *     lane 0   | read 0 | read 3 (while 0 is copied) | wait: 0 was copied | read 5 | …
 *     lane 1    | read 1 | read 4 | …
 *     lane 2   | read 2 |
 *     COPY              | 0 | 1 | 2 | 3 | …                  one after the other, in any order */
#ifndef EM_MEMORY_STAGING_H
#define EM_MEMORY_STAGING_H

#include "memory/group.h"
#include "memory/stopwatch.h"

typedef struct em_staging em_staging;

/* Each of EM_STAGING_BUFFERS is as large as is asked for: from the least to EM_STAGING_BYTES, which
 * hides the calls and is still small beside what is sent at once, whose last buffers leave threads
 * idle. */
enum {
    EM_STAGING_GROUPS = 64, /* that are sent at once, at most */
    EM_STAGING_LANES = 24,  /* threads that read at once, at most */
    EM_STAGING_BUFFERS = 2 * EM_STAGING_LANES,
    EM_STAGING_BYTES = 2 << 20,
    EM_STAGING_LEAST_BYTES = 64 << 10
};

/* buffer_bytes is a multiple of EM_IMAGE_ALIGN. */
em_status em_staging_open(em_staging **out, em_device *device, size_t buffer_bytes, em_err *err);
void em_staging_close(em_staging **s); /* NULL inside is allowed */
size_t em_staging_buffer_bytes(const em_staging *s);

/* Where a group's image goes to: device memory. */
typedef struct em_shipment {
    const em_group *group;
    void *dst;
} em_shipment;

/* What is sent at once, and who takes part; everything is borrowed. */
typedef struct em_staging_load {
    em_shipment item[EM_STAGING_GROUPS];
    size_t count;
    const em_group *next; /* one of the threads has the disk begin with it; NULL: none */
    em_pool *pool;        /* NULL: the calling thread */
    em_stopwatch *clock;  /* some of the copies are laps, which stand for the others; NULL: none */
} em_staging_load;

/* Queues the copies of all; returns when the files are not needed any more. EM_IO, EM_DEVICE: any
 * of them may be incomplete. */
em_status em_staging_send(em_staging *s, const em_staging_load *load, em_err *err);

#endif
