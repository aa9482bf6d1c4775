#include "rehearsal.h"

#include <stdint.h>

enum { IMAGES_BYTES = 64 << 20 };

static unsigned serials; /* of every plan and simulation in this program */

void rehearse_plan(rehearsal *f, em_run *r)
{
    em_ops_plan(&f->planner, f->ops);
    f->trace = (em_trace){0};
    f->forecast = (em_residency){.device = f->ops->device,
                                 .dtype = f->dtype,
                                 .counts_only = true,
                                 .serial = ++serials,
                                 .capacity_bytes = SIZE_MAX,
                                 .record = &f->trace};
    *r = (em_run){.cut = f->cut,
                  .ops = &f->planner,
                  .pool = f->pool,
                  .dtype = f->dtype,
                  .residency = &f->forecast,
                  .plans = true};
    em_arena_open_virtual(&r->arena);
}

/* Weights in the least room that does. */
static em_status share(rehearsal *f, size_t *block_bytes, em_err *err)
{
    em_budget b;
    em_err tight = {0};
    em_residency like = f->weights;
    like.images_bytes = IMAGES_BYTES;
    em_trace_link(&f->trace);
    f->need = (em_stage_need){.scratch_bytes = f->planned_scratch_bytes, .end = f->trace.count};
    em_status st = em_budget_open(&b, &f->need, 1, &f->trace, &like, &serials, err);
    if (!st && em_budget_fit(&b, b.smallest_bytes, block_bytes, &tight))
        st = em_budget_fit(&b, SIZE_MAX, block_bytes, err);
    f->planned_weight_bytes = b.resident_bytes;
    return st;
}

em_status rehearse_open(rehearsal *f, em_run *r, em_err *err)
{
    em_device *d = f->ops->device;
    size_t block = 0;
    bool images_failed;
    f->planned_scratch_bytes = r->arena.peak_bytes;
    em_residency_close(&f->forecast);
    f->weights = (em_residency){.device = d,
                                .dtype = f->dtype,
                                .pool = f->pool,
                                .drop_unpinned = true,
                                .prefetch = !d->host_addressable,
                                .follow = &f->trace};
    *r = (em_run){
        .cut = f->cut, .ops = f->ops, .pool = f->pool, .dtype = f->dtype, .residency = &f->weights};
    em_status st = f->trace.failed ? em_fail(err, EM_NOMEM, "no memory for a plan") : EM_OK;
    if (!st) st = share(f, &block, err);
    if (!st) st = em_arena_open(&r->arena, d, block + f->spare_bytes, f->poisoned, err);
    if (st) return st;
    em_arena_set_floor(&r->arena, f->need.weights_bytes);
    st = em_residency_prepare(&f->weights, &f->trace, IMAGES_BYTES, &images_failed, err);
    if (st) return st;
    return em_residency_set_store(&f->weights, r->arena.base, f->need.weights_bytes, err);
}

em_status rehearse_close(rehearsal *f, em_run *r, em_err *err)
{
    em_status st = em_residency_set_store(&f->weights, NULL, 0, err);
    f->scratch_bytes = r->arena.peak_bytes;
    f->weight_bytes = f->weights.peak_bytes;
    f->left_bytes = f->weights.resident_bytes;
    em_residency_close(&f->weights);
    em_arena_close(&r->arena);
    em_trace_close(&f->trace);
    return st;
}
