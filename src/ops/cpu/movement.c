/* Copies, transposes, bytes: as fast as memory once rows run in parallel. */
#include "ops/cpu/cpu.h"

#include <string.h>

enum { COPY_ROWS = 64, TILE = 32, BAND = 256, FLAT = 1 << 16 };

/* ---- columns --------------------------------------------------------------------------------- */

typedef struct copy {
    em_tensor dst, src;
    int64_t dst_col, src_col, cols;
    const em_vec *vec;
} copy;

static void copy_rows(void *arg, size_t index, int worker)
{
    (void)worker;
    const copy *c = arg;
    int64_t begin = (int64_t)index * COPY_ROWS;
    int64_t end = em_cpu_min(begin + COPY_ROWS, em_rows(c->dst));
    for (int64_t m = begin; m < end; m++)
        c->vec->convert(em_cpu_at(c->dst, m * em_cols(c->dst) + c->dst_col), c->dst.dtype,
                        em_cpu_at(c->src, m * em_cols(c->src) + c->src_col), c->src.dtype,
                        (size_t)c->cols);
}

em_status em_cpu_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols)
{
    copy c = {dst, src, dst_col, src_col, cols, em_vec_best()};
    em_run_parallel(r, (size_t)em_cpu_ceil_div(em_rows(dst), COPY_ROWS), copy_rows, &c);
    return EM_OK;
}

/* ---- transpose ------------------------------------------------------------------------------- */

typedef struct transpose {
    unsigned char *y;
    const unsigned char *x;
    int64_t rows, cols; /* of x */
    size_t size;        /* of an element */
} transpose;

/* y[j][i] = x[i][j] for a tile: what is read with a stride is read again from the cache. */
static void transpose_tile(const transpose *t, int64_t row, int64_t col)
{
    int64_t row_end = em_cpu_min(row + TILE, t->rows), col_end = em_cpu_min(col + TILE, t->cols);
    for (int64_t j = col; j < col_end; j++)
        for (int64_t i = row; i < row_end; i++) {
            unsigned char *to = t->y + (size_t)(j * t->rows + i) * t->size;
            const unsigned char *from = t->x + (size_t)(i * t->cols + j) * t->size;
            switch (t->size) { /* sizes that the compiler knows become single moves */
            case 1: *to = *from; break;
            case 2: memcpy(to, from, 2); break;
            case 4: memcpy(to, from, 4); break;
            default: memcpy(to, from, t->size); break;
            }
        }
}

/* A band of columns of x, that is of rows of y, or of rows of x where x is narrow. */
static void transpose_band(void *arg, size_t index, int worker)
{
    (void)worker;
    const transpose *t = arg;
    int64_t bands = em_cpu_ceil_div(t->cols, BAND);
    int64_t col = (int64_t)index % bands * BAND, row = (int64_t)index / bands * BAND;
    for (int64_t i = row; i < em_cpu_min(row + BAND, t->rows); i += TILE)
        for (int64_t j = col; j < em_cpu_min(col + BAND, t->cols); j += TILE)
            transpose_tile(t, i, j);
}

em_status em_cpu_transpose(em_run *r, em_tensor y, em_tensor x)
{
    transpose t = {y.data, x.data, x.dim[0], x.dim[1], em_dtype_bytes(x.dtype)};
    int64_t bands = em_cpu_ceil_div(t.rows, BAND) * em_cpu_ceil_div(t.cols, BAND);
    em_run_parallel(r, (size_t)bands, transpose_band, &t);
    return EM_OK;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

typedef struct bytes {
    unsigned char *y;
    em_tensor x;
    const em_vec *vec;
} bytes;

static void bytes_piece(void *arg, size_t index, int worker)
{
    (void)worker;
    const bytes *b = arg;
    float v[EM_VEC_CHUNK];
    int64_t begin = (int64_t)index * FLAT, end = em_cpu_min(begin + FLAT, em_tensor_count(b->x));
    for (int64_t at = begin; at < end; at += EM_VEC_CHUNK) {
        size_t n = (size_t)em_cpu_min(EM_VEC_CHUNK, end - at);
        b->vec->convert(v, EM_F32, em_cpu_at(b->x, at), b->x.dtype, n);
        b->vec->to_u8(b->y + at, v, n);
    }
}

em_status em_cpu_to_u8(em_run *r, em_tensor y, em_tensor x)
{
    bytes b = {y.data, x, em_vec_best()};
    em_run_parallel(r, (size_t)em_cpu_ceil_div(em_tensor_count(x), FLAT), bytes_piece, &b);
    return EM_OK;
}
