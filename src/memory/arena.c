#include "memory/arena.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

/* Through the device, whose memory the host may not reach. What cannot be written stays as it
 * is. */
static void poison(em_arena *a, size_t begin, size_t end)
{
    enum { PIECE_BYTES = 16384 };
    unsigned char nan[PIECE_BYTES];
    em_err err = {0};
    if (!a->poisoned) return;
    memset(nan, 0xFF, sizeof nan);
    for (size_t n; begin < end && !err.code; begin += n) {
        n = end - begin < sizeof nan ? end - begin : sizeof nan;
        a->device->upload(a->device, a->base + begin, nan, n, &err);
    }
}

em_status em_arena_open(em_arena *a, em_device *device, size_t size_bytes, bool poisoned,
                        em_err *err)
{
    size_t padded;
    if (!em_size_add(&padded, size_bytes, EM_ARENA_ALIGN - 1))
        return em_fail(err, EM_NOMEM, "no room for %zu bytes of scratch", size_bytes);
    size_bytes = padded & ~(size_t)(EM_ARENA_ALIGN - 1);
    em_arena fresh = {.device = device, .size_bytes = size_bytes, .poisoned = poisoned};
    void *base = NULL;
    em_status st = device->alloc(device, &base, size_bytes, err);
    if (st) return st;
    fresh.base = base;
    poison(&fresh, 0, size_bytes);
    *a = fresh;
    return EM_OK;
}

void em_arena_open_virtual(em_arena *a)
{
    /* Addresses start above zero, so that a tensor's data is never NULL by chance. */
    *a = (em_arena){.base = (unsigned char *)(uintptr_t)EM_ARENA_ALIGN,
                    .size_bytes = SIZE_MAX / 4 & ~(size_t)(EM_ARENA_ALIGN - 1)};
}

void em_arena_close(em_arena *a)
{
    if (a->device) a->device->free(a->device, a->base, a->size_bytes);
    *a = (em_arena){0};
}

void *em_arena_take(em_arena *a, size_t size_bytes, bool high)
{
    size_t used = a->low_bytes + a->high_bytes;
    if (size_bytes > a->size_bytes - used) return NULL; /* also keeps the rounding from wrapping */
    size_t need = (size_bytes + EM_ARENA_ALIGN - 1) & ~(size_t)(EM_ARENA_ALIGN - 1);
    if (need > a->size_bytes - used) return NULL;
    void *p;
    if (high) {
        a->high_bytes += need;
        p = a->base + a->size_bytes - a->high_bytes;
    } else {
        p = a->base + a->low_bytes;
        a->low_bytes += need;
    }
    used += need - a->floor_bytes;
    if (used > a->peak_bytes) a->peak_bytes = used;
    if (used > a->stage_peak_bytes) a->stage_peak_bytes = used;
    return p;
}

em_mark em_arena_mark(const em_arena *a)
{
    return (em_mark){a->low_bytes - a->floor_bytes, a->high_bytes};
}

void em_arena_release(em_arena *a, em_mark m)
{
    size_t low = a->floor_bytes + m.low_bytes;
    assert(low <= a->low_bytes);
    poison(a, low, a->low_bytes);
    a->low_bytes = low;
}

void em_arena_release_all(em_arena *a, em_mark m)
{
    assert(m.high_bytes <= a->high_bytes);
    em_arena_release(a, m);
    poison(a, a->size_bytes - a->high_bytes, a->size_bytes - m.high_bytes);
    a->high_bytes = m.high_bytes;
}

void em_arena_set_floor(em_arena *a, size_t floor_bytes)
{
    assert(a->low_bytes == a->floor_bytes && floor_bytes % EM_ARENA_ALIGN == 0);
    assert(floor_bytes + a->high_bytes <= a->size_bytes);
    a->low_bytes = a->floor_bytes = floor_bytes;
}

void em_arena_stage_begin(em_arena *a)
{
    a->stage_peak_bytes = a->low_bytes - a->floor_bytes + a->high_bytes;
}
