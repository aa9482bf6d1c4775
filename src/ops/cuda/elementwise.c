#include "ops/cuda/cuda.h"

static_assert((int)EMK_F32 == EM_F32 && (int)EMK_F16 == EM_F16 && (int)EMK_BF16 == EM_BF16,
              "formats");
static_assert((int)EMK_HARD_TANH == EM_ACT_HARD_TANH && (int)EMK_SILU == EM_ACT_SILU,
              "activations");
static_assert((int)EMK_SCALE_SHIFT == EM_BINARY_SCALE_SHIFT && (int)EMK_MUL == EM_BINARY_MUL,
              "ops");
static_assert((int)EMK_LINCOMB_MAX == EM_LINCOMB_MAX, "terms");

em_status em_cuda_fill(em_run *r, em_tensor x, float value)
{
    return em_cuda_check(
        r, emk_fill(em_cuda_arg(x), em_tensor_count(x), value, em_cuda_of(r)->compute), "fill");
}

em_status em_cuda_act(em_run *r, em_tensor x, em_act act)
{
    return em_cuda_check(r,
                         emk_act(em_cuda_arg(x), em_tensor_count(x), (int)act,
                                 em_cuda_of(r)->compute),
                         "activation");
}

em_status em_cuda_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    return em_cuda_check(r,
                         emk_binary(em_cuda_arg(x), em_cuda_arg(a), em_cuda_arg(b), em_rows(x),
                                    em_cols(x), (int)kind, em_cuda_of(r)->compute),
                         "elementwise");
}

em_status em_cuda_rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    int pairs = (int)(em_cols(x) / heads / 2);
    return em_cuda_check(r,
                         emk_rope(em_cuda_arg(x), table.data, em_rows(x), heads, pairs,
                                  em_cuda_of(r)->compute),
                         "rope");
}

em_status em_cuda_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c)
{
    emk_terms t = {.n = n};
    for (int i = 0; i < n; i++) {
        t.x[i] = x[i].data;
        t.c[i] = c[i];
    }
    return em_cuda_check(r, emk_lincomb(y.data, &t, em_tensor_count(y), em_cuda_of(r)->compute),
                         "linear combination");
}

em_status em_cuda_to_u8(em_run *r, em_tensor y, em_tensor x)
{
    return em_cuda_check(r,
                         emk_to_u8(y.data, em_cuda_arg(x), em_tensor_count(x),
                                   em_cuda_of(r)->compute),
                         "conversion to bytes");
}
