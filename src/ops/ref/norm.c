#include "ops/ref/ref.h"

#include <math.h>

/* What a row is shifted and multiplied by before the affine part. */
typedef struct row_stats {
    double mean, factor;
} row_stats;

static row_stats stats(em_tensor x, int64_t begin, int64_t n, int64_t step, em_norm_kind kind,
                       double eps)
{
    double sum = 0, square = 0;
    bool centred = kind == EM_NORM_LAYER || kind == EM_NORM_MODULATE;
    for (int64_t i = 0; centred && i < n; i++) sum += em_ref_get(x, begin + i * step);
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) square += pow(em_ref_get(x, begin + i * step) - mean, 2);
    if (kind == EM_NORM_L2) return (row_stats){0, sqrt((double)n) / fmax(sqrt(square), 1e-12)};
    return (row_stats){mean, 1 / sqrt(square / (double)n + eps)};
}

static double affine(const em_norm_spec *s, int64_t c, double v)
{
    double w = em_tensor_is_empty(s->w) ? 1 : em_ref_get(s->w, c);
    double b = em_tensor_is_empty(s->b) ? 0 : em_ref_get(s->b, c);
    return s->kind == EM_NORM_MODULATE ? v * (1 + w) + b : v * w + b;
}

em_status em_ref_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    (void)r;
    int64_t rows = em_rows(x), cols = em_cols(x);
    for (int64_t m = 0; m < rows; m++) {
        row_stats st = stats(x, m * cols, cols, 1, s->kind, s->eps);
        for (int64_t c = 0; c < cols; c++) {
            double v = (em_ref_get(x, m * cols + c) - st.mean) * st.factor;
            em_ref_set(y, m * cols + c, em_ref_activate(affine(s, c, v), s->act));
        }
    }
    return EM_OK;
}

/* A layer norm down the columns. */
em_status em_ref_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    (void)r;
    int64_t rows = em_rows(x), cols = em_cols(x);
    em_norm_spec s = {.kind = EM_NORM_LAYER, .w = w, .b = b};
    for (int64_t c = 0; c < cols; c++) {
        row_stats st = stats(x, c, rows, cols, EM_NORM_LAYER, eps);
        for (int64_t m = 0; m < rows; m++) {
            double v = (em_ref_get(x, m * cols + c) - st.mean) * st.factor;
            em_ref_set(y, m * cols + c, affine(&s, c, v));
        }
    }
    return EM_OK;
}
