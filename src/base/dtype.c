#include "base/dtype.h"

#include <assert.h>
#include <string.h>

size_t em_dtype_bytes(em_dtype t)
{
    static const unsigned char bytes[] = {
#define X(name, bytes, text) [EM_##name] = bytes,
        EM_DTYPE_MAP(X)
#undef X
    };
    assert(t < EM_DTYPE_COUNT);
    return bytes[t];
}

const char *em_dtype_name(em_dtype t)
{
    static const char *const name[] = {
#define X(name, bytes, text) [EM_##name] = text,
        EM_DTYPE_MAP(X)
#undef X
    };
    return t < EM_DTYPE_COUNT ? name[t] : "?";
}

float em_f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000u) << 16, exp = v >> 10 & 31u, man = v & 0x3ffu;
    union {
        uint32_t u;
        float f;
    } x;
    if (exp == 31) {
        x.u = sign | 0x7f800000u | man << 13;
    } else if (exp) {
        x.u = sign | (exp + 112) << 23 | man << 13;
    } else { /* zero or subnormal: man * 2^-24 is exact in float32 */
        x.f = (float)man * 0x1p-24f;
        x.u |= sign;
    }
    return x.f;
}

uint16_t em_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    uint32_t sign = x.u >> 16 & 0x8000u, a = x.u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (a < 0x38800000u) { /* below 2^-14: let float addition round */
        union {
            float f;
            uint32_t u;
        } y = {.u = a};
        y.f += 0.5f; /* the ulp of 0.5 is 2^-24, the step of half's subnormals */
        return (uint16_t)(sign | (y.u - 0x3f000000u));
    }
    uint32_t r = a + 0xfffu + (a >> 13 & 1u);
    return (uint16_t)(sign | (r - 0x38000000u) >> 13);
}

float em_load_f32(const void *data, em_dtype t, size_t i)
{
    switch (t) {
    case EM_F32: return ((const float *)data)[i];
    case EM_BF16: return em_bf16_to_f32(((const uint16_t *)data)[i]);
    case EM_F16: return em_f16_to_f32(((const uint16_t *)data)[i]);
    case EM_F64: return (float)((const double *)data)[i];
    default: assert(!"not a float type"); return 0;
    }
}

void em_store_f32(void *data, em_dtype t, size_t i, float v)
{
    switch (t) {
    case EM_F32: ((float *)data)[i] = v; break;
    case EM_BF16: ((uint16_t *)data)[i] = em_f32_to_bf16(v); break;
    case EM_F16: ((uint16_t *)data)[i] = em_f32_to_f16(v); break;
    default: assert(!"not a float type");
    }
}

/* The two hot pairs are written out so that the compiler vectorises them. */
void em_convert(void *dst, em_dtype dst_type, const void *src, em_dtype src_type, size_t n)
{
    if (dst_type == src_type) {
        memcpy(dst, src, n * em_dtype_bytes(dst_type));
    } else if (dst_type == EM_F32 && src_type == EM_BF16) {
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = em_bf16_to_f32(((const uint16_t *)src)[i]);
    } else if (dst_type == EM_BF16 && src_type == EM_F32) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i] = em_f32_to_bf16(((const float *)src)[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            em_store_f32(dst, dst_type, i, em_load_f32(src, src_type, i));
    }
}
