/* Attention kernels: what the C side calls and the .cu side defines. */
#ifndef EM_OPS_CUDA_ATTENTION_KERNELS_H
#define EM_OPS_CUDA_ATTENTION_KERNELS_H

#include "ops/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EM_CUDA_ATTN_MAX_DIM = 512 };

/* y = softmax(scale q k^T + bias) v per batch entry and head; all device memory, 16-byte aligned.
 * q, y (batch, nq, heads * dim)   k, v (batch, nk, heads * dim)   one type
 * rel_bias: float32 (heads, nq + nk - 1), entry j - i + nq - 1 for query i and key j; or NULL */
typedef struct em_cuda_attn {
    void *y;
    const void *q, *k, *v;
    const float *rel_bias;
    int64_t nq, nk;
    int dtype; /* EMK_F32, … */
    int batch, heads, dim;
    float scale;
} em_cuda_attn;

/* Enqueues the kernel for the type and head size: tensor cores for 16-bit types with heads of 16,
 * 32, 64, 80, 128 and 384 channels, float32 multiply-adds for everything else (dim <= 512). A
 * query's bits depend neither on the other queries nor on their number. */
cudaError_t em_cuda_attention_launch(const em_cuda_attn *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
