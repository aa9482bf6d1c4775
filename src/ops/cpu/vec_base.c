#define EM_VEC_TABLE em_vec_base
#define EM_VEC_NAME "baseline"
#include "ops/cpu/vec_body.h"
