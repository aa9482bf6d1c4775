/* Hashes that are part of a format: nothing here is for security but SHA-256. */
#ifndef EM_BASE_HASH_H
#define EM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, 64 bit. Continue from a previous value, or start at EM_FNV1A64_INIT. */
#define EM_FNV1A64_INIT 0xcbf29ce484222325ull
uint64_t em_fnv1a64(uint64_t h, const void *data, size_t len_bytes);

/* CRC-32 as zip has it (reflected 0x04C11DB7). Continue from a previous value, or start at 0. */
uint32_t em_crc32(uint32_t crc, const void *data, size_t len_bytes);

/* The CRC of two stretches after one another, from their CRCs and the second's length. */
uint32_t em_crc32_join(uint32_t first, uint32_t second, uint64_t second_bytes);

/* SHA-256 (FIPS 180-4). */
#define EM_SHA256_BYTES 32
#define EM_SHA256_HEX_BYTES 65 /* with the NUL */
typedef struct em_sha256 {
    uint32_t state[8];
    uint64_t total_bytes;
    unsigned char block[64]; /* what is left of the last one */
} em_sha256;

void em_sha256_start(em_sha256 *h);
void em_sha256_add(em_sha256 *h, const void *data, size_t len_bytes);
void em_sha256_end(em_sha256 *h, unsigned char out[EM_SHA256_BYTES]);
/* Lower-case hexadecimal and a NUL. */
void em_sha256_hex(char out[EM_SHA256_HEX_BYTES], const unsigned char sum[EM_SHA256_BYTES]);

#endif
