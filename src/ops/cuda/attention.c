/* Long self-attention goes to cuDNN's node where that is at home, everything else to own kernels. */
#include "ops/cuda/attention_kernels.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/sdpa.h"

/* Keys from which a layer counts as long: self-attention of videos, never a condition's tokens. */
enum { LONG_KEYS = 1024 };

static em_sdpa_shape shape_of(em_tensor q, em_tensor k, const em_attn *a)
{
    return (em_sdpa_shape){.type = q.dtype,
                           .batch = q.dim[0],
                           .nq = q.dim[1],
                           .nk = k.dim[1],
                           .heads = a->heads,
                           .dim = q.dim[2] / a->heads};
}

/* Whether cuDNN does it: a property of the layer and of the machine. Then *workspace_bytes too. */
static bool by_cudnn(em_run *r, const em_sdpa_shape *s, const em_attn *a, size_t *workspace_bytes)
{
    const em_cuda *c = em_cuda_of(r);
    em_err why = {0};
    if (!c->dnn || c->cc != 90 || s->type == EM_F32 || !em_tensor_is_empty(a->rel_bias)) return false;
    if (s->nk < LONG_KEYS || s->dim % 8 || s->dim > 128) return false;
    return em_sdpa_workspace(c->dnn, s, workspace_bytes, &why) == EM_OK;
}

size_t em_cuda_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    const em_sdpa_shape s = shape_of(q, k, a);
    size_t bytes = 0;
    return by_cudnn(r, &s, a, &bytes) ? bytes : 0;
}

em_status em_cuda_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                            const em_attn *a, void *ws)
{
    const em_sdpa_shape s = shape_of(q, k, a);
    size_t bytes;
    if (by_cudnn(r, &s, a, &bytes))
        return em_sdpa(em_cuda_of(r)->dnn, &s, a->scale, y.data, q.data, k.data, v.data, ws,
                       &r->err);
    const em_cuda_attn args = {.y = y.data,
                               .q = q.data,
                               .k = k.data,
                               .v = v.data,
                               .rel_bias = em_tensor_is_empty(a->rel_bias) ? NULL : a->rel_bias.data,
                               .nq = s.nq,
                               .nk = s.nk,
                               .dtype = (int)q.dtype,
                               .batch = (int)s.batch,
                               .heads = a->heads,
                               .dim = (int)s.dim,
                               .scale = a->scale};
    return em_cuda_check(r, em_cuda_attention_launch(&args, em_cuda_of(r)->compute), "attention");
}
