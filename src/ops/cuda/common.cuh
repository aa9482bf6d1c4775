/* What the kernels share: reading and writing of three number formats, launch sizes. */
#ifndef EM_OPS_CUDA_COMMON_CUH
#define EM_OPS_CUDA_COMMON_CUH

#include "ops/cuda/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ inline float to_f32(float v) { return v; }
__device__ inline float to_f32(__half v) { return __half2float(v); }
__device__ inline float to_f32(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename T> __device__ inline T from_f32(float v);
template <> __device__ inline float from_f32<float>(float v) { return v; }
template <> __device__ inline __half from_f32<__half>(float v) { return __float2half_rn(v); }
template <> __device__ inline __nv_bfloat16 from_f32<__nv_bfloat16>(float v)
{
    return __float2bfloat16_rn(v);
}

/* Small vectors (weights of norms, gates) in whatever format they come; NULL data: `absent`. */
__device__ inline float vector_at(emk_tensor t, int64_t i, float absent)
{
    if (!t.data) return absent;
    switch (t.dtype) {
    case EMK_F16: return to_f32(((const __half *)t.data)[i]);
    case EMK_BF16: return to_f32(((const __nv_bfloat16 *)t.data)[i]);
    default: return ((const float *)t.data)[i];
    }
}

/* N values at once, aligned to N items. */
template <typename T, int N> struct alignas(sizeof(T) * N) pack {
    T v[N];
};

__device__ inline float activate(float v, int act)
{
    switch (act) {
    case EMK_RELU: return v > 0 ? v : 0;
    case EMK_SILU: return v / (1 + expf(-v));
    case EMK_GELU_ERF: return 0.5f * v * (1 + erff(v * 0.70710678118654752440f));
    case EMK_GELU_TANH:
        return 0.5f * v * (1 + tanhf(0.79788456080286535588f * (v + 0.044715f * v * v * v)));
    case EMK_HARD_TANH: return v < -1 ? -1 : v > 1 ? 1 : v;
    default: return v;
    }
}

/* Blocks for n items of work, `each` a block; the kernels stride over what is left. */
static inline unsigned blocks_for(int64_t n, int64_t each)
{
    int64_t blocks = (n + each - 1) / each;
    return (unsigned)(blocks < 1 ? 1 : blocks > 1 << 20 ? 1 << 20 : blocks);
}

/* Calls F<T>(args) for the format; formats that are none of ours are an error. */
#define EMK_BY_TYPE(dtype, F, ...)                                                                 \
    ((dtype) == EMK_F32    ? F<float>(__VA_ARGS__)                                                 \
     : (dtype) == EMK_F16  ? F<__half>(__VA_ARGS__)                                                \
     : (dtype) == EMK_BF16 ? F<__nv_bfloat16>(__VA_ARGS__)                                         \
                           : cudaErrorInvalidValue)

#endif
