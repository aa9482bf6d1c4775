#include "base/hash.h"

uint64_t em_fnv1a64(uint64_t h, const void *data, size_t len_bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len_bytes; i++) h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}
