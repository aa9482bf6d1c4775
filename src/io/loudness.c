/* The signal passes two filters that imitate the ear (a shelf for the head, a high pass), then
 * the mean square of overlapping blocks is taken, and quiet blocks are gated out, first
 * absolutely, then relative to the mean of what is left. Filters: R. Bristow-Johnson, Audio EQ
 * Cookbook; gating: ITU-R BS.1770-4. */
#include "io/loudness.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

#define BLOCK_S 0.4
#define STEP 0.25 /* of a block: they overlap by 75 % */
#define ABSOLUTE_GATE_LUFS (-70.0)
#define RELATIVE_GATE_LU (-10.0)

typedef struct biquad {
    double b0, b1, b2, a1, a2; /* a0 is 1 */
} biquad;

static biquad divided(double b0, double b1, double b2, double a0, double a1, double a2)
{
    return (biquad){b0 / a0, b1 / a0, b2 / a0, a1 / a0, a2 / a0};
}

static biquad high_shelf(double gain_db, double q, double corner_hz, double rate_hz)
{
    double A = pow(10.0, gain_db / 40.0), w = 2.0 * M_PI * (corner_hz / rate_hz);
    double c = cos(w), s = 2.0 * sqrt(A) * (sin(w) / (2.0 * q));
    return divided(A * ((A + 1) + (A - 1) * c + s), -2 * A * ((A - 1) + (A + 1) * c),
                   A * ((A + 1) + (A - 1) * c - s), (A + 1) - (A - 1) * c + s,
                   2 * ((A - 1) - (A + 1) * c), (A + 1) - (A - 1) * c - s);
}

static biquad high_pass(double q, double corner_hz, double rate_hz)
{
    double w = 2.0 * M_PI * (corner_hz / rate_hz), c = cos(w), alpha = sin(w) / (2.0 * q);
    return divided((1 + c) / 2, -(1 + c), (1 + c) / 2, 1 + alpha, -2 * c, 1 - alpha);
}

/* In place, in double, each result stored as float32: that rounding is part of the measure. */
static void filter(float *x, size_t n, biquad f)
{
    double z1 = 0.0, z2 = 0.0;
    for (size_t i = 0; i < n; i++) {
        double in = x[i], out = f.b0 * in + z1;
        z1 = f.b1 * in - f.a1 * out + z2;
        z2 = f.b2 * in - f.a2 * out;
        x[i] = (float)out;
    }
}

static double lufs_of(double mean_square)
{
    return -0.691 + 10.0 * log10(mean_square);
}

/* Mean square of block j. The bounds are truncated in exactly this order of evaluation; the last
 * block may be short and is divided by the full length all the same. */
static double block_power(const float *x, size_t n, size_t j, double rate_hz)
{
    size_t from = (size_t)(BLOCK_S * ((double)j * STEP) * rate_hz);
    size_t to = (size_t)(BLOCK_S * ((double)j * STEP + 1.0) * rate_hz);
    double sum = 0.0;
    for (size_t i = from; i < to && i < n; i++) sum += (double)x[i] * x[i];
    return sum / (BLOCK_S * rate_hz);
}

/* Mean of the blocks that pass; 0 when none does. `inclusive`: at the gate counts as above it. */
static double gated_mean(const double *power, size_t blocks, double gate_lufs, int inclusive)
{
    double sum = 0.0;
    size_t count = 0;
    for (size_t j = 0; j < blocks; j++) {
        double l = lufs_of(power[j]);
        if (!(l > gate_lufs || (inclusive && l == gate_lufs))) continue;
        sum += power[j];
        count++;
    }
    return count ? sum / (double)count : 0.0;
}

em_status em_loudness_measure(double *lufs, const float *x, size_t n, int rate_hz, em_err *err)
{
    double rate = rate_hz, seconds = (double)n / rate;
    if ((double)n < BLOCK_S * rate) {
        return em_fail(err, EM_INVAL, "loudness needs at least %g s of sound, found %g s", BLOCK_S,
                       seconds);
    }
    size_t blocks = (size_t)rint((seconds - BLOCK_S) / (BLOCK_S * STEP)) + 1;
    float *heard = em_alloc_array(n, sizeof *heard);
    double *power = em_alloc_array(blocks, sizeof *power);
    if (!heard || !power) {
        em_free(heard);
        em_free(power);
        return em_fail(err, EM_NOMEM, "out of memory measuring the loudness of %zu samples", n);
    }
    memcpy(heard, x, n * sizeof *heard);
    filter(heard, n, high_shelf(4.0, 1.0 / sqrt(2.0), 1500.0, rate));
    filter(heard, n, high_pass(0.5, 38.0, rate));
    for (size_t j = 0; j < blocks; j++) power[j] = block_power(heard, n, j, rate);

    double mean = gated_mean(power, blocks, ABSOLUTE_GATE_LUFS, 1);
    double gate = fmax(lufs_of(mean) + RELATIVE_GATE_LU, ABSOLUTE_GATE_LUFS);
    *lufs = lufs_of(gated_mean(power, blocks, gate, 0));
    em_free(heard);
    em_free(power);
    return EM_OK;
}

em_status em_loudness_normalise(float *x, size_t n, int rate_hz, em_loudness_result *result,
                                em_err *err)
{
    em_loudness_result done = EM_LOUDNESS_SCALED;
    double lufs = 0.0;
    em_status st = em_loudness_measure(&lufs, x, n, rate_hz, err);
    if (st == EM_INVAL) {
        done = EM_LOUDNESS_TOO_SHORT;
        if (err) *err = (em_err){0};
    } else if (st) {
        return st;
    } else if (!(fabs(lufs) <= 100.0)) {
        done = EM_LOUDNESS_SILENT;
    } else {
        float gain = (float)pow(10.0, (EM_LOUDNESS_TARGET_LUFS - lufs) / 20.0);
        for (size_t i = 0; i < n; i++) x[i] *= gain;
    }
    if (result) *result = done;
    return EM_OK;
}
