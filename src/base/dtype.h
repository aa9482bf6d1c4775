/* Number formats of files and tensors, and the conversions between them. */
#ifndef EM_BASE_DTYPE_H
#define EM_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, bytes, safetensors' spelling */
#define EM_DTYPE_MAP(X)                                                                            \
    X(F32, 4, "F32")                                                                               \
    X(F16, 2, "F16")                                                                               \
    X(BF16, 2, "BF16")                                                                             \
    X(F64, 8, "F64")                                                                               \
    X(I64, 8, "I64")                                                                               \
    X(I32, 4, "I32")                                                                               \
    X(I16, 2, "I16")                                                                               \
    X(I8, 1, "I8")                                                                                 \
    X(U8, 1, "U8")                                                                                 \
    X(BOOL, 1, "BOOL")

typedef enum em_dtype {
#define X(name, bytes, text) EM_##name,
    EM_DTYPE_MAP(X)
#undef X
        EM_DTYPE_COUNT
} em_dtype;

size_t em_dtype_bytes(em_dtype t);
const char *em_dtype_name(em_dtype t); /* "BF16" */
static inline bool em_dtype_is_float(em_dtype t)
{
    return t == EM_F32 || t == EM_F16 || t == EM_BF16;
}

/* bfloat16: the upper half of a float32; rounding to nearest even, NaN stays NaN. */
static inline float em_bf16_to_f32(uint16_t v)
{
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)v << 16};
    return x.f;
}

static inline uint16_t em_f32_to_bf16(float f)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(x.u >> 16 | 0x40u);
    return (uint16_t)((x.u + 0x7fffu + (x.u >> 16 & 1u)) >> 16);
}

/* IEEE half precision, nearest even, subnormals kept. */
float em_f16_to_f32(uint16_t v);
uint16_t em_f32_to_f16(float f);

/* n values of type src to type dst; both must be float types (F64 allowed as src). Overlap is
 * not. */
void em_convert(void *dst, em_dtype dst_type, const void *src, em_dtype src_type, size_t n);

/* One value of a float tensor as float32, and back (rounded). Slow: for references and tests. */
float em_load_f32(const void *data, em_dtype t, size_t i);
void em_store_f32(void *data, em_dtype t, size_t i, float v);

#endif
