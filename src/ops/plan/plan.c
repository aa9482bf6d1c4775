/* The op table that computes nothing.
 *
 * Wrappers take results and workspaces from the run's arena before they call a kernel, so the same
 * model code on a virtual arena yields the exact peak: the forecast is the program. Only kernels
 * are replaced; the workspace functions stay the target's own. */
#include "ops/table.h"

#include <string.h>

static em_status linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    return (void)r, (void)y, (void)x, (void)w, (void)b, (void)act, (void)ws, EM_OK;
}

static em_status linears(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                         const em_tensor *b, void *ws)
{
    return (void)r, (void)n, (void)y, (void)x, (void)w, (void)b, (void)ws, EM_OK;
}

static em_status attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    return (void)r, (void)y, (void)q, (void)k, (void)v, (void)a, (void)ws, EM_OK;
}

static em_status conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws)
{
    return (void)r, (void)y, (void)c, (void)ws, EM_OK;
}

static em_status weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v)
{
    return (void)r, (void)y, (void)g, (void)v, EM_OK;
}

static em_status norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    return (void)r, (void)y, (void)x, (void)s, EM_OK;
}

static em_status time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    return (void)r, (void)y, (void)x, (void)w, (void)b, (void)eps, EM_OK;
}

static em_status act(em_run *r, em_tensor x, em_act a)
{
    return (void)r, (void)x, (void)a, EM_OK;
}

static em_status binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    return (void)r, (void)x, (void)a, (void)b, (void)kind, EM_OK;
}

static em_status fill(em_run *r, em_tensor x, float value)
{
    return (void)r, (void)x, (void)value, EM_OK;
}

static em_status rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    return (void)r, (void)x, (void)table, (void)heads, EM_OK;
}

static em_status lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c)
{
    return (void)r, (void)y, (void)n, (void)x, (void)c, EM_OK;
}

static em_status copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols)
{
    return (void)r, (void)dst, (void)dst_col, (void)src, (void)src_col, (void)cols, EM_OK;
}

static em_status unary(em_run *r, em_tensor y, em_tensor x)
{
    return (void)r, (void)y, (void)x, EM_OK;
}

static em_status gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    return (void)r, (void)y, (void)table, (void)idx, EM_OK;
}

static em_status patch(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    return (void)r, (void)y, (void)x, (void)ph, (void)pw, EM_OK;
}

static em_status upload(em_run *r, em_tensor y, const void *host)
{
    return (void)r, (void)y, (void)host, EM_OK;
}

static em_status download(em_run *r, em_tensor x, void *host)
{
    (void)r;
    memset(host, 0, em_tensor_bytes(x));
    return EM_OK;
}

void em_ops_plan(em_ops *out, const em_ops *target)
{
    *out = (em_ops){
        .name = "plan",
        .device = target->device,
        .thread_start = target->thread_start,
        .linear_workspace = target->linear_workspace,
        .linear = linear,
        .linears = target->linears ? linears : NULL,
        .attention_workspace = target->attention_workspace,
        .attention = attention,
        .conv_workspace = target->conv_workspace,
        .conv = conv,
        .weight_norm = weight_norm,
        .norm = norm,
        .time_norm = time_norm,
        .act = act,
        .binary = binary,
        .fill = fill,
        .rope = rope,
        .lincomb = lincomb,
        .copy_cols = copy_cols,
        .transpose = unary,
        .gather = gather,
        .patchify = patch,
        .unpatchify = patch,
        .upload = upload,
        .download = download,
        .lerp_time = unary,
        .resize_bicubic = unary,
        .to_u8 = unary,
    };
}
