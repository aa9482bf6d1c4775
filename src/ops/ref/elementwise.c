#include "ops/ref/ref.h"

#include <math.h>

double em_ref_activate(double v, em_act act)
{
    switch (act) {
    case EM_ACT_NONE: return v;
    case EM_ACT_RELU: return v > 0 ? v : 0;
    case EM_ACT_SILU: return v / (1 + exp(-v));
    case EM_ACT_GELU_ERF: return 0.5 * v * (1 + erf(v * 0.70710678118654752440));
    case EM_ACT_GELU_TANH:
        return 0.5 * v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)));
    case EM_ACT_HARD_TANH: return v < -1 ? -1 : v > 1 ? 1 : v;
    }
    return v;
}

em_status em_ref_act(em_run *r, em_tensor x, em_act act)
{
    (void)r;
    int64_t n = em_tensor_count(x);
    for (int64_t i = 0; i < n; i++) em_ref_set(x, i, em_ref_activate(em_ref_get(x, i), act));
    return EM_OK;
}

em_status em_ref_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    (void)r;
    int64_t n = em_tensor_count(x), cols = em_cols(x);
    for (int64_t i = 0; i < n; i++) {
        double v = em_ref_get(x, i);
        switch (kind) {
        case EM_BINARY_ADD: v += em_ref_get(a, i); break;
        case EM_BINARY_MUL: v *= em_ref_get(a, i); break;
        case EM_BINARY_GATED_ADD: v += (double)em_ref_get(a, i) * em_ref_get(b, i % cols); break;
        case EM_BINARY_SCALE_SHIFT:
            v = v * em_ref_get(a, i % cols) + em_ref_get(b, i % cols);
            break;
        }
        em_ref_set(x, i, v);
    }
    return EM_OK;
}

em_status em_ref_fill(em_run *r, em_tensor x, float value)
{
    (void)r;
    int64_t n = em_tensor_count(x);
    for (int64_t i = 0; i < n; i++) em_ref_set(x, i, value);
    return EM_OK;
}

/* (a + ib) e^(i angle), pair by pair */
em_status em_ref_rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    (void)r;
    int64_t rows = em_rows(x), pairs = em_cols(x) / heads / 2;
    const float *angle = table.data; /* (rows, pairs, 2): cos, sin */
    for (int64_t m = 0; m < rows; m++)
        for (int64_t p = 0; p < heads * pairs; p++) {
            double c = angle[(m * pairs + p % pairs) * 2],
                   s = angle[(m * pairs + p % pairs) * 2 + 1];
            int64_t i = (m * heads * pairs + p) * 2;
            double a = em_ref_get(x, i), b = em_ref_get(x, i + 1);
            em_ref_set(x, i, a * c - b * s);
            em_ref_set(x, i + 1, a * s + b * c);
        }
    return EM_OK;
}

em_status em_ref_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c)
{
    (void)r;
    int64_t count = em_tensor_count(y);
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += (double)c[k] * em_ref_get(x[k], i);
        em_ref_set(y, i, sum);
    }
    return EM_OK;
}
