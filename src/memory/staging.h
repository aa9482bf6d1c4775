/* A ring of buffers between mapped files and a device: while one is copied by the device, the next
 * is filled by the host. Bounded, allocated once. */
#ifndef EM_MEMORY_STAGING_H
#define EM_MEMORY_STAGING_H

#include "memory/group.h"

typedef struct em_staging em_staging;

/* Each of EM_STAGING_BUFFERS is as large as is asked for: from the least, one step of
 * em_group_write, to EM_STAGING_BYTES, which hides the calls. */
enum { EM_STAGING_BUFFERS = 3, EM_STAGING_BYTES = 32 << 20, EM_STAGING_LEAST_BYTES = 1 << 20 };

/* buffer_bytes is a multiple of EM_IMAGE_ALIGN. */
em_status em_staging_open(em_staging **out, em_device *device, size_t buffer_bytes, em_err *err);
void em_staging_close(em_staging **s); /* NULL inside is allowed */
/* Queues the copy of a group's image to dst (device memory); returns when the file's pages are not
 * needed any more. */
em_status em_staging_send(em_staging *s, const em_group *g, void *dst, em_pool *pool, em_err *err);

#endif
