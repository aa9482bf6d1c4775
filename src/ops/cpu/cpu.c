#include "ops/cpu/cpu.h"

#include "ops/cpu/dnnl.h"
#include "ops/ref/ref.h"

em_dtype em_cpu_product_type(em_tensor x)
{
    return x.dtype == EM_BF16 && em_dnnl_has_bf16() ? EM_BF16 : EM_F32;
}

/* The reference serves where nothing is to be gained: what runs once a job, or moves a few
 * kilobytes. */
static const em_ops table = {
    .name = "cpu",
    .device = &em_device_host,
    .thread_start = em_cpu_thread_start,
    .linear_workspace = em_cpu_linear_workspace,
    .linear = em_cpu_linear,
    .attention_workspace = em_cpu_attention_workspace,
    .attention = em_cpu_attention,
    .conv_workspace = em_cpu_conv_workspace,
    .conv = em_cpu_conv,
    .weight_norm = em_ref_weight_norm,
    .norm = em_cpu_norm,
    .time_norm = em_cpu_time_norm,
    .act = em_cpu_act,
    .binary = em_cpu_binary,
    .fill = em_ref_fill,
    .rope = em_cpu_rope,
    .lincomb = em_cpu_lincomb,
    .copy_cols = em_cpu_copy_cols,
    .transpose = em_cpu_transpose,
    .gather = em_ref_gather,
    .patchify = em_ref_patchify,
    .unpatchify = em_ref_unpatchify,
    .upload = em_ref_upload,
    .download = em_ref_download,
    .lerp_time = em_ref_lerp_time,
    .resize_bicubic = em_ref_resize_bicubic,
    .to_u8 = em_cpu_to_u8,
};

const em_ops *em_ops_cpu(void)
{
    return &table;
}
