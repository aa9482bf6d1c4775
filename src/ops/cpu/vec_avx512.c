#define EM_VEC_TABLE em_vec_avx512
#define EM_VEC_NAME "avx512"
#include "ops/cpu/vec_body.h"
