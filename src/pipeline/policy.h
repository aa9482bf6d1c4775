/* What a memory mode means for one request: one choice, made once, before anything is loaded.
 *
 * A request is rehearsed at several widths (how much goes through a model at once), and each is
 * played through in blocks of several sizes. That gives candidates, each with the memory that it
 * takes and the time that it would take:
 *
 *     lightweight   the least memory among those that are about as fast as the fastest
 *     auto          the fastest that fits what is free or allowed
 *     beefy         every weight stays, or at least none is copied twice; otherwise refused
 *
 * No result depends on the choice. */
#ifndef EM_PIPELINE_POLICY_H
#define EM_PIPELINE_POLICY_H

#include "memory/budget.h"
#include "ops/run.h"

typedef struct em_job em_job;

enum { EM_WIDTHS = 5 };

typedef struct em_policy {
    em_cut cut;
    int width;          /* 0: the widest */
    size_t block_bytes; /* of scratch and weights */
    size_t image_bytes; /* page-locked, for weights that are streamed again and again */
    size_t ring_bytes;  /* page-locked, each buffer between files and the device; 0: none */
    bool replays;       /* the transformer's blocks, from the second forward on, as one graph */
    bool empties_block; /* of what earlier jobs left in it */
    bool drops_images;  /* that earlier jobs left: they are more than there is room for */
    bool keep_mapped;   /* weights used where their files have them stay in memory */
} em_policy;

/* Rehearses the job and chooses: j->policy, j->trace, j->need and the forecasts in j->result.
 * EM_NOVRAM or EM_NOMEM when no choice does; the sentence has the numbers and what would. */
em_status em_policy_choose(em_job *j, em_err *err);

/* ---- for policy_words.c ---------------------------------------------------------------------- */

/* What there is to choose from, in bytes of the block. */
typedef struct em_policy_room {
    size_t limit_bytes;        /* of the block */
    uint64_t ram_bytes;        /* that the process may have */
    uint64_t rest_bytes;       /* of host memory beside the block (CPU) or in all (elsewhere) */
    uint64_t least_rest_bytes; /* of rest_bytes, where nothing is kept that can be let go */
    uint64_t smallest_vram, smallest_ram; /* budgets that do */
    bool others_fit;                      /* some mode does */
    size_t all_bytes, once_bytes; /* blocks of beefy: everything stays; nothing is copied twice */
    double again_ms;              /* of a later request like it, in what was chosen */
    double all_ms, all_again_ms;  /* of this one and a later one where everything stays */
} em_policy_room;

/* "lightweight on cpu: …" into j->result.policy. */
void em_policy_describe(em_job *j, const em_policy_room *room);
/* The refusal. */
em_status em_policy_refuse(const em_job *j, const em_policy_room *room, em_err *err);

#endif
