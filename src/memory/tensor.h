/* A tensor is a view: where, what type, which shape. It owns nothing.
 *
 * Always dense and row-major; the last dimension is the fastest. Activations keep the channel last:
 * tokens (N, C), images and video (T, H, W, C). Pass by value. */
#ifndef EM_MEMORY_TENSOR_H
#define EM_MEMORY_TENSOR_H

#include "base/dtype.h"

#include <assert.h>
#include <stdbool.h>

enum { EM_MAX_DIMS = 5 };

/* data: borrowed: from an arena until it is released, from a checkpoint while it is pinned.
 * ndim: 0 = no tensor: an absent bias, the result of a failed op. */
typedef struct em_tensor {
    void *data;
    em_dtype dtype;
    int ndim;
    int64_t dim[EM_MAX_DIMS];
} em_tensor;

static inline bool em_tensor_is_empty(em_tensor t)
{
    return t.ndim == 0;
}

static inline int64_t em_tensor_count(em_tensor t)
{
    int64_t n = t.ndim > 0;
    for (int i = 0; i < t.ndim; i++) n *= t.dim[i];
    return n;
}

static inline size_t em_tensor_bytes(em_tensor t)
{
    return (size_t)em_tensor_count(t) * em_dtype_bytes(t.dtype);
}

/* The tensor as a matrix: the last dimension is the columns, all others together the rows. */
static inline int64_t em_cols(em_tensor t)
{
    return t.ndim ? t.dim[t.ndim - 1] : 0;
}

static inline int64_t em_rows(em_tensor t)
{
    int64_t n = t.ndim > 0;
    for (int i = 0; i + 1 < t.ndim; i++) n *= t.dim[i];
    return n;
}

static inline bool em_same_shape(em_tensor a, em_tensor b)
{
    bool same = a.ndim == b.ndim;
    for (int i = 0; same && i < a.ndim; i++) same = a.dim[i] == b.dim[i];
    return same;
}

/* A shape literal: EM_SHAPE(n, c) is a (dims, count) argument pair. */
#define EM_SHAPE(...)                                                                              \
    (const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* A view of existing memory. */
static inline em_tensor em_tensor_of(void *data, em_dtype dtype, const int64_t *dim, int ndim)
{
    assert(ndim >= 1 && ndim <= EM_MAX_DIMS);
    em_tensor t = {.data = data, .dtype = dtype, .ndim = ndim};
    for (int i = 0; i < ndim; i++) t.dim[i] = dim[i];
    return t;
}

/* The same values under another shape: em_view(x, EM_SHAPE(n, heads, d)). Counts must agree. An
 * empty tensor stays empty, so that a chain of ops after a failure needs no checks. */
static inline em_tensor em_view(em_tensor t, const int64_t *dim, int ndim)
{
    if (em_tensor_is_empty(t)) return t;
    em_tensor v = em_tensor_of(t.data, t.dtype, dim, ndim);
    assert(em_tensor_count(v) == em_tensor_count(t));
    return v;
}

/* Entries [begin, begin + count) of the first dimension. */
static inline em_tensor em_slice(em_tensor t, int64_t begin, int64_t count)
{
    if (em_tensor_is_empty(t)) return t;
    assert(begin >= 0 && count >= 0 && begin + count <= t.dim[0]);
    int64_t stride = t.dim[0] ? em_tensor_count(t) / t.dim[0] : 0;
    t.data = (char *)t.data + (size_t)(begin * stride) * em_dtype_bytes(t.dtype);
    t.dim[0] = count;
    return t;
}

/* Entry i of the first dimension, without that dimension: (N, C) -> (C). */
static inline em_tensor em_at(em_tensor t, int64_t i)
{
    if (em_tensor_is_empty(t)) return t;
    assert(t.ndim > 1);
    em_tensor s = em_slice(t, i, 1);
    s.ndim = t.ndim - 1;
    for (int d = 0; d < s.ndim; d++) s.dim[d] = t.dim[d + 1];
    s.dim[s.ndim] = 0;
    return s;
}

/* "(512, 1536)" into out (at least 80 bytes); returns out. */
const char *em_shape_text(char out[80], const int64_t *dim, int ndim);

#endif
