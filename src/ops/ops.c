/* The wrappers: check once, take the result from the run's scratch, ask for workspace, dispatch. */
#include "base/hash.h"
#include "ops/table.h"

#include <string.h>

#define EMPTY ((em_tensor){0})

/* "linear: (4, 8) and (3, 9) do not fit" */
static em_tensor misfit(em_run *r, const char *op, em_tensor a, em_tensor b)
{
    char sa[80], sb[80];
    return em_run_fail(r, EM_INVAL, "%s: shapes %s and %s do not fit", op,
                       em_shape_text(sa, a.dim, a.ndim), em_shape_text(sb, b.dim, b.ndim));
}

/* A kernel's status: keeps its sentence, or makes one. */
static em_tensor done(em_run *r, em_status st, const char *op, em_tensor y)
{
    if (!st) return y;
    char shape[80];
    return em_run_fail(r, st, "%s %s: %s", op, em_shape_text(shape, y.dim, y.ndim),
                       em_status_text(st));
}

static em_tensor workspace(em_run *r, size_t bytes)
{
    return em_run_tensor(r, EM_U8, EM_SHAPE((int64_t)bytes));
}

/* ---- sizes that were asked for before -------------------------------------------------------- */

static uint64_t add_shape(uint64_t key, em_tensor t)
{
    const int64_t head[2] = {(int64_t)t.dtype, t.ndim};
    key = em_fnv1a64(key, head, sizeof head);
    return em_fnv1a64(key, t.dim, (size_t)t.ndim * sizeof *t.dim);
}

static uint64_t key_of(em_run *r, int op, em_tensor a, em_tensor b, em_tensor c)
{
    const int64_t head[2] = {op, (int64_t)r->dtype};
    uint64_t key = em_fnv1a64(EM_FNV1A64_INIT, head, sizeof head);
    return add_shape(add_shape(add_shape(key, a), b), c);
}

/* The entry of a key: found, or free; NULL when the memo is full. */
static size_t *recall(em_memo *m, uint64_t key, bool *found)
{
    size_t i = (size_t)(key % EM_MEMO_ENTRIES);
    while (m->key[i] && m->key[i] != key) i = (i + 1) % EM_MEMO_ENTRIES;
    *found = m->key[i] == key;
    if (*found) return &m->bytes[i];
    if (m->count + 1 == EM_MEMO_ENTRIES) return NULL;
    m->key[i] = key;
    m->count++;
    return &m->bytes[i];
}

enum { LINEAR, ATTENTION, CONV };

static size_t linear_size(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    bool found = false;
    size_t *at = r->memo ? recall(r->memo, key_of(r, LINEAR, y, x, w), &found) : NULL;
    if (found) return *at;
    size_t bytes = r->ops->linear_workspace(r, y, x, w);
    if (at) *at = bytes;
    return bytes;
}

static size_t attention_size(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    bool found = false;
    uint64_t key = key_of(r, ATTENTION, q, k, a->rel_bias);
    key = em_fnv1a64(key, &a->heads, sizeof a->heads);
    size_t *at = r->memo ? recall(r->memo, key, &found) : NULL;
    if (found) return *at;
    size_t bytes = r->ops->attention_workspace(r, q, k, a);
    if (at) *at = bytes;
    return bytes;
}

static size_t conv_size(em_run *r, em_tensor y, const em_conv_args *c)
{
    bool found = false;
    uint64_t key = add_shape(add_shape(key_of(r, CONV, y, c->x, c->w), c->past), c->b);
    const int rest[2] = {c->groups, c->upsample_2x};
    key = em_fnv1a64(key, c->stride, sizeof c->stride);
    key = em_fnv1a64(key, c->pad_before, sizeof c->pad_before);
    key = em_fnv1a64(key, c->pad_after, sizeof c->pad_after);
    key = em_fnv1a64(key, rest, sizeof rest);
    size_t *at = r->memo ? recall(r->memo, key, &found) : NULL;
    if (found) return *at;
    size_t bytes = r->ops->conv_workspace(r, y, c);
    if (at) *at = bytes;
    return bytes;
}

static bool vector_fits(em_tensor v, int64_t c)
{
    return em_tensor_is_empty(v) || (em_tensor_count(v) == c && em_dtype_is_float(v.dtype));
}

static em_tensor like(em_run *r, em_tensor x, em_dtype dtype)
{
    return em_run_tensor(r, dtype, x.dim, x.ndim);
}

/* x's leading dimensions with another last one. */
static em_tensor with_cols(em_run *r, em_tensor x, int64_t cols)
{
    int64_t dim[EM_MAX_DIMS];
    memcpy(dim, x.dim, sizeof dim);
    dim[x.ndim - 1] = cols;
    return em_run_tensor(r, x.dtype, dim, x.ndim);
}

/* ---- matrix products ------------------------------------------------------------------------- */

/* y = act(x W^T + b) with room for the kernel behind y. */
static em_tensor linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act)
{
    em_mark m = em_run_mark(r);
    em_tensor ws = workspace(r, em_run_stopped(r) ? 0 : linear_size(r, y, x, w));
    if (em_run_stopped(r)) return EMPTY;
    r->flops += 2.0 * (double)em_tensor_count(y) * (double)em_cols(w);
    r->products++;
    em_status st = r->ops->linear(r, y, x, w, b, act, ws.data);
    em_run_release(r, m);
    return done(r, st, "linear", y);
}

em_tensor em_linear(em_run *r, em_tensor x, em_tensor w, em_tensor b, em_act act)
{
    if (em_run_stopped(r)) return EMPTY;
    if (w.ndim != 2 || em_cols(x) != em_cols(w) || !vector_fits(b, w.dim[0]))
        return misfit(r, "linear", x, w);
    return linear(r, with_cols(r, x, w.dim[0]), x, w, b, act);
}

static bool alike(em_tensor a, em_tensor b)
{
    return a.dtype == b.dtype && a.ndim == b.ndim && !memcmp(a.dim, b.dim, sizeof a.dim);
}

/* All of them at once: y (n, M, N). */
static void stacked(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                    const em_tensor *b)
{
    em_mark m = em_run_mark(r);
    em_tensor ws = workspace(r, em_run_stopped(r) ? 0 : linear_size(r, em_at(y, 0), x, w[0]));
    if (em_run_stopped(r)) return;
    r->flops += 2.0 * (double)em_tensor_count(y) * (double)em_cols(x);
    r->products += n;
    em_status st = r->ops->linears(r, n, y, x, w, b, ws.data);
    em_run_release(r, m);
    done(r, st, "linears", y);
}

void em_linears(em_run *r, int n, em_tensor *y, em_tensor x, const em_tensor *w, const em_tensor *b)
{
    for (int i = 0; i < n; i++) y[i] = EMPTY;
    if (em_run_stopped(r)) return;
    for (int i = 0; i < n; i++)
        if (x.ndim != 2 || w[i].ndim != 2 || em_cols(x) != em_cols(w[i]) ||
            !vector_fits(b[i], w[i].dim[0]) || !alike(w[i], w[0]) || !alike(b[i], b[0])) {
            misfit(r, "linears", x, w[i]);
            return;
        }
    em_tensor all = em_run_tensor(r, x.dtype, EM_SHAPE(n, em_rows(x), w[0].dim[0]));
    if (r->ops->linears) stacked(r, n, all, x, w, b);
    for (int i = 0; i < n && !em_run_stopped(r); i++) {
        y[i] = em_at(all, i);
        if (!r->ops->linears) linear(r, y[i], x, w[i], b[i], EM_ACT_NONE);
    }
}

static em_tensor as_batch(em_tensor t)
{
    return t.ndim == 2 ? em_view(t, EM_SHAPE(1, t.dim[0], t.dim[1])) : t;
}

static bool attention_fits(em_tensor q, em_tensor k, em_tensor v, const em_attn *a)
{
    if (q.ndim != 3 || k.ndim != 3 || !em_same_shape(k, v) || q.dim[0] != k.dim[0]) return false;
    if (q.dim[2] != k.dim[2] || q.dtype != k.dtype || k.dtype != v.dtype) return false;
    if (a->heads < 1 || q.dim[2] % a->heads || k.dim[1] < 1) return false;
    if (em_tensor_is_empty(a->rel_bias)) return true;
    return a->rel_bias.dtype == EM_F32 &&
           em_tensor_count(a->rel_bias) == a->heads * (q.dim[1] + k.dim[1] - 1);
}

static void attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                      const em_attn *a)
{
    em_mark m = em_run_mark(r);
    em_tensor ws = workspace(r, em_run_stopped(r) ? 0 : attention_size(r, q, k, a));
    if (em_run_stopped(r)) return;
    r->flops += 4.0 * (double)em_tensor_count(q) * (double)k.dim[1];
    r->products++;
    em_status st = r->ops->attention(r, y, q, k, v, a, ws.data);
    em_run_release(r, m);
    done(r, st, "attention", y);
}

em_tensor em_attention(em_run *r, em_tensor q, em_tensor k, em_tensor v, const em_attn *a)
{
    if (em_run_stopped(r)) return EMPTY;
    if (!attention_fits(as_batch(q), as_batch(k), as_batch(v), a))
        return misfit(r, "attention", q, k);
    em_tensor y = like(r, q, q.dtype);
    em_attention_to(r, y, q, k, v, a);
    return em_run_stopped(r) ? EMPTY : y;
}

void em_attention_to(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                     const em_attn *a)
{
    if (em_run_stopped(r)) return;
    em_tensor qb = as_batch(q), kb = as_batch(k), vb = as_batch(v);
    if (!attention_fits(qb, kb, vb, a))
        misfit(r, "attention", q, k);
    else if (em_tensor_count(y) != em_tensor_count(q) || y.dtype != q.dtype)
        misfit(r, "attention", y, q);
    else
        attention(r, em_view(y, qb.dim, qb.ndim), qb, kb, vb, a);
}

/* One- and two-dimensional convolutions are three-dimensional ones with axes of length one. */
static em_conv_args conv_args(em_tensor x, em_tensor past, em_tensor w, em_tensor b,
                              const em_conv_spec *s)
{
    em_conv_args c = {.x = x, .past = past, .w = w, .b = b, .upsample_2x = s->upsample_2x};
    c.groups = s->groups ? s->groups : 1;
    for (int i = 0; i < 3; i++) {
        c.stride[i] = s->stride[i] ? s->stride[i] : 1;
        c.pad_before[i] = s->pad_before[i];
        c.pad_after[i] = s->pad_after[i];
    }
    if (w.ndim == 3) c.w = em_view(w, EM_SHAPE(w.dim[0], w.dim[1], 1, 1, w.dim[2]));
    if (w.ndim == 4) c.w = em_view(w, EM_SHAPE(w.dim[0], w.dim[1], 1, w.dim[2], w.dim[3]));
    if (x.ndim == 2) c.x = em_view(x, EM_SHAPE(1, 1, x.dim[0], x.dim[1]));
    return c;
}

/* Output extents; false when something does not fit. */
static bool conv_shape(const em_conv_args *c, int64_t out[4])
{
    if (c->x.ndim != 4 || c->w.ndim != 5 || c->groups < 1) return false;
    int64_t channels = c->x.dim[3], o = c->w.dim[0];
    if (c->w.dim[1] * c->groups != channels || o % c->groups || !vector_fits(c->b, o)) return false;
    int64_t in[3] = {c->x.dim[0], c->x.dim[1], c->x.dim[2]};
    if (!em_tensor_is_empty(c->past)) {
        if (c->past.ndim != 4 || c->past.dtype != c->x.dtype) return false;
        for (int i = 1; i < 4; i++)
            if (c->past.dim[i] != c->x.dim[i]) return false;
        in[0] += c->past.dim[0];
    }
    for (int i = 0; i < 3; i++) {
        if (i > 0 && c->upsample_2x) in[i] *= 2;
        int64_t room = in[i] + c->pad_before[i] + c->pad_after[i] - c->w.dim[2 + i];
        if (room < 0) return false;
        out[i] = room / c->stride[i] + 1;
    }
    out[3] = o;
    return true;
}

/* y: as conv_shape says. */
static void convolve(em_run *r, em_tensor y, const em_conv_args *c)
{
    em_mark m = em_run_mark(r);
    em_tensor ws = workspace(r, em_run_stopped(r) ? 0 : conv_size(r, y, c));
    if (em_run_stopped(r)) return;
    r->flops += 2.0 * (double)em_tensor_count(y) * (double)(em_tensor_count(c->w) / c->w.dim[0]);
    r->products++;
    em_status st = r->ops->conv(r, y, c, ws.data);
    em_run_release(r, m);
    done(r, st, "conv", y);
}

em_tensor em_conv(em_run *r, em_tensor x, em_tensor past, em_tensor w, em_tensor b,
                  const em_conv_spec *spec)
{
    if (em_run_stopped(r)) return EMPTY;
    em_conv_args c = conv_args(x, past, w, b, spec);
    int64_t out[4];
    if (!conv_shape(&c, out)) return misfit(r, "conv", x, w);
    em_tensor y = em_run_tensor(r, x.dtype, out, 4);
    convolve(r, y, &c);
    if (em_run_stopped(r)) return EMPTY;
    return x.ndim == 2 ? em_view(y, EM_SHAPE(out[2], out[3])) : y;
}

void em_conv_to(em_run *r, em_tensor y, em_tensor x, em_tensor past, em_tensor w, em_tensor b,
                const em_conv_spec *spec)
{
    if (em_run_stopped(r)) return;
    em_conv_args c = conv_args(x, past, w, b, spec);
    int64_t out[4];
    if (!conv_shape(&c, out) || y.dtype != x.dtype ||
        em_tensor_count(y) != out[0] * out[1] * out[2] * out[3])
        misfit(r, "conv", x, w);
    else
        convolve(r, em_view(y, out, 4), &c);
}

em_tensor em_weight_norm(em_run *r, em_tensor g, em_tensor v)
{
    if (em_run_stopped(r)) return EMPTY;
    if (v.ndim != 3 || em_tensor_count(g) != v.dim[2]) return misfit(r, "weight norm", g, v);
    em_tensor y = like(r, v, EM_F32);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->weight_norm(r, y, g, v), "weight norm", y);
}

/* ---- norms ----------------------------------------------------------------------------------- */

static em_tensor norm_to(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    if (em_run_stopped(r)) return EMPTY;
    if (!vector_fits(s->w, em_cols(x)) || !vector_fits(s->b, em_cols(x)))
        return misfit(r, "norm", x, s->w);
    return done(r, r->ops->norm(r, y, x, s), "norm", y);
}

static em_tensor norm(em_run *r, em_tensor x, const em_norm_spec *s)
{
    if (em_run_stopped(r)) return EMPTY;
    if (!vector_fits(s->w, em_cols(x)) || !vector_fits(s->b, em_cols(x)))
        return misfit(r, "norm", x, s->w);
    return norm_to(r, like(r, x, r->dtype), x, s);
}

em_tensor em_layer_norm(em_run *r, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    return norm(r, x, &(em_norm_spec){.kind = EM_NORM_LAYER, .eps = eps, .w = w, .b = b});
}

em_tensor em_norm_modulate(em_run *r, em_tensor x, em_tensor scale, em_tensor shift, float eps)
{
    return norm(r, x,
                &(em_norm_spec){.kind = EM_NORM_MODULATE, .eps = eps, .w = scale, .b = shift});
}

em_tensor em_rms_norm(em_run *r, em_tensor x, em_tensor w, float eps)
{
    return norm(r, x, &(em_norm_spec){.kind = EM_NORM_RMS, .eps = eps, .w = w});
}

void em_rms_norm_inplace(em_run *r, em_tensor x, em_tensor w, float eps)
{
    norm_to(r, x, x, &(em_norm_spec){.kind = EM_NORM_RMS, .eps = eps, .w = w});
}

em_tensor em_l2_norm(em_run *r, em_tensor x, em_tensor gamma, em_act act)
{
    return norm(r, x, &(em_norm_spec){.kind = EM_NORM_L2, .w = gamma, .act = act});
}

void em_l2_norm_inplace(em_run *r, em_tensor x, em_tensor gamma, em_act act)
{
    norm_to(r, x, x, &(em_norm_spec){.kind = EM_NORM_L2, .w = gamma, .act = act});
}

em_tensor em_time_norm(em_run *r, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    if (em_run_stopped(r)) return EMPTY;
    if (x.ndim != 2 || !vector_fits(w, em_cols(x)) || !vector_fits(b, em_cols(x)))
        return misfit(r, "time norm", x, w);
    em_tensor y = like(r, x, r->dtype);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->time_norm(r, y, x, w, b, eps), "time norm", y);
}

/* ---- elementwise ----------------------------------------------------------------------------- */

void em_act_inplace(em_run *r, em_tensor x, em_act act)
{
    if (em_run_stopped(r) || act == EM_ACT_NONE) return;
    done(r, r->ops->act(r, x, act), "activation", x);
}

static void binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind, bool fits)
{
    if (em_run_stopped(r)) return;
    if (fits)
        done(r, r->ops->binary(r, x, a, b, kind), "elementwise", x);
    else
        misfit(r, "elementwise", x, a);
}

void em_add(em_run *r, em_tensor x, em_tensor y)
{
    binary(r, x, y, EMPTY, EM_BINARY_ADD, em_tensor_count(x) == em_tensor_count(y));
}

void em_mul(em_run *r, em_tensor x, em_tensor y)
{
    binary(r, x, y, EMPTY, EM_BINARY_MUL, em_tensor_count(x) == em_tensor_count(y));
}

void em_gated_add(em_run *r, em_tensor x, em_tensor y, em_tensor gate)
{
    bool fits = em_tensor_count(x) == em_tensor_count(y) && em_tensor_count(gate) == em_cols(x);
    binary(r, x, y, gate, EM_BINARY_GATED_ADD, fits);
}

void em_scale_shift(em_run *r, em_tensor x, em_tensor scale, em_tensor shift)
{
    bool fits = em_tensor_count(scale) == em_cols(x) && em_tensor_count(shift) == em_cols(x);
    binary(r, x, scale, shift, EM_BINARY_SCALE_SHIFT, fits);
}

void em_fill(em_run *r, em_tensor x, float value)
{
    if (em_run_stopped(r)) return;
    done(r, r->ops->fill(r, x, value), "fill", x);
}

void em_rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    if (em_run_stopped(r)) return;
    if (heads < 1 || em_cols(x) % ((int64_t)2 * heads) || table.dtype != EM_F32 ||
        em_tensor_count(table) != em_rows(x) * (em_cols(x) / heads)) {
        misfit(r, "rope", x, table);
        return;
    }
    done(r, r->ops->rope(r, x, table, heads), "rope", x);
}

em_tensor em_lincomb(em_run *r, int n, const em_tensor *x, const float *c)
{
    if (em_run_stopped(r)) return EMPTY;
    if (n < 1 || n > EM_LINCOMB_MAX)
        return em_run_fail(r, EM_INVAL, "linear combination: %d terms, 1 to %d are possible", n,
                           EM_LINCOMB_MAX);
    for (int i = 0; i < n; i++)
        if (x[i].dtype != EM_F32 || !em_same_shape(x[0], x[i]))
            return misfit(r, "linear combination", x[0], x[i]);
    em_tensor y = like(r, x[0], EM_F32);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->lincomb(r, y, n, x, c), "linear combination", y);
}

/* ---- movement -------------------------------------------------------------------------------- */

void em_copy(em_run *r, em_tensor dst, em_tensor src)
{
    if (em_run_stopped(r)) return;
    if (em_tensor_count(dst) != em_tensor_count(src)) {
        misfit(r, "copy", dst, src);
        return;
    }
    int64_t cols = em_cols(dst);
    em_tensor s = em_view(src, EM_SHAPE(em_rows(dst), cols));
    done(r, r->ops->copy_cols(r, dst, 0, s, 0, cols), "copy", dst);
}

void em_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src, int64_t src_col,
                  int64_t cols)
{
    if (em_run_stopped(r)) return;
    if (em_rows(dst) != em_rows(src) || dst_col < 0 || src_col < 0 || cols < 0 ||
        dst_col + cols > em_cols(dst) || src_col + cols > em_cols(src)) {
        misfit(r, "copy of columns", dst, src);
        return;
    }
    done(r, r->ops->copy_cols(r, dst, dst_col, src, src_col, cols), "copy of columns", dst);
}

em_tensor em_cast(em_run *r, em_tensor x, em_dtype dtype)
{
    if (em_run_stopped(r) || x.dtype == dtype) return x;
    em_tensor y = like(r, x, dtype);
    em_copy(r, y, x);
    return y;
}

static em_tensor transpose(em_run *r, em_tensor x, em_tensor y, int64_t rows)
{
    if (em_run_stopped(r)) return EMPTY;
    int64_t cols = em_tensor_count(x) / rows;
    em_status st =
        r->ops->transpose(r, em_view(y, EM_SHAPE(cols, rows)), em_view(x, EM_SHAPE(rows, cols)));
    return done(r, st, "transpose", y);
}

em_tensor em_channels_last(em_run *r, em_tensor x)
{
    if (em_run_stopped(r)) return EMPTY;
    int64_t dim[EM_MAX_DIMS] = {0};
    for (int i = 0; i < x.ndim; i++) dim[i] = x.dim[(i + 1) % x.ndim];
    return transpose(r, x, em_run_tensor(r, x.dtype, dim, x.ndim), x.dim[0]);
}

em_tensor em_channels_first(em_run *r, em_tensor x)
{
    if (em_run_stopped(r)) return EMPTY;
    int64_t dim[EM_MAX_DIMS] = {0};
    for (int i = 0; i < x.ndim; i++) dim[(i + 1) % x.ndim] = x.dim[i];
    return transpose(r, x, em_run_tensor(r, x.dtype, dim, x.ndim), em_rows(x));
}

/* Fresh scratch for rows idx of the table. */
static em_tensor gathered(em_run *r, em_tensor table, const int32_t *idx, int64_t n)
{
    if (em_run_stopped(r)) return EMPTY;
    for (int64_t i = 0; i < n; i++)
        if (idx[i] < 0 || idx[i] >= table.dim[0])
            return em_run_fail(r, EM_INVAL, "gather: row %d of a table of %lld rows", (int)idx[i],
                               (long long)table.dim[0]);
    int64_t dim[EM_MAX_DIMS];
    memcpy(dim, table.dim, sizeof dim);
    dim[0] = n;
    return em_run_tensor(r, table.dtype, dim, table.ndim);
}

em_tensor em_gather(em_run *r, em_tensor table, const int32_t *idx, int64_t n)
{
    em_tensor y = gathered(r, table, idx, n);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->gather(r, y, table, idx), "gather", y);
}

em_tensor em_gather_host(em_run *r, em_tensor table, const int32_t *idx, int64_t n)
{
    em_tensor y = gathered(r, table, idx, n);
    em_status st = EM_OK;
    for (int64_t i = 0; i < n && !st && !em_run_stopped(r); i++)
        st = r->ops->upload(r, em_slice(y, i, 1), em_slice(table, idx[i], 1).data);
    return em_run_stopped(r) ? EMPTY : done(r, st, "gather", y);
}

em_tensor em_patchify(em_run *r, em_tensor x, int ph, int pw)
{
    if (em_run_stopped(r)) return EMPTY;
    if (x.ndim != 4 || ph < 1 || pw < 1 || x.dim[1] % ph || x.dim[2] % pw)
        return misfit(r, "patchify", x, EMPTY);
    int64_t tokens = x.dim[0] * (x.dim[1] / ph) * (x.dim[2] / pw);
    em_tensor y = em_run_tensor(r, x.dtype, EM_SHAPE(tokens, x.dim[3] * ph * pw));
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->patchify(r, y, x, ph, pw), "patchify", y);
}

em_tensor em_unpatchify(em_run *r, em_tensor x, int64_t t, int64_t h, int64_t w, int ph, int pw)
{
    if (em_run_stopped(r)) return EMPTY;
    int64_t patch = (int64_t)ph * pw;
    if (em_rows(x) != t * h * w || ph < 1 || pw < 1 || em_cols(x) % patch)
        return misfit(r, "unpatchify", x, EMPTY);
    em_tensor y = em_run_tensor(r, x.dtype, EM_SHAPE(t, h * ph, w * pw, em_cols(x) / patch));
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->unpatchify(r, y, x, ph, pw), "unpatchify", y);
}

em_tensor em_upload(em_run *r, const void *host, em_dtype dtype, const int64_t *dim, int ndim)
{
    em_tensor y = em_run_tensor(r, dtype, dim, ndim);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->upload(r, y, host), "upload", y);
}

void em_download(em_run *r, em_tensor x, void *host)
{
    if (em_run_stopped(r)) return;
    done(r, r->ops->download(r, x, host), "download", x);
}

/* ---- resampling and pictures ----------------------------------------------------------------- */

em_tensor em_lerp_time(em_run *r, em_tensor x, int64_t n)
{
    if (em_run_stopped(r)) return EMPTY;
    if (x.ndim != 2 || n < 1 || x.dim[0] < 1) return misfit(r, "interpolation", x, EMPTY);
    em_tensor y = em_run_tensor(r, x.dtype, EM_SHAPE(n, x.dim[1]));
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->lerp_time(r, y, x), "interpolation", y);
}

em_tensor em_resize_bicubic(em_run *r, em_tensor x, int64_t oh, int64_t ow)
{
    if (em_run_stopped(r)) return EMPTY;
    if (x.ndim != 3 || x.dtype != EM_F32 || oh < 1 || ow < 1) return misfit(r, "bicubic", x, EMPTY);
    em_tensor y = em_run_tensor(r, EM_F32, EM_SHAPE(oh, ow, x.dim[2]));
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->resize_bicubic(r, y, x), "bicubic", y);
}

em_tensor em_to_u8(em_run *r, em_tensor x)
{
    if (em_run_stopped(r)) return EMPTY;
    em_tensor y = like(r, x, EM_U8);
    if (em_run_stopped(r)) return EMPTY;
    return done(r, r->ops->to_u8(r, y, x), "conversion to bytes", y);
}
