/* Bias, activation and rounding of a product's float32 sums, where the library's epilogue has no
 * such thing. */
#include "ops/cuda/common.cuh"
#include "ops/cuda/linear_kernels.h"

struct finish_args {
    int64_t y_step, cols, count;
    const float *sum;
    emk_tensor bias;
    int act;
};

/* Threads stride over the elements: a grid of any size does. */
template <typename T> static __global__ void finish_kernel(T *y, finish_args a)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += step) {
        int64_t r = i / a.cols, c = i % a.cols;
        float v = a.sum[i] + vector_at(a.bias, c, 0);
        y[r * a.y_step + c] = from_f32<T>(activate(v, a.act));
    }
}

template <typename T> static cudaError_t finish(void *y, const finish_args *a, cudaStream_t stream)
{
    finish_kernel<<<blocks_for(a->count, 256), 256, 0, stream>>>((T *)y, *a);
    return cudaGetLastError();
}

cudaError_t emk_linear_finish(emk_tensor y, int64_t y_step, const float *sum, emk_tensor bias,
                              int act, int64_t rows, int64_t cols, cudaStream_t stream)
{
    const finish_args a = {y_step, cols, rows * cols, sum, bias, act};
    return EMK_BY_TYPE(y.dtype, finish, y.data, &a, stream);
}
