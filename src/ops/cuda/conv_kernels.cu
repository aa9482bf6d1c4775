/* Convolution as a matrix product that is never laid out: rows are output positions, columns output
 * channels, and the summed index k runs over taps and, inside a tap, input channels:
 *
 *     y[position][o] = bias[o] + sum over k = (tap, c) of
 *                      input[position * stride - pad + tap][c] w[o][k]
 *
 * Past frames, zeros outside and doubled rows are decided where an input value is fetched, so no
 * copy of the input exists. Which tile a position falls into has no influence on its sum: k runs in
 * one order, in one thread, whatever the number of frames. */
#include "ops/cuda/conv_tile.cuh"
#include "ops/cuda/mma.cuh"

/* ---- weights --------------------------------------------------------------------------------- */

/* A thread has one (o, i): it reads its taps in a row and writes beside its neighbours. */
template <typename T>
static __global__ void rows_kernel(T *dst, int64_t outs, int64_t row_len, int64_t step,
                                   emk_tensor src, int64_t ins, int taps)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, o = i / step, c = i % step;
    if (o >= outs) return;
    T *row = dst + o * row_len;
    for (int k = 0; k < taps; k++)
        row[k * step + c] =
            from_f32<T>(c < ins ? vector_at(src, (o * ins + c) * taps + k, 0) : 0.0f);
    for (int64_t k = taps * step + c; k < row_len; k += step) row[k] = from_f32<T>(0);
}

cudaError_t emk_conv_rows(emk_tensor dst, int64_t row_len, int64_t step, emk_tensor src,
                          int64_t outs, int64_t ins, int taps, cudaStream_t stream)
{
    unsigned blocks = (unsigned)ceil_div(outs * step, 256);
    if (dst.dtype == EMK_BF16)
        rows_kernel<<<blocks, 256, 0, stream>>>((__nv_bfloat16 *)dst.data, outs, row_len, step, src,
                                                ins, taps);
    else
        rows_kernel<<<blocks, 256, 0, stream>>>((__half *)dst.data, outs, row_len, step, src, ins,
                                                taps);
    return cudaGetLastError();
}

static __global__ void columns_kernel(float *dst, emk_tensor src, int64_t outs, int64_t ins,
                                      int taps, int64_t group_outs)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; /* in dst's order */
    if (i >= outs * ins * taps) return;
    int64_t o = i % group_outs, rest = i / group_outs;
    int64_t c = rest % ins;
    rest /= ins;
    int64_t k = rest % taps, g = rest / taps;
    dst[i] = vector_at(src, ((g * group_outs + o) * ins + c) * taps + k, 0);
}

cudaError_t emk_conv_columns(float *dst, emk_tensor src, int64_t outs, int64_t ins, int taps,
                             int groups, cudaStream_t stream)
{
    unsigned blocks = (unsigned)ceil_div(outs * ins * taps, 256);
    columns_kernel<<<blocks, 256, 0, stream>>>(dst, src, outs, ins, taps, outs / groups);
    return cudaGetLastError();
}

/* ---- ordinary cores -------------------------------------------------------------------------- */

/* A block: 128 positions x 64 output channels, 16 k at a time; a thread: 8 x 4 of them. */
enum { FMA_M = 128, FMA_N = 64, FMA_K = 16, FMA_PAD = 4 };

/* One thread's 8 consecutive k of one position. */
template <typename T>
static __device__ __forceinline__ void fetch_inputs(float out[8], const emk_conv_job &j,
                                                    const geometry &g, corner at, int64_t k,
                                                    int64_t ins, int64_t depth, int64_t channel)
{
    int64_t c = k % ins;
    tap p = tap_of((int)(k / ins), g);
    const T *pixel = k < depth ? pixel_at<T>(g, at.t + p.t, at.h + p.h, at.w + p.w) : NULL;
#pragma unroll
    for (int e = 0; e < 8; e++) {
        out[e] = pixel && k + e < depth ? to_f32(pixel[channel + c]) : 0.0f;
        if (++c == ins) {
            c = 0;
            next_tap(&p, g);
            pixel = k + e + 1 < depth ? pixel_at<T>(g, at.t + p.t, at.h + p.h, at.w + p.w) : NULL;
        }
    }
}

template <typename T>
static __global__ void __launch_bounds__(256)
    fma_kernel(emk_conv_job j, geometry g, int64_t ins, int64_t outs, int64_t depth)
{
    __shared__ float a[FMA_K][FMA_M + FMA_PAD], b[FMA_K][FMA_N];
    int64_t position = (int64_t)blockIdx.x * FMA_M, column = (int64_t)blockIdx.y * FMA_N;
    int64_t group = blockIdx.z, total = j.out[0] * j.out[1] * j.out[2];
    const float *w = (const float *)j.w + group * depth * outs;
    int tid = (int)threadIdx.x, a_row = tid / 2, a_k = tid % 2 * 8, b_k = tid / 16,
        b_n = tid % 16 * 4;
    int m = tid / 16 * 8, n = tid % 16 * 4;
    corner at = corner_of(j, position + a_row);
    float sum[8][4] = {}, next_a[8], next_b[4];

    for (int64_t k = -FMA_K; k < depth; k += FMA_K) {
        int64_t ahead = k + FMA_K;
        if (ahead < depth) {
            fetch_inputs<T>(next_a, j, g, at, ahead + a_k, ins, depth, group * ins);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t o = column + b_n + e;
                next_b[e] = ahead + b_k < depth && o < outs ? w[(ahead + b_k) * outs + o] : 0.0f;
            }
        }
        if (k >= 0)
#pragma unroll
            for (int s = 0; s < FMA_K; s++) {
                float x[8], v[4];
#pragma unroll
                for (int e = 0; e < 8; e++) x[e] = a[s][m + e];
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = b[s][n + e];
#pragma unroll
                for (int r = 0; r < 8; r++)
#pragma unroll
                    for (int e = 0; e < 4; e++) sum[r][e] = fmaf(x[r], v[e], sum[r][e]);
            }
        __syncthreads();
        if (ahead < depth) {
#pragma unroll
            for (int e = 0; e < 8; e++) a[a_k + e][a_row] = next_a[e];
#pragma unroll
            for (int e = 0; e < 4; e++) b[b_k][b_n + e] = next_b[e];
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 8; r++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t o = column + n + e, full = group * outs + o;
            if (position + m + r >= total || o >= outs) continue;
            T *to = (T *)j.y + (position + m + r) * j.out_channels + full;
            *to = from_f32<T>(sum[r][e] + vector_at(j.bias, full, 0));
        }
}

cudaError_t emk_conv_fma(const emk_conv_job *j, cudaStream_t stream)
{
    int64_t positions = j->out[0] * j->out[1] * j->out[2];
    int64_t ins = j->channels / j->groups, outs = j->out_channels / j->groups;
    int64_t depth = ins * j->kernel[0] * j->kernel[1] * j->kernel[2];
    dim3 grid((unsigned)ceil_div(positions, FMA_M), (unsigned)ceil_div(outs, FMA_N),
              (unsigned)j->groups);
    geometry g = geometry_of(j);
    if (j->type == EMK_F32)
        fma_kernel<float><<<grid, 256, 0, stream>>>(*j, g, ins, outs, depth);
    else if (j->type == EMK_F16)
        fma_kernel<__half><<<grid, 256, 0, stream>>>(*j, g, ins, outs, depth);
    else
        fma_kernel<__nv_bfloat16><<<grid, 256, 0, stream>>>(*j, g, ins, outs, depth);
    return cudaGetLastError();
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

/* A block of 8 warps has a tile of BM positions x BN output channels, a warp WM x WN of it. k runs
 * in steps of 32 through a ring of STAGES tiles in shared memory, filled by asynchronous copies:
 *
 *     stage:  A  BM rows of 64 bytes (32 channels of a tap)    B  BN rows of 64 bytes
 *
 * The four 16-byte pieces of a row change places with the row number (swizzle), so that eight rows
 * read at once lie in different banks. */
enum { STAGES = 4, DEPTH = 32, PIECES = 4, THREADS = 256 };

static __device__ __forceinline__ int piece_at(int row, int piece) /* in units of 16 bytes */
{
    return row * PIECES + (piece ^ (row >> 1 & 3));
}

/* Eight channels that may end early or lie at any address, one by one. */
template <typename T>
static __device__ __forceinline__ void copy_channels(T *to, const T *pixel, int c, int channels)
{
    alignas(16) T v[8];
#pragma unroll
    for (int e = 0; e < 8; e++) {
        if (pixel && c + e < channels)
            v[e] = pixel[c + e];
        else
            v[e] = from_f32<T>(0);
    }
    *(uint4 *)to = *(const uint4 *)v;
}

template <typename T, int BM, bool ALIGNED>
static __device__ __forceinline__ void load_inputs(T *tile, const walk<T, BM / 64> &w,
                                                   const geometry &g)
{
    int row = (int)threadIdx.x / PIECES, piece = (int)threadIdx.x % PIECES;
#pragma unroll
    for (int i = 0; i < BM / 64; i++) {
        T *to = tile + piece_at(row + 64 * i, piece) * 8;
        const T *p = w.pixel[i];
        if (ALIGNED)
            copy_async(to, p ? p + w.c : (const T *)g.x, p != NULL);
        else
            copy_channels(to, p, w.c, (int)g.channels);
    }
}

template <typename T, int BN>
static __device__ __forceinline__ void load_weights(T *tile, const T *w, int64_t row_len,
                                                    int64_t first, int64_t outs, int64_t k)
{
    int row = (int)threadIdx.x / PIECES, piece = (int)threadIdx.x % PIECES;
    const T *from = w + (first + row) * row_len + k + piece * 8;
#pragma unroll
    for (int i = 0; i < (BN + 63) / 64; i++) {
        int r = row + 64 * i;
        if (BN % 64 != 0 && r >= BN) break;
        bool there = first + r < outs;
        copy_async(tile + piece_at(r, piece) * 8, there ? from + 64 * i * row_len : w, there);
    }
}

template <typename T, int WM, int WN>
static __device__ __forceinline__ void multiply_tiles(float (*sum)[WN / 8][4], const T *a,
                                                      const T *b, int m, int n)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++) {
        uint32_t fa[WM / 16][4], fb[WN / 16][4];
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
            load_matrices(fa[i], a + piece_at(m + i * 16 + lane % 16, k * 2 + lane / 16) * 8);
#pragma unroll
        for (int i = 0; i < WN / 16; i++)
            load_matrices(fb[i], b + piece_at(n + i * 16 + lane % 8 + lane / 16 * 8,
                                              k * 2 + lane / 8 % 2) *
                                         8);
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
#pragma unroll
            for (int o = 0; o < WN / 8; o++) multiply(sum[i][o], fa[i], &fb[o / 2][o % 2 * 2], T());
    }
}

template <typename T, int BM, int BN, int WM, int WN, bool ALIGNED>
static __global__ void __launch_bounds__(THREADS)
    mma_kernel(emk_conv_job j, geometry g, int step, int64_t row_len, unsigned col_tiles)
{
    extern __shared__ uint4 shared[];
    T *ring = (T *)shared;
    const int stage_len = (BM + BN) * DEPTH;
    int64_t position = (int64_t)(blockIdx.x / col_tiles) * BM;
    int64_t column = (int64_t)(blockIdx.x % col_tiles) * BN;
    int warp = (int)threadIdx.x / 32, m = warp % (BM / WM) * WM, n = warp / (BM / WM) * WN;
    int steps = (int)(row_len / DEPTH), loaded = 0;
    float sum[WM / 16][WN / 8][4] = {};

    walk<T, BM / 64> in;
#pragma unroll
    for (int i = 0; i < BM / 64; i++)
        in.at[i] = corner_of(j, position + (int)threadIdx.x / PIECES + 64 * i);
    start(&in, g, step, (int)threadIdx.x % PIECES * 8);

    for (int k = 1 - STAGES; k < steps; k++) {
        if (k >= 0) {
            copy_wait<STAGES - 2>();
            __syncthreads();
        }
        if (loaded < steps) {
            T *tile = ring + loaded % STAGES * stage_len;
            load_inputs<T, BM, ALIGNED>(tile, in, g);
            load_weights<T, BN>(tile + BM * DEPTH, (const T *)j.w, row_len, column, j.out_channels,
                                (int64_t)loaded * DEPTH);
            advance(&in, g, step, DEPTH);
            loaded++;
        }
        copy_commit(); /* an empty group too: the count of groups is the clock */
        if (k >= 0) {
            const T *tile = ring + k % STAGES * stage_len;
            multiply_tiles<T, WM, WN>(sum, tile, tile + BM * DEPTH, m, n);
        }
    }
    store_tile<T, WM, WN>(j, sum, position + m, column + n);
}

int64_t emk_conv_mma_step(int64_t channels)
{
    return ceil_div(channels, 8) * 8;
}

int64_t emk_conv_mma_row(int64_t channels, int64_t taps)
{
    return ceil_div(taps * emk_conv_mma_step(channels), DEPTH) * DEPTH;
}

template <typename T, int BM, int BN, int WM, int WN, bool ALIGNED>
static cudaError_t launch_mma(const emk_conv_job *j, cudaStream_t stream)
{
    int64_t positions = j->out[0] * j->out[1] * j->out[2];
    int64_t col_tiles = ceil_div(j->out_channels, BN);
    int64_t taps = (int64_t)j->kernel[0] * j->kernel[1] * j->kernel[2];
    int bytes = STAGES * (BM + BN) * DEPTH * (int)sizeof(T);
    cudaError_t rc = cudaFuncSetAttribute(mma_kernel<T, BM, BN, WM, WN, ALIGNED>,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (rc != cudaSuccess) return rc;
    unsigned blocks = (unsigned)(ceil_div(positions, BM) * col_tiles);
    mma_kernel<T, BM, BN, WM, WN, ALIGNED>
        <<<blocks, THREADS, (size_t)bytes, stream>>>(*j, geometry_of(j),
                                                     (int)emk_conv_mma_step(j->channels),
                                                     emk_conv_mma_row(j->channels, taps),
                                                     (unsigned)col_tiles);
    return cudaGetLastError();
}

/* The tile is the layer's: its width follows the number of output channels. */
template <typename T, bool ALIGNED>
static cudaError_t choose_tile(const emk_conv_job *j, cudaStream_t stream)
{
    if (j->out_channels <= 32) return launch_mma<T, 256, 32, 32, 32, ALIGNED>(j, stream);
    if (j->out_channels % 192 == 0) return launch_mma<T, 128, 192, 64, 48, ALIGNED>(j, stream);
    return launch_mma<T, 256, 96, 64, 48, ALIGNED>(j, stream);
}

cudaError_t emk_conv_mma(const emk_conv_job *j, cudaStream_t stream)
{
    if (j->type == EMK_BF16)
        return aligned(j) ? choose_tile<__nv_bfloat16, true>(j, stream)
                          : choose_tile<__nv_bfloat16, false>(j, stream);
    return aligned(j) ? choose_tile<__half, true>(j, stream)
                      : choose_tile<__half, false>(j, stream);
}

/* ---- around a library's convolution ---------------------------------------------------------- */

/* A thread moves one V of a pixel: eight channels where they come in eights, else one. */
template <typename V>
static __global__ void gather_kernel(V *dst, int64_t count, int rows, int cols, geometry g,
                                     corner pad)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int c = (int)(i % g.channels);
    int64_t rest = i / g.channels;
    int w = (int)(rest % cols);
    rest /= cols;
    int h = (int)(rest % rows), t = (int)(rest / rows);
    const V *pixel = pixel_at<V>(g, t - pad.t, h - pad.h, w - pad.w);
    V zero = {};
    dst[i] = pixel ? pixel[c] : zero;
}

cudaError_t emk_conv_gather(void *dst, const int64_t dim[3], const emk_conv_job *j,
                            cudaStream_t stream)
{
    int64_t vec = aligned(j) ? 8 : 1, count = dim[0] * dim[1] * dim[2] * j->channels / vec;
    unsigned blocks = (unsigned)ceil_div(count, 256);
    int rows = (int)dim[1], cols = (int)dim[2];
    geometry g = geometry_of(j);
    corner pad = {j->pad[0], j->pad[1], j->pad[2]};
    g.channels /= vec;
    g.frame_step /= vec;
    if (vec == 8)
        gather_kernel<<<blocks, 256, 0, stream>>>((uint4 *)dst, count, rows, cols, g, pad);
    else
        gather_kernel<<<blocks, 256, 0, stream>>>((uint16_t *)dst, count, rows, cols, g, pad);
    return cudaGetLastError();
}

template <typename T>
static __global__ void bias_kernel(T *y, emk_tensor bias, int64_t outs, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = from_f32<T>(to_f32(y[i]) + vector_at(bias, i % outs, 0));
}

cudaError_t emk_conv_bias(const emk_conv_job *j, cudaStream_t stream)
{
    int64_t outs = j->out_channels, count = j->out[0] * j->out[1] * j->out[2] * outs;
    unsigned blocks = (unsigned)ceil_div(count, 256);
    if (!j->bias.data) return cudaSuccess;
    if (j->type == EMK_BF16)
        bias_kernel<<<blocks, 256, 0, stream>>>((__nv_bfloat16 *)j->y, j->bias, outs, count);
    else
        bias_kernel<<<blocks, 256, 0, stream>>>((__half *)j->y, j->bias, outs, count);
    return cudaGetLastError();
}
