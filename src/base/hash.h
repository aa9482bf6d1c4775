/* Hashes that are part of a format: nothing here is for security but SHA-256. */
#ifndef EM_BASE_HASH_H
#define EM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, 64 bit. Continue from a previous value, or start at EM_FNV1A64_INIT. */
#define EM_FNV1A64_INIT 0xcbf29ce484222325ull
uint64_t em_fnv1a64(uint64_t h, const void *data, size_t len_bytes);

#endif
