/* Elementwise ops: memory speed is all there is to gain, so pieces are long and buffers are on the
 * stack.
 *
 * Ops without a vector over the channels see x as flat; the others take blocks of rows, chunk of
 * columns by chunk, and convert the vectors once a block. */
#include "ops/cpu/cpu.h"

enum { FLAT = 1 << 16, ROWS = 64 };

typedef struct elementwise {
    em_tensor x, a, b;
    em_binary kind;
    em_act act;
    const em_vec *vec;
    const em_tensor *terms;
    const float *factor;
    int count; /* terms of a linear combination, heads of a rotation */
} elementwise;

static void load(const elementwise *e, float *to, em_tensor t, int64_t at, size_t n)
{
    e->vec->convert(to, EM_F32, em_cpu_at(t, at), t.dtype, n);
}

static void store(const elementwise *e, em_tensor t, int64_t at, const float *from, size_t n)
{
    e->vec->convert(em_cpu_at(t, at), t.dtype, from, EM_F32, n);
}

/* ---- flat ------------------------------------------------------------------------------------ */

typedef void (*chunk_fn)(const elementwise *e, float *v, int64_t at, size_t n);

static void each_chunk(const elementwise *e, size_t index, chunk_fn fn)
{
    float v[EM_VEC_CHUNK];
    int64_t begin = (int64_t)index * FLAT, end = em_cpu_min(begin + FLAT, em_tensor_count(e->x));
    for (int64_t at = begin; at < end; at += EM_VEC_CHUNK) {
        size_t n = (size_t)em_cpu_min(EM_VEC_CHUNK, end - at);
        fn(e, v, at, n);
        store(e, e->x, at, v, n);
    }
}

static size_t flat_pieces(em_tensor x)
{
    return (size_t)em_cpu_ceil_div(em_tensor_count(x), FLAT);
}

static void act_chunk(const elementwise *e, float *v, int64_t at, size_t n)
{
    load(e, v, e->x, at, n);
    e->vec->act(v, e->act, n);
}

static void act_piece(void *arg, size_t index, int worker)
{
    (void)worker;
    each_chunk(arg, index, act_chunk);
}

em_status em_cpu_act(em_run *r, em_tensor x, em_act act)
{
    elementwise e = {.x = x, .act = act, .vec = em_vec_best()};
    em_run_parallel(r, flat_pieces(x), act_piece, &e);
    return EM_OK;
}

static void same_shape_chunk(const elementwise *e, float *v, int64_t at, size_t n)
{
    float a[EM_VEC_CHUNK];
    load(e, v, e->x, at, n);
    load(e, a, e->a, at, n);
    (e->kind == EM_BINARY_ADD ? e->vec->add : e->vec->mul)(v, a, n);
}

static void same_shape_piece(void *arg, size_t index, int worker)
{
    (void)worker;
    each_chunk(arg, index, same_shape_chunk);
}

static void lincomb_chunk(const elementwise *e, float *v, int64_t at, size_t n)
{
    for (size_t i = 0; i < n; i++) v[i] = 0;
    for (int k = 0; k < e->count; k++)
        e->vec->add_scaled(v, em_cpu_at(e->terms[k], at), e->factor[k], n);
}

static void lincomb_piece(void *arg, size_t index, int worker)
{
    (void)worker;
    each_chunk(arg, index, lincomb_chunk);
}

em_status em_cpu_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c)
{
    elementwise e = {.x = y, .terms = x, .factor = c, .count = n, .vec = em_vec_best()};
    em_run_parallel(r, flat_pieces(y), lincomb_piece, &e);
    return EM_OK;
}

/* ---- by rows --------------------------------------------------------------------------------- */

static void affine_rows(void *arg, size_t index, int worker)
{
    (void)worker;
    const elementwise *e = arg;
    float v[EM_VEC_CHUNK], a[EM_VEC_CHUNK], b[EM_VEC_CHUNK];
    int64_t cols = em_cols(e->x), begin = (int64_t)index * ROWS;
    int64_t end = em_cpu_min(begin + ROWS, em_rows(e->x));
    for (int64_t c = 0; c < cols; c += EM_VEC_CHUNK) {
        size_t n = (size_t)em_cpu_min(EM_VEC_CHUNK, cols - c);
        bool gated = e->kind == EM_BINARY_GATED_ADD;
        load(e, b, e->b, c, n);
        if (!gated) load(e, a, e->a, c, n);
        for (int64_t m = begin; m < end; m++) {
            int64_t at = m * cols + c;
            load(e, v, e->x, at, n);
            if (gated) { /* x + a b */
                load(e, a, e->a, at, n);
                e->vec->mul(a, b, n);
                e->vec->add(v, a, n);
            } else { /* x a + b */
                e->vec->mul(v, a, n);
                e->vec->add(v, b, n);
            }
            store(e, e->x, at, v, n);
        }
    }
}

em_status em_cpu_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    elementwise e = {.x = x, .a = a, .b = b, .kind = kind, .vec = em_vec_best()};
    if (kind == EM_BINARY_ADD || kind == EM_BINARY_MUL)
        em_run_parallel(r, flat_pieces(x), same_shape_piece, &e);
    else
        em_run_parallel(r, (size_t)em_cpu_ceil_div(em_rows(x), ROWS), affine_rows, &e);
    return EM_OK;
}

static void rope_rows(void *arg, size_t index, int worker)
{
    (void)worker;
    const elementwise *e = arg;
    float v[EM_VEC_CHUNK];
    int64_t cols = em_cols(e->x), d = cols / e->count, begin = (int64_t)index * ROWS;
    int64_t end = em_cpu_min(begin + ROWS, em_rows(e->x));
    for (int64_t m = begin; m < end; m++)
        for (int64_t h = 0; h < e->count; h++)
            for (int64_t c = 0; c < d;
                 c += EM_VEC_CHUNK) { /* d and the chunk are even: pairs stay whole */
                size_t n = (size_t)em_cpu_min(EM_VEC_CHUNK, d - c);
                load(e, v, e->x, m * cols + h * d + c, n);
                e->vec->rope(v, em_cpu_at(e->a, m * d + c), n / 2);
                store(e, e->x, m * cols + h * d + c, v, n);
            }
}

em_status em_cpu_rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    elementwise e = {.x = x, .a = table, .count = heads, .vec = em_vec_best()};
    em_run_parallel(r, (size_t)em_cpu_ceil_div(em_rows(x), ROWS), rope_rows, &e);
    return EM_OK;
}
