/* Bytes and time on one device; no mathematics.
 *
 * A device hands out few large blocks (a run's arena, the store of weights), never one a tensor.
 * Memory on a device that the host cannot address is reached through copies only.
 *
 * Work on a device is asynchronous. There are two queues: COMPUTE, where every op goes, and COPY,
 * where weights travel while ops compute. Within a queue everything happens in order; between them
 * an event orders what has to be. Several threads may use COPY at once:
 *
 *     COMPUTE   block k-1 | record(e) ............... wait(f) | block k+1
 *     COPY                  wait(e) | copy block k+1 | record(f)
 */
#ifndef EM_DEVICE_DEVICE_H
#define EM_DEVICE_DEVICE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum em_queue { EM_QUEUE_COMPUTE, EM_QUEUE_COPY } em_queue;

typedef struct em_event em_event; /* the device's own, like the next */
typedef struct em_graph em_graph;

typedef struct em_device em_device;
struct em_device {
    const char *name;      /* "cpu": what --device selects */
    bool host_addressable; /* the host may read and write what alloc hands out */
    /* Of its memory: what using it at all takes (a driver's context, code), beside what alloc hands
     * out. */
    size_t context_bytes;
    /* Of host memory: libraries that are opened with the device and come in as they are used. */
    size_t host_context_bytes;
    size_t lane_bytes; /* and every further lane's queues and library handles (em_ops.lane) */

    /* 256-byte aligned, contents undefined. Owned by the caller: free. EM_NOVRAM (EM_NOMEM on the
     * host) when there is no room. */
    em_status (*alloc)(em_device *d, void **out, size_t size_bytes, em_err *err);
    void (*free)(em_device *d, void *p,
                 size_t size_bytes); /* NULL is allowed; waits for both queues */
    /* What is installed and what a new allocation could get now. */
    void (*memory_info)(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes);

    /* Behind what COMPUTE was given so far. upload returns when host_src may change again (memory
     * of host_alloc's: by what COMPUTE is given from then on), download when host_dst is
     * complete. */
    em_status (*upload)(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                        em_err *err);
    em_status (*download)(em_device *d, void *host_dst, const void *src, size_t size_bytes,
                          em_err *err);

    /* The same without waiting, into memory of host_alloc's (into any other it may wait): host_dst
     * is complete when an event recorded behind it on COMPUTE has happened. */
    em_status (*download_async)(em_device *d, void *host_dst, const void *src, size_t size_bytes,
                                em_err *err);
    /* Waits until COMPUTE has done all that it was given. */
    em_status (*sync)(em_device *d, em_err *err);

    /* Host memory that the device can read by itself (page-locked where that means something).
     * Owned by the caller: host_free. */
    em_status (*host_alloc)(em_device *d, void **out, size_t size_bytes, em_err *err);
    void (*host_free)(em_device *d, void *p, size_t size_bytes);
    /* From such memory, on COPY; host_src must stay as it is until an event recorded behind it.
     * Several threads may copy and record events at once: the queue has them in some order, each
     * thread's own in the order that it gave them. */
    em_status (*copy_async)(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                            em_err *err);

    /* An event marks a place in a queue. One that was never recorded has already happened. */
    em_status (*event_create)(em_device *d, em_event **out, em_err *err);
    void (*event_destroy)(em_device *d, em_event *e); /* NULL is allowed */
    em_status (*event_record)(em_device *d, em_event *e, em_queue q, em_err *err);
    em_status (*queue_wait)(em_device *d, em_queue q, em_event *e, em_err *err);
    em_status (*event_sync)(em_device *d, em_event *e, em_err *err); /* the host waits */

    /* A graph: what COMPUTE was given between begin and end, which then is not done but kept, to
     * be done as often as it is launched, on the same addresses. In between only ops and copies
     * within the device's memory may be given to COMPUTE, by the thread that began; other threads
     * and COPY go on as ever. All four are NULL on a device that has no graphs. */
    em_status (*capture_begin)(em_device *d, em_err *err);
    /* *out is owned by the caller: graph_destroy. On failure there is none, what was captured is
     * lost, and COMPUTE is as good as before. */
    em_status (*capture_end)(em_device *d, em_graph **out, em_err *err);
    em_status (*graph_launch)(em_device *d, em_graph *g, em_err *err); /* on COMPUTE */
    void (*graph_destroy)(em_device *d, em_graph *g); /* NULL is allowed; what was launched is still
                                                       * done */
    /* An event that also takes the time when it happens, and the time between two of them that were
     * recorded on one queue; *ms < 0: the second has not happened yet. Both NULL: no clock. */
    em_status (*event_create_timed)(em_device *d, em_event **out, em_err *err);
    em_status (*event_elapsed)(em_device *d, em_event *from, em_event *to, double *ms, em_err *err);
};

/* The host as a device: "cpu". Its queues are empty whenever anybody looks. */
extern em_device em_device_host;

#endif
