/* Convolution kernels. Plain C: the C side calls them, the .cu side defines them. Every launcher
 * enqueues on `stream` and returns what cudaGetLastError says. */
#ifndef EM_OPS_CUDA_CONV_KERNELS_H
#define EM_OPS_CUDA_CONV_KERNELS_H

#include "ops/cuda/kernels.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A convolution on the device. All pointers borrowed until the stream has passed. Channels last;
 * `past` holds the frames in front of x. */
typedef struct emk_conv_job {
    const void *x;    /* (frames, height, width, channels) */
    const void *past; /* (past_frames, height, width, channels) */
    const void *w;    /* as the launcher says */
    void *y;          /* (out[0], out[1], out[2], out_channels) */
    emk_tensor bias;  /* (out_channels) or absent */
    int64_t frames, past_frames, height, width, channels, out_channels;
    int64_t out[3];
    int kernel[3], stride[3], pad[3], groups; /* pad: in front; what lies outside is zero */
    bool upsample_2x;                         /* each row and column of x and past counts twice */
    int type;                                 /* of x, past and y: EMK_F32, … */
} emk_conv_job;

/* Weights src (outs, ins, taps) as rows of a 16-bit type: dst[o][tap * step + i], a row being
 * row_len long; everything else is zero. */
cudaError_t emk_conv_rows(emk_tensor dst, int64_t row_len, int64_t step, emk_tensor src,
                          int64_t outs, int64_t ins, int taps, cudaStream_t stream);
/* The same as columns of each group: dst[g][tap * ins + i][o in group]. */
cudaError_t emk_conv_columns(float *dst, emk_tensor src, int64_t outs, int64_t ins, int taps,
                             int groups, cudaStream_t stream);

/* Float32 products and sums on the ordinary cores: any type of x, any groups. w: as
 * emk_conv_columns leaves them. */
cudaError_t emk_conv_fma(const emk_conv_job *job, cudaStream_t stream);

/* Tensor cores, float32 sums: x BF16 or F16, one group. w: as emk_conv_rows leaves them with
 * step = emk_conv_mma_step(C) and row_len = emk_conv_mma_row(C, taps). */
int64_t emk_conv_mma_step(int64_t channels);
int64_t emk_conv_mma_row(int64_t channels, int64_t taps);
cudaError_t emk_conv_mma(const emk_conv_job *job, cudaStream_t stream);

/* The same with Hopper's matrix instructions, for compute capability 9.0 alone. w: as emk_conv_rows
 * leaves them with step = C and row_len = emk_conv_hopper_row(C, taps). x and past are 16-byte
 * aligned. takes: whether it is made for the layer's channels. */
bool emk_conv_hopper_takes(int64_t channels, int64_t out_channels);
int64_t emk_conv_hopper_row(int64_t channels, int64_t taps);
cudaError_t emk_conv_hopper(const emk_conv_job *job, cudaStream_t stream);

/* What a library's convolution sees instead of (past, x): dst (dim[0], dim[1], dim[2], channels)
 * holds the job's input, doubled where it is, with pad[i] zeros in front and zeros behind. 16-bit
 * types. */
cudaError_t emk_conv_gather(void *dst, const int64_t dim[3], const emk_conv_job *job,
                            cudaStream_t stream);
/* y += bias, rounded to the type of y; 16-bit types. */
cudaError_t emk_conv_bias(const emk_conv_job *job, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
