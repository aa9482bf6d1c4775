#define EM_VEC_TABLE em_vec_avx2
#define EM_VEC_NAME "avx2"
#include "ops/cpu/vec_body.h"
