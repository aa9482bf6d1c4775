/* Convolution by cuDNN: one engine a layer, whatever the number of frames. */
#ifndef EM_OPS_CUDA_CONV_DNN_H
#define EM_OPS_CUDA_CONV_DNN_H

#include "ops/cuda/conv_kernels.h"
#include "ops/cuda/dnn.h"

/* Scratch of an engine, at most; engines that want more are passed over. */
enum { EM_CONV_DNN_WORKSPACE_BYTES = 64 << 20 };

/* How a job is put to cuDNN: as a convolution over (frames, rows, cols) that starts at the first
 * frame, padded in front and behind alike. Filled by em_conv_dnn_view. */
typedef struct em_conv_dnn_view {
    bool gathered;  /* cuDNN reads a copy (emk_conv_gather), not x itself */
    int64_t dim[3]; /* what it reads: frames, rows, columns */
    int pad[3];     /* what it pads by itself, on either side */
    int inside[3];  /* zeros in front that the copy holds */
    bool bias;      /* there is one, wherever it will lie */
} em_conv_dnn_view;

/* pad_after: as em_conv_args has it. A plan's job has no addresses yet, hence `bias`. False: not a
 * convolution for cuDNN (float32, groups, channels not in eights). */
bool em_conv_dnn_view_of(em_conv_dnn_view *out, const emk_conv_job *job, const int pad_after[3],
                         bool bias);
/* Whether cuDNN has an engine for the job's layer, at any number of frames; decides it once. */
bool em_conv_dnn_has(em_cuda_dnn *dnn, const emk_conv_job *job, const em_conv_dnn_view *v);
/* Enqueues on the handle's stream. input: x or the copy; weights: (O, taps, C) as
 * emk_conv_rows leaves them (of the job's type); workspace: EM_CONV_DNN_WORKSPACE_BYTES. The
 * bias is added. em_conv_dnn_has must have said yes. */
em_status em_conv_dnn_run(em_cuda_dnn *dnn, const emk_conv_job *job, const em_conv_dnn_view *v,
                          const void *input, const void *weights, void *workspace,
                          cudaStream_t stream, em_err *err);
/* The engine of the job's layer, for reports; returns out. */
const char *em_conv_dnn_describe(em_cuda_dnn *dnn, const emk_conv_job *job,
                                 const em_conv_dnn_view *v, char out[128]);

#endif
