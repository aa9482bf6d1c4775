#include "ops/ref/ref.h"

#include <math.h>

/* Input value at (t, h, w, c), counted from the first frame of `past`; zero outside. */
static double input_at(const em_conv_args *a, int64_t t, int64_t h, int64_t w, int64_t c)
{
    int64_t past = em_tensor_is_empty(a->past) ? 0 : a->past.dim[0];
    int64_t height = a->x.dim[1], width = a->x.dim[2], channels = a->x.dim[3];
    if (a->upsample_2x) {
        if (h < 0 || w < 0) return 0;
        h /= 2;
        w /= 2;
    }
    if (t < 0 || t >= past + a->x.dim[0] || h < 0 || h >= height || w < 0 || w >= width) return 0;
    em_tensor src = t < past ? a->past : a->x;
    if (t >= past) t -= past;
    return em_ref_get(src, ((t * height + h) * width + w) * channels + c);
}

/* Output channel o at output position (t, h, w): the sum over taps and the group's input
 * channels. */
static double one_output(const em_conv_args *a, int64_t o, int64_t t, int64_t h, int64_t w)
{
    const int64_t *k = a->w.dim; /* (O, I, kt, kh, kw) */
    int64_t c0 = o / (k[0] / a->groups) * k[1];
    double sum = em_tensor_is_empty(a->b) ? 0 : em_ref_get(a->b, o);
    for (int64_t i = 0; i < k[1]; i++)
        for (int64_t z = 0; z < k[2]; z++)
            for (int64_t y = 0; y < k[3]; y++)
                for (int64_t x = 0; x < k[4]; x++) {
                    double v = input_at(a, t * a->stride[0] - a->pad_before[0] + z,
                                        h * a->stride[1] - a->pad_before[1] + y,
                                        w * a->stride[2] - a->pad_before[2] + x, c0 + i);
                    int64_t tap = (((o * k[1] + i) * k[2] + z) * k[3] + y) * k[4] + x;
                    sum += v * em_ref_get(a->w, tap);
                }
    return sum;
}

size_t em_ref_conv_workspace(em_run *r, em_tensor y, const em_conv_args *c)
{
    return (void)r, (void)y, (void)c, 0;
}

em_status em_ref_conv(em_run *r, em_tensor y, const em_conv_args *a, void *ws)
{
    (void)r, (void)ws;
    int64_t i = 0;
    for (int64_t t = 0; t < y.dim[0]; t++)
        for (int64_t h = 0; h < y.dim[1]; h++)
            for (int64_t w = 0; w < y.dim[2]; w++)
                for (int64_t o = 0; o < y.dim[3]; o++)
                    em_ref_set(y, i++, one_output(a, o, t, h, w));
    return EM_OK;
}

/* y[o][i][k] = g[k] v[o][i][k] / sqrt(sum over o, i of v[o][i][k]^2) */
em_status em_ref_weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v)
{
    (void)r;
    int64_t rows = em_rows(v), taps = em_cols(v);
    for (int64_t k = 0; k < taps; k++) {
        double square = 0;
        for (int64_t i = 0; i < rows; i++) square += pow(em_ref_get(v, i * taps + k), 2);
        double factor = em_ref_get(g, k) / sqrt(square);
        for (int64_t i = 0; i < rows; i++)
            em_ref_set(y, i * taps + k, em_ref_get(v, i * taps + k) * factor);
    }
    return EM_OK;
}
