/* Convolution: four ways.
 *
 *     ordinary  float32 throughout: float32 mode, and groups
 *     hopper    own kernel with Hopper's matrix instructions: no copy of the input
 *     library   cuDNN, on a copy of (past, x) where x alone does not say it
 *     tensor    own kernel with every card's matrix instructions: few channels or odd ones, no
 *               cuDNN, or none of its engines
 *
 * The way is a property of the layer, and so is everything that decides the order of a sum: frames
 * may be cut at will. Weights are reordered for the way in each call, in the workspace. */
#include "ops/cuda/conv_dnn.h"
#include "ops/cuda/conv_kernels.h"
#include "ops/cuda/cuda.h"

typedef enum way { ORDINARY, HOPPER, LIBRARY, TENSOR } way;

typedef struct conv {
    em_run *r;
    em_cuda *c;
    const em_conv_args *a;
    emk_conv_job job; /* w: the reordered weights */
    em_conv_dnn_view view;
    way way;
    int taps;
    size_t input_at, library_at; /* in the workspace, behind the weights: copy, cuDNN's scratch */
} conv;

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static emk_conv_job job_of(em_tensor y, const em_conv_args *a)
{
    emk_conv_job j = {.x = a->x.data,
                      .past = a->past.data,
                      .y = y.data,
                      .bias = em_cuda_arg(a->b),
                      .frames = a->x.dim[0],
                      .height = a->x.dim[1],
                      .width = a->x.dim[2],
                      .channels = a->x.dim[3],
                      .out_channels = y.dim[3],
                      .groups = a->groups,
                      .upsample_2x = a->upsample_2x,
                      .type = (int)a->x.dtype};
    if (!em_tensor_is_empty(a->past)) j.past_frames = a->past.dim[0];
    for (int i = 0; i < 3; i++) {
        j.out[i] = y.dim[i];
        j.kernel[i] = (int)a->w.dim[2 + i];
        j.stride[i] = a->stride[i];
        j.pad[i] = a->pad_before[i];
    }
    return j;
}

/* With few channels copies and plans are most of the work; the own kernel has neither. */
static bool library_pays(const emk_conv_job *j)
{
    return j->channels >= 32 && j->out_channels >= 64;
}

static way way_of(conv *v)
{
    const emk_conv_job *j = &v->job;
    bool bias = !em_tensor_is_empty(v->a->b);
    if (v->a->x.dtype == EM_F32 || v->a->groups > 1) return ORDINARY;
    if (v->c->cc == 90 && emk_conv_hopper_takes(j->channels, j->out_channels)) return HOPPER;
    if (!em_conv_dnn_view_of(&v->view, j, v->a->pad_after, bias)) return TENSOR;
    if (!library_pays(j)) return TENSOR;
    return v->c->dnn && em_conv_dnn_has(v->c->dnn, j, &v->view) ? LIBRARY : TENSOR;
}

/* Length of an output channel's weights, as the way's kernel wants them. */
static int64_t row_of(const conv *v)
{
    if (v->way == TENSOR) return emk_conv_mma_row(v->job.channels, v->taps);
    if (v->way == HOPPER) return emk_conv_hopper_row(v->job.channels, v->taps);
    return v->taps * v->job.channels;
}

static size_t weight_bytes(const conv *v)
{
    if (v->way == ORDINARY) return (size_t)em_tensor_count(v->a->w) * sizeof(float);
    return (size_t)(v->job.out_channels * row_of(v)) * em_dtype_bytes(v->a->x.dtype);
}

/* Decides and measures; returns the workspace's size. */
static size_t open_conv(conv *v, em_run *r, em_tensor y, const em_conv_args *a)
{
    *v = (conv){.r = r, .c = em_cuda_of(r), .a = a, .job = job_of(y, a)};
    v->taps = v->job.kernel[0] * v->job.kernel[1] * v->job.kernel[2];
    v->way = way_of(v);
    size_t at = aligned(weight_bytes(v));
    if (v->way != LIBRARY) return at;
    const int64_t *d = v->view.dim;
    v->input_at = at;
    if (v->view.gathered)
        at += aligned((size_t)(d[0] * d[1] * d[2] * v->job.channels) * em_dtype_bytes(a->x.dtype));
    v->library_at = at;
    return at + EM_CONV_DNN_WORKSPACE_BYTES;
}

size_t em_cuda_conv_workspace(em_run *r, em_tensor y, const em_conv_args *a)
{
    conv v;
    return em_tensor_count(y) == 0 ? 0 : open_conv(&v, r, y, a);
}

static cudaError_t reorder_weights(const conv *v, void *to)
{
    const em_tensor w = v->a->w;
    const int64_t outs = w.dim[0], ins = w.dim[1];
    cudaStream_t s = v->c->compute;
    if (v->way == ORDINARY)
        return emk_conv_columns(to, em_cuda_arg(w), outs, ins, v->taps, v->job.groups, s);
    int64_t step = v->way == TENSOR ? emk_conv_mma_step(ins) : ins;
    emk_tensor rows = {to, v->job.type};
    return emk_conv_rows(rows, row_of(v), step, em_cuda_arg(w), outs, ins, v->taps, s);
}

static em_status run_library(const conv *v, unsigned char *ws)
{
    const void *input = v->job.x;
    if (v->view.gathered) {
        emk_conv_job gather = v->job;
        for (int i = 0; i < 3; i++) gather.pad[i] = v->view.inside[i];
        input = ws + v->input_at;
        em_status st =
            em_cuda_check(v->r,
                          emk_conv_gather(ws + v->input_at, v->view.dim, &gather, v->c->compute),
                          "copy of the input");
        if (st) return st;
    }
    return em_conv_dnn_run(v->c->dnn, &v->job, &v->view, input, ws, ws + v->library_at,
                           v->c->compute, &v->r->err);
}

static em_status run_way(const conv *v, void *ws)
{
    cudaStream_t s = v->c->compute;
    switch (v->way) {
    case ORDINARY: return em_cuda_check(v->r, emk_conv_fma(&v->job, s), "ordinary cores");
    case HOPPER: return em_cuda_check(v->r, emk_conv_hopper(&v->job, s), "Hopper's kernel");
    case TENSOR: return em_cuda_check(v->r, emk_conv_mma(&v->job, s), "tensor cores");
    case LIBRARY: break;
    }
    return run_library(v, ws);
}

em_status em_cuda_conv(em_run *r, em_tensor y, const em_conv_args *a, void *ws)
{
    conv v;
    char sx[80], sw[80];
    if (em_tensor_count(y) == 0) return EM_OK;
    open_conv(&v, r, y, a);
    v.job.w = ws;
    em_status st = em_cuda_check(r, reorder_weights(&v, ws), "weights");
    if (!st) st = run_way(&v, ws);
    if (st)
        em_err_prefix(&r->err, "conv of %s with weights %s", em_shape_text(sx, a->x.dim, 4),
                      em_shape_text(sw, a->w.dim, 5));
    return st;
}
