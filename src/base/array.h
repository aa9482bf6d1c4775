/* Growing arrays without a container type: a pointer, a count, a capacity. */
#ifndef EM_BASE_ARRAY_H
#define EM_BASE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

/* Makes room for `extra` more items; *items may be NULL. False when out of memory, nothing
 * changed. */
bool em_array_grow(void **items, size_t *cap, size_t count, size_t extra, size_t item_bytes);

/* EM_PUSH(v, n, cap, item): appends, evaluates to false when out of memory. */
#define EM_PUSH(items, count, cap, item)                                                           \
    (em_array_grow((void **)&(items), &(cap), (count), 1, sizeof *(items))                         \
         ? ((items)[(count)++] = (item), true)                                                     \
         : false)

#endif
