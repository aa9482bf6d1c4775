#include "ops/ref/ref.h"

#include <math.h>

/* Positions in float32, step rounded once, as torch computes them for align_corners=True. */
em_status em_ref_lerp_time(em_run *r, em_tensor y, em_tensor x)
{
    (void)r;
    int64_t n = y.dim[0], rows = x.dim[0], cols = x.dim[1];
    float step = n > 1 ? (float)(rows - 1) / (float)(n - 1) : 0.0f;
    for (int64_t i = 0; i < n; i++) {
        float pos = step * (float)i;
        int64_t lo = (int64_t)pos < rows ? (int64_t)pos : rows - 1;
        int64_t hi = lo + 1 < rows ? lo + 1 : lo;
        float f = pos - (float)lo;
        for (int64_t c = 0; c < cols; c++)
            em_ref_set(y, i * cols + c,
                       (1.0 - f) * em_ref_get(x, lo * cols + c) +
                           (double)f * em_ref_get(x, hi * cols + c));
    }
    return EM_OK;
}

/* Keys' cubic convolution with a = -0.75: weights of the four taps around a position with fraction
 * f. */
static void cubic_taps(float f, double tap[4])
{
    const double a = -0.75;
    double t[4] = {f + 1.0, f, 1.0 - f, 2.0 - f};
    for (int i = 0; i < 4; i++) {
        double d = t[i];
        tap[i] = i == 1 || i == 2 ? ((a + 2) * d - (a + 3)) * d * d + 1
                                  : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    }
}

/* The first of the four source positions of output i, and its taps; half-pixel centres in
 * float32. */
static int64_t source_taps(int64_t i, int64_t in, int64_t out, double tap[4])
{
    float scale = (float)in / (float)out;
    float pos = scale * ((float)i + 0.5f) - 0.5f, whole = floorf(pos);
    cubic_taps(pos - whole, tap);
    return (int64_t)whole - 1;
}

static int64_t clamp(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

em_status em_ref_resize_bicubic(em_run *r, em_tensor y, em_tensor x)
{
    (void)r;
    int64_t height = x.dim[0], width = x.dim[1], nc = x.dim[2], to = 0;
    for (int64_t oy = 0; oy < y.dim[0]; oy++)
        for (int64_t ox = 0; ox < y.dim[1]; ox++) {
            double ty[4], tx[4];
            int64_t y0 = source_taps(oy, height, y.dim[0], ty),
                    x0 = source_taps(ox, width, y.dim[1], tx);
            for (int64_t c = 0; c < nc; c++) {
                double sum = 0;
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        sum +=
                            ty[i] * tx[j] *
                            em_ref_get(x,
                                       (clamp(y0 + i, height) * width + clamp(x0 + j, width)) * nc +
                                           c);
                em_ref_set(y, to++, sum);
            }
        }
    return EM_OK;
}

em_status em_ref_to_u8(em_run *r, em_tensor y, em_tensor x)
{
    (void)r;
    unsigned char *out = y.data;
    int64_t n = em_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        float v = em_ref_get(x, i) / 2 + 0.5f;
        out[i] = v >= 1 ? 255 : v > 0 ? (unsigned char)(v * 255) : 0; /* NaN fails both tests */
    }
    return EM_OK;
}
