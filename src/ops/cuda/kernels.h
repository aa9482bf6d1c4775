/* Launchers of the kernels in the .cu files beside this: plain C, no project types. Shapes were
 * checked above. Each queues its kernels on the stream and returns what the runtime says. */
#ifndef EM_OPS_CUDA_KERNELS_H
#define EM_OPS_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number formats, as base/dtype.h counts them. */
enum { EMK_F32, EMK_F16, EMK_BF16 };
/* Activations, as ops/ops.h counts them. */
enum { EMK_NONE, EMK_RELU, EMK_SILU, EMK_GELU_ERF, EMK_GELU_TANH, EMK_HARD_TANH };
/* Norms and binary operations, as ops/table.h counts them. */
enum { EMK_LAYER, EMK_MODULATE, EMK_RMS, EMK_L2 };
enum { EMK_ADD, EMK_MUL, EMK_GATED_ADD, EMK_SCALE_SHIFT };

/* Device memory and its number format; data NULL: absent. */
typedef struct emk_tensor {
    void *data;
    int dtype;
} emk_tensor;

enum { EMK_LINCOMB_MAX = 8, EMK_GATHER_MAX = 768 };
typedef struct emk_terms {
    const float *x[EMK_LINCOMB_MAX];
    float c[EMK_LINCOMB_MAX];
    int n;
} emk_terms;
typedef struct emk_rows {
    int32_t idx[EMK_GATHER_MAX];
} emk_rows;

/* elementwise_kernels.cu */
cudaError_t emk_fill(emk_tensor x, int64_t n, float value, cudaStream_t s);
cudaError_t emk_act(emk_tensor x, int64_t n, int act, cudaStream_t s);
cudaError_t emk_binary(emk_tensor x, emk_tensor a, emk_tensor b, int64_t rows, int64_t cols,
                       int kind, cudaStream_t s);
cudaError_t emk_rope(emk_tensor x, const float *table, int64_t rows, int heads, int pairs,
                     cudaStream_t s);
cudaError_t emk_lincomb(float *y, const emk_terms *t, int64_t n, cudaStream_t s);
cudaError_t emk_to_u8(unsigned char *y, emk_tensor x, int64_t n, cudaStream_t s);

/* norm_kernels.cu */
cudaError_t emk_norm(emk_tensor y, emk_tensor x, emk_tensor w, emk_tensor b, int64_t rows,
                     int64_t cols, int kind, float eps, int act, cudaStream_t s);
cudaError_t emk_time_norm(emk_tensor y, emk_tensor x, emk_tensor w, emk_tensor b, int64_t rows,
                          int64_t cols, float eps, cudaStream_t s);
/* y, v (rows, taps), g (taps) */
cudaError_t emk_weight_norm(float *y, emk_tensor g, emk_tensor v, int64_t rows, int64_t taps,
                            cudaStream_t s);

/* movement_kernels.cu: item_bytes is 1, 2 or 4 */
cudaError_t emk_copy_cols(emk_tensor dst, int64_t dst_stride, emk_tensor src, int64_t src_stride,
                          int64_t rows, int64_t cols, cudaStream_t s);
cudaError_t emk_transpose(void *y, const void *x, int64_t rows, int64_t cols, int item_bytes,
                          cudaStream_t s);
/* rows first … first + n of y from rows idx of the table */
cudaError_t emk_gather(void *y, const void *table, int64_t row_bytes, const emk_rows *rows, int n,
                       cudaStream_t s);
/* x (t, h, w, c) <-> tokens; forward: values in the order (c, ph, pw), back: (ph, pw, c) */
cudaError_t emk_patchify(void *y, const void *x, int64_t t, int64_t h, int64_t w, int64_t c, int ph,
                         int pw, int item_bytes, cudaStream_t s);
cudaError_t emk_unpatchify(void *y, const void *x, int64_t t, int64_t h, int64_t w, int64_t c,
                           int ph, int pw, int item_bytes, cudaStream_t s);
cudaError_t emk_lerp_time(emk_tensor y, emk_tensor x, int64_t n, int64_t rows, int64_t cols,
                          cudaStream_t s);
cudaError_t emk_resize_bicubic(float *y, const float *x, int64_t oh, int64_t ow, int64_t h,
                               int64_t w, int64_t c, cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
