/* What surrounds a matrix product on the device. Plain C: the C side calls it, the .cu side defines
 * it. */
#ifndef EM_OPS_CUDA_LINEAR_KERNELS_H
#define EM_OPS_CUDA_LINEAR_KERNELS_H

#include "ops/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[r][c] = act(sum[r][c] + bias[c]), rounded once. Rows of y are y_step elements apart, those of
 * sum are dense; sum may be y when y is F32 and dense. bias: absent or (cols). act: EMK_RELU, … */
cudaError_t emk_linear_finish(emk_tensor y, int64_t y_step, const float *sum, emk_tensor bias,
                              int act, int64_t rows, int64_t cols, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
