#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The only writable statics of the library: counters that tests read and set. */
static atomic_uint_fast64_t calls;
static atomic_uint_fast64_t fail_at; /* absolute call number, 0 = never */
static atomic_bool fail_sticky;

static bool injected_failure(void)
{
    uint64_t now = atomic_fetch_add(&calls, 1) + 1, at = atomic_load(&fail_at);
    return at && (now == at || (now > at && atomic_load(&fail_sticky)));
}

void *em_alloc(size_t size_bytes)
{
    if (injected_failure() || size_bytes == 0) return NULL;
    return calloc(1, size_bytes);
}

void *em_alloc_array(size_t n, size_t item_bytes)
{
    size_t bytes;
    return em_size_mul(&bytes, n, item_bytes) ? em_alloc(bytes) : NULL;
}

void *em_realloc_array(void *p, size_t n, size_t item_bytes)
{
    size_t bytes;
    if (!em_size_mul(&bytes, n, item_bytes) || bytes == 0 || injected_failure()) return NULL;
    return realloc(p, bytes);
}

char *em_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = em_alloc(len + 1);
    if (copy) memcpy(copy, s, len);
    return copy;
}

char *em_strdup(const char *s)
{
    return em_strndup(s, strlen(s));
}

void em_free(void *p)
{
    free(p);
}

bool em_size_mul(size_t *out, size_t a, size_t b)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool em_size_add(size_t *out, size_t a, size_t b)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

uint64_t em_alloc_calls(void)
{
    return atomic_load(&calls);
}

void em_alloc_fail_at(uint64_t n, bool sticky)
{
    atomic_store(&fail_sticky, sticky);
    atomic_store(&fail_at, n ? atomic_load(&calls) + n : 0);
}
