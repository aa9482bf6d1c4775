/* One GPU as a device: two streams, plain allocations, page-locked host memory. */
#ifndef EM_DEVICE_CUDA_H
#define EM_DEVICE_CUDA_H

#include "device/device.h"

#include <cuda_runtime_api.h>

typedef struct em_cuda_lt em_cuda_lt;   /* cuBLASLt: ops/cuda/lt.h */
typedef struct em_cuda_dnn em_cuda_dnn; /* cuDNN: ops/cuda/dnn.h */

typedef struct em_cuda {
    em_device device; /* first: an em_device of this kind is an em_cuda */
    int ordinal, sm_count;
    int cc;                     /* 90 for sm_90; 80 under EM_CUDA_FORCE_ARCH=80 */
    cudaStream_t compute, copy; /* owned, like the next two */
    em_cuda_lt *lt;             /* opened with the table; NULL: could not be had */
    em_cuda_dnn *dnn;
    char name[24];   /* "cuda:0" */
    char model[256]; /* "NVIDIA H100 80GB HBM3" */
} em_cuda;

/* Opens GPU `ordinal`. *out is owned by the caller: em_cuda_close. EM_INVAL: there is none; the
 * sentence says what the driver says. */
em_status em_cuda_open(em_cuda **out, int ordinal, em_err *err);
void em_cuda_close(em_cuda **c);

/* EM_OK, or EM_NOVRAM or EM_DEVICE with a sentence: `what` says what failed. */
em_status em_cuda_status(cudaError_t rc, const char *what, em_err *err);

#endif
