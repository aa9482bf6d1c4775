#include "ops/cuda/cuda.h"

#include <string.h>

static int item_bytes(em_tensor t)
{
    return (int)em_dtype_bytes(t.dtype);
}

static em_tensor advanced(em_tensor t, int64_t items)
{
    t.data = (char *)t.data + (size_t)items * em_dtype_bytes(t.dtype);
    return t;
}

em_status em_cuda_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                            int64_t src_col, int64_t cols)
{
    return em_cuda_check(r,
                         emk_copy_cols(em_cuda_arg(advanced(dst, dst_col)), em_cols(dst),
                                       em_cuda_arg(advanced(src, src_col)), em_cols(src),
                                       em_rows(dst), cols, em_cuda_of(r)->compute),
                         "copy");
}

em_status em_cuda_transpose(em_run *r, em_tensor y, em_tensor x)
{
    return em_cuda_check(r,
                         emk_transpose(y.data, x.data, x.dim[0], x.dim[1], item_bytes(x),
                                       em_cuda_of(r)->compute),
                         "transpose");
}

/* The indices travel as launch arguments, so many rows are several launches. */
em_status em_cuda_gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    int64_t n = y.dim[0];
    em_status st = EM_OK;
    int64_t row_bytes = n ? (int64_t)em_tensor_bytes(y) / n : 0;
    for (int64_t i = 0; !st && i < n; i += EMK_GATHER_MAX) {
        int part = (int)(n - i < EMK_GATHER_MAX ? n - i : EMK_GATHER_MAX);
        emk_rows rows;
        memset(&rows, 0, sizeof rows);
        memcpy(rows.idx, idx + i, (size_t)part * sizeof *idx);
        st = em_cuda_check(r,
                           emk_gather((char *)y.data + i * row_bytes, table.data, row_bytes, &rows,
                                      part, em_cuda_of(r)->compute),
                           "gather");
    }
    return st;
}

em_status em_cuda_patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    return em_cuda_check(r,
                         emk_patchify(y.data, x.data, x.dim[0], x.dim[1], x.dim[2], x.dim[3], ph,
                                      pw, item_bytes(x), em_cuda_of(r)->compute),
                         "patchify");
}

em_status em_cuda_unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    return em_cuda_check(r,
                         emk_unpatchify(y.data, x.data, y.dim[0], y.dim[1], y.dim[2], y.dim[3], ph,
                                        pw, item_bytes(x), em_cuda_of(r)->compute),
                         "unpatchify");
}

em_status em_cuda_upload(em_run *r, em_tensor y, const void *host)
{
    return r->ops->device->upload(r->ops->device, y.data, host, em_tensor_bytes(y), &r->err);
}

em_status em_cuda_download(em_run *r, em_tensor x, void *host)
{
    return r->ops->device->download(r->ops->device, host, x.data, em_tensor_bytes(x), &r->err);
}

em_status em_cuda_lerp_time(em_run *r, em_tensor y, em_tensor x)
{
    return em_cuda_check(r,
                         emk_lerp_time(em_cuda_arg(y), em_cuda_arg(x), y.dim[0], x.dim[0], x.dim[1],
                                       em_cuda_of(r)->compute),
                         "interpolation");
}

em_status em_cuda_resize_bicubic(em_run *r, em_tensor y, em_tensor x)
{
    return em_cuda_check(r,
                         emk_resize_bicubic(y.data, x.data, y.dim[0], y.dim[1], x.dim[0], x.dim[1],
                                            x.dim[2], em_cuda_of(r)->compute),
                         "bicubic");
}
