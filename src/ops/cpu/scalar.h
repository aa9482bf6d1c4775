/* Transcendental functions in float32, branch-free, for loops that the compiler vectorises. */
#ifndef EM_OPS_CPU_SCALAR_H
#define EM_OPS_CPU_SCALAR_H

#include <math.h>
#include <stdint.h>

/* e^x: x = k ln 2 + r with |r| <= ln 2 / 2, so e^x = 2^k e^r. Adding 1.5 * 2^23 rounds to an
 * integer and leaves it in the low bits of the sum; ln 2 is subtracted in two parts, the first with
 * few enough bits that k times it is exact. e^r by the polynomial of degree 6 with the smallest
 * relative error there (4e-8). Relative error below 2e-7. No subnormal results (they cost hundreds
 * of cycles each): 0 below -87, and infinity above 88; whatever the polynomial makes of such an x
 * is thrown away. NaN stays NaN. */
static inline float em_exp(float x)
{
    const float round = 12582912.0f;
    union {
        float f;
        uint32_t u;
    } shifted = {.f = x * 1.44269504f + round}, scale;
    float k = shifted.f - round;
    float r = x - k * 0.693359375f - k * -2.12194440e-4f;
    float p = 0.001383684614f;
    p = p * r + 0.008374815778f;
    p = p * r + 0.04166822557f;
    p = p * r + 0.1666642017f;
    p = p * r + 0.4999999208f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    scale.u = (shifted.u + 127u) << 23; /* the magic number's own low bits are zero */
    float y = p * scale.f;
    y = x < -87.0f ? 0.0f : y;
    return x > 88.0f ? INFINITY : y;
}

/* With Phi the normal distribution function,
 *     gelu(x) = x Phi(x) = max(x, 0) - |x| Phi(-|x|)
 *     Phi(-t) = exp(-t²/2) u P(u),   u = 1 / (1 + 0.35 t)
 * where P is the polynomial of degree 8 with the smallest relative error on 0 <= t <= 14 (3e-8). No
 * cancellation: the far negative tail keeps its relative accuracy. */
static inline float em_gelu_erf(float x)
{
    float t = x < 0 ? -x : x, u = 1.0f / (1.0f + 0.35f * t);
    float p = -0.02914592358f;
    p = p * u + 0.143971664f;
    p = p * u - 0.255714182f;
    p = p * u + 0.1591740748f;
    p = p * u - 0.02310977441f;
    p = p * u + 0.1055079777f;
    p = p * u + 0.1198328744f;
    p = p * u + 0.1398618687f;
    p = p * u + 0.1396214044f;
    return (x > 0 ? x : 0 * x) - t * (u * p) * em_exp(-0.5f * t * t);
}

/* (1 + tanh z) / 2 = 1 / (1 + e^-2z) */
static inline float em_gelu_tanh(float x)
{
    float z = 0.7978845608f * (x + 0.044715f * x * x * x);
    return x / (1.0f + em_exp(-2.0f * z));
}

#endif
