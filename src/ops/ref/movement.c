#include "ops/ref/ref.h"

#include <string.h>

em_status em_ref_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols)
{
    (void)r;
    int64_t rows = em_rows(dst);
    size_t d = em_dtype_bytes(dst.dtype), s = em_dtype_bytes(src.dtype);
    for (int64_t m = 0; m < rows; m++)
        em_convert((char *)dst.data + (size_t)(m * em_cols(dst) + dst_col) * d, dst.dtype,
                   (const char *)src.data + (size_t)(m * em_cols(src) + src_col) * s, src.dtype,
                   (size_t)cols);
    return EM_OK;
}

em_status em_ref_transpose(em_run *r, em_tensor y, em_tensor x)
{
    (void)r;
    size_t size = em_dtype_bytes(x.dtype);
    int64_t rows = x.dim[0], cols = x.dim[1];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            memcpy((char *)y.data + (size_t)(j * rows + i) * size,
                   (const char *)x.data + (size_t)(i * cols + j) * size, size);
    return EM_OK;
}

em_status em_ref_gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    (void)r;
    int64_t n = y.dim[0];
    size_t row_bytes = n ? em_tensor_bytes(y) / (size_t)n : 0;
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)y.data + (size_t)i * row_bytes,
               (const char *)table.data + (size_t)idx[i] * row_bytes, row_bytes);
    return EM_OK;
}

/* token (t, h, w), value (c, dy, dx)  <-  pixel (t, h ph + dy, w pw + dx, c) */
em_status em_ref_patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    (void)r;
    int64_t nh = x.dim[1] / ph, nw = x.dim[2] / pw, nc = x.dim[3], to = 0;
    for (int64_t tok = 0; tok < x.dim[0] * nh * nw; tok++) {
        int64_t t = tok / (nh * nw), h = tok / nw % nh, w = tok % nw;
        for (int64_t c = 0; c < nc; c++)
            for (int64_t dy = 0; dy < ph; dy++)
                for (int64_t dx = 0; dx < pw; dx++) {
                    int64_t row = t * x.dim[1] + h * ph + dy, col = w * pw + dx;
                    em_ref_set(y, to++, em_ref_get(x, (row * x.dim[2] + col) * nc + c));
                }
    }
    return EM_OK;
}

/* pixel (t, h ph + dy, w pw + dx, c)  <-  token (t, h, w), value (dy, dx, c) */
em_status em_ref_unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    (void)r;
    int64_t nh = y.dim[1] / ph, nw = y.dim[2] / pw, nc = y.dim[3], from = 0;
    for (int64_t tok = 0; tok < y.dim[0] * nh * nw; tok++) {
        int64_t t = tok / (nh * nw), h = tok / nw % nh, w = tok % nw;
        for (int64_t dy = 0; dy < ph; dy++)
            for (int64_t dx = 0; dx < pw; dx++)
                for (int64_t c = 0; c < nc; c++) {
                    int64_t row = t * y.dim[1] + h * ph + dy, col = w * pw + dx;
                    em_ref_set(y, (row * y.dim[2] + col) * nc + c, em_ref_get(x, from++));
                }
    }
    return EM_OK;
}

em_status em_ref_upload(em_run *r, em_tensor y, const void *host)
{
    return r->ops->device->upload(r->ops->device, y.data, host, em_tensor_bytes(y), &r->err);
}

em_status em_ref_download(em_run *r, em_tensor x, void *host)
{
    return r->ops->device->download(r->ops->device, host, x.data, em_tensor_bytes(x), &r->err);
}
