/* A fixed pool of worker threads that share one loop at a time.
 *
 * em_parallel cuts nothing by itself: the caller chooses the pieces from the size of the problem
 * alone, never from the number of threads, so that results do not depend on it. */
#ifndef EM_BASE_THREAD_H
#define EM_BASE_THREAD_H

#include "base/status.h"

#include <stddef.h>

typedef struct em_pool em_pool;

/* One piece of a loop: index in [0, n), worker in [0, em_pool_threads): the place for per-thread
 * scratch. */
typedef void (*em_task)(void *arg, size_t index, int worker);

/* threads = 0 means one per core that this process may use. `on_start` (may be NULL) runs once in
 * each worker and, as worker 0, in the thread that calls em_parallel (libraries with per-thread
 * settings). */
em_status em_pool_create(em_pool **out, int threads, void (*on_start)(void), em_err *err);
void em_pool_destroy(em_pool **pool);
int em_pool_threads(const em_pool *pool); /* a NULL pool is one thread: the caller */

/* Runs task(arg, i, worker) for every i in [0, n) and returns when all are done. The calling thread
 * takes part. Calls from several threads at once take turns; a call from inside a task is not
 * allowed. */
void em_parallel(em_pool *pool, size_t n, em_task task, void *arg);

int em_cpu_count(
    void); /* cores that this process may use (affinity and cgroup quota), at least 1 */

#endif
