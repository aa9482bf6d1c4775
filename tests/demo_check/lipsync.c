#include "lipsync.h"

#include "base/alloc.h"

#include <math.h>

enum {
    STEP = DEMO_HZ / DEMO_FPS, /* samples a frame */
    WINDOW = 800,              /* 50 ms */
    BINS = 513,                /* of a transform of 1024 */
    LENGTH = 2 * (BINS - 1),
};

/* ---- truth ----------------------------------------------------------------------------------- */

static double window(int i)
{
    return 0.5 - 0.5 * cos(2 * M_PI * i / WINDOW);
}

/* |DFT|^2 at bin k of the windowed samples; plain, as a clip has a few dozen frames. */
static double power(const double *x, int k)
{
    double re = 0, im = 0;
    for (int i = 0; i < WINDOW; i++) {
        double angle = 2 * M_PI * (double)(i * k % LENGTH) / LENGTH;
        re += x[i] * cos(angle);
        im -= x[i] * sin(angle);
    }
    return re * re + im * im;
}

/* One window's opening, before averaging. */
static double window_opening(const double *x)
{
    double low = 0, high = 0, all = 0, norm = 0;
    for (int i = 0; i < WINDOW; i++) norm += window(i) * window(i);
    for (int k = 0; k < BINS; k++) {
        double hz = (double)k * DEMO_HZ / LENGTH, p = power(x, k) * 2 / (LENGTH * norm);
        if (hz >= 90 && hz < 2200) low += p;
        if (hz >= 3000 && hz < 8000) high += p;
        if (hz >= 60 && hz < 8000) all += p;
    }
    double open = fmin(fmax((10 * log10(low + 1e-6) + 17) / 21, 0), 1);
    return pow(open * (1 - 0.8 * fmin(fmax(high / (all + 1e-6), 0), 1)), 1.15);
}

/* Zero mean and unit variance over the clip, zeros behind a sound that is too short. */
static double *normalised(const float *wave, size_t n, size_t length)
{
    double *x = em_alloc_array(length, sizeof *x), mean = 0, var = 0;
    if (!x) return NULL;
    for (size_t i = 0; i < length && i < n; i++) x[i] = wave[i];
    for (size_t i = 0; i < length; i++) mean += x[i] / (double)length;
    for (size_t i = 0; i < length; i++) var += (x[i] - mean) * (x[i] - mean) / (double)length;
    for (size_t i = 0; i < length; i++) x[i] = (x[i] - mean) / sqrt(var + 1e-7);
    return x;
}

em_status demo_truth(double *opening, int frames, const float *wave, size_t n, em_err *err)
{
    size_t length = (size_t)frames * STEP;
    double *x = normalised(wave, n, length), *raw = em_alloc_array((size_t)frames, sizeof *raw);
    for (int f = 0; x && raw && f < frames; f++) {
        double part[WINDOW];
        long start = (long)f * STEP - (WINDOW - STEP) / 2;
        for (int i = 0; i < WINDOW; i++) {
            long at = start + i;
            part[i] = at >= 0 && at < (long)length ? x[at] * window(i) : 0;
        }
        raw[f] = window_opening(part);
    }
    em_status st =
        x && raw ? EM_OK : em_fail(err, EM_NOMEM, "no memory for %d frames of sound", frames);
    for (int f = 0; !st && f < frames; f++) {
        double before = raw[f > 0 ? f - 1 : 0], after = raw[f + 1 < frames ? f + 1 : f];
        opening[f] = 0.25 * before + 0.5 * raw[f] + 0.25 * after;
    }
    em_free(x);
    em_free(raw);
    return st;
}

/* ---- measure --------------------------------------------------------------------------------- */

static double luma(double r, double g, double b)
{
    return 0.30 * r + 0.59 * g + 0.11 * b;
}

double demo_opening(const uint8_t *rgb, const demo_face *face)
{
    double threshold = 0.62 * luma(face->lips[0], face->lips[1], face->lips[2]), area = 0;
    for (int y = 0; y < DEMO_SIDE; y++)
        for (int x = 0; x < DEMO_SIDE; x++) {
            double py = y + 0.5 - face->mouth_y, px = x + 0.5 - face->mouth_x;
            if (py <= -14 || py >= 30 || fabs(px) >= face->mouth_half_width + 5) continue;
            const uint8_t *p = rgb + (y * DEMO_SIDE + x) * 3;
            double v = (threshold - luma(p[0], p[1], p[2]) / 255) / (threshold - 0.085);
            area += fmin(fmax(v, 0), 1);
        }
    return area;
}

double demo_correlation(const double *a, const double *b, int n)
{
    double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ma += a[i] / n;
        mb += b[i] / n;
    }
    for (int i = 0; i < n; i++) {
        ab += (a[i] - ma) * (b[i] - mb);
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}
