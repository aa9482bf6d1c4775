#include "models/nn.h"

em_tensor em_nn_linear(em_run *r, em_tensor x, const em_nn_dense *d, em_act act)
{
    return em_linear(r, x, d->w, d->b, act);
}

em_tensor em_nn_mlp(em_run *r, em_tensor x, const em_nn_dense *in, const em_nn_dense *out,
                    em_act act)
{
    return em_nn_linear(r, em_nn_linear(r, x, in, act), out, EM_ACT_NONE);
}

em_tensor em_nn_self_attention(em_run *r, em_tensor x, const em_nn_attn *w, const em_attn *a)
{
    em_tensor q = em_nn_linear(r, x, &w->q, EM_ACT_NONE); // (N, heads d)
    em_tensor k = em_nn_linear(r, x, &w->k, EM_ACT_NONE); // (N, heads d)
    em_tensor v = em_nn_linear(r, x, &w->v, EM_ACT_NONE); // (N, heads d)
    em_tensor h = em_attention(r, q, k, v, a);            // (N, heads d)
    return em_nn_linear(r, h, &w->o, EM_ACT_NONE);        // (N, C)
}

void em_nn_tap(em_run *r, em_tensor *tap, em_tensor x)
{
    if (em_run_stopped(r)) return;
    *tap = em_run_keep(r, EM_F32, x.dim, x.ndim);
    em_copy(r, *tap, x);
}
