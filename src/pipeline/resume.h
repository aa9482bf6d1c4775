/* Where a request stands between two steps, and the file that remembers it.
 *
 * A waypoint is all that the rest of a request depends on besides the request: the latents, the
 * solver's live states, and, for every TeaCache residual that is still to be reused, the latents of
 * the forward that made it. The residuals themselves are not kept: at the released size each has
 * 24 times the latents' bytes (132 MB against 5.5), twice a step; they are made again by the same
 * forwards when a request goes on, at the cost of one forward each.
 *
 * A thread of its own writes, so that the next step does not wait for the disk; a waypoint is
 * safe at the latest when the next one is handed over, and the last one before decoding begins. */
#ifndef EM_PIPELINE_RESUME_H
#define EM_PIPELINE_RESUME_H

#include "base/hash.h"
#include "base/log.h"
#include "pipeline/sampler.h"
#include "pipeline/teacache.h"

/* The forward that filled a residual slot. */
typedef struct em_anchor {
    int step; /* -1: none, or nobody reads the slot any more */
    int branch;
    float *x; // (count) the latents that it saw; NULL: no step uses the slot
} em_anchor;

typedef struct em_waypoint {
    size_t count;             /* values of the latents */
    em_sampler_saved sampler; /* its step: steps done */
    float *x;                 // (count) the latents after them
    em_anchor anchor[EM_TEACACHE_SLOTS];
    float *values; /* owned: all of the above */
} em_waypoint;

typedef struct em_resume em_resume;

typedef struct em_resume_params {
    const char *path; /* copied */
    unsigned char key[EM_SHA256_BYTES];
    size_t count; /* values of the latents */
    int steps;    /* of the request */
    int states;   /* that its solver hands on */
    int anchors;  /* residual slots that its steps use, the first ones */
    em_log log;
} em_resume_params;

/* Host memory that one takes while it is open. */
uint64_t em_resume_bytes(const em_resume_params *p);

/* Starts the thread; *out is owned by the caller: em_resume_close, which waits for the disk. */
em_status em_resume_open(em_resume **out, const em_resume_params *p, em_err *err);
void em_resume_close(em_resume **r); /* NULL inside is allowed */

/* The caller's place to note the request's state; at the start step 0 and no anchors. Borrowed. */
em_waypoint *em_resume_at(em_resume *r);

/* Fills em_resume_at from the file: true, and its step is 1 to steps. False, with a warning unless
 * there is no file, when that is damaged or not this request's. */
bool em_resume_load(em_resume *r);

/* Hands em_resume_at over to be written; waits for the one before. A failure is a warning, once. */
void em_resume_save(em_resume *r);
void em_resume_flush(em_resume *r); /* waits until what was handed over is on the disk */

#endif
