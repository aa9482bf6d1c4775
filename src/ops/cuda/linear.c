/* y = act(x W^T + b) on cuBLASLt.
 *
 * Bias and activation ride in the product's epilogue where cuBLASLt has one for them and the bias
 * has y's type. Everything else goes through float32 sums and one own kernel that adds, activates
 * and rounds once; weights of another type than x go through a converted copy. Both work on a
 * bounded piece at a time, in the workspace: the sums on rows, the copies on columns of y. Pieces
 * have no influence on the bits (ops/cuda/lt.h). */
#include "ops/cuda/cuda.h"
#include "ops/cuda/linear_kernels.h"
#include "ops/cuda/lt.h"

enum {
    SUMS_BYTES = 16 << 20,    /* of float32 sums at a time, about */
    WEIGHTS_BYTES = 64 << 20, /* of converted weights at a time, about */
    COLUMNS = 64              /* pieces of columns are multiples of this */
};

typedef struct linear {
    em_run *r;
    em_cuda *c;
    em_tensor y, x, w, b;
    em_act act;
    int64_t rows, n, k;
    int64_t row_piece, col_piece;
    unsigned char *ws, *sums, *weights; /* the workspace: cuBLASLt's, sums, converted weights */
} linear;

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static void *element(em_tensor t, int64_t i)
{
    return (char *)t.data + (size_t)i * em_dtype_bytes(t.dtype);
}

/* A vector from its entry i on; absent when it is empty. */
static emk_tensor part(em_tensor t, int64_t i)
{
    if (em_tensor_is_empty(t)) return (emk_tensor){NULL, EMK_F32};
    return (emk_tensor){element(t, i), (int)t.dtype};
}

/* Fills in the pieces; returns the workspace's size. */
static size_t lay_out(linear *l, unsigned char *ws)
{
    size_t at = EM_LT_WORKSPACE_BYTES;
    l->rows = em_rows(l->x);
    l->n = em_cols(l->y);
    l->k = em_cols(l->x);
    int64_t row_bytes = l->n * (int64_t)sizeof(float);
    l->row_piece = at_most(l->rows, SUMS_BYTES / row_bytes + 1);
    int64_t col_bytes = l->k * (int64_t)em_dtype_bytes(l->x.dtype);
    l->col_piece = l->n;
    if (l->w.dtype != l->x.dtype)
        l->col_piece = at_most(l->n, (WEIGHTS_BYTES / col_bytes / COLUMNS + 1) * COLUMNS);
    l->ws = ws;
    l->sums = ws ? ws + at : NULL;
    if (l->x.dtype != EM_F32) at += aligned((size_t)(l->row_piece * row_bytes));
    l->weights = ws ? ws + at : NULL;
    if (l->w.dtype != l->x.dtype) at += aligned((size_t)(l->col_piece * col_bytes));
    return at;
}

size_t em_cuda_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    linear l = {.r = r, .y = y, .x = x, .w = w};
    return em_tensor_count(y) == 0 ? 0 : lay_out(&l, NULL);
}

/* Columns [col, col + p->n) of y through float32 sums, a few rows at a time. */
static em_status through_sums(const linear *l, em_lt_product p, int64_t col)
{
    p.bias = NULL;
    p.act = EM_ACT_NONE;
    p.d_type = EM_F32;
    p.d = l->sums;
    p.d_step = p.n;
    for (int64_t row = 0; row < l->rows; row += l->row_piece) {
        p.x = element(l->x, row * l->k);
        p.rows = at_most(l->row_piece, l->rows - row);
        em_status st = em_lt_multiply(l->c->lt, &p, l->ws, l->c->compute, &l->r->err);
        if (st) return st;
        emk_tensor y = {element(l->y, row * l->n + col), (int)l->y.dtype};
        st = em_cuda_check(l->r,
                           emk_linear_finish(y, l->n, (const float *)l->sums, part(l->b, col),
                                             (int)l->act, p.rows, p.n, l->c->compute),
                           "bias and activation");
        if (st) return st;
    }
    return EM_OK;
}

/* All rows of columns [col, col + count). */
static em_status some_columns(const linear *l, int64_t col, int64_t count)
{
    em_lt_product p = {.d = element(l->y, col),
                       .x = l->x.data,
                       .w = element(l->w, col * l->k),
                       .rows = l->rows,
                       .n = count,
                       .k = l->k,
                       .d_step = l->n,
                       .type = l->x.dtype,
                       .d_type = l->y.dtype};
    bool empty = em_tensor_is_empty(l->b);
    if (l->w.dtype != l->x.dtype) {
        emk_tensor to = {l->weights, (int)l->x.dtype}, from = part(l->w, col * l->k);
        em_status st =
            em_cuda_check(l->r, emk_copy_cols(to, l->k, from, l->k, count, l->k, l->c->compute),
                          "conversion of weights");
        if (st) return st;
        p.w = l->weights;
    }
    if (l->x.dtype != EM_F32) {
        if (!em_lt_fuses(l->act) || (!empty && l->b.dtype != l->y.dtype))
            return through_sums(l, p, col);
        p.act = l->act;
        p.bias = empty ? NULL : element(l->b, col);
    }
    return em_lt_multiply(l->c->lt, &p, l->ws, l->c->compute, &l->r->err);
}

/* Float32: y is its own sums. */
static em_status finish_wide(const linear *l)
{
    if (l->x.dtype != EM_F32 || (em_tensor_is_empty(l->b) && l->act == EM_ACT_NONE)) return EM_OK;
    return em_cuda_check(l->r,
                         emk_linear_finish(em_cuda_arg(l->y), l->n, l->y.data, part(l->b, 0),
                                           (int)l->act, l->rows, l->n, l->c->compute),
                         "bias and activation");
}

em_status em_cuda_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                         void *ws)
{
    linear l = {.r = r, .c = em_cuda_of(r), .y = y, .x = x, .w = w, .b = b, .act = act};
    if (em_tensor_count(y) == 0) return EM_OK;
    if (!l.c->lt) return em_fail(&r->err, EM_DEVICE, "linear: cuBLASLt could not be opened");
    lay_out(&l, ws);
    em_status st = EM_OK;
    for (int64_t col = 0; !st && col < l.n; col += l.col_piece)
        st = some_columns(&l, col, at_most(l.col_piece, l.n - col));
    if (!st) st = finish_wide(&l);
    if (st)
        em_err_prefix(&r->err, "linear (%lld, %lld) x (%lld, %lld)^T", (long long)l.rows,
                      (long long)l.k, (long long)l.n, (long long)l.k);
    return st;
}

/* Bytes from each tensor to the next, where that is the same all along; 0: it is not. */
static int64_t step_of(int n, const em_tensor *t)
{
    int64_t step = (const char *)t[1].data - (const char *)t[0].data;
    for (int i = 2; i < n; i++)
        if ((const char *)t[i].data - (const char *)t[i - 1].data != step) return 0;
    return step;
}

/* All layers as one product, where cuBLASLt can make it so: 16 bits throughout, and weights that
 * lie in equal steps, as a group's image has them. */
static bool as_batch(const em_cuda *c, em_lt_product *p, int n, em_tensor y, em_tensor x,
                     const em_tensor *w, const em_tensor *b)
{
    int64_t size = (int64_t)em_dtype_bytes(x.dtype);
    if (n < 2 || x.dtype == EM_F32 || w[0].dtype != x.dtype || b[0].dtype != x.dtype) return false;
    if (em_tensor_is_empty(b[0])) return false;
    int64_t w_bytes = step_of(n, w), bias_bytes = step_of(n, b);
    if (w_bytes <= 0 || bias_bytes <= 0 || w_bytes % size || bias_bytes % size) return false;
    *p = (em_lt_product){.d = y.data,
                         .x = x.data,
                         .w = w[0].data,
                         .bias = b[0].data,
                         .rows = em_rows(x),
                         .n = em_cols(y),
                         .k = em_cols(x),
                         .d_step = em_cols(y),
                         .batch = n,
                         .w_step = w_bytes / size,
                         .bias_step = bias_bytes / size,
                         .type = x.dtype,
                         .d_type = y.dtype};
    return c->lt && em_lt_has(c->lt, p);
}

em_status em_cuda_linears(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                          const em_tensor *b, void *ws)
{
    em_cuda *c = em_cuda_of(r);
    em_lt_product p;
    if (em_tensor_count(y) == 0) return EM_OK;
    if (as_batch(c, &p, n, y, x, w, b)) {
        em_status st = em_lt_multiply(c->lt, &p, ws, c->compute, &r->err);
        if (st) em_err_prefix(&r->err, "%d linears at once", n);
        return st;
    }
    em_status st = EM_OK;
    for (int i = 0; !st && i < n; i++)
        st = em_cuda_linear(r, em_at(y, i), x, w[i], b[i], EM_ACT_NONE, ws);
    return st;
}
