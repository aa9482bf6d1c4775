/* Values that move and change their format, and resampling. */
#include "ops/cuda/common.cuh"

enum { THREADS = 256 };

static bool aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

/* ---- columns --------------------------------------------------------------------------------- */

struct copy_args {
    int64_t dst_stride, src_stride, rows, cols; /* in items; N divides all but rows */
};

template <typename TD, typename TS, int N>
__global__ void copy_kernel(TD *dst, const TS *src, copy_args g)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x, packs = g.cols / N, n = g.rows * packs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int64_t row = i / packs, col = i % packs * N;
        pack<TS, N> in = *(const pack<TS, N> *)(src + row * g.src_stride + col);
        pack<TD, N> out;
        for (int k = 0; k < N; k++) out.v[k] = from_f32<TD>(to_f32(in.v[k]));
        *(pack<TD, N> *)(dst + row * g.dst_stride + col) = out;
    }
}

template <typename TD, typename TS>
static cudaError_t copy_of(void *dst, const void *src, const copy_args &g, cudaStream_t s)
{
    bool wide = g.cols % 4 == 0 && g.dst_stride % 4 == 0 && g.src_stride % 4 == 0 &&
                aligned(dst, 4 * sizeof(TD)) && aligned(src, 4 * sizeof(TS));
    unsigned blocks = blocks_for(g.rows * g.cols, THREADS * 4);
    if (wide)
        copy_kernel<TD, TS, 4><<<blocks, THREADS, 0, s>>>((TD *)dst, (const TS *)src, g);
    else
        copy_kernel<TD, TS, 1><<<blocks, THREADS, 0, s>>>((TD *)dst, (const TS *)src, g);
    return cudaGetLastError();
}

template <typename TD>
static cudaError_t copy_to(void *dst, emk_tensor src, const copy_args &g, cudaStream_t s)
{
    switch (src.dtype) {
    case EMK_F32: return copy_of<TD, float>(dst, src.data, g, s);
    case EMK_F16: return copy_of<TD, __half>(dst, src.data, g, s);
    case EMK_BF16: return copy_of<TD, __nv_bfloat16>(dst, src.data, g, s);
    default: return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t emk_copy_cols(emk_tensor dst, int64_t dst_stride, emk_tensor src,
                                     int64_t src_stride, int64_t rows, int64_t cols, cudaStream_t s)
{
    if (rows * cols == 0) return cudaSuccess;
    bool dense = (dst_stride == cols && src_stride == cols) || rows == 1;
    size_t item = dst.dtype == EMK_F32 ? 4 : 2;
    if (dense && dst.dtype == src.dtype)
        return cudaMemcpyAsync(dst.data, src.data, (size_t)(rows * cols) * item,
                               cudaMemcpyDeviceToDevice, s);
    if (dense) {
        cols *= rows;
        rows = 1;
        dst_stride = src_stride = cols;
    }
    const copy_args g = {dst_stride, src_stride, rows, cols};
    return EMK_BY_TYPE(dst.dtype, copy_to, dst.data, src, g, s);
}

/* ---- transpose ------------------------------------------------------------------------------- */

enum { TILE = 32, TILE_ROWS = 8 };

template <typename T>
__global__ void transpose_kernel(T *y, const T *x, int64_t rows, int64_t cols, int64_t tiles_x)
{
    __shared__ T tile[TILE][TILE + 1];
    int64_t bx = blockIdx.x % tiles_x * TILE, by = blockIdx.x / tiles_x * TILE;
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS)
        if (by + i < rows && bx + threadIdx.x < cols)
            tile[i][threadIdx.x] = x[(by + i) * cols + bx + threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS)
        if (bx + i < cols && by + threadIdx.x < rows)
            y[(bx + i) * rows + by + threadIdx.x] = tile[threadIdx.x][i];
}

template <typename T>
static cudaError_t transpose(void *y, const void *x, int64_t rows, int64_t cols, cudaStream_t s)
{
    int64_t tiles_x = (cols + TILE - 1) / TILE, tiles_y = (rows + TILE - 1) / TILE;
    transpose_kernel<T><<<(unsigned)(tiles_x * tiles_y), dim3(TILE, TILE_ROWS), 0, s>>>(
        (T *)y, (const T *)x, rows, cols, tiles_x);
    return cudaGetLastError();
}

#define BY_SIZE(bytes, F, ...)                                                                     \
    ((bytes) == 4   ? F<uint32_t>(__VA_ARGS__)                                                     \
     : (bytes) == 2 ? F<uint16_t>(__VA_ARGS__)                                                     \
     : (bytes) == 1 ? F<uint8_t>(__VA_ARGS__)                                                      \
                    : cudaErrorInvalidValue)

extern "C" cudaError_t emk_transpose(void *y, const void *x, int64_t rows, int64_t cols,
                                     int item_bytes, cudaStream_t s)
{
    if (rows * cols == 0) return cudaSuccess;
    return BY_SIZE(item_bytes, transpose, y, x, rows, cols, s);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* A block a row; the indices travel with the launch. */
template <typename T>
__global__ void gather_kernel(T *y, const T *table, int64_t row_items, const emk_rows rows)
{
    const T *from = table + rows.idx[blockIdx.x] * row_items;
    T *to = y + blockIdx.x * row_items;
    for (int64_t i = threadIdx.x; i < row_items; i += blockDim.x) to[i] = from[i];
}

template <typename T>
static cudaError_t gather(void *y, const void *table, int64_t row_bytes, const emk_rows *rows,
                          int n, cudaStream_t s)
{
    gather_kernel<T><<<(unsigned)n, THREADS, 0, s>>>((T *)y, (const T *)table,
                                                     row_bytes / (int64_t)sizeof(T), *rows);
    return cudaGetLastError();
}

extern "C" cudaError_t emk_gather(void *y, const void *table, int64_t row_bytes,
                                  const emk_rows *rows, int n, cudaStream_t s)
{
    bool words = row_bytes % 4 == 0 && aligned(y, 4) && aligned(table, 4);
    return words ? gather<uint32_t>(y, table, row_bytes, rows, n, s)
                 : gather<uint8_t>(y, table, row_bytes, rows, n, s);
}

/* ---- patches --------------------------------------------------------------------------------- */

struct patch_args {
    int64_t t, h, w, c; /* of the pixels */
    int ph, pw;
};

/* Item of the pixels that value i of the tokens is. Values of a token in the order (c, ph, pw), or
 * (ph, pw, c). */
__device__ inline int64_t pixel_of(const patch_args &g, int64_t i, bool channel_first)
{
    int64_t values = g.c * g.ph * g.pw, nw = g.w / g.pw, nh = g.h / g.ph;
    int64_t token = i / values, v = i % values, c, dy, dx;
    if (channel_first) {
        dx = v % g.pw;
        dy = v / g.pw % g.ph;
        c = v / (g.pw * g.ph);
    } else {
        c = v % g.c;
        dx = v / g.c % g.pw;
        dy = v / (g.c * g.pw);
    }
    int64_t row = token / (nh * nw) * g.h + token / nw % nh * g.ph + dy;
    return (row * g.w + token % nw * g.pw + dx) * g.c + c;
}

template <typename T> __global__ void patchify_kernel(T *y, const T *x, patch_args g, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] = x[pixel_of(g, i, true)];
}

template <typename T> __global__ void unpatchify_kernel(T *y, const T *x, patch_args g, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[pixel_of(g, i, false)] = x[i];
}

template <typename T>
static cudaError_t patchify(void *y, const void *x, const patch_args &g, cudaStream_t s)
{
    int64_t n = g.t * g.h * g.w * g.c;
    patchify_kernel<T><<<blocks_for(n, THREADS), THREADS, 0, s>>>((T *)y, (const T *)x, g, n);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t unpatchify(void *y, const void *x, const patch_args &g, cudaStream_t s)
{
    int64_t n = g.t * g.h * g.w * g.c;
    unpatchify_kernel<T><<<blocks_for(n, THREADS), THREADS, 0, s>>>((T *)y, (const T *)x, g, n);
    return cudaGetLastError();
}

extern "C" cudaError_t emk_patchify(void *y, const void *x, int64_t t, int64_t h, int64_t w,
                                    int64_t c, int ph, int pw, int item_bytes, cudaStream_t s)
{
    const patch_args g = {t, h, w, c, ph, pw};
    return BY_SIZE(item_bytes, patchify, y, x, g, s);
}

extern "C" cudaError_t emk_unpatchify(void *y, const void *x, int64_t t, int64_t h, int64_t w,
                                      int64_t c, int ph, int pw, int item_bytes, cudaStream_t s)
{
    const patch_args g = {t, h, w, c, ph, pw};
    return BY_SIZE(item_bytes, unpatchify, y, x, g, s);
}

/* ---- resampling ------------------------------------------------------------------------------ */

/* Positions in float32, each product rounded by itself, as torch computes them. */
template <typename T>
__global__ void lerp_kernel(T *y, const T *x, int64_t n, int64_t rows, int64_t cols)
{
    float step = n > 1 ? (float)(rows - 1) / (float)(n - 1) : 0.0f;
    int64_t i = blockIdx.x;
    float pos = __fmul_rn(step, (float)i);
    int64_t lo = (int64_t)pos < rows ? (int64_t)pos : rows - 1, hi = lo + 1 < rows ? lo + 1 : lo;
    float f = pos - (float)lo;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
        double a = to_f32(x[lo * cols + c]), b = to_f32(x[hi * cols + c]);
        y[i * cols + c] = from_f32<T>((float)((1.0 - f) * a + (double)f * b));
    }
}

template <typename T>
static cudaError_t lerp(void *y, const void *x, int64_t n, int64_t rows, int64_t cols,
                        cudaStream_t s)
{
    lerp_kernel<T><<<(unsigned)n, THREADS, 0, s>>>((T *)y, (const T *)x, n, rows, cols);
    return cudaGetLastError();
}

extern "C" cudaError_t emk_lerp_time(emk_tensor y, emk_tensor x, int64_t n, int64_t rows,
                                     int64_t cols, cudaStream_t s)
{
    return EMK_BY_TYPE(y.dtype, lerp, y.data, x.data, n, rows, cols, s);
}

/* Keys' cubic convolution with a = -0.75 around fraction f. */
__device__ inline void cubic_taps(float f, double tap[4])
{
    const double a = -0.75, t[4] = {f + 1.0, f, 1.0 - f, 2.0 - f};
    for (int i = 0; i < 4; i++) {
        double d = t[i];
        tap[i] = i == 1 || i == 2 ? ((a + 2) * d - (a + 3)) * d * d + 1
                                  : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    }
}

/* The first of four source positions of output i; half-pixel centres in float32. */
__device__ inline int64_t source_taps(int64_t i, int64_t in, int64_t out, double tap[4])
{
    float scale = (float)in / (float)out;
    float pos = __fsub_rn(__fmul_rn(scale, (float)i + 0.5f), 0.5f), whole = floorf(pos);
    cubic_taps(pos - whole, tap);
    return (int64_t)whole - 1;
}

__device__ inline int64_t clamped(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

__global__ void bicubic_kernel(float *y, const float *x, int64_t oh, int64_t ow, int64_t h,
                               int64_t w, int64_t nc)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x, n = oh * ow * nc;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        double ty[4], tx[4], sum = 0;
        int64_t c = i % nc, y0 = source_taps(i / nc / ow, h, oh, ty),
                x0 = source_taps(i / nc % ow, w, ow, tx);
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++)
                sum += ty[a] * tx[b] *
                       (double)x[(clamped(y0 + a, h) * w + clamped(x0 + b, w)) * nc + c];
        y[i] = (float)sum;
    }
}

extern "C" cudaError_t emk_resize_bicubic(float *y, const float *x, int64_t oh, int64_t ow,
                                          int64_t h, int64_t w, int64_t c, cudaStream_t s)
{
    bicubic_kernel<<<blocks_for(oh * ow * c, THREADS), THREADS, 0, s>>>(y, x, oh, ow, h, w, c);
    return cudaGetLastError();
}
