/* Attention in tiles, with the softmax carried along (Dao et al. 2022, arXiv 2205.14135).
 *
 * One task: a tile of queries of one head. It walks over the tiles of keys; per query it keeps the
 * largest score so far, `top`, the sum of e^(score - top), `total`, and the likewise weighted sum
 * of values, O:
 *
 *     S = scale Q K_j^T + bias                 (QUERIES, KEYS) float32, by oneDNN
 *     new = max(top, max S)
 *     P = e^(S - new)                          rounded to the compute type for the product
 *     total = total e^(top - new) + sum P
 *     O = O e^(top - new) + P V_j              (QUERIES, d) float32, by oneDNN, accumulating
 *     top = new
 *
 * and divides O by total at the end. Scratch is a few tiles a worker plus, once a call, all keys
 * and values packed for oneDNN in the compute type (phase 1, in parallel); never an Nq x Nk buffer.
 *
 * Tiles come from the shape alone, and queries in two heights for which oneDNN sums in the same
 * order (linear.c tells why), so that no query's result depends on how many others there are. The
 * last tiles are padded: zero queries whose results are
 * dropped, zero keys whose scores are not looked at and whose weights are zero. So two primitives
 * serve a call. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/dnnl.h"
#include "ops/cpu/scalar.h"

#include <float.h>
#include <stdatomic.h>
#include <string.h>

enum { QUERIES = 128, SHORT = 64, KEYS = 512 };

typedef struct attention {
    em_tensor y, q, k, v;
    const em_attn *a;
    const em_vec *vec;
    em_dtype type; /* compute type of Q, K, V, P */
    int64_t batch, nq, nk, width, d;
    int64_t queries, q_tiles; /* rows of a query tile, tiles */
    int64_t keys, k_tiles;
    em_dnnl score, mix;      /* Q K^T and P V */
    size_t slot_bytes, v_at; /* a packed key tile; where its values start */
    size_t s_at, p_at, o_at, stats_at, scratch_at,
        worker_bytes; /* a worker's scratch; Q or a tile of K first */
    size_t workers_at, total_bytes;
    unsigned char *ws;
    atomic_int status;
} attention;

/* ---- opening --------------------------------------------------------------------------------- */

static void cut(attention *t)
{
    t->queries = t->nq > SHORT ? QUERIES : SHORT;
    t->q_tiles = em_cpu_ceil_div(t->nq, t->queries);
    t->k_tiles = em_cpu_ceil_div(t->nk, KEYS);
    t->keys = em_cpu_round_up(em_cpu_ceil_div(t->nk, t->k_tiles), 32);
}

static void lay_out(attention *t, int workers)
{
    size_t size = em_dtype_bytes(t->type);
    size_t queries = (size_t)t->queries, keys = (size_t)t->keys, d = (size_t)t->d;
    t->v_at = em_cpu_aligned(t->score.packed_bytes);
    t->slot_bytes = t->v_at + em_cpu_aligned(t->mix.packed_bytes);
    size_t rows = queries > keys ? queries : keys; /* phase 1 stages K and V where phase 2 has Q */
    t->s_at = em_cpu_aligned(rows * d * size);
    t->p_at = t->s_at + em_cpu_aligned(queries * keys * sizeof(float));
    /* P in float32 is S itself. */
    t->o_at = t->p_at + (t->type == EM_F32 ? 0 : em_cpu_aligned(queries * keys * size));
    t->stats_at = t->o_at + em_cpu_aligned(queries * d * sizeof(float));
    t->scratch_at = t->stats_at + em_cpu_aligned(2 * queries * sizeof(float));
    t->worker_bytes = t->scratch_at + em_cpu_aligned(em_cpu_max_bytes(t->score.scratch_bytes,
                                                                      t->mix.scratch_bytes));
    t->workers_at = (size_t)(t->batch * t->a->heads * t->k_tiles) * t->slot_bytes;
    t->total_bytes = t->workers_at + (size_t)workers * t->worker_bytes;
}

static void close_all(attention *t)
{
    em_dnnl_close(&t->score);
    em_dnnl_close(&t->mix);
}

static em_status open_all(attention *t, em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    *t = (attention){.q = q, .k = k, .a = a, .type = em_cpu_product_type(q), .vec = em_vec_best()};
    t->batch = q.dim[0];
    t->nq = q.dim[1];
    t->nk = k.dim[1];
    t->width = q.dim[2];
    t->d = t->width / a->heads;
    cut(t);
    /* Keys and values are staged as dense (keys, d): K^T has its rows at distance 1. */
    em_dnnl_matmul s = {.type = t->type, .m = t->queries, .n = t->keys, .k = t->d};
    s.step_k = 1;
    s.step_n = t->d;
    em_status st = em_dnnl_open_matmul(&t->score, &s);
    s.n = t->d;
    s.k = t->keys;
    s.step_k = t->d;
    s.step_n = 1;
    s.accumulate = true;
    if (!st) st = em_dnnl_open_matmul(&t->mix, &s);
    if (st)
        close_all(t);
    else
        lay_out(t, em_pool_threads(r->pool));
    return st;
}

/* ---- both phases ----------------------------------------------------------------------------- */

static unsigned char *worker_scratch(const attention *t, int worker)
{
    return t->ws + t->workers_at + (size_t)worker * t->worker_bytes;
}

static void note(attention *t, em_status st)
{
    if (st) atomic_store(&t->status, (int)st);
}

/* Rows [row, row + n) of one head of x (B, rows, width), dense in the compute type, up to `padded`
 * rows with zeros. */
static void stage(const attention *t, unsigned char *to, em_tensor x, int64_t b, int64_t h,
                  int64_t row, int64_t padded)
{
    int64_t have = em_cpu_min(padded, x.dim[1] - row);
    size_t row_bytes = (size_t)t->d * em_dtype_bytes(t->type);
    for (int64_t i = 0; i < have; i++)
        t->vec->convert(to + (size_t)i * row_bytes, t->type,
                        em_cpu_at(x, (b * x.dim[1] + row + i) * t->width + h * t->d), x.dtype,
                        (size_t)t->d);
    memset(to + (size_t)have * row_bytes, 0, (size_t)(padded - have) * row_bytes);
}

/* ---- phase 1: keys and values ---------------------------------------------------------------- */

static void pack_tile(void *arg, size_t index, int worker)
{
    attention *t = arg;
    int64_t tile = (int64_t)index % t->k_tiles, bh = (int64_t)index / t->k_tiles;
    int64_t b = bh / t->a->heads, h = bh % t->a->heads;
    unsigned char *scratch = worker_scratch(t, worker), *slot = t->ws + index * t->slot_bytes;
    stage(t, scratch, t->k, b, h, tile * t->keys, t->keys);
    note(t, em_dnnl_pack(&t->score, slot, scratch, scratch + t->scratch_at));
    stage(t, scratch, t->v, b, h, tile * t->keys, t->keys);
    note(t, em_dnnl_pack(&t->mix, slot + t->v_at, scratch, scratch + t->scratch_at));
}

/* ---- phase 2: queries ------------------------------------------------------------------------ */

/* A tile of queries on its way through the keys. */
typedef struct walk {
    attention *t;
    int64_t b, h, row, have;
    unsigned char *scratch, *p;
    float *s, *o, *top, *total;
} walk;

/* The softmax of one query over one tile of keys: S becomes P, top, total and O move on. */
static void fold_scores(const walk *w, int64_t i, int64_t key, int64_t keys)
{
    const attention *t = w->t;
    float *s = w->s + i * t->keys, *o = w->o + i * t->d;
    const float *bias = NULL;
    if (!em_tensor_is_empty(t->a->rel_bias))
        bias = (const float *)t->a->rel_bias.data + w->h * (t->nq + t->nk - 1) + t->nq - 1 -
               (w->row + i) + key;
    float top = t->vec->top_score(s, t->a->scale, bias, w->top[i], (size_t)keys);
    float shrink = em_exp(w->top[i] - top);
    w->total[i] =
        w->total[i] * shrink + t->vec->exp_scores(s, t->a->scale, bias, top, (size_t)keys);
    w->top[i] = top;
    for (int64_t c = 0; c < t->d; c++) o[c] *= shrink;
    memset(s + keys, 0, (size_t)(t->keys - keys) * sizeof *s);
    if (t->type != EM_F32)
        t->vec->convert(w->p + (size_t)(i * t->keys) * em_dtype_bytes(t->type), t->type, s, EM_F32,
                        (size_t)t->keys);
}

static void finish_queries(const walk *w)
{
    const attention *t = w->t;
    for (int64_t i = 0; i < w->have; i++) {
        float *o = w->o + i * t->d;
        t->vec->centre(o, 0, 0, 1 / w->total[i], (size_t)t->d);
        t->vec->convert(em_cpu_at(t->y, (w->b * t->nq + w->row + i) * t->width + w->h * t->d),
                        t->y.dtype, o, EM_F32, (size_t)t->d);
    }
}

static void run_task(void *arg, size_t index, int worker)
{
    attention *t = arg;
    int64_t tile = (int64_t)index % t->q_tiles, bh = (int64_t)index / t->q_tiles;
    walk w = {.t = t, .b = bh / t->a->heads, .h = bh % t->a->heads, .row = tile * t->queries};
    w.have = em_cpu_min(t->queries, t->nq - w.row);
    w.scratch = worker_scratch(t, worker);
    w.s = (float *)(w.scratch + t->s_at);
    w.p = w.scratch + (t->type == EM_F32 ? t->s_at : t->p_at);
    w.o = (float *)(w.scratch + t->o_at);
    w.top = (float *)(w.scratch + t->stats_at);
    w.total = w.top + t->queries;
    for (int64_t i = 0; i < t->queries; i++) {
        w.top[i] = -FLT_MAX;
        w.total[i] = 0;
    }
    memset(w.o, 0, (size_t)(t->queries * t->d) * sizeof *w.o);
    memset(w.p, 0, (size_t)(t->queries * t->keys) * em_dtype_bytes(t->type));
    stage(t, w.scratch, t->q, w.b, w.h, w.row, t->queries);
    for (int64_t j = 0; j < t->k_tiles; j++) {
        const unsigned char *slot = t->ws + (size_t)(bh * t->k_tiles + j) * t->slot_bytes;
        int64_t key = j * t->keys, keys = em_cpu_min(t->keys, t->nk - key);
        note(t, em_dnnl_run(&t->score, w.s, w.scratch, slot, w.scratch + t->scratch_at));
        for (int64_t i = 0; i < w.have; i++) fold_scores(&w, i, key, keys);
        note(t, em_dnnl_run(&t->mix, w.o, w.p, slot + t->v_at, w.scratch + t->scratch_at));
    }
    finish_queries(&w);
}

/* ---- the kernel ------------------------------------------------------------------------------ */

size_t em_cpu_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    attention t;
    if (em_run_stopped(r) || em_tensor_count(q) == 0) return 0;
    em_status st = open_all(&t, r, q, k, a);
    if (st) {
        em_run_fail(r, st, "attention: oneDNN has no kernel for heads of %lld channels",
                    (long long)(q.dim[2] / a->heads));
        return 0;
    }
    close_all(&t);
    return t.total_bytes;
}

em_status em_cpu_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    attention t;
    if (em_tensor_count(y) == 0) return EM_OK;
    em_status st = open_all(&t, r, q, k, a);
    if (st) return st;
    t.y = y;
    t.v = v;
    t.ws = ws;
    em_run_parallel(r, (size_t)(t.batch * a->heads * t.k_tiles), pack_tile, &t);
    if (!atomic_load(&t.status))
        em_run_parallel(r, (size_t)(t.batch * a->heads * t.q_tiles), run_task, &t);
    close_all(&t);
    return (em_status)atomic_load(&t.status);
}
