/* A computation on any device, as a request runs there: first on a plan, then for real in one block
 * of device memory that the plan's figures fill, weights streamed through the least room that does.
 *
 *     rehearsal f = {.ops = ops, .dtype = EM_F32};
 *     em_run r;
 *     rehearse_plan(&f, &r);                       r plans
 *     compute(&r);
 *     st = rehearse_open(&f, &r, &err);            r computes
 *     compute(&r);
 *     st = rehearse_close(&f, &r, &err);
 *
 * compute uploads its inputs and downloads its results (not where r->plans), and leaves r as it
 * was; the caller asks r->err.code before open and before close. */
#ifndef EM_TESTS_FAR_REHEARSAL_H
#define EM_TESTS_FAR_REHEARSAL_H

#include "memory/budget.h"
#include "ops/table.h"

typedef struct rehearsal {
    /* set by the caller */
    const em_ops *ops; /* borrowed */
    em_pool *pool;     /* borrowed, or NULL */
    em_dtype dtype;
    em_cut cut;
    bool poisoned;      /* scratch */
    size_t spare_bytes; /* of scratch beyond the plan, so that a wrong plan shows as a difference */

    size_t planned_scratch_bytes, planned_weight_bytes; /* after open */
    size_t scratch_bytes, weight_bytes;                 /* peaks, after close */
    size_t left_bytes; /* of weights that are still there when all may go; after close */

    em_ops planner;
    em_trace trace;
    em_stage_need need;
    em_residency forecast, weights;
} rehearsal;

void rehearse_plan(rehearsal *f, em_run *r);
/* On failure only close is left. */
em_status rehearse_open(rehearsal *f, em_run *r, em_err *err);
em_status rehearse_close(rehearsal *f, em_run *r, em_err *err);

#endif
