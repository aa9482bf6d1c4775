#include "ops/ref/ref.h"

#include <math.h>

/* One head of one batch entry: where its rows start, and how far apart they are. */
typedef struct head {
    em_tensor q, k, v;
    int64_t q0, k0, stride, dim;
    float scale;
    em_tensor bias; /* (heads, nq + nk - 1) or empty */
    int64_t bias0;  /* entry of key 0 for query 0 */
} head;

static double score(const head *h, int64_t i, int64_t j)
{
    double dot = 0;
    for (int64_t c = 0; c < h->dim; c++)
        dot += (double)em_ref_get(h->q, h->q0 + i * h->stride + c) *
               em_ref_get(h->k, h->k0 + j * h->stride + c);
    double bias = em_tensor_is_empty(h->bias) ? 0 : em_ref_get(h->bias, h->bias0 + j - i);
    return dot * h->scale + bias;
}

/* Softmax in three passes, scores computed anew in each: slow, and nothing to get wrong. */
static void one_query(const head *h, em_tensor y, int64_t i, int64_t nk)
{
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j < nk; j++) top = fmax(top, score(h, i, j));
    for (int64_t j = 0; j < nk; j++) total += exp(score(h, i, j) - top);
    enum { CHUNK = 64 };
    for (int64_t c0 = 0; c0 < h->dim; c0 += CHUNK) {
        int64_t n = h->dim - c0 < CHUNK ? h->dim - c0 : CHUNK;
        double sum[CHUNK] = {0};
        for (int64_t j = 0; j < nk; j++) {
            double p = exp(score(h, i, j) - top) / total;
            for (int64_t c = 0; c < n; c++)
                sum[c] += p * em_ref_get(h->v, h->k0 + j * h->stride + c0 + c);
        }
        for (int64_t c = 0; c < n; c++) em_ref_set(y, h->q0 + i * h->stride + c0 + c, sum[c]);
    }
}

size_t em_ref_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    return (void)r, (void)q, (void)k, (void)a, 0;
}

em_status em_ref_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    (void)r, (void)ws;
    int64_t nq = q.dim[1], nk = k.dim[1], width = q.dim[2], dim = width / a->heads;
    for (int64_t b = 0; b < q.dim[0]; b++)
        for (int64_t n = 0; n < a->heads; n++) {
            head h = {.q = q, .k = k, .v = v, .stride = width, .dim = dim, .scale = a->scale};
            h.q0 = b * nq * width + n * dim;
            h.k0 = b * nk * width + n * dim;
            h.bias = a->rel_bias;
            h.bias0 = n * (nq + nk - 1) + nq - 1;
            for (int64_t i = 0; i < nq; i++) one_query(&h, y, i, nk);
        }
    return EM_OK;
}
