#include "pipeline/noise.h"

#include "base/rng.h"

#include <assert.h>
#include <math.h>

#define TWO_PI 6.283185307179586

/* ---- CPU: at::native::normal_fill and at::normal_distribution -------------------------------- */

/* Box-Muller on a block of 16 uniforms in place: radii from the first half, angles from the second.
 * All in float32, as torch does it; the logarithm's argument 1 - d is in (0, 1]. */
static void box_muller_block(float d[16])
{
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * logf(1.0f - d[j])), theta = (float)TWO_PI * d[j + 8];
        d[j] = radius * cosf(theta);
        d[j + 8] = radius * sinf(theta);
    }
}

static void fill_uniform(float *dst, size_t n, em_mt19937 *g)
{
    for (size_t i = 0; i < n; i++) dst[i] = (float)(em_mt19937_next(g) & 0xffffff) * 0x1p-24f;
}

/* n >= 16: every uniform is drawn first, then blocks are transformed. A ragged end is drawn again:
 * the last 16 places get 16 new uniforms, whatever stood in them. */
static void fill_mt_blocks(float *dst, size_t n, em_mt19937 *g)
{
    fill_uniform(dst, n, g);
    for (size_t i = 0; i + 16 <= n; i += 16) box_muller_block(dst + i);
    if (n % 16) {
        fill_uniform(dst + n - 16, 16, g);
        box_muller_block(dst + n - 16);
    }
}

/* 53 random bits in [0, 1); the high word is drawn first. */
static double uniform53(em_mt19937 *g)
{
    uint64_t hi = em_mt19937_next(g), lo = em_mt19937_next(g);
    return (double)((hi << 32 | lo) & ((1ull << 53) - 1)) * 0x1p-53;
}

/* n < 16: one pair at a time, in doubles. */
static void fill_mt_pairs(float *dst, size_t n, em_mt19937 *g)
{
    for (size_t i = 0; i < n; i += 2) {
        double u1 = uniform53(g), u2 = uniform53(g);
        double radius = sqrt(-2.0 * log1p(-u2)), theta = TWO_PI * u1;
        dst[i] = (float)(radius * cos(theta));
        if (i + 1 < n) dst[i + 1] = (float)(radius * sin(theta));
    }
}

/* ---- CUDA: at::native::distribution_elementwise_grid_stride_kernel over curand_normal4 ------- */

enum { BLOCK_THREADS = 256 };

/* Two normals of two random words. The offsets keep u away from 0; sine comes first. */
static void box_muller_pair(float out[2], uint32_t a, uint32_t b)
{
    float u = fmaf((float)a, 0x1p-32f, 0x1p-33f);
    float v = fmaf((float)b, (float)(TWO_PI * 0x1p-32), (float)(TWO_PI * 0x1p-33));
    double radius = sqrt(-2.0 * log((double)u));
    out[0] = (float)(radius * sin((double)v));
    out[1] = (float)(radius * cos((double)v));
}

/* T threads sweep the array; each turn of a thread makes four values, T places apart:
 *     element = turn * 4T + lane * T + thread,   Philox counter = (turn, thread)  (64 bits each) */
static void fill_philox(float *dst, size_t n, uint64_t seed, const em_noise_device *device)
{
    assert(device->sm_count >= 1 && device->threads_per_sm >= BLOCK_THREADS);
    size_t resident = (size_t)device->sm_count * (size_t)(device->threads_per_sm / BLOCK_THREADS);
    size_t needed = n / BLOCK_THREADS + (n % BLOCK_THREADS != 0);
    size_t threads = BLOCK_THREADS * (needed < resident ? needed : resident);
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (size_t turn = 0, begin = 0; begin < n; turn++, begin += 4 * threads) {
        for (size_t thread = 0; thread < threads && begin + thread < n; thread++) {
            const uint64_t t = thread, k = turn;
            const uint32_t counter[4] = {(uint32_t)k, (uint32_t)(k >> 32), (uint32_t)t,
                                         (uint32_t)(t >> 32)};
            uint32_t word[4];
            float lane[4];
            em_philox4x32(word, counter, key);
            box_muller_pair(lane, word[0], word[1]);
            box_muller_pair(lane + 2, word[2], word[3]);
            size_t e = begin + thread;
            for (int i = 0; i < 4 && e < n; i++, e += threads) dst[e] = lane[i];
        }
    }
}

/* ---- entry ----------------------------------------------------------------------------------- */

void em_noise_fill(float *dst, size_t n, uint64_t seed, em_rng_kind rng,
                   const em_noise_device *device)
{
    if (rng == EM_RNG_CUDA) {
        fill_philox(dst, n, seed, device);
        return;
    }
    em_mt19937 g;
    em_mt19937_seed(&g, (uint32_t)seed);
    if (n < 16)
        fill_mt_pairs(dst, n, &g);
    else
        fill_mt_blocks(dst, n, &g);
}

void em_noise_round(float *x, size_t n, em_dtype dtype)
{
    assert(em_dtype_is_float(dtype));
    if (dtype == EM_BF16)
        for (size_t i = 0; i < n; i++) x[i] = em_bf16_to_f32(em_f32_to_bf16(x[i]));
    if (dtype == EM_F16)
        for (size_t i = 0; i < n; i++) x[i] = em_f16_to_f32(em_f32_to_f16(x[i]));
}
