/* How a block of device memory is shared between scratch and weights.
 *
 *     stage     encode        text          denoise         decode
 *              +-------------+-------------+---------------+-------------+   block
 *              |   scratch   |  scratch    |               |   scratch   |
 *              |             |-------------|    scratch    |             |
 *              |-------------|             |               |-------------|
 *              |   weights   |  weights    |---------------|   weights   |
 *              |             |             |    weights    |             |
 *              +-------------+-------------+---------------+-------------+
 *
 * A plan gives every stage's scratch and the order in which it uses weights. The block is the one
 * choice: what a stage does not need for scratch holds weights. The smallest block leaves every
 * stage room for the groups that it uses at once and for the next one; the largest holds all
 * weights. */
#ifndef EM_MEMORY_BUDGET_H
#define EM_MEMORY_BUDGET_H

#include "memory/residency.h"

/* Serials that one budget's simulations use, from like's on. */
enum { EM_BUDGET_SERIALS = 64 };

typedef struct em_stage_need {
    size_t scratch_bytes; /* peak, what is kept for later stages included */
    size_t begin, end;    /* of its part of the trace */
    size_t least_bytes;   /* of weights: in use at once and next (filled by em_budget_open) */
    size_t weights_bytes; /* set aside for weights (filled by em_budget_fit) */
} em_stage_need;

typedef struct em_budget {
    em_stage_need *stage; /* borrowed */
    int stages;
    const em_trace *trace;                /* borrowed; linked */
    em_residency like;                    /* what simulations start from: device, dtype, prefetch */
    size_t all_bytes;                     /* of weights that live in the store */
    size_t smallest_bytes, largest_bytes; /* useful blocks */
    size_t resident_bytes; /* peak of weights that are there, in the block or on the host (filled by
                            * em_budget_fit) */
} em_budget;

/* Works out what the stages need; at most EM_BUDGET_SERIALS - 2 of them. `like` as the runs'
 * residency is set up; its store is not looked at. */
em_status em_budget_open(em_budget *b, em_stage_need *stage, int stages, const em_trace *trace,
                         const em_residency *like, em_err *err);
/* Shares a block of at most limit_bytes; *block_bytes is what it needs of that. EM_NOVRAM when even
 * the smallest block is larger. */
em_status em_budget_fit(em_budget *b, size_t limit_bytes, size_t *block_bytes, em_err *err);

#endif
