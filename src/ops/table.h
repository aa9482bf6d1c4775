/* The op table: what a backend implements.
 *
 * Wrappers (ops.c) have checked shapes and types and taken the output from the run's scratch;
 * kernels compute. A backend is one such table; a model never sees it. */
#ifndef EM_OPS_TABLE_H
#define EM_OPS_TABLE_H

#include "ops/ops.h"

/* Which norm the norm kernel computes. */
typedef enum em_norm_kind { EM_NORM_LAYER, EM_NORM_MODULATE, EM_NORM_RMS, EM_NORM_L2 } em_norm_kind;
typedef struct em_norm_spec {
    em_norm_kind kind;
    float eps;
    em_tensor w, b; /* affine; for MODULATE scale and shift */
    em_act act;
} em_norm_spec;

typedef enum em_binary {
    EM_BINARY_ADD,
    EM_BINARY_MUL,
    EM_BINARY_GATED_ADD,
    EM_BINARY_SCALE_SHIFT
} em_binary;

/* A convolution as kernels see it: five-dimensional weights, four-dimensional data, no defaults. */
typedef struct em_conv_args {
    em_tensor x, past, w, b;
    int stride[3], pad_before[3], pad_after[3], groups;
    bool upsample_2x;
} em_conv_args;

/* Kernels: the output first, allocated by the wrapper. Scratch that a kernel needs is asked for
 * beforehand (…_workspace, bytes) and handed in as ws, so that a plan sees it too. A kernel returns
 * a status and may leave the sentence to the wrapper. */
struct em_ops {
    const char *name;
    em_device *device;
    /* A library's per-thread settings, for em_pool_create; NULL: none. */
    void (*thread_start)(void);
    /* The table of the same device for the lane-th (from 1) of the runs that go on at once: with
     * queues and library handles of its own. NULL: this table serves any number of them. */
    em_status (*lane)(const em_ops **out, const em_ops *of, int lane, em_err *err);
    size_t (*linear_workspace)(em_run *r, em_tensor y, em_tensor x, em_tensor w);
    em_status (*linear)(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws);
    /* y (n, M, N): n layers of one shape on the same x, with linear's workspace. NULL: the wrapper
     * takes them one after the other. */
    em_status (*linears)(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                         const em_tensor *b, void *ws);
    size_t (*attention_workspace)(em_run *r, em_tensor q, em_tensor k, const em_attn *a);
    em_status (*attention)(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws);
    size_t (*conv_workspace)(em_run *r, em_tensor y, const em_conv_args *c);
    em_status (*conv)(em_run *r, em_tensor y, const em_conv_args *c, void *ws);
    em_status (*weight_norm)(em_run *r, em_tensor y, em_tensor g, em_tensor v);
    /* y may be x itself: a row is read before it is written. */
    em_status (*norm)(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s);
    em_status (*time_norm)(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b,
                           float eps);
    em_status (*act)(em_run *r, em_tensor x, em_act act);
    /* ADD, MUL: b has a's count. GATED_ADD: x += a * b with b (C). SCALE_SHIFT: x = x a + b, (C)
     * each. */
    em_status (*binary)(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind);
    em_status (*fill)(em_run *r, em_tensor x, float value);
    em_status (*rope)(em_run *r, em_tensor x, em_tensor table, int heads);
    em_status (*lincomb)(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c);
    em_status (*copy_cols)(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols);
    em_status (*transpose)(em_run *r, em_tensor y, em_tensor x); /* x (A, B) -> y (B, A) */
    em_status (*gather)(em_run *r, em_tensor y, em_tensor table, const int32_t *idx);
    em_status (*patchify)(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
    em_status (*unpatchify)(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
    em_status (*upload)(em_run *r, em_tensor y, const void *host);
    em_status (*download)(em_run *r, em_tensor x, void *host);
    em_status (*lerp_time)(em_run *r, em_tensor y, em_tensor x);
    em_status (*resize_bicubic)(em_run *r, em_tensor y, em_tensor x);
    em_status (*to_u8)(em_run *r, em_tensor y, em_tensor x);
};

const em_ops *em_ops_ref(void); /* plain loops: documentation, and every other table's judge */
const em_ops *
em_ops_cpu(void); /* oneDNN and vector kernels; falls back to ref's where it has no own */
/* The table of a --device name: auto, cpu, ref, cuda, cuda:N. EM_INVAL: there is no such device in
 * this build or on this machine; the sentence says why. The table lives as long as the process. */
em_status em_ops_open(const em_ops **out, const char *device, em_err *err);
/* The same for the lane-th run of those that go on at once, from 0 to EM_LANES_MAX - 1. */
em_status em_ops_open_lane(const em_ops **out, const char *device, int lane, em_err *err);
const em_ops *em_ops_find(const char *device); /* the same; NULL when there is none */

/* One more name for em_ops_open: how tests bring tables of their own. `name` without a colon,
 * borrowed for ever; `ordinal` is what follows the colon, 0 without one. */
typedef struct em_ops_entry {
    const char *name;
    em_status (*open)(const em_ops **out, int ordinal, em_err *err);
} em_ops_entry;
void em_ops_register(em_ops_entry e);
/* A table with target's scratch and workspaces that computes nothing; *out is the caller's
 * storage. */
void em_ops_plan(em_ops *out, const em_ops *target);

#endif
