/* Attention: cuDNN's node where the keys are many and the card is Hopper, the own kernels
 * elsewhere.
 *
 *     Hopper, 16 bits, 1,024 keys or more, heads of 8, 16, … 128, no bias     cuDNN
 *     everything else, and where cuDNN is absent or has no engine             attention_kernels.cu
 *
 * The way is a property of the layer (its keys and heads), never of the number of queries, and
 * neither way lets a query's bits depend on the other queries: queries may be cut at will. */
#include "ops/cuda/attention_kernels.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/sdpa.h"

/* Fewer keys are soon read; then q and y are the work, and the own kernel does it as well. */
enum { MANY_KEYS = 1024, LIBRARY_DIM = 128, HOPPER = 90 };

/* What a layer is to cuDNN; false: it is for the own kernels. */
static bool library_shape(em_sdpa_shape *s, const em_cuda *c, em_tensor q, em_tensor k,
                          const em_attn *a)
{
    *s = (em_sdpa_shape){.type = q.dtype,
                         .batch = q.dim[0],
                         .nq = q.dim[1],
                         .nk = k.dim[1],
                         .heads = a->heads,
                         .dim = q.dim[2] / a->heads};
    return c->dnn && c->cc == HOPPER && q.dtype != EM_F32 && em_tensor_is_empty(a->rel_bias) &&
           s->nk >= MANY_KEYS && s->dim % 8 == 0 && s->dim <= LIBRARY_DIM;
}

/* Whether cuDNN does it, and the scratch that it takes then. */
static bool library_does(em_sdpa_shape *s, size_t *workspace_bytes, const em_cuda *c, em_tensor q,
                         em_tensor k, const em_attn *a)
{
    em_err refusal = {0};
    return library_shape(s, c, q, k, a) && !em_sdpa_workspace(c->dnn, s, workspace_bytes, &refusal);
}

static em_status own(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                     const em_attn *a)
{
    const em_cuda_attn job = {.y = y.data,
                              .q = q.data,
                              .k = k.data,
                              .v = v.data,
                              .rel_bias = a->rel_bias.data,
                              .nq = q.dim[1],
                              .nk = k.dim[1],
                              .dtype = (int)q.dtype,
                              .batch = (int)q.dim[0],
                              .heads = a->heads,
                              .dim = (int)(q.dim[2] / a->heads),
                              .scale = a->scale};
    return em_cuda_check(r, em_cuda_attention_launch(&job, em_cuda_of(r)->compute), "attention");
}

size_t em_cuda_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    em_sdpa_shape s;
    size_t bytes = 0;
    if (em_tensor_count(q) == 0) return 0;
    return library_does(&s, &bytes, em_cuda_of(r), q, k, a) ? bytes : 0;
}

em_status em_cuda_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                            const em_attn *a, void *ws)
{
    const em_cuda *c = em_cuda_of(r);
    em_sdpa_shape s;
    size_t bytes = 0;
    if (em_tensor_count(y) == 0) return EM_OK;
    em_status st = library_does(&s, &bytes, c, q, k, a)
                       ? em_sdpa(c->dnn, &s, a->scale, y.data, q.data, k.data, v.data, ws, &r->err)
                       : own(r, y, q, k, v, a);
    if (st)
        em_err_prefix(&r->err, "attention (%lld, %lld, %lld) to %lld keys, %d heads",
                      (long long)q.dim[0], (long long)q.dim[1], (long long)q.dim[2],
                      (long long)k.dim[1], a->heads);
    return st;
}
