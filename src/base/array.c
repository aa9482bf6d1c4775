#include "base/array.h"

#include "base/alloc.h"

bool em_array_grow(void **items, size_t *cap, size_t count, size_t extra, size_t item_bytes)
{
    size_t need, room = *cap ? *cap : 8;
    if (!em_size_add(&need, count, extra)) return false;
    if (need <= *cap) return true;
    while (room < need)
        if (!em_size_mul(&room, room, 2)) return false;
    void *p = em_realloc_array(*items, room, item_bytes);
    if (!p) return false;
    *items = p;
    *cap = room;
    return true;
}
