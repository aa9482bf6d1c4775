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

bool em_run_hold(em_run *r, em_group *g)
{
    return !r->residency || em_residency_hold(r->residency, g);
}

bool em_run_record_begin(em_run *r, em_recording *g)
{
    em_device *d = r->ops->device;
    *g = (em_recording){.scratch = r->arena,
                        .residency = r->residency,
                        .flops = r->flops,
                        .products = r->products};
    if (r->plans || em_run_stopped(r) || !d->capture_begin || d->capture_begin(d, &g->err))
        return false;
    r->residency = NULL;
    return true;
}

/* Nothing was enqueued, so after a failure the run is as it was. */
void em_run_record_end(em_run *r, em_recording *g)
{
    em_device *d = r->ops->device;
    double flops = r->flops - g->flops;
    int64_t products = r->products - g->products;
    bool broken = em_run_stopped(r);
    r->residency = g->residency;
    r->flops = g->flops;
    r->products = g->products;
    g->flops = flops;
    g->products = products;
    d->capture_end(d, &g->graph, &g->err);
    if (!broken) return;
    em_run_record_close(r, g);
    em_run_release(r, em_arena_mark(&g->scratch));
    if (r->err.code == EM_CANCELLED) return;
    g->err = r->err;
    r->err = (em_err){0};
}

static bool same_scratch(const em_arena *a, const em_arena *b)
{
    return a->base == b->base && a->size_bytes == b->size_bytes && a->low_bytes == b->low_bytes &&
           a->high_bytes == b->high_bytes;
}

bool em_run_replay(em_run *r, em_recording *g)
{
    em_device *d = r->ops->device;
    if (em_run_stopped(r) || !g->graph || !same_scratch(&r->arena, &g->scratch)) return false;
    if (d->graph_launch(d, g->graph, &g->err)) {
        em_run_record_close(r, g);
        return false;
    }
    r->flops += g->flops;
    r->products += g->products;
    return true;
}

void em_run_record_close(em_run *r, em_recording *g)
{
    em_device *d = r->ops->device;
    if (g->graph) d->graph_destroy(d, g->graph);
    g->graph = NULL;
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
