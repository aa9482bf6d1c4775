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

/* ---- many values ----------------------------------------------------------------------------- */

/* Both ways of every value are computed and one is chosen: loops without a branch, which the
 * compiler turns into vectors. The same bits as the functions above. */

static void f32_of_bf16(uint32_t *restrict out, const uint16_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = (uint32_t)in[i] << 16;
}

static void f32_of_f16(uint32_t *restrict out, const uint16_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        union {
            float f;
            uint32_t u;
        } small = {.f = (float)(int32_t)(in[i] & 0x3ffu) * 0x1p-24f};
        uint32_t size = in[i] & 0x7fffu, sign = (uint32_t)(in[i] & 0x8000u) << 16;
        uint32_t normal = (size << 13) + (size >= 0x7c00u ? 224u << 23 : 112u << 23);
        out[i] = sign | (size < 0x400u ? small.u : normal);
    }
}

static void bf16_of_f32(uint16_t *restrict out, const uint32_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = in[i], rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
        out[i] = (uint16_t)((int32_t)(u & 0x7fffffffu) > 0x7f800000 ? u >> 16 | 0x40u : rounded);
    }
}

static void f16_of_f32(uint16_t *restrict out, const uint32_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        union {
            uint32_t u;
            float f;
        } small = {.u = in[i] & 0x7fffffffu};
        int32_t a = (int32_t)small.u;
        uint32_t normal = ((uint32_t)a + 0xfffu + ((uint32_t)a >> 13 & 1u) - 0x38000000u) >> 13;
        small.f += 0.5f;
        uint32_t r = a < 0x38800000 ? small.u - 0x3f000000u : normal;
        r = a >= 0x477ff000 ? 0x7c00u : r;
        r = a > 0x7f800000 ? 0x7e00u : r;
        out[i] = (uint16_t)(in[i] >> 16 & 0x8000u) | (uint16_t)r;
    }
}

enum { BLOCK_VALUES = 1024 };

/* Two bytes a value to two others: through float32, a block at a time. */
static void convert_narrow(uint16_t *dst, em_dtype dst_type, const uint16_t *src, size_t n)
{
    uint32_t wide[BLOCK_VALUES];
    for (size_t k; n; dst += k, src += k, n -= k) {
        k = n < BLOCK_VALUES ? n : BLOCK_VALUES;
        if (dst_type == EM_BF16) {
            f32_of_f16(wide, src, k);
            bf16_of_f32(dst, wide, k);
        } else {
            f32_of_bf16(wide, src, k);
            f16_of_f32(dst, wide, k);
        }
    }
}

void em_convert(void *dst, em_dtype dst_type, const void *src, em_dtype src_type, size_t n)
{
    if (dst_type == src_type) {
        memcpy(dst, src, n * em_dtype_bytes(dst_type));
    } else if (dst_type == EM_F32 && src_type == EM_BF16) {
        f32_of_bf16(dst, src, n);
    } else if (dst_type == EM_F32 && src_type == EM_F16) {
        f32_of_f16(dst, src, n);
    } else if (dst_type == EM_BF16 && src_type == EM_F32) {
        bf16_of_f32(dst, src, n);
    } else if (dst_type == EM_F16 && src_type == EM_F32) {
        f16_of_f32(dst, src, n);
    } else if (em_dtype_bytes(src_type) == 2) {
        convert_narrow(dst, dst_type, src, n);
    } else {
        for (size_t i = 0; i < n; i++)
            em_store_f32(dst, dst_type, i, em_load_f32(src, src_type, i));
    }
}
