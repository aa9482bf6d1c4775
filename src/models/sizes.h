/* Sizes that a checkpoint states by its shapes. Models read them before they bind; the binder then
 * holds every tensor against them. */
#ifndef EM_MODELS_SIZES_H
#define EM_MODELS_SIZES_H

#include "base/status.h"
#include "io/ckpt.h"

#include <stdbool.h>
#include <stdint.h>

/* Reads many sizes and is asked once: the first failure stays, later reads do nothing. */
typedef struct em_sizes {
    const em_ckpt *ckpt; /* borrowed */
    const char *model;   /* for messages; borrowed */
    em_err err;
} em_sizes;

/* Dimension `axis` of a tensor that must have ndim of them, 1 to INT32_MAX each. On failure 0. */
int64_t em_sizes_dim(em_sizes *s, const char *name, int ndim, int axis);
/* Blocks named PREFIX<number>.…: the highest number + 1, so that a gap is a missing block and not
 * the end. At least 1, at most the number of tensors. On failure 0. */
int64_t em_sizes_blocks(em_sizes *s, const char *prefix);
/* Keeps a failure of the caller's own. */
void em_sizes_require(em_sizes *s, bool holds, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The status, the sentence copied to err. */
em_status em_sizes_finish(const em_sizes *s, em_err *err);

#endif
