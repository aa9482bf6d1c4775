#include "ops/cuda/conv_dnn.h"

#include "base/dtype.h"

#include <stdio.h>
#include <string.h>

/* Tensors of a graph. */
enum { X = 'x', W = 'w', B = 'b', SUM = 's', Y = 'y' };

/* A layer's engine is chosen for this many output frames, and must do for the probes too. */
enum { USUAL_FRAMES = 4 };
static const int64_t probe_frames[] = {1, 2, 3};

/* A convolution over two or three axes, batch first: what cuDNN is asked for. Compared as bytes. */
typedef struct problem {
    char family[4]; /* "conv": entries are shared with other users of the handle */
    int axes;
    int type, bias_type; /* bias_type -1: no bias in the graph */
    int64_t batch, ins, outs;
    int64_t in[3], out[3];
    int kernel[3], stride[3], pad[3];
} problem;

static bool symmetric(const emk_conv_job *j, const int pad_after[3], int axis)
{
    return j->pad[axis] == pad_after[axis];
}

bool em_conv_dnn_view_of(em_conv_dnn_view *v, const emk_conv_job *j, const int pad_after[3],
                         bool bias)
{
    int64_t zoom = j->upsample_2x ? 2 : 1;
    *v = (em_conv_dnn_view){.dim = {j->frames + j->past_frames, j->height * zoom, j->width * zoom},
                            .bias = bias};
    v->gathered = j->upsample_2x || j->kernel[0] > 1 || j->past_frames > 0;
    for (int i = 0; i < 3; i++) {
        /* Past frames and zeros in front of time are one thing to cuDNN, whatever the cut. */
        bool itself = i > 0 && symmetric(j, pad_after, i);
        v->pad[i] = itself ? j->pad[i] : 0;
        v->inside[i] = itself ? 0 : j->pad[i];
        if (itself || j->pad[i] + pad_after[i] == 0) continue;
        v->dim[i] += j->pad[i] + pad_after[i];
        v->gathered = true;
    }
    return j->groups == 1 && j->channels % 8 == 0 && j->out_channels % 8 == 0 && j->type != EM_F32;
}

/* Frames are a batch where the kernel has no extent in time; a kernel with no extent in space sees
 * time and all of space as its two axes. Two axes are what engines are best at. */
static problem problem_of(const emk_conv_job *j, const em_conv_dnn_view *v, int64_t frames)
{
    problem p;
    memset(&p, 0, sizeof p);
    memcpy(p.family, "conv", 4);
    p.type = j->type;
    p.bias_type = -1;
    p.ins = j->channels;
    p.outs = j->out_channels;
    p.batch = 1;
    bool flat = j->kernel[0] == 1 && j->stride[0] == 1;
    bool point = j->kernel[1] == 1 && j->kernel[2] == 1 && j->stride[1] == 1 && j->stride[2] == 1 &&
                 v->pad[1] == 0 && v->pad[2] == 0;
    int64_t in_frames = (frames - 1) * j->stride[0] + j->kernel[0];
    if (flat) p.batch = frames;
    for (int i = flat ? 1 : 0; i < 3; i++) {
        int axis = p.axes++;
        p.in[axis] = i == 0 ? in_frames : v->dim[i];
        p.out[axis] = i == 0 ? frames : j->out[i];
        p.kernel[axis] = j->kernel[i];
        p.stride[axis] = j->stride[i];
        p.pad[axis] = v->pad[i];
    }
    if (point && !flat) {
        p.axes = 2;
        p.in[1] *= p.in[2];
        p.out[1] *= p.out[2];
        p.in[2] = p.out[2] = 0;
        p.kernel[2] = p.stride[2] = 0;
    }
    return p;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static cudnnDataType_t type_of(int dtype)
{
    return dtype == EM_F32   ? CUDNN_DATA_FLOAT
           : dtype == EM_F16 ? CUDNN_DATA_HALF
                             : CUDNN_DATA_BFLOAT16;
}

/* Dimensions as cuDNN orders them (batch, channels, axes…), channels lying innermost. */
static cudnnBackendDescriptor_t tensor(em_dnn_graph *g, int64_t id, cudnnDataType_t type,
                                       int64_t batch, int64_t channels, int axes,
                                       const int64_t *extent)
{
    em_dnn_view v = {.id = id, .type = type, .ndim = axes + 2, .is_virtual = id == SUM};
    int64_t step = channels;
    v.dim[0] = batch;
    v.dim[1] = channels;
    v.stride[1] = 1;
    for (int i = axes - 1; i >= 0; i--) {
        v.dim[2 + i] = extent[i];
        v.stride[2 + i] = step;
        step *= extent[i];
    }
    v.stride[0] = step;
    return em_dnn_tensor(g, &v);
}

static cudnnBackendDescriptor_t convolution(em_dnn_graph *g, const problem *p,
                                            cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t axes = p->axes, ones[3] = {1, 1, 1};
    const float one = 1, zero = 0;
    int64_t kernel[3], stride[3], pad[3];
    for (int i = 0; i < 3; i++) {
        kernel[i] = p->kernel[i];
        stride[i] = p->stride[i];
        pad[i] = p->pad[i];
    }
    cudnnBackendDescriptor_t x = tensor(g, X, type_of(p->type), p->batch, p->ins, p->axes, p->in);
    cudnnBackendDescriptor_t w = tensor(g, W, type_of(p->type), p->outs, p->ins, p->axes, kernel);
    cudnnBackendDescriptor_t d = em_dnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, axes, ones);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, axes, stride);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, axes, pad);
    em_dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, axes, pad);
    em_dnn_finalize(g, d);
    cudnnBackendDescriptor_t op =
        em_dnn_make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, d);
    em_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    em_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    em_dnn_finalize(g, op);
    return op;
}

static cudnnBackendDescriptor_t bias_addition(em_dnn_graph *g, const problem *p,
                                              cudnnBackendDescriptor_t sum,
                                              cudnnBackendDescriptor_t y)
{
    const cudnnPointwiseMode_t add = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    const int64_t ones[3] = {1, 1, 1};
    cudnnBackendDescriptor_t b = tensor(g, B, type_of(p->bias_type), 1, p->outs, p->axes, ones);
    cudnnBackendDescriptor_t d = em_dnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    em_dnn_set(g, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &add);
    em_dnn_set(g, d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    em_dnn_finalize(g, d);
    cudnnBackendDescriptor_t op = em_dnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, d);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, sum);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    em_dnn_finalize(g, op);
    return op;
}

/* The problem's graph, ready for the choice of an engine. */
static void build(em_dnn_graph *g, em_cuda_dnn *dnn, const problem *p)
{
    cudnnBackendDescriptor_t ops[2];
    em_dnn_begin(g, dnn);
    cudnnBackendDescriptor_t y = tensor(g, Y, type_of(p->type), p->batch, p->outs, p->axes, p->out);
    if (p->bias_type < 0) {
        ops[0] = convolution(g, p, y);
        em_dnn_join(g, 1, ops);
        return;
    }
    cudnnBackendDescriptor_t sum =
        tensor(g, SUM, CUDNN_DATA_FLOAT, p->batch, p->outs, p->axes, p->out);
    ops[0] = convolution(g, p, sum);
    ops[1] = bias_addition(g, p, sum, y);
    em_dnn_join(g, 2, ops);
}

/* ---- engines --------------------------------------------------------------------------------- */

enum { SPLIT_K = 0 }; /* CUDNN_KNOB_TYPE_SPLIT_K, a name that compilers are told to warn of */

/* The knobs that share a sum among blocks go back to one block. */
static void sum_in_one_piece(em_dnn_choice *c)
{
    for (int i = 0; i < c->knobs; i++) {
        int knob = (int)c->knob[i];
        if ((knob == SPLIT_K || knob == CUDNN_KNOB_TYPE_SPLIT_K_SLC) && c->value[i] > 1)
            c->value[i] = 1;
        if (knob == CUDNN_KNOB_TYPE_STREAM_K) c->value[i] = 0;
    }
}

static em_status open_plan(em_dnn_plan **out, em_cuda_dnn *dnn, const problem *p,
                           const em_dnn_choice *choice, em_err *err)
{
    em_dnn_graph g;
    build(&g, dnn, p);
    em_status st = em_dnn_plan_open(out, &g, choice, err);
    em_dnn_end(&g);
    if (!st && em_dnn_plan_workspace(*out) > EM_CONV_DNN_WORKSPACE_BYTES) {
        st = em_fail(err, EM_DEVICE, "cuDNN's engine wants %zu bytes of workspace",
                     em_dnn_plan_workspace(*out));
        em_dnn_plan_close(out);
    }
    return st;
}

/* An engine for the usual number of frames that also takes the probes'. */
static em_status decide(em_dnn_choice *out, em_cuda_dnn *dnn, const emk_conv_job *j,
                        const em_conv_dnn_view *v, int bias_type)
{
    const em_dnn_limits limits = {.workspace_bytes = EM_CONV_DNN_WORKSPACE_BYTES,
                                  .forbidden =
                                      1u << CUDNN_NUMERICAL_NOTE_WINOGRAD |
                                      1u << CUDNN_NUMERICAL_NOTE_FFT |
                                      1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION |
                                      1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS};
    em_err err = {0};
    em_dnn_graph g;
    problem p = problem_of(j, v, USUAL_FRAMES);
    p.bias_type = bias_type;
    build(&g, dnn, &p);
    em_status st = em_dnn_choose(out, &g, &limits, &err);
    em_dnn_end(&g);
    if (st) return st;
    sum_in_one_piece(out);
    for (size_t i = 0; !st && i < sizeof probe_frames / sizeof *probe_frames; i++) {
        em_dnn_plan *plan = NULL;
        p = problem_of(j, v, probe_frames[i]);
        p.bias_type = bias_type;
        st = open_plan(&plan, dnn, &p, out, &err);
        em_dnn_plan_close(&plan);
    }
    return st;
}

/* The layer's decision: the problem at the usual number of frames is its name. */
static em_dnn_entry *decision(em_cuda_dnn *dnn, const emk_conv_job *j, const em_conv_dnn_view *v,
                              int bias_type)
{
    problem name = problem_of(j, v, USUAL_FRAMES);
    name.bias_type = bias_type;
    name.family[3] = '?';
    em_dnn_entry *e = em_dnn_entry_of(dnn, &name, sizeof name);
    if (!e) return NULL;
    if (!e->decided) {
        e->status = decide(&e->choice, dnn, j, v, bias_type);
        e->decided = true;
    }
    return e->status ? NULL : e;
}

/* With the bias in the graph where cuDNN can do that; *bias_type says whether. */
static em_dnn_entry *best_decision(em_cuda_dnn *dnn, const emk_conv_job *j,
                                   const em_conv_dnn_view *v, int *bias_type)
{
    *bias_type = v->bias ? j->bias.dtype : -1;
    em_dnn_entry *e = decision(dnn, j, v, *bias_type);
    if (e || !v->bias) return e;
    *bias_type = -1;
    return decision(dnn, j, v, -1);
}

bool em_conv_dnn_has(em_cuda_dnn *dnn, const emk_conv_job *j, const em_conv_dnn_view *v)
{
    int bias_type;
    return best_decision(dnn, j, v, &bias_type) != NULL;
}

const char *em_conv_dnn_describe(em_cuda_dnn *dnn, const emk_conv_job *j, const em_conv_dnn_view *v,
                                 char out[128])
{
    int bias_type;
    em_dnn_entry *e = best_decision(dnn, j, v, &bias_type);
    if (e) return em_dnn_choice_text(out, &e->choice);
    snprintf(out, 128, "no engine");
    return out;
}

em_status em_conv_dnn_run(em_cuda_dnn *dnn, const emk_conv_job *j, const em_conv_dnn_view *v,
                          const void *input, const void *weights, void *workspace,
                          cudaStream_t stream, em_err *err)
{
    int bias_type;
    em_dnn_entry *e = best_decision(dnn, j, v, &bias_type);
    if (!e) return em_fail(err, EM_DEVICE, "cuDNN has no engine");
    problem p = problem_of(j, v, j->out[0]);
    p.bias_type = bias_type;
    em_dnn_entry *planned = em_dnn_entry_of(dnn, &p, sizeof p);
    if (!planned) return em_fail(err, EM_NOMEM, "a cuDNN plan");
    if (!planned->plan) {
        em_status st = open_plan(&planned->plan, dnn, &p, &e->choice, err);
        if (st) return st;
    }
    const int64_t ids[] = {X, W, Y, B};
    void *const pointers[] = {(void *)input, (void *)weights, j->y, j->bias.data};
    em_status st =
        em_dnn_execute(planned->plan, bias_type < 0 ? 3 : 4, ids, pointers, workspace, err);
    if (st || bias_type >= 0) return st;
    cudaError_t rc = emk_conv_bias(j, stream);
    return rc ? em_fail(err, EM_DEVICE, "bias: %s", cudaGetErrorString(rc)) : EM_OK;
}
