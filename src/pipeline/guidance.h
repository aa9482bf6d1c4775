/* Which transformer forwards a step runs, and how their velocities combine.
 *
 * The model is guided by sound alone: c is the velocity with the voice, u the one with silence.
 * A plan is made before the first step and is plain data: whoever counts, forecasts or runs
 * forwards reads the same table. */
#ifndef EM_PIPELINE_GUIDANCE_H
#define EM_PIPELINE_GUIDANCE_H

#include "memory/tensor.h"
#include "ops/run.h"

/* The order in which a step runs them. */
typedef enum em_branch { EM_BRANCH_AUDIO, EM_BRANCH_SILENT, EM_BRANCHES } em_branch;

typedef enum em_forward_kind {
    EM_FORWARD_NONE,    /* not run */
    EM_FORWARD_COMPUTE, /* all blocks */
    EM_FORWARD_REUSE,   /* the blocks' part is an earlier forward's: TeaCache */
} em_forward_kind;

enum { EM_NO_SLOT = -1 };

typedef struct em_forward {
    em_forward_kind kind;
    int slot; /* REUSE: the residual to add; COMPUTE: where to keep it, or EM_NO_SLOT */
} em_forward;

typedef struct em_step_plan {
    em_forward forward[EM_BRANCHES];
} em_step_plan;

/* plan (steps). Two branches while guidance_scale > 1 and before step steps (1 - cfg_skip_ratio),
 * the audio branch alone otherwise; everything is computed, nothing kept. */
void em_guidance_plan(em_step_plan *plan, int steps, double guidance_scale, double cfg_skip_ratio);

/* v = u + scale (c - u): classifier-free guidance (arXiv 2207.12598) on the audio condition. F32 of
 * one shape. */
em_tensor em_guidance_combine(em_run *r, em_tensor c, em_tensor u, double scale);

#endif
