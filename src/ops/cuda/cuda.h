/* The CUDA op table: what its files share. Glue is C and calls kernels through ops/cuda/kernels.h;
 * kernels are the .cu files beside it. Everything is queued on the compute stream; ops neither wait
 * nor allocate. Contracts: ops/ops.h, ops/table.h. */
#ifndef EM_OPS_CUDA_CUDA_H
#define EM_OPS_CUDA_CUDA_H

#include "device/cuda.h"
#include "ops/cuda/kernels.h"
#include "ops/table.h"

static inline em_cuda *em_cuda_of(const em_run *r)
{
    return (em_cuda *)r->ops->device;
}

/* A launcher's answer as a status; the sentence goes to r->err. */
static inline em_status em_cuda_check(em_run *r, cudaError_t rc, const char *what)
{
    return em_cuda_status(rc, what, &r->err);
}

/* A tensor as kernels take it. */
static inline emk_tensor em_cuda_arg(em_tensor t)
{
    return (emk_tensor){t.data, (int)t.dtype};
}

/* Opens a library: from the folders in EM_CUDA_LIBRARY_PATH, from the loader's path, from the
 * nvidia/…/lib folders of Python packages. found: the path that worked, for messages. NULL with a
 * sentence otherwise. */
void *em_cuda_library(const char *soname, char *found, size_t found_size, em_err *err);

size_t em_cuda_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w);
em_status em_cuda_linears(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                          const em_tensor *b, void *ws);
em_status em_cuda_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                         void *ws);
size_t em_cuda_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a);
em_status em_cuda_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                            const em_attn *a, void *ws);
size_t em_cuda_conv_workspace(em_run *r, em_tensor y, const em_conv_args *c);
em_status em_cuda_conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws);
em_status em_cuda_weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v);
em_status em_cuda_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s);
em_status em_cuda_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b,
                            float eps);
em_status em_cuda_act(em_run *r, em_tensor x, em_act act);
em_status em_cuda_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind);
em_status em_cuda_fill(em_run *r, em_tensor x, float value);
em_status em_cuda_rope(em_run *r, em_tensor x, em_tensor table, int heads);
em_status em_cuda_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c);
em_status em_cuda_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                            int64_t src_col, int64_t cols);
em_status em_cuda_transpose(em_run *r, em_tensor y, em_tensor x);
em_status em_cuda_gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx);
em_status em_cuda_patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
em_status em_cuda_unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
em_status em_cuda_upload(em_run *r, em_tensor y, const void *host);
em_status em_cuda_download(em_run *r, em_tensor x, void *host);
em_status em_cuda_lerp_time(em_run *r, em_tensor y, em_tensor x);
em_status em_cuda_resize_bicubic(em_run *r, em_tensor y, em_tensor x);
em_status em_cuda_to_u8(em_run *r, em_tensor y, em_tensor x);

#endif
