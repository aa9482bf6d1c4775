/* em_run: where a computation happens and how far it got.
 *
 * Models call ops on a run; the run holds the op table, the scratch arena, the threads and the
 * first error. Ops are sticky: after a failure (or a cancel) every op returns an empty tensor and
 * does nothing, so a forward pass reads as the paper does and the caller asks once, at the end:
 * r->err.code. */
#ifndef EM_OPS_RUN_H
#define EM_OPS_RUN_H

#include "base/status.h"
#include "base/thread.h"
#include "memory/arena.h"
#include "memory/residency.h"
#include "memory/tensor.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct em_ops em_ops;

/* How much of a model goes through at once. No result depends on it: rows and frames do not see
 * each other where this cuts, or remember what they need. Scratch does. */
typedef struct em_cut {
    int64_t ffn_rows; /* of the transformer's feed-forward networks; 0: all */
    int vae_frames;   /* of the VAE at the full rate; 0: 1 */
    int vae_latents;  /* that go into the VAE at once; 0: 1 */
} em_cut;

/* Workspace sizes that a table was asked for before, by all that they depend on. Plans repeat the
 * same ops thousands of times, and asking a library takes as long as a small kernel. */
enum { EM_MEMO_ENTRIES = 1024 };
typedef struct em_memo {
    uint64_t key[EM_MEMO_ENTRIES]; /* 0: free */
    size_t bytes[EM_MEMO_ENTRIES];
    size_t count;
} em_memo;

typedef struct em_run {
    const em_ops *ops;         /* borrowed: em_ops_ref(), em_ops_cpu(), … */
    em_arena arena;            /* owned by whoever opened it */
    em_residency *residency;   /* borrowed; NULL: weights are simply there */
    em_pool *pool;             /* borrowed; NULL: the calling thread alone */
    em_dtype dtype;            /* the working type of matrix operands: F32, BF16 or F16 */
    const atomic_bool *cancel; /* borrowed; NULL: cannot be cancelled */
    bool plans;                /* the op table computes nothing and the arena is virtual */
    em_memo *memo;             /* borrowed; NULL: every op asks for itself */
    em_cut cut;
    double flops;     /* multiply-adds of linear, conv and attention, times two */
    int64_t products; /* linear, conv and attention ops */
    em_err err;       /* the first failure; EM_OK while all is well */
} em_run;

/* True after a failure or a cancel; the first call that sees the cancel flag sets the error. */
bool em_run_stopped(em_run *r);
/* Keeps the first failure; returns an empty tensor so that an op can `return em_run_fail(…)`. */
em_tensor em_run_fail(em_run *r, em_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Scratch from the run's arena, contents undefined; empty when it does not fit (and the run fails).
 * Lives until the mark before it is released. */
em_tensor em_run_tensor(em_run *r, em_dtype dtype, const int64_t *dim, int ndim);
/* The same from the arena's high end: outlives em_run_release, until em_run_release_all. */
em_tensor em_run_keep(em_run *r, em_dtype dtype, const int64_t *dim, int ndim);

em_mark em_run_mark(const em_run *r);
void em_run_release(em_run *r, em_mark m);     /* scratch since the mark */
void em_run_release_all(em_run *r, em_mark m); /* scratch and kept tensors since the mark */

/* Waits until the device has done what it was given: for clocks, and before others are told. */
void em_run_sync(em_run *r);

/* Starts to bring a tensor to host memory of the device's host_alloc; em_run_await waits for what
 * was fetched before its em_run_mark_fetched. */
void em_run_fetch(em_run *r, em_tensor x, void *host);
void em_run_mark_fetched(em_run *r, em_event *e);
void em_run_await(em_run *r, em_event *e);

/* A model's weights for one step: pin, use, unpin. */
void em_run_pin(em_run *r, em_group *g);
void em_run_unpin(em_run *r, em_group *g);

/* True and one pin more where the weights are there already: em_residency_hold. */
bool em_run_hold(em_run *r, em_group *g);

/* Ops that are the same every time (shapes, addresses, weights that stay where they are) can be
 * recorded on devices that know how, and enqueued again as one:
 *
 *     if (em_run_record_begin(r, &g)) {
 *         compute(r);                        enqueued nowhere
 *         em_run_record_end(r, &g);
 *     }
 *     if (!em_run_replay(r, &g)) compute(r); the same bits either way
 *
 * What fails of that costs the recording and nothing else: g.err says why there is none, the run
 * goes on. Only a cancel stops it. Pins do nothing in between: whoever records holds the weights,
 * then and whenever it replays, and knows that they have not moved. */
typedef struct em_recording {
    em_graph *graph;         /* owned: em_run_record_close; NULL: there is nothing to replay */
    em_arena scratch;        /* as it was: what was recorded has addresses of that state */
    em_residency *residency; /* the run's, while it records */
    double flops;            /* of one replay, like the next */
    int64_t products;
    em_err err; /* of the last step that failed */
} em_recording;

/* False: this device has no graphs, or refused. *g is zero, or closed. In between no scratch may be
 * taken that outlives it, and nothing but ops on the device's memory be called. */
bool em_run_record_begin(em_run *r, em_recording *g);
void em_run_record_end(em_run *r, em_recording *g);
/* Enqueues it, and counts its work. False: nothing was enqueued, for want of a graph, because
 * scratch is not as it was, or because the device refused, which closes the recording. */
bool em_run_replay(em_run *r, em_recording *g);
void em_run_record_close(em_run *r, em_recording *g); /* leaves g->err */

/* em_parallel on the run's pool, for kernels: stops handing out pieces once the run is
 * cancelled. */
void em_run_parallel(em_run *r, size_t n, em_task task, void *arg);

#endif
