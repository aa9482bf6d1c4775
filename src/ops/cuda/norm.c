#include "ops/cuda/cuda.h"

static_assert((int)EMK_L2 == EM_NORM_L2 && (int)EMK_MODULATE == EM_NORM_MODULATE, "norms");

em_status em_cuda_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    return em_cuda_check(r,
                         emk_norm(em_cuda_arg(y), em_cuda_arg(x), em_cuda_arg(s->w),
                                  em_cuda_arg(s->b), em_rows(x), em_cols(x), (int)s->kind, s->eps,
                                  (int)s->act, em_cuda_of(r)->compute),
                         "norm");
}

em_status em_cuda_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b,
                            float eps)
{
    return em_cuda_check(r,
                         emk_time_norm(em_cuda_arg(y), em_cuda_arg(x), em_cuda_arg(w),
                                       em_cuda_arg(b), em_rows(x), em_cols(x), eps,
                                       em_cuda_of(r)->compute),
                         "time norm");
}

em_status em_cuda_weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v)
{
    return em_cuda_check(r,
                         emk_weight_norm(y.data, em_cuda_arg(g), em_cuda_arg(v), em_rows(v),
                                         em_cols(v), em_cuda_of(r)->compute),
                         "weight norm");
}
