#include "ops/cpu/vec.h"

#include "ops/cpu/dnnl.h"

const em_vec *em_vec_best(void)
{
    switch (em_dnnl_isa()) {
    case EM_ISA_AVX512: return &em_vec_avx512;
    case EM_ISA_AVX2: return &em_vec_avx2;
    case EM_ISA_BASE: break;
    }
    return &em_vec_base;
}
