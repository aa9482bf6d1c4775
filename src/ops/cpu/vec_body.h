/* The loops of vec.h. Included once per instruction set, with EM_VEC_TABLE and EM_VEC_NAME defined.
 *
 * Written so that compilers vectorise them: no calls, no branches, selections by ?:, constant inner
 * trip counts for reductions. */
#include "ops/cpu/vec.h"

#include "ops/cpu/scalar.h"
#include "ops/cpu/vec_product.h"

/* ---- conversions ----------------------------------------------------------------------------- */

static void bf16_to_f32(float *restrict dst, const uint16_t *restrict src, size_t n)
{
    for (size_t i = 0; i < n; i++) dst[i] = em_bf16_to_f32(src[i]);
}

static void f32_to_bf16(uint16_t *restrict dst, const float *restrict src, size_t n)
{
    for (size_t i = 0; i < n; i++) dst[i] = em_f32_to_bf16(src[i]);
}

static void convert(void *dst, em_dtype dst_type, const void *src, em_dtype src_type, size_t n)
{
    if (dst_type == EM_F32 && src_type == EM_BF16)
        bf16_to_f32(dst, src, n);
    else if (dst_type == EM_BF16 && src_type == EM_F32)
        f32_to_bf16(dst, src, n);
    else
        em_convert(dst, dst_type, src, src_type, n);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static void add(float *restrict x, const float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void mul(float *restrict x, const float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] *= y[i];
}

static void add_scaled(float *restrict x, const float *restrict y, float c, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += c * y[i];
}

static void centre(float *x, float mean, float rest, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (x[i] - mean - rest) * factor;
}

static void act(float *x, em_act kind, size_t n)
{
    switch (kind) {
    case EM_ACT_NONE: break;
    case EM_ACT_RELU:
        for (size_t i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0;
        break;
    case EM_ACT_SILU:
        for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + em_exp(-x[i]));
        break;
    case EM_ACT_GELU_ERF:
        for (size_t i = 0; i < n; i++) x[i] = em_gelu_erf(x[i]);
        break;
    case EM_ACT_GELU_TANH:
        for (size_t i = 0; i < n; i++) x[i] = em_gelu_tanh(x[i]);
        break;
    case EM_ACT_HARD_TANH:
        for (size_t i = 0; i < n; i++) x[i] = x[i] < -1 ? -1 : x[i] > 1 ? 1 : x[i];
        break;
    }
}

static void rope(float *restrict x, const float *restrict table, size_t pairs)
{
    for (size_t i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = table[2 * i], s = table[2 * i + 1];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}

static void to_u8(unsigned char *restrict dst, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = x[i] / 2 + 0.5f;
        v = v > 0 ? v : 0; /* NaN too */
        v = v < 1 ? v : 1;
        dst[i] = (unsigned char)(int)(v * 255);
    }
}

/* ---- reductions ------------------------------------------------------------------------------ */

/* Lane l holds the values l, l + 16, …; a chunk is short, so that float32 lanes lose nothing that
 * shows. */
static double lanes_total(const float *lane)
{
    double total = 0;
    for (int l = 0; l < EM_VEC_LANES; l++) total += lane[l];
    return total;
}

static double sum(const float *x, size_t n)
{
    float lane[EM_VEC_LANES] = {0};
    size_t i = 0;
    for (; i + EM_VEC_LANES <= n; i += EM_VEC_LANES)
        for (int l = 0; l < EM_VEC_LANES; l++) lane[l] += x[i + (size_t)l];
    double tail = 0;
    for (; i < n; i++) tail += x[i];
    return lanes_total(lane) + tail;
}

static double sum_squares(const float *x, float mean, float rest, size_t n)
{
    float lane[EM_VEC_LANES] = {0};
    size_t i = 0;
    for (; i + EM_VEC_LANES <= n; i += EM_VEC_LANES)
        for (int l = 0; l < EM_VEC_LANES; l++) {
            float d = x[i + (size_t)l] - mean - rest;
            lane[l] += d * d;
        }
    double tail = 0;
    for (; i < n; i++) {
        float d = x[i] - mean - rest;
        tail += (double)d * d;
    }
    return lanes_total(lane) + tail;
}

static inline float larger(float a, float b)
{
    return a > b ? a : b;
}

static inline float score(const float *s, float scale, const float *bias, size_t i)
{
    return bias ? s[i] * scale + bias[i] : s[i] * scale;
}

/* More lanes than elsewhere: gcc unrolls an inner loop of 16 first and then finds no vectors in it.
 * A maximum is the same in any order. */
static inline float top_of(const float *s, float scale, const float *bias, float top, size_t n)
{
    enum { LANES = 4 * EM_VEC_LANES };
    float lane[LANES];
    size_t i = 0;
    for (int l = 0; l < LANES; l++) lane[l] = top;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = larger(score(s, scale, bias, i + (size_t)l), lane[l]);
    for (; i < n; i++) top = larger(score(s, scale, bias, i), top);
    for (int l = 0; l < LANES; l++) top = larger(lane[l], top);
    return top;
}

/* One loop with a bias and one without. */
static float top_score(const float *s, float scale, const float *bias, float top, size_t n)
{
    return bias ? top_of(s, scale, bias, top, n) : top_of(s, scale, NULL, top, n);
}

static float exp_scores(float *s, float scale, const float *bias, float top, size_t n)
{
    if (bias)
        for (size_t i = 0; i < n; i++) s[i] = em_exp(score(s, scale, bias, i) - top);
    else
        for (size_t i = 0; i < n; i++) s[i] = em_exp(score(s, scale, NULL, i) - top);
    return (float)sum(s, n);
}

const em_vec EM_VEC_TABLE = {
    .name = EM_VEC_NAME,
    .convert = convert,
    .add = add,
    .mul = mul,
    .add_scaled = add_scaled,
    .centre = centre,
    .act = act,
    .rope = rope,
    .to_u8 = to_u8,
    .product = product,
    .sum = sum,
    .sum_squares = sum_squares,
    .top_score = top_score,
    .exp_scores = exp_scores,
};
