#include "memory/tensor.h"

#include <stdio.h>

const char *em_shape_text(char out[80], const int64_t *dim, int ndim)
{
    int n = snprintf(out, 80, "(");
    for (int i = 0; i < ndim && n < 70; i++)
        n += snprintf(out + n, (size_t)(80 - n), "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (n < 79) snprintf(out + n, (size_t)(80 - n), ")");
    return out;
}
