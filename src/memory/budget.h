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

typedef struct em_stage_need {
    size_t scratch_bytes; /* peak, what is kept for later stages included */
    size_t begin, end;    /* of its part of the trace */
    size_t least_bytes;   /* of weights: in use at once and next (filled by em_budget_open) */
    /* Filled by em_budget_try: */
    size_t weights_bytes;              /* set aside for weights */
    size_t store_peak_bytes;           /* of them, in use */
    size_t mapped_peak_bytes;          /* of weights used where files have them */
    size_t copied_bytes, packed_bytes; /* see em_residency */
    size_t streamed_bytes;             /* of groups that it uses and that come in more than once */
} em_stage_need;

typedef struct em_budget {
    em_stage_need *stage;                 /* borrowed */
    int stages;                           /* up to EM_BUDGET_STAGES */
    const em_trace *trace;                /* borrowed; linked */
    em_residency like;                    /* what simulations start from: device, dtype, prefetch */
    unsigned *serials;                    /* borrowed: handed out so far */
    size_t all_bytes;                     /* of weights that live in the store */
    size_t smallest_bytes, largest_bytes; /* useful blocks */
    /* Filled by em_budget_try: peaks over all stages, and sums. */
    size_t resident_bytes; /* of weights that are there, in the block or on the host */
    size_t mapped_bytes, source_bytes, image_bytes;
    size_t copied_bytes, packed_bytes;
} em_budget;

enum { EM_BUDGET_STAGES = 8 }; /* at most */

/* After em_budget_try: what is set aside for weights along the trace. out: one a stage. */
void em_budget_rooms(const em_stage_need *stage, int stages, em_room *out);
/* What a stage leaves to weights of a block that it fits into. */
size_t em_budget_room(const em_stage_need *s, size_t block_bytes);

/* Works out what the stages need. `like` as the runs' residency is set up; its store is not looked
 * at; images_bytes of host memory may hold images. *serials counts the plans and simulations of
 * these models: each gets one of its own. */
em_status em_budget_open(em_budget *b, em_stage_need *stage, int stages, const em_trace *trace,
                         const em_residency *like, unsigned *serials, em_err *err);
/* Shares a block of block_bytes and plays the request through: false when it does not run in
 * that. */
bool em_budget_try(em_budget *b, size_t block_bytes);
/* After em_budget_try: the same request from what earlier ones left in `real`, which is not in use,
 * in the whole of the block of held_bytes that they ran in. What they used and this one does not
 * (an encoder whose output is known by now) need not make room for what stays. Which groups are
 * streamed remains as tried. False when it does not run that way: em_budget_try again. */
bool em_budget_resume(em_budget *b, size_t held_bytes, const em_residency *real);
/* Shares a block of at most limit_bytes; *block_bytes is what it needs of that. EM_NOVRAM when even
 * the smallest block is larger. */
em_status em_budget_fit(em_budget *b, size_t limit_bytes, size_t *block_bytes, em_err *err);

#endif
