/* The few blocks that several models share. */
#ifndef EM_MODELS_NN_H
#define EM_MODELS_NN_H

#include "ops/ops.h"

typedef struct em_nn_dense {
    em_tensor w, b; /* (out, in); (out) or empty */
} em_nn_dense;

typedef struct em_nn_norm {
    em_tensor w, b; /* (C) each */
} em_nn_norm;

typedef struct em_nn_attn {
    em_nn_dense q, k, v, o;
} em_nn_attn;

/* act(x W^T + b)   x (N, in) -> (N, out) */
em_tensor em_nn_linear(em_run *r, em_tensor x, const em_nn_dense *d, em_act act);
/* out(act(in(x)))   x (N, C) -> (N, C) */
em_tensor em_nn_mlp(em_run *r, em_tensor x, const em_nn_dense *in, const em_nn_dense *out,
                    em_act act);
/* o(softmax(scale q(x) k(x)^T + bias) v(x))   x (N, C) -> (N, C) */
em_tensor em_nn_self_attention(em_run *r, em_tensor x, const em_nn_attn *w, const em_attn *a);

/* Keeps x for a caller who wants to see it: *tap becomes a float32 copy (em_run_keep). */
void em_nn_tap(em_run *r, em_tensor *tap, em_tensor x);

#endif
