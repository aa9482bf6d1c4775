/* Scaled dot-product attention by cuDNN's unified node: long self-attention on Hopper. */
#ifndef EM_OPS_CUDA_SDPA_H
#define EM_OPS_CUDA_SDPA_H

#include "base/dtype.h"
#include "ops/cuda/dnn.h"

/* q, y (batch, nq, heads * dim)   k, v (batch, nk, heads * dim), dense. type BF16 or F16; dim a
 * multiple of 8, at most 256. */
typedef struct em_sdpa_shape {
    em_dtype type;
    int64_t batch, nq, nk, heads, dim;
} em_sdpa_shape;

/* Plans the shape and says how much scratch it takes. A plan is a compilation, about a second, and
 * is kept by dnn. The engine is the one that cuDNN prefers for a typical length of these heads,
 * whatever the lengths at hand. EM_DEVICE when there is none, or none for a shape (Hopper's take
 * two queries or more), the same answer every time. err is not NULL. */
em_status em_sdpa_workspace(em_cuda_dnn *dnn, const em_sdpa_shape *s, size_t *workspace_bytes,
                            em_err *err);
/* y = softmax(scale q k^T) v, enqueued. workspace: as many bytes as em_sdpa_workspace says. */
em_status em_sdpa(em_cuda_dnn *dnn, const em_sdpa_shape *s, float scale, void *y, const void *q,
                  const void *k, const void *v, void *workspace, em_err *err);
/* The engine that was chosen for the shape, "" before; returns out. For reports. */
const char *em_sdpa_engine(char out[128], em_cuda_dnn *dnn, const em_sdpa_shape *s);

#endif
