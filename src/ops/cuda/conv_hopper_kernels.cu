/* The convolution of conv_kernels.cu with Hopper's matrix instructions. The same sum in other
 * hands: k runs in one order inside one warpgroup, so frames may be cut at will here too. */
#include "ops/cuda/conv_tile.cuh"
#include "ops/cuda/wgmma.cuh"

/* A block of two warpgroups has a tile of BM positions x BN output channels; a warpgroup HALVES
 * times 64 rows of it. k runs in steps of 64 through a ring of STAGES tiles in shared memory:
 *
 *     stage:  A  BM rows of 128 bytes (64 channels, perhaps of two taps)    B  BN rows of 128 bytes
 *
 * Step k: wait for its copies and for the products of step k - 2; start the products of k; start
 * the copies of k + STAGES - 2 into the place of k - 2. So the matrix unit always has work. */
enum { STAGES = 4, AHEAD = STAGES - 2, DEPTH = 64, PIECES = 8, THREADS = 256, STRIDE = 32 };

/* 16-byte piece of a row, in elements: the layout that tile_descriptor describes. */
static __device__ __forceinline__ int piece_at(int row, int piece)
{
    return (row * PIECES + (piece ^ (row & 7))) * 8;
}

template <typename T, int ROWS>
static __device__ __forceinline__ void load_inputs(T *tile, const walk<T, ROWS> &w,
                                                   const geometry &g)
{
    int row = (int)threadIdx.x / PIECES, piece = (int)threadIdx.x % PIECES;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const T *p = w.pixel[i];
        copy_async(tile + piece_at(row + STRIDE * i, piece), p ? p + w.c : (const T *)g.x,
                   p != NULL);
    }
}

template <typename T, int BN>
static __device__ __forceinline__ void load_weights(T *tile, const T *from, int64_t row_len)
{
    int row = (int)threadIdx.x / PIECES, piece = (int)threadIdx.x % PIECES;
#pragma unroll
    for (int i = 0; i < BN / STRIDE; i++)
        copy_async(tile + piece_at(row + STRIDE * i, piece), from + STRIDE * i * row_len, true);
}

template <typename T, int HALVES, int BN>
static __device__ __forceinline__ void start_products(float (&sum)[HALVES][BN / 8][4], const T *a,
                                                      const T *b)
{
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16)
#pragma unroll
        for (int h = 0; h < HALVES; h++)
            product(sum[h], tile_descriptor(a + h * 64 * DEPTH) + k / 8, tile_descriptor(b) + k / 8,
                    T());
    wgmma_commit();
}

template <typename T, int HALVES, int BN>
static __global__ void __launch_bounds__(THREADS, 1)
    hopper_kernel(emk_conv_job j, geometry g, int64_t row_len, unsigned col_tiles)
{
    extern __shared__ uint4 shared[];
    const int BM = 128 * HALVES, ROWS = BM / STRIDE, stage_len = (BM + BN) * DEPTH;
    T *ring = (T *)(((uintptr_t)shared + 1023) & ~(uintptr_t)1023);
    int64_t position = (int64_t)(blockIdx.x / col_tiles) * BM;
    int64_t column = (int64_t)(blockIdx.x % col_tiles) * BN;
    int group = (int)threadIdx.x / 128, warp = (int)threadIdx.x / 32 % 4;
    int row = (int)threadIdx.x / PIECES, first = (int)threadIdx.x % PIECES * 8;
    int steps = (int)(row_len / DEPTH), step = (int)j.channels, loaded = 0;
    const T *weights = (const T *)j.w + (column + row) * row_len + first;
    float sum[HALVES][BN / 8][4] = {};

    walk<T, ROWS> in;
#pragma unroll
    for (int i = 0; i < ROWS; i++) in.at[i] = corner_of(j, position + row + STRIDE * i);
    start(&in, g, step, first);

    for (int k = -AHEAD; k < steps; k++) {
        if (k >= 0) {
            copy_wait<AHEAD - 1>();
            writes_to_wgmma();
            wgmma_wait<1>();
            __syncthreads();
            const T *tile = ring + k % STAGES * stage_len;
            start_products<T, HALVES, BN>(sum, tile + group * 64 * HALVES * DEPTH,
                                          tile + BM * DEPTH);
        }
        if (loaded < steps) {
            T *tile = ring + loaded % STAGES * stage_len;
            load_inputs(tile, in, g);
            load_weights<T, BN>(tile + BM * DEPTH, weights, row_len);
            advance(&in, g, step, DEPTH);
            weights += DEPTH;
            loaded++;
        }
        copy_commit(); /* an empty group too: the count of groups is the clock */
    }
    wgmma_wait<0>();
#pragma unroll
    for (int h = 0; h < HALVES; h++)
        store_tile<T, 16, BN>(j, &sum[h], position + (group * HALVES + h) * 64 + warp * 16, column);
}

int64_t emk_conv_hopper_row(int64_t channels, int64_t taps)
{
    return ceil_div(taps * channels, DEPTH) * DEPTH;
}

bool emk_conv_hopper_takes(int64_t channels, int64_t out_channels)
{
    return channels % 8 == 0 && channels >= 32 && out_channels % 96 == 0;
}

template <typename T, int HALVES, int BN>
static cudaError_t launch(const emk_conv_job *j, cudaStream_t stream)
{
    const int BM = 128 * HALVES;
    int64_t positions = j->out[0] * j->out[1] * j->out[2], col_tiles = j->out_channels / BN;
    int64_t taps = (int64_t)j->kernel[0] * j->kernel[1] * j->kernel[2];
    int bytes = STAGES * (BM + BN) * DEPTH * (int)sizeof(T) + 1024;
    cudaError_t rc = cudaFuncSetAttribute(hopper_kernel<T, HALVES, BN>,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (rc != cudaSuccess) return rc;
    unsigned blocks = (unsigned)(ceil_div(positions, BM) * col_tiles);
    hopper_kernel<T, HALVES, BN>
        <<<blocks, THREADS, (size_t)bytes, stream>>>(*j, geometry_of(j),
                                                     emk_conv_hopper_row(j->channels, taps),
                                                     (unsigned)col_tiles);
    return cudaGetLastError();
}

cudaError_t emk_conv_hopper(const emk_conv_job *j, cudaStream_t stream)
{
    bool wide = j->out_channels % 192 == 0;
    if (!aligned(j)) return cudaErrorMisalignedAddress;
    if (j->type == EMK_BF16)
        return wide ? launch<__nv_bfloat16, 1, 192>(j, stream)
                    : launch<__nv_bfloat16, 2, 96>(j, stream);
    return wide ? launch<__half, 1, 192>(j, stream) : launch<__half, 2, 96>(j, stream);
}
