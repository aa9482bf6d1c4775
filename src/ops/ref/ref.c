#include "ops/ref/ref.h"

static const em_ops table = {
    .name = "ref",
    .device = &em_device_host,
    .linear_workspace = em_ref_linear_workspace,
    .linear = em_ref_linear,
    .attention_workspace = em_ref_attention_workspace,
    .attention = em_ref_attention,
    .conv_workspace = em_ref_conv_workspace,
    .conv = em_ref_conv,
    .weight_norm = em_ref_weight_norm,
    .norm = em_ref_norm,
    .time_norm = em_ref_time_norm,
    .act = em_ref_act,
    .binary = em_ref_binary,
    .fill = em_ref_fill,
    .rope = em_ref_rope,
    .lincomb = em_ref_lincomb,
    .copy_cols = em_ref_copy_cols,
    .transpose = em_ref_transpose,
    .gather = em_ref_gather,
    .patchify = em_ref_patchify,
    .unpatchify = em_ref_unpatchify,
    .upload = em_ref_upload,
    .download = em_ref_download,
    .lerp_time = em_ref_lerp_time,
    .resize_bicubic = em_ref_resize_bicubic,
    .to_u8 = em_ref_to_u8,
};

const em_ops *em_ops_ref(void)
{
    return &table;
}
