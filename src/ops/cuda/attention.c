/* Attention: cuDNN's node where the keys are many and the card is Hopper, the own kernels
 * elsewhere.
 *
 *     Hopper, 16 bits, 1,024 keys or more, heads of 128, no bias              cuDNN
 *     everything else, and where cuDNN is absent or has no engine             attention_kernels.cu
 *
 * The way is a property of the layer (its keys and heads), never of the number of queries, and
 * neither way lets a query's bits depend on the other queries: queries may be cut at will. */
#include "ops/cuda/attention_kernels.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/sdpa.h"

/* Fewer keys are soon read; then q and y are the work, and the own kernel does it as well. */
enum { MANY_KEYS = 1024, LIBRARY_DIM = 128, HOPPER = 90 };

typedef struct attention {
    em_run *r;
    const em_cuda *c;
    em_tensor y, q, k, v;
    const em_attn *a;
    bool library;        /* cuDNN does it */
    em_sdpa_shape shape; /* what it sees: two queries at least, as its engines demand */
    size_t library_bytes, lone_bytes; /* in the workspace: its scratch; a lone query twice */
} attention;

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static bool for_library(const attention *t)
{
    const em_sdpa_shape *s = &t->shape;
    return t->c->dnn && t->c->cc == HOPPER && t->q.dtype != EM_F32 &&
           em_tensor_is_empty(t->a->rel_bias) && s->nk >= MANY_KEYS && s->dim == LIBRARY_DIM;
}

/* Decides and measures; returns the workspace's size. */
static size_t open_attention(attention *t, em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    em_err refusal = {0};
    *t = (attention){.r = r, .c = em_cuda_of(r), .q = q, .k = k, .a = a};
    t->shape = (em_sdpa_shape){.type = q.dtype,
                               .batch = q.dim[0],
                               .nq = q.dim[1] > 1 ? q.dim[1] : 2,
                               .nk = k.dim[1],
                               .heads = a->heads,
                               .dim = q.dim[2] / a->heads};
    size_t bytes = 0;
    t->library = for_library(t) && !em_sdpa_workspace(t->c->dnn, &t->shape, &bytes, &refusal);
    if (!t->library) return 0;
    t->library_bytes = aligned(bytes);
    if (q.dim[1] == 1) t->lone_bytes = aligned(2 * em_tensor_bytes(q));
    return t->library_bytes + 2 * t->lone_bytes;
}

static em_status run_library(const attention *t, void *y, const void *q, void *ws)
{
    return em_sdpa(t->c->dnn, &t->shape, t->a->scale, y, q, t->k.data, t->v.data, ws, &t->r->err);
}

/* One query a batch entry goes as two equal ones. */
static em_status run_lone_query(const attention *t, unsigned char *ws)
{
    const int64_t batch = t->q.dim[0], width = t->q.dim[2];
    const int type = (int)t->q.dtype;
    unsigned char *q = ws + t->library_bytes, *y = q + t->lone_bytes;
    cudaStream_t s = t->c->compute;
    emk_tensor first = {q, type}, second = {q + em_tensor_bytes(t->q) / (size_t)batch, type};
    cudaError_t rc = emk_copy_cols(first, 2 * width, em_cuda_arg(t->q), width, batch, width, s);
    if (!rc) rc = emk_copy_cols(second, 2 * width, em_cuda_arg(t->q), width, batch, width, s);
    em_status st = em_cuda_check(t->r, rc, "copy of the query");
    if (!st) st = run_library(t, y, q, ws);
    if (st) return st;
    emk_tensor both = {y, type};
    rc = emk_copy_cols(em_cuda_arg(t->y), width, both, 2 * width, batch, width, s);
    return em_cuda_check(t->r, rc, "copy of the result");
}

static em_status run_own(const attention *t)
{
    const em_cuda_attn job = {.y = t->y.data,
                              .q = t->q.data,
                              .k = t->k.data,
                              .v = t->v.data,
                              .rel_bias = t->a->rel_bias.data,
                              .nq = t->q.dim[1],
                              .nk = t->k.dim[1],
                              .dtype = (int)t->q.dtype,
                              .batch = (int)t->q.dim[0],
                              .heads = t->a->heads,
                              .dim = (int)t->shape.dim,
                              .scale = t->a->scale};
    return em_cuda_check(t->r, em_cuda_attention_launch(&job, t->c->compute), "own kernel");
}

size_t em_cuda_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    attention t;
    return em_tensor_count(q) == 0 ? 0 : open_attention(&t, r, q, k, a);
}

em_status em_cuda_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                            const em_attn *a, void *ws)
{
    attention t;
    em_status st;
    if (em_tensor_count(y) == 0) return EM_OK;
    open_attention(&t, r, q, k, a);
    t.y = y;
    t.v = v;
    if (!t.library)
        st = run_own(&t);
    else if (t.lone_bytes)
        st = run_lone_query(&t, ws);
    else
        st = run_library(&t, y.data, q.data, ws);
    if (st)
        em_err_prefix(&r->err, "attention (%lld, %lld, %lld) to %lld keys, %d heads",
                      (long long)q.dim[0], (long long)q.dim[1], (long long)q.dim[2],
                      (long long)k.dim[1], a->heads);
    return st;
}
