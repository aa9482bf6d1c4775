/* The reference kernels: plain loops, one value at a time, sums in double. They are the
 * documentation of every op and the judge of every other table; other tables fall back to them for
 * what is rare. Contracts: ops/ops.h. */
#ifndef EM_OPS_REF_REF_H
#define EM_OPS_REF_REF_H

#include "ops/table.h"

size_t em_ref_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w);
em_status em_ref_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws);
size_t em_ref_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a);
em_status em_ref_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws);
size_t em_ref_conv_workspace(em_run *r, em_tensor y, const em_conv_args *c);
em_status em_ref_conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws);
em_status em_ref_weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v);
em_status em_ref_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s);
em_status em_ref_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b,
                           float eps);
em_status em_ref_act(em_run *r, em_tensor x, em_act act);
em_status em_ref_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind);
em_status em_ref_fill(em_run *r, em_tensor x, float value);
em_status em_ref_rope(em_run *r, em_tensor x, em_tensor table, int heads);
em_status em_ref_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c);
em_status em_ref_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols);
em_status em_ref_transpose(em_run *r, em_tensor y, em_tensor x);
em_status em_ref_gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx);
em_status em_ref_patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
em_status em_ref_unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw);
em_status em_ref_upload(em_run *r, em_tensor y, const void *host);
em_status em_ref_download(em_run *r, em_tensor x, void *host);
em_status em_ref_lerp_time(em_run *r, em_tensor y, em_tensor x);
em_status em_ref_resize_bicubic(em_run *r, em_tensor y, em_tensor x);
em_status em_ref_to_u8(em_run *r, em_tensor y, em_tensor x);

/* act(v), the formulas of em_act; shared with epilogues of other host tables. */
double em_ref_activate(double v, em_act act);

/* Value i of a float tensor, and the same rounded back. */
static inline float em_ref_get(em_tensor t, int64_t i)
{
    return em_load_f32(t.data, t.dtype, (size_t)i);
}
static inline void em_ref_set(em_tensor t, int64_t i, double v)
{
    em_store_f32(t.data, t.dtype, (size_t)i, (float)v);
}

#endif
