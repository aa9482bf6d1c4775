/* One value in, one value out: bound by bytes, so four values a thread where they are aligned. */
#include "ops/cuda/common.cuh"

enum { THREADS = 256, WIDE = 4 };

static bool aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

template <typename T> static size_t wide_bytes(void)
{
    return sizeof(T) * WIDE;
}

/* ---- fill, activation ------------------------------------------------------------------------ */

template <typename T> __global__ void fill_kernel(T *x, int64_t n, float value)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    T v = from_f32<T>(value);
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) x[i] = v;
}

template <typename T> static cudaError_t fill(void *x, int64_t n, float value, cudaStream_t s)
{
    fill_kernel<T><<<blocks_for(n, THREADS), THREADS, 0, s>>>((T *)x, n, value);
    return cudaGetLastError();
}

template <typename T, int N> __global__ void act_kernel(T *x, int64_t n, int act)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    pack<T, N> *p = (pack<T, N> *)x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n / N; i += step) {
        pack<T, N> v = p[i];
        for (int k = 0; k < N; k++) v.v[k] = from_f32<T>(activate(to_f32(v.v[k]), act));
        p[i] = v;
    }
}

template <typename T> static cudaError_t act(void *x, int64_t n, int kind, cudaStream_t s)
{
    unsigned blocks = blocks_for(n, THREADS * WIDE);
    if (n % WIDE == 0 && aligned(x, wide_bytes<T>()))
        act_kernel<T, WIDE><<<blocks, THREADS, 0, s>>>((T *)x, n, kind);
    else
        act_kernel<T, 1><<<blocks, THREADS, 0, s>>>((T *)x, n, kind);
    return cudaGetLastError();
}

/* ---- x op a, b ------------------------------------------------------------------------------- */

struct binary_args {
    emk_tensor a, b;
    int64_t n, cols;
    int kind;
};

template <typename TX, typename TA, int N> __global__ void binary_kernel(TX *x, binary_args g)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    pack<TX, N> *px = (pack<TX, N> *)x;
    const pack<TA, N> *pa = (const pack<TA, N> *)g.a.data;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < g.n / N; i += step) {
        pack<TX, N> vx = px[i];
        int64_t col = i * N % g.cols;
        pack<TA, N> va = g.kind == EMK_SCALE_SHIFT ? pa[col / N] : pa[i];
        for (int k = 0; k < N; k++) {
            float v = to_f32(vx.v[k]), a = to_f32(va.v[k]);
            switch (g.kind) {
            case EMK_ADD: v += a; break;
            case EMK_MUL: v *= a; break;
            case EMK_GATED_ADD: v += a * vector_at(g.b, col + k, 0); break;
            default: v = v * a + vector_at(g.b, col + k, 0); break;
            }
            vx.v[k] = from_f32<TX>(v);
        }
        px[i] = vx;
    }
}

template <typename TX, typename TA>
static cudaError_t binary_of(void *x, const binary_args &g, cudaStream_t s)
{
    unsigned blocks = blocks_for(g.n, THREADS * WIDE);
    if (g.n % WIDE == 0 && g.cols % WIDE == 0 && aligned(x, wide_bytes<TX>()) &&
        aligned(g.a.data, wide_bytes<TA>()))
        binary_kernel<TX, TA, WIDE><<<blocks, THREADS, 0, s>>>((TX *)x, g);
    else
        binary_kernel<TX, TA, 1><<<blocks, THREADS, 0, s>>>((TX *)x, g);
    return cudaGetLastError();
}

template <typename TX> static cudaError_t binary(void *x, const binary_args &g, cudaStream_t s)
{
    switch (g.a.dtype) {
    case EMK_F32: return binary_of<TX, float>(x, g, s);
    case EMK_F16: return binary_of<TX, __half>(x, g, s);
    case EMK_BF16: return binary_of<TX, __nv_bfloat16>(x, g, s);
    default: return cudaErrorInvalidValue;
    }
}

/* ---- rotary positions ------------------------------------------------------------------------ */

/* A thread a pair: (a + ib) e^(i angle). */
template <typename T>
__global__ void rope_kernel(T *x, const float2 *table, int64_t rows, int heads, int pairs)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x, n = rows * heads * pairs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int64_t row = i / ((int64_t)heads * pairs);
        float2 angle = table[row * pairs + i % pairs];
        pack<T, 2> *p = (pack<T, 2> *)x + i, v = *p;
        float a = to_f32(v.v[0]), b = to_f32(v.v[1]);
        v.v[0] = from_f32<T>(a * angle.x - b * angle.y);
        v.v[1] = from_f32<T>(a * angle.y + b * angle.x);
        *p = v;
    }
}

template <typename T>
static cudaError_t rope(void *x, const float *table, int64_t rows, int heads, int pairs,
                        cudaStream_t s)
{
    int64_t n = rows * heads * pairs;
    rope_kernel<T><<<blocks_for(n, THREADS), THREADS, 0, s>>>((T *)x, (const float2 *)table, rows,
                                                              heads, pairs);
    return cudaGetLastError();
}

/* ---- linear combinations, bytes -------------------------------------------------------------- */

__global__ void lincomb_kernel(float *y, emk_terms t, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        double sum = 0;
        for (int k = 0; k < t.n; k++) sum += (double)t.c[k] * t.x[k][i];
        y[i] = (float)sum;
    }
}

template <typename T> __global__ void to_u8_kernel(unsigned char *y, const T *x, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        float v = __fadd_rn(to_f32(x[i]) / 2, 0.5f);
        y[i] = v >= 1 ? 255 : v > 0 ? (unsigned char)(v * 255) : 0; /* NaN fails both tests */
    }
}

template <typename T>
static cudaError_t to_u8(unsigned char *y, const void *x, int64_t n, cudaStream_t s)
{
    to_u8_kernel<T><<<blocks_for(n, THREADS), THREADS, 0, s>>>(y, (const T *)x, n);
    return cudaGetLastError();
}

/* ---- launchers ------------------------------------------------------------------------------- */

extern "C" cudaError_t emk_fill(emk_tensor x, int64_t n, float value, cudaStream_t s)
{
    return EMK_BY_TYPE(x.dtype, fill, x.data, n, value, s);
}

extern "C" cudaError_t emk_act(emk_tensor x, int64_t n, int kind, cudaStream_t s)
{
    return EMK_BY_TYPE(x.dtype, act, x.data, n, kind, s);
}

extern "C" cudaError_t emk_binary(emk_tensor x, emk_tensor a, emk_tensor b, int64_t rows,
                                  int64_t cols, int kind, cudaStream_t s)
{
    const binary_args g = {a, b, rows * cols, cols, kind};
    return EMK_BY_TYPE(x.dtype, binary, x.data, g, s);
}

extern "C" cudaError_t emk_rope(emk_tensor x, const float *table, int64_t rows, int heads,
                                int pairs, cudaStream_t s)
{
    return EMK_BY_TYPE(x.dtype, rope, x.data, table, rows, heads, pairs, s);
}

extern "C" cudaError_t emk_lincomb(float *y, const emk_terms *t, int64_t n, cudaStream_t s)
{
    lincomb_kernel<<<blocks_for(n, THREADS), THREADS, 0, s>>>(y, *t, n);
    return cudaGetLastError();
}

extern "C" cudaError_t emk_to_u8(unsigned char *y, emk_tensor x, int64_t n, cudaStream_t s)
{
    return EMK_BY_TYPE(x.dtype, to_u8, y, x.data, n, s);
}
