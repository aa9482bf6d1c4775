/* golden_check: the project's results against files of the reference's own numbers.
 *
 * A folder holds tensors by file name; each file has a checker. One line a tensor: how far, how far
 * it may be, pass or FAIL. What has no yardstick says `no bound` and is not a pass. */
#ifndef EM_GOLDEN_CHECK_H
#define EM_GOLDEN_CHECK_H

#include "base/alloc.h"
#include "far/rehearsal.h"
#include "io/audio.h"
#include "io/ckpt.h"
#include "io/json.h"
#include "ops/table.h"
#include "pipeline/frames.h"
#include "pipeline/synthetic_model.h"

#include <stdbool.h>

typedef struct check {
    const char *dir;
    const em_ops *ops;
    em_dtype dtype;
    em_pool *pool;
    json_t *doc;          /* report.json, or NULL */
    const json_t *report; /* its section of bfloat16 distances, borrowed; NULL: none */
    em_synthetic_sizes sizes;
    uint64_t seed;
    const char *file; /* the one at hand, without its folder */
    int passed, failed, unbounded, skipped;
} check;

enum { NO_BOUND = -1 };

/* ---- verdicts: print a line and count -------------------------------------------------------- */

/* got against the tensor `name` (F32) of the file: relative L2 distance. */
void expect_close(check *c, const em_ckpt *golden, const char *name, const float *got, size_t n,
                  double bound);
/* The same for a golden of n values that is not a whole tensor of a file. */
void expect_values(check *c, const char *name, const float *got, const float *want, size_t n,
                   double bound);
/* A result on the device against the tensor `name` of the file; a plan takes the same scratch and
 * compares nothing. */
void expect_tensor(check *c, em_run *r, const em_ckpt *golden, const char *name, em_tensor got,
                   double bound);
/* A measure that has been taken: passes when value <= bound. */
void expect_measure(check *c, const char *name, const char *what, double value, double bound);
/* Bytes that must be equal. */
void expect_equal(check *c, const char *name, const void *got, const void *want, size_t size_bytes);
void expect_true(check *c, const char *name, bool ok, const char *what);
/* Something could not be computed at all: a FAIL with its sentence. */
void report_failure(check *c, const char *name, const em_err *err);
void report_skip(check *c, const char *name, const char *why);

/* ---- goldens --------------------------------------------------------------------------------- */

em_ckpt *open_golden(check *c, const char *file); /* NULL (and a FAIL) when it cannot be read */
json_t *load_json(check *c, const char *file);    /* the same */
bool has_file(const check *c, const char *file);
/* A tensor's numbers; NULL when absent or of another type. */
const float *floats_of(const em_ckpt *golden, const char *name, size_t *n);
const em_ckpt_tensor *tensor_of(const em_ckpt *golden, const char *name, em_dtype dtype);

/* ---- bounds (spec "Quality of numbers") ------------------------------------------------------ */

/* A model's outputs: 2e-5 in float32; in bfloat16 the reference's own distance report[key], or
 * NO_BOUND. */
double model_bound(const check *c, const char *report_key);
/* Element `step` of a list report[key] in bfloat16, 1e-4 in float32. */
double step_bound(const check *c, const char *report_key, size_t step);

/* ---- running models -------------------------------------------------------------------------- */

/* The synthetic checkpoint of a model at the folder's sizes, in a file that has no name any more.
 * NULL (and a FAIL) when it cannot be made. */
em_ckpt *open_synthetic(check *c, em_model_kind kind);

/* A forward that takes its inputs from `arg`, may be called twice, and must leave r as it found
 * it. */
typedef void forward_fn(em_run *r, void *arg);
/* Runs it on a plan, then for real in a block of the planned size; false (and a FAIL) when it fails
 * or when plan and measurement differ. */
bool run_forward(check *c, const char *name, forward_fn *compute, void *arg);
/* Scratch and weights peaked where the plan said; false (and a FAIL) when not. */
bool plan_held(check *c, const char *name, const rehearsal *f);

/* ---- checkers: a file each ------------------------------------------------------------------- */

void check_t5(check *c);
void check_clip(check *c);
void check_wav2vec2(check *c);
void check_vae(check *c);
void check_dit(check *c);
void check_schedulers(check *c);
void check_rng(check *c);
void check_teacache(check *c);
void check_pipeline(check *c);
void check_e2e(check *c);
void check_audio(check *c);
void check_images(check *c);
void check_tokens(check *c);
void check_sizes(check *c);
void check_loudness(check *c);
void check_pth(check *c);

#endif
