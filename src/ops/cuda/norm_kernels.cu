/* Norms over the last dimension: statistics in float32, mean first, then the squares about it.
 *
 * A row belongs to one warp up to 512 columns and to one block of eight warps beyond; either way a
 * row's sums are taken in an order that depends on its length alone. */
#include "ops/cuda/common.cuh"

enum { WARP = 32, WARPS = 8, THREADS = WARP * WARPS, WARP_COLS = 512 };

struct norm_args {
    emk_tensor w, b;
    int64_t rows, cols;
    int kind;
    float eps;
    int act;
};

__device__ inline float warp_sum(float v)
{
    for (int d = WARP / 2; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
    return v;
}

/* The sum over `team` threads: a warp, or the whole block. */
template <int TEAM> __device__ inline float team_sum(float v)
{
    v = warp_sum(v);
    if (TEAM == WARP) return v;
    __shared__ float part[WARPS];
    __syncthreads();
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < WARPS; i++) v += part[i];
    return v;
}

/* N values of a vector of any format; absent ones are `absent`. */
template <typename T, int N> __device__ inline void widen(float *out, const void *data, int64_t i)
{
    pack<T, N> v = *(const pack<T, N> *)((const T *)data + i);
    for (int k = 0; k < N; k++) out[k] = to_f32(v.v[k]);
}

template <int N>
__device__ inline void vector_pack(float *out, emk_tensor t, int64_t i, float absent)
{
    if (!t.data) {
        for (int k = 0; k < N; k++) out[k] = absent;
    } else if (t.dtype == EMK_F32) {
        widen<float, N>(out, t.data, i);
    } else if (t.dtype == EMK_F16) {
        widen<__half, N>(out, t.data, i);
    } else {
        widen<__nv_bfloat16, N>(out, t.data, i);
    }
}

__device__ __noinline__ float activate_rarely(float v, int act)
{
    return activate(v, act);
}

/* The affine part and the activation of N values from column c on; w and b aligned to N items. */
template <int N> __device__ inline void finish(float *v, const norm_args &g, int64_t c)
{
    float w[N], b[N];
    float one = g.kind == EMK_MODULATE ? 1.0f : 0.0f;
    vector_pack<N>(w, g.w, c, 1 - one);
    vector_pack<N>(b, g.b, c, 0);
    for (int k = 0; k < N; k++) {
        v[k] = v[k] * (w[k] + one) + b[k];
        if (g.act == EMK_SILU)
            v[k] = v[k] / (1 + expf(-v[k]));
        else if (g.act != EMK_NONE)
            v[k] = activate_rarely(v[k], g.act);
    }
}

/* Each thread keeps HELD packs of N values of its row in registers; longer rows are read again. */
template <typename TY, typename TX, int TEAM, int N, int HELD>
__global__ void norm_kernel(TY *y, const TX *x, norm_args g)
{
    int lane = threadIdx.x % TEAM;
    int64_t row = (int64_t)blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM;
    if (row >= g.rows) return;
    const pack<TX, N> *from = (const pack<TX, N> *)(x + row * g.cols);
    pack<TY, N> *to = (pack<TY, N> *)(y + row * g.cols);
    int64_t packs = g.cols / N;
    float held[HELD * N], mean = 0, rest = 0, sum = 0, square = 0;
    bool centred = g.kind == EMK_LAYER || g.kind == EMK_MODULATE;

    for (int h = 0; h < HELD; h++) {
        int64_t i = lane + (int64_t)h * TEAM;
        if (i >= packs) break;
        pack<TX, N> v = from[i];
        for (int k = 0; k < N; k++) sum += held[h * N + k] = to_f32(v.v[k]);
    }
#pragma unroll 1
    for (int64_t i = lane + (int64_t)HELD * TEAM; i < packs; i += TEAM)
        for (int k = 0; k < N; k++) sum += to_f32(from[i].v[k]);
    if (centred) mean = team_sum<TEAM>(sum) / (float)g.cols;

    /* The mean is rounded: what it is off by comes from the differences. */
    sum = 0;
    for (int h = 0; h < HELD; h++) {
        if (lane + (int64_t)h * TEAM >= packs) break;
        for (int k = 0; k < N; k++) {
            float v = held[h * N + k] -= mean;
            sum += v;
            square += v * v;
        }
    }
#pragma unroll 1
    for (int64_t i = lane + (int64_t)HELD * TEAM; i < packs; i += TEAM)
        for (int k = 0; k < N; k++) {
            float v = to_f32(from[i].v[k]) - mean;
            sum += v;
            square += v * v;
        }
    square = team_sum<TEAM>(square);
    if (centred) rest = team_sum<TEAM>(sum) / (float)g.cols;
    square -= rest * rest * (float)g.cols;
    float factor = g.kind == EMK_L2 ? sqrtf((float)g.cols) / fmaxf(sqrtf(square), 1e-12f)
                                    : 1 / sqrtf(square / (float)g.cols + g.eps);

    for (int h = 0; h < HELD; h++) {
        int64_t i = lane + (int64_t)h * TEAM;
        if (i >= packs) break;
        float v[N];
        pack<TY, N> out;
        for (int k = 0; k < N; k++) v[k] = (held[h * N + k] - rest) * factor;
        finish<N>(v, g, i * N);
        for (int k = 0; k < N; k++) out.v[k] = from_f32<TY>(v[k]);
        to[i] = out;
    }
#pragma unroll 1
    for (int64_t i = lane + (int64_t)HELD * TEAM; i < packs; i += TEAM) {
        pack<TX, N> in = from[i];
        float v[N];
        pack<TY, N> out;
        for (int k = 0; k < N; k++) v[k] = (to_f32(in.v[k]) - mean - rest) * factor;
        finish<N>(v, g, i * N);
        for (int k = 0; k < N; k++) out.v[k] = from_f32<TY>(v[k]);
        to[i] = out;
    }
}

template <typename TY, typename TX, int N>
static void launch(void *y, const void *x, const norm_args &g, cudaStream_t s)
{
    constexpr int held = N > 1 ? 4 : 1; /* odd widths and addresses are rare: they read again */
    if (g.cols <= WARP_COLS) {
        unsigned blocks = (unsigned)((g.rows + WARPS - 1) / WARPS);
        norm_kernel<TY, TX, WARP, N, held><<<blocks, THREADS, 0, s>>>((TY *)y, (const TX *)x, g);
    } else {
        norm_kernel<TY, TX, THREADS, N, held>
            <<<(unsigned)g.rows, THREADS, 0, s>>>((TY *)y, (const TX *)x, g);
    }
}

static bool aligned(emk_tensor t)
{
    return (uintptr_t)t.data % (t.dtype == EMK_F32 ? 16 : 8) == 0;
}

template <typename TY, typename TX>
static cudaError_t norm_of(void *y, const void *x, const norm_args &g, cudaStream_t s)
{
    bool wide = g.cols % 4 == 0 && (uintptr_t)x % (4 * sizeof(TX)) == 0 &&
                (uintptr_t)y % (4 * sizeof(TY)) == 0 && aligned(g.w) && aligned(g.b);
    if (wide)
        launch<TY, TX, 4>(y, x, g, s);
    else
        launch<TY, TX, 1>(y, x, g, s);
    return cudaGetLastError();
}

template <typename TY>
static cudaError_t norm(void *y, emk_tensor x, const norm_args &g, cudaStream_t s)
{
    switch (x.dtype) {
    case EMK_F32: return norm_of<TY, float>(y, x.data, g, s);
    case EMK_F16: return norm_of<TY, __half>(y, x.data, g, s);
    case EMK_BF16: return norm_of<TY, __nv_bfloat16>(y, x.data, g, s);
    default: return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t emk_norm(emk_tensor y, emk_tensor x, emk_tensor w, emk_tensor b,
                                int64_t rows, int64_t cols, int kind, float eps, int act,
                                cudaStream_t s)
{
    const norm_args g = {w, b, rows, cols, kind, eps, act};
    if (!rows) return cudaSuccess;
    return EMK_BY_TYPE(y.dtype, norm, y.data, x, g, s);
}

/* ---- down the columns ------------------------------------------------------------------------ */

/* A block has 32 columns, a warp reads along a row; sums in double, rows are many. */
template <typename TY, typename TX>
__global__ void time_norm_kernel(TY *y, const TX *x, norm_args g)
{
    __shared__ double part[WARPS][WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int64_t c = (int64_t)blockIdx.x * WARP + lane;
    double mean = 0, square = 0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        for (int64_t m = warp; m < g.rows && c < g.cols; m += WARPS) {
            double v = to_f32(x[m * g.cols + c]);
            sum += pass ? (v - mean) * (v - mean) : v;
        }
        part[warp][lane] = sum;
        __syncthreads();
        sum = 0;
        for (int i = 0; i < WARPS; i++) sum += part[i][lane];
        __syncthreads();
        (pass ? square : mean) = sum / (double)g.rows;
    }
    float factor = (float)(1 / sqrt(square + (double)g.eps));
    for (int64_t m = warp; m < g.rows && c < g.cols; m += WARPS) {
        float v = (float)((double)to_f32(x[m * g.cols + c]) - mean) * factor;
        finish<1>(&v, g, c);
        y[m * g.cols + c] = from_f32<TY>(v);
    }
}

template <typename TY, typename TX>
static cudaError_t time_norm_of(void *y, const void *x, const norm_args &g, cudaStream_t s)
{
    unsigned blocks = (unsigned)((g.cols + WARP - 1) / WARP);
    time_norm_kernel<TY, TX><<<blocks, THREADS, 0, s>>>((TY *)y, (const TX *)x, g);
    return cudaGetLastError();
}

template <typename TY>
static cudaError_t time_norm(void *y, emk_tensor x, const norm_args &g, cudaStream_t s)
{
    switch (x.dtype) {
    case EMK_F32: return time_norm_of<TY, float>(y, x.data, g, s);
    case EMK_F16: return time_norm_of<TY, __half>(y, x.data, g, s);
    case EMK_BF16: return time_norm_of<TY, __nv_bfloat16>(y, x.data, g, s);
    default: return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t emk_time_norm(emk_tensor y, emk_tensor x, emk_tensor w, emk_tensor b,
                                     int64_t rows, int64_t cols, float eps, cudaStream_t s)
{
    const norm_args g = {w, b, rows, cols, EMK_LAYER, eps, EMK_NONE};
    return EMK_BY_TYPE(y.dtype, time_norm, y.data, x, g, s);
}

/* ---- weight norm ----------------------------------------------------------------------------- */

/* A block a tap. Once a recording, on a few million values. */
__global__ void weight_norm_kernel(float *y, emk_tensor g, emk_tensor v, int64_t rows, int64_t taps)
{
    __shared__ double part[THREADS];
    int64_t k = blockIdx.x;
    double square = 0;
    for (int64_t i = threadIdx.x; i < rows; i += THREADS) {
        double a = vector_at(v, i * taps + k, 0);
        square += a * a;
    }
    part[threadIdx.x] = square;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    double factor = vector_at(g, k, 0) / sqrt(part[0]);
    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        y[i * taps + k] = (float)(vector_at(v, i * taps + k, 0) * factor);
}

extern "C" cudaError_t emk_weight_norm(float *y, emk_tensor g, emk_tensor v, int64_t rows,
                                       int64_t taps, cudaStream_t s)
{
    weight_norm_kernel<<<(unsigned)taps, THREADS, 0, s>>>(y, g, v, rows, taps);
    return cudaGetLastError();
}
