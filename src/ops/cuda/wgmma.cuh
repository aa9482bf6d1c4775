/* Hopper's matrix instructions: a warpgroup of 128 threads multiplies tiles that lie in shared
 * memory, and does not wait for the result. Only machine code for sm_90a has them; elsewhere these
 * functions do nothing and nobody launches what calls them. */
#ifndef EM_OPS_CUDA_WGMMA_CUH
#define EM_OPS_CUDA_WGMMA_CUH

#include "ops/cuda/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define EM_HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define EM_HOPPER(...) (void)0
#endif

/* A tile as the instruction reads it: rows of 128 bytes, in groups of eight rows (1,024 bytes, so
 * aligned), the 16-byte pieces of row r at places piece ^ (r % 8): "128-byte swizzle". 32 bytes
 * further on lie the next 16 values of k. */
static __device__ __forceinline__ uint64_t tile_descriptor(const void *tile)
{
    uint64_t at = (uint64_t)__cvta_generic_to_shared(tile);
    return (at & 0x3ffff) >> 4 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* What this thread has written to shared memory may be read by wgmma after the next barrier. */
static __device__ __forceinline__ void writes_to_wgmma(void)
{
    EM_HOPPER("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Accumulators have been touched by ordinary code: before the first product. */
static __device__ __forceinline__ void wgmma_begin(void)
{
    EM_HOPPER("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit(void)
{
    EM_HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most `pending` of the committed groups are running. */
template <int pending> static __device__ __forceinline__ void wgmma_wait(void)
{
    EM_HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/* d (64 x 96) += a (64 x 16) b (96 x 16)^T. Thread t of the warpgroup has rows 16 (t / 32) +
 * t % 32 / 4 and eight below; d[i] is in columns 8 i + t % 4 * 2 and the next. */
#define EM_PRODUCT_96(TYPE)                                                                        \
    EM_HOPPER("{\n"                                                                                \
              "wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE " {"                     \
              "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "                                 \
              "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "                       \
              "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "                       \
              "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "                      \
              "%48, %49, 1, 1, 1, 0, 0;\n}"                                                        \
              : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]),         \
                "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]),         \
                "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]),         \
                "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),         \
                "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]),         \
                "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),         \
                "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]),         \
                "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]),         \
                "+f"(d[10][0]), "+f"(d[10][1]), "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]),    \
                "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3])                                     \
              : "l"(a), "l"(b))
/* d (64 x 192) += a (64 x 16) b (192 x 16)^T */
#define EM_PRODUCT_192(TYPE)                                                                       \
    EM_HOPPER("{\n"                                                                                \
              "wgmma.mma_async.sync.aligned.m64n192k16.f32." TYPE "." TYPE " {"                    \
              "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "                                 \
              "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "                       \
              "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "                       \
              "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
              "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "                       \
              "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "                       \
              "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "                       \
              "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "                      \
              "%96, %97, 1, 1, 1, 0, 0;\n}"                                                        \
              : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]),         \
                "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]),         \
                "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]),         \
                "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),         \
                "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]),         \
                "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),         \
                "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]),         \
                "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]),         \
                "+f"(d[10][0]), "+f"(d[10][1]), "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]),    \
                "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]), "+f"(d[12][0]), "+f"(d[12][1]),    \
                "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]),    \
                "+f"(d[13][3]), "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),    \
                "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3]), "+f"(d[16][0]),    \
                "+f"(d[16][1]), "+f"(d[16][2]), "+f"(d[16][3]), "+f"(d[17][0]), "+f"(d[17][1]),    \
                "+f"(d[17][2]), "+f"(d[17][3]), "+f"(d[18][0]), "+f"(d[18][1]), "+f"(d[18][2]),    \
                "+f"(d[18][3]), "+f"(d[19][0]), "+f"(d[19][1]), "+f"(d[19][2]), "+f"(d[19][3]),    \
                "+f"(d[20][0]), "+f"(d[20][1]), "+f"(d[20][2]), "+f"(d[20][3]), "+f"(d[21][0]),    \
                "+f"(d[21][1]), "+f"(d[21][2]), "+f"(d[21][3]), "+f"(d[22][0]), "+f"(d[22][1]),    \
                "+f"(d[22][2]), "+f"(d[22][3]), "+f"(d[23][0]), "+f"(d[23][1]), "+f"(d[23][2]),    \
                "+f"(d[23][3])                                                                     \
              : "l"(a), "l"(b))

static __device__ __forceinline__ void product(float (&d)[12][4], uint64_t a, uint64_t b,
                                               __nv_bfloat16)
{
    EM_PRODUCT_96("bf16");
}
static __device__ __forceinline__ void product(float (&d)[12][4], uint64_t a, uint64_t b, __half)
{
    EM_PRODUCT_96("f16");
}
static __device__ __forceinline__ void product(float (&d)[24][4], uint64_t a, uint64_t b,
                                               __nv_bfloat16)
{
    EM_PRODUCT_192("bf16");
}
static __device__ __forceinline__ void product(float (&d)[24][4], uint64_t a, uint64_t b, __half)
{
    EM_PRODUCT_192("f16");
}

#endif
