#include "ops/table.h"

#include <stdarg.h>

em_tensor em_run_fail(em_run *r, em_status code, const char *fmt, ...)
{
    if (!r->err.code) {
        va_list ap;
        va_start(ap, fmt);
        em_vfail(&r->err, code, fmt, ap);
        va_end(ap);
    }
    return (em_tensor){0};
}

static bool cancelled(const em_run *r)
{
    return r->cancel && atomic_load_explicit(r->cancel, memory_order_relaxed);
}

bool em_run_stopped(em_run *r)
{
    if (!r->err.code && cancelled(r)) em_run_fail(r, EM_CANCELLED, "cancelled");
    return r->err.code != EM_OK;
}

static em_tensor take(em_run *r, em_dtype dtype, const int64_t *dim, int ndim, bool high)
{
    if (em_run_stopped(r)) return (em_tensor){0};
    em_tensor t = em_tensor_of(NULL, dtype, dim, ndim);
    t.data = em_arena_take(&r->arena, em_tensor_bytes(t), high);
    if (t.data) return t;
    char shape[80];
    return em_run_fail(r, r->ops->device == &em_device_host ? EM_NOMEM : EM_NOVRAM,
                       "scratch of %zu bytes is full: no room for a tensor %s of %s",
                       r->arena.size_bytes, em_shape_text(shape, dim, ndim), em_dtype_name(dtype));
}

em_tensor em_run_tensor(em_run *r, em_dtype dtype, const int64_t *dim, int ndim)
{
    return take(r, dtype, dim, ndim, false);
}

em_tensor em_run_keep(em_run *r, em_dtype dtype, const int64_t *dim, int ndim)
{
    return take(r, dtype, dim, ndim, true);
}

em_mark em_run_mark(const em_run *r)
{
    return em_arena_mark(&r->arena);
}

void em_run_release(em_run *r, em_mark m)
{
    em_arena_release(&r->arena, m);
}

void em_run_release_all(em_run *r, em_mark m)
{
    em_arena_release_all(&r->arena, m);
}

/* What a device says, as the run's failure. */
static void heed(em_run *r, em_status st, const em_err *err)
{
    if (st) em_run_fail(r, st, "%s", err->msg);
}

void em_run_sync(em_run *r)
{
    em_device *d = r->ops->device;
    em_err err = {0};
    if (!r->plans) heed(r, d->sync(d, &err), &err);
}

void em_run_fetch(em_run *r, em_tensor x, void *host)
{
    em_device *d = r->ops->device;
    em_err err = {0};
    if (em_run_stopped(r) || r->plans) return;
    heed(r, d->download_async(d, host, x.data, em_tensor_bytes(x), &err), &err);
}

void em_run_mark_fetched(em_run *r, em_event *e)
{
    em_device *d = r->ops->device;
    em_err err = {0};
    if (em_run_stopped(r) || r->plans) return;
    heed(r, d->event_record(d, e, EM_QUEUE_COMPUTE, &err), &err);
}

void em_run_await(em_run *r, em_event *e)
{
    em_device *d = r->ops->device;
    em_err err = {0};
    if (em_run_stopped(r) || r->plans) return;
    heed(r, d->event_sync(d, e, &err), &err);
}

void em_run_pin(em_run *r, em_group *g)
{
    if (r->residency && !em_run_stopped(r)) em_residency_pin(r->residency, g, &r->err);
}

void em_run_unpin(em_run *r, em_group *g)
{
    em_err late = {0};
    if (r->residency && em_residency_unpin(r->residency, g, &late))
        em_run_fail(r, late.code, "%s", late.msg);
}

typedef struct guarded {
    em_run *run;
    em_task task;
    void *arg;
} guarded;

static void guarded_piece(void *arg, size_t i, int worker)
{
    guarded *g = arg;
    if (!cancelled(g->run)) g->task(g->arg, i, worker);
}

void em_run_parallel(em_run *r, size_t n, em_task task, void *arg)
{
    guarded g = {r, task, arg};
    em_parallel(r->pool, n, guarded_piece, &g);
}
