/* Norms: rows in parallel, statistics in chunks that stay in the first-level cache.
 *
 * Mean first, then squares of the differences: the one-pass formula loses digits when the mean is
 * large. A task takes a block of rows, so that the affine vectors are converted once a block and
 * not once a row. */
#include "ops/cpu/cpu.h"

#include <math.h>

enum { ROWS = 16, COLUMNS = 64 };

typedef struct norm {
    em_tensor y, x;
    const em_norm_spec *s;
    const em_vec *vec;
} norm;

/* What a row is shifted and multiplied by. */
typedef struct row_stats {
    float mean, rest, factor; /* mean + rest: the mean to twice float32 */
} row_stats;

/* Values [col, col + n) of a row as float32: x itself, or converted into buffer. */
static const float *load(const norm *t, int64_t row, int64_t col, int64_t n, float *buffer)
{
    const void *at = em_cpu_at(t->x, row * em_cols(t->x) + col);
    if (t->x.dtype == EM_F32) return at;
    t->vec->convert(buffer, EM_F32, at, t->x.dtype, (size_t)n);
    return buffer;
}

static row_stats stats_of(const norm *t, int64_t row)
{
    float buffer[EM_VEC_CHUNK];
    int64_t cols = em_cols(t->x);
    em_norm_kind kind = t->s->kind;
    double sum = 0, square = 0;
    if (kind == EM_NORM_LAYER || kind == EM_NORM_MODULATE)
        for (int64_t c = 0; c < cols; c += EM_VEC_CHUNK) {
            int64_t n = em_cpu_min(EM_VEC_CHUNK, cols - c);
            sum += t->vec->sum(load(t, row, c, n, buffer), (size_t)n);
        }
    double exact = sum / (double)cols;
    float mean = (float)exact, rest = (float)(exact - mean);
    for (int64_t c = 0; c < cols; c += EM_VEC_CHUNK) {
        int64_t n = em_cpu_min(EM_VEC_CHUNK, cols - c);
        square += t->vec->sum_squares(load(t, row, c, n, buffer), mean, rest, (size_t)n);
    }
    if (kind == EM_NORM_L2)
        return (row_stats){0, 0, (float)(sqrt((double)cols) / fmax(sqrt(square), 1e-12))};
    return (row_stats){mean, rest, (float)(1 / sqrt(square / (double)cols + t->s->eps))};
}

/* The affine vectors of a chunk of columns as float32. */
static void load_affine(const norm *t, int64_t col, int64_t n, float *w, float *b)
{
    const em_norm_spec *s = t->s;
    if (!em_tensor_is_empty(s->w))
        t->vec->convert(w, EM_F32, em_cpu_at(s->w, col), s->w.dtype, (size_t)n);
    if (!em_tensor_is_empty(s->w) && s->kind == EM_NORM_MODULATE)
        t->vec->centre(w, -1, 0, 1, (size_t)n); /* 1 + scale */
    if (!em_tensor_is_empty(s->b))
        t->vec->convert(b, EM_F32, em_cpu_at(s->b, col), s->b.dtype, (size_t)n);
}

static void norm_rows(void *arg, size_t index, int worker)
{
    (void)worker;
    norm *t = arg;
    const em_norm_spec *s = t->s;
    row_stats stats[ROWS];
    float w[EM_VEC_CHUNK], b[EM_VEC_CHUNK], v[EM_VEC_CHUNK];
    int64_t cols = em_cols(t->x), first = (int64_t)index * ROWS;
    int64_t rows = em_cpu_min(ROWS, em_rows(t->x) - first);
    for (int64_t i = 0; i < rows; i++) stats[i] = stats_of(t, first + i);
    for (int64_t c = 0; c < cols; c += EM_VEC_CHUNK) {
        int64_t n = em_cpu_min(EM_VEC_CHUNK, cols - c);
        load_affine(t, c, n, w, b);
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = (first + i) * cols + c;
            t->vec->convert(v, EM_F32, em_cpu_at(t->x, at), t->x.dtype, (size_t)n);
            t->vec->centre(v, stats[i].mean, stats[i].rest, stats[i].factor, (size_t)n);
            if (!em_tensor_is_empty(s->w)) t->vec->mul(v, w, (size_t)n);
            if (!em_tensor_is_empty(s->b)) t->vec->add(v, b, (size_t)n);
            t->vec->act(v, s->act, (size_t)n);
            t->vec->convert(em_cpu_at(t->y, at), t->y.dtype, v, EM_F32, (size_t)n);
        }
    }
}

em_status em_cpu_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    norm t = {.y = y, .x = x, .s = s, .vec = em_vec_best()};
    em_run_parallel(r, (size_t)em_cpu_ceil_div(em_rows(x), ROWS), norm_rows, &t);
    return EM_OK;
}

/* ---- down the columns ------------------------------------------------------------------------ */

/* A task takes some columns through all of time: rows are read in pieces of COLUMNS values. */
static void norm_columns(void *arg, size_t index, int worker)
{
    (void)worker;
    norm *t = arg;
    double mean[COLUMNS] = {0}, square[COLUMNS] = {0};
    float w[COLUMNS], b[COLUMNS] = {0}, buffer[COLUMNS], v[COLUMNS];
    int64_t rows = em_rows(t->x), cols = em_cols(t->x), c = (int64_t)index * COLUMNS;
    int64_t n = em_cpu_min(COLUMNS, cols - c);
    for (int64_t m = 0; m < rows; m++) {
        const float *x = load(t, m, c, n, buffer);
        for (int64_t i = 0; i < n; i++) mean[i] += x[i];
    }
    for (int64_t i = 0; i < n; i++) mean[i] /= (double)rows;
    for (int64_t m = 0; m < rows; m++) {
        const float *x = load(t, m, c, n, buffer);
        for (int64_t i = 0; i < n; i++) {
            double d = x[i] - mean[i];
            square[i] += d * d;
        }
    }
    for (int64_t i = 0; i < n; i++) w[i] = 1;
    load_affine(t, c, n, w, b);
    for (int64_t i = 0; i < n; i++) w[i] *= (float)(1 / sqrt(square[i] / (double)rows + t->s->eps));
    for (int64_t m = 0; m < rows; m++) {
        const float *x = load(t, m, c, n, buffer);
        for (int64_t i = 0; i < n; i++) v[i] = (float)(x[i] - mean[i]) * w[i] + b[i];
        t->vec->convert(em_cpu_at(t->y, m * cols + c), t->y.dtype, v, EM_F32, (size_t)n);
    }
}

em_status em_cpu_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    em_norm_spec s = {.kind = EM_NORM_LAYER, .eps = eps, .w = w, .b = b};
    norm t = {.y = y, .x = x, .s = &s, .vec = em_vec_best()};
    em_run_parallel(r, (size_t)em_cpu_ceil_div(em_cols(x), COLUMNS), norm_columns, &t);
    return EM_OK;
}
