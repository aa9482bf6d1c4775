/* A run's scratch: one block, taken from both ends.
 *
 *     base                                                             base + size
 *     | floor: weights | low: scratch ->        free        <- high: kept |
 *
 * The floor is what weights take of the block (memory/residency.h); it moves between stages. Above
 * it the low end holds what an op, a block or a stage needs for a moment; the high end holds what
 * outlives the stage that made it (conditions, keys and values, causal caches). Both are stacks:
 * mark, take, release. Peak = the largest low + high that ever was, the number a plan forecasts.
 *
 * A virtual arena hands out addresses that are never touched: the same code run on it yields the
 * peak. */
#ifndef EM_MEMORY_ARENA_H
#define EM_MEMORY_ARENA_H

#include "device/device.h"

#include <stdbool.h>

typedef struct em_arena {
    em_device *device; /* borrowed; NULL for a virtual arena */
    unsigned char *base;
    size_t size_bytes;
    size_t floor_bytes;           /* of the low end, not scratch's */
    size_t low_bytes, high_bytes; /* in use at either end, the floor included */
    size_t peak_bytes;            /* scratch (without the floor) since the arena was opened */
    size_t stage_peak_bytes;      /* the same since em_arena_stage_begin */
    bool poisoned;                /* released bytes are overwritten: tests */
} em_arena;

/* low_bytes above the floor: a mark outlives a floor that moves. */
typedef struct em_mark {
    size_t low_bytes, high_bytes;
} em_mark;

enum { EM_ARENA_ALIGN = 256 }; /* what libraries want of a workspace */

/* A block of size_bytes, rounded up to EM_ARENA_ALIGN, from the device. With `poisoned` (tests)
 * fresh and released bytes are 0xFF, which reads as NaN in every float type. Close with
 * em_arena_close. */
em_status em_arena_open(em_arena *a, em_device *device, size_t size_bytes, bool poisoned,
                        em_err *err);
/* No memory behind it; never runs out. */
void em_arena_open_virtual(em_arena *a);
void em_arena_close(em_arena *a);

/* size_bytes rounded up to EM_ARENA_ALIGN, from the low or the high end; NULL when it does not
 * fit. */
void *em_arena_take(em_arena *a, size_t size_bytes, bool high);
em_mark em_arena_mark(const em_arena *a);
/* Everything taken from the low end since the mark. */
void em_arena_release(em_arena *a, em_mark m);
/* Everything taken from both ends since the mark. */
void em_arena_release_all(em_arena *a, em_mark m);

/* Moves the floor. Nothing may be taken from the low end. */
void em_arena_set_floor(em_arena *a, size_t floor_bytes);

void em_arena_stage_begin(em_arena *a); /* stage_peak_bytes starts anew from what is in use now */

#endif
