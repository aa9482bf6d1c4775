/* Host memory. Everything the project allocates on the host goes through here, so that a test can
 * make the n-th allocation fail and count what a run allocates. */
#ifndef EM_BASE_ALLOC_H
#define EM_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, aligned for any type; NULL when out of memory or when size_bytes is 0. Owned by
 * the caller: em_free. */
void *em_alloc(size_t size_bytes);
/* Zeroed array of n items; NULL also when n * item_bytes overflows. */
void *em_alloc_array(size_t n, size_t item_bytes);
/* Grows or shrinks; new bytes are NOT zeroed. On failure the old block is untouched and still
 * owned. */
void *em_realloc_array(void *p, size_t n, size_t item_bytes);
char *em_strdup(const char *s);
char *em_strndup(const char *s, size_t n);
void em_free(void *p); /* NULL is allowed */

/* Checked size arithmetic: false on overflow, *out untouched then. */
bool em_size_mul(size_t *out, size_t a, size_t b);
bool em_size_add(size_t *out, size_t a, size_t b);

/* For tests. Calls made since the start of the process (all threads). */
uint64_t em_alloc_calls(void);
/* The n-th allocation from now fails (1 = the next), and, with `sticky`, every one after it; 0
 * switches fault injection off. */
void em_alloc_fail_at(uint64_t n, bool sticky);

#endif
