/* TeaCache (arXiv 2411.19108): where consecutive time embeddings are close, so are the
 * transformer's outputs; such a forward skips its blocks and adds an earlier forward's residual
 * (output of the block stack minus its input) instead.
 *
 * A decision looks at e0, the time projection, alone, and e0 depends on the timestep alone: all
 * decisions can be made before the first step. Residuals stay with the caller; a decision names the
 * slot.
 *
 *   EM_TEACACHE_BRANCH     one decision a step, one residual a branch
 *   EM_TEACACHE_REFERENCE  as the reference does it: one decision a forward and one residual for
 *                          both branches, so that steps which reuse lose the audio guidance
 *   EM_TEACACHE_OFF        every forward is computed */
#ifndef EM_PIPELINE_TEACACHE_H
#define EM_PIPELINE_TEACACHE_H

#include "echomimic.h" /* em_teacache_mode */
#include "pipeline/guidance.h"

#include <stdbool.h>
#include <stddef.h>

enum { EM_TEACACHE_SLOTS = EM_BRANCHES };

typedef struct em_teacache {
    em_teacache_mode mode;
    double threshold;
    int skip_start;  /* decisions at the start that compute, whatever e0 says */
    int period;      /* decisions after which everything starts anew */
    int count;       /* decisions of this period so far */
    double distance; /* estimated change of the output since the last computed forward */
    const float *e0; /* borrowed: the row of the previous decision */
} em_teacache;

/* A new video of `steps` steps. skip_start counts as at least 1 and at most steps; it counts
 * forwards in reference mode, steps in branch mode. */
em_teacache em_teacache_begin(em_teacache_mode mode, double threshold, int skip_start, int steps);

/* One decision: true means compute. e0 (n), rounded to the working type, stays borrowed until the
 * next decision. */
bool em_teacache_decide(em_teacache *t, const float *e0, size_t n);

/* The forwards of one step as guidance planned them, with its e0 (n): turns COMPUTE into REUSE
 * where the cache decides so, and assigns slots. */
void em_teacache_step(em_teacache *t, em_step_plan *step, const float *e0, size_t n);

/* All steps at once. e0 (steps, n). Residuals that no later forward reads get no slot. */
void em_teacache_plan(em_teacache *t, em_step_plan *plan, int steps, const float *e0, size_t n);

/* The residual that is in a slot before step `from` will be reused. */
bool em_teacache_reads(const em_step_plan *plan, int steps, int from, int slot);

#endif
