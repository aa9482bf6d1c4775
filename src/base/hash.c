#include "base/hash.h"

#include <string.h>

uint64_t em_fnv1a64(uint64_t h, const void *data, size_t len_bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len_bytes; i++) h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

/* ---- CRC-32 ---------------------------------------------------------------------------------- */

static uint32_t crc_of_byte(uint32_t v)
{
    for (int i = 0; i < 8; i++) v = v >> 1 ^ (v & 1 ? 0xedb88320u : 0);
    return v;
}

typedef struct crc_table {
    uint32_t at[8][256]; /* [k][b]: of byte b followed by k zero bytes */
} crc_table;

static void make_crc_table(crc_table *t)
{
    for (uint32_t b = 0; b < 256; b++) t->at[0][b] = crc_of_byte(b);
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            t->at[k][b] = t->at[k - 1][b] >> 8 ^ t->at[0][t->at[k - 1][b] & 0xff];
}

uint32_t em_crc32(uint32_t crc, const void *data, size_t len_bytes)
{
    enum { WORTH_A_TABLE = 4096 };
    const unsigned char *p = data;
    crc = ~crc;
    if (len_bytes >= WORTH_A_TABLE) {
        crc_table t; /* 8 KiB made anew: cheap beside the bytes, and nothing to share or lock */
        make_crc_table(&t);
        for (; len_bytes >= 8; p += 8, len_bytes -= 8) {
            uint32_t v = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                                (uint32_t)p[3] << 24);
            crc = t.at[7][v & 0xff] ^ t.at[6][v >> 8 & 0xff] ^ t.at[5][v >> 16 & 0xff] ^
                  t.at[4][v >> 24] ^ t.at[3][p[4]] ^ t.at[2][p[5]] ^ t.at[1][p[6]] ^ t.at[0][p[7]];
        }
    }
    for (; len_bytes; p++, len_bytes--) crc = crc >> 8 ^ crc_of_byte((crc ^ *p) & 0xff);
    return ~crc;
}

/* a * b modulo the CRC's polynomial; bit 31 is the constant term. */
static uint32_t crc_multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (int i = 31; i >= 0; i--) {
        if (a >> i & 1) product ^= b;
        b = b >> 1 ^ (b & 1 ? 0xedb88320u : 0);
    }
    return product;
}

/* The first stretch moves up by as many bits as the second has: times x to that power. */
uint32_t em_crc32_join(uint32_t first, uint32_t second, uint64_t second_bytes)
{
    uint32_t power = 1u << 23; /* x^8, then its squares: a byte, two, four, … */
    for (uint64_t n = second_bytes; n; n >>= 1) {
        if (n & 1) first = crc_multiply(first, power);
        power = crc_multiply(power, power);
    }
    return first ^ second;
}

/* ---- SHA-256 --------------------------------------------------------------------------------- */

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

/* One round. Its eight words trade places afterwards; the caller does that by their order, so that
 * nothing is moved. */
static inline void sha_step(const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t *d,
                            const uint32_t *e, const uint32_t *f, const uint32_t *g, uint32_t *h,
                            uint32_t kw)
{
    uint32_t t =
        *h + (rotate(*e, 6) ^ rotate(*e, 11) ^ rotate(*e, 25)) + (*g ^ (*e & (*f ^ *g))) + kw;
    *d += t;
    *h = t + (rotate(*a, 2) ^ rotate(*a, 13) ^ rotate(*a, 22)) + ((*a & *b) | (*c & (*a | *b)));
}

static void sha_block(uint32_t state[8], const unsigned char *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i += 8) {
        sha_step(&s[0], &s[1], &s[2], &s[3], &s[4], &s[5], &s[6], &s[7], sha_k[i] + w[i]);
        sha_step(&s[7], &s[0], &s[1], &s[2], &s[3], &s[4], &s[5], &s[6], sha_k[i + 1] + w[i + 1]);
        sha_step(&s[6], &s[7], &s[0], &s[1], &s[2], &s[3], &s[4], &s[5], sha_k[i + 2] + w[i + 2]);
        sha_step(&s[5], &s[6], &s[7], &s[0], &s[1], &s[2], &s[3], &s[4], sha_k[i + 3] + w[i + 3]);
        sha_step(&s[4], &s[5], &s[6], &s[7], &s[0], &s[1], &s[2], &s[3], sha_k[i + 4] + w[i + 4]);
        sha_step(&s[3], &s[4], &s[5], &s[6], &s[7], &s[0], &s[1], &s[2], sha_k[i + 5] + w[i + 5]);
        sha_step(&s[2], &s[3], &s[4], &s[5], &s[6], &s[7], &s[0], &s[1], sha_k[i + 6] + w[i + 6]);
        sha_step(&s[1], &s[2], &s[3], &s[4], &s[5], &s[6], &s[7], &s[0], sha_k[i + 7] + w[i + 7]);
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

void em_sha256_start(em_sha256 *h)
{
    /* The first 32 bits of the fractional parts of the square roots of the first 8 primes. */
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, first, sizeof first);
    h->total_bytes = 0;
}

void em_sha256_add(em_sha256 *h, const void *data, size_t len_bytes)
{
    const unsigned char *p = data;
    size_t have = h->total_bytes % sizeof h->block;
    h->total_bytes += len_bytes;
    if (have) {
        size_t n = sizeof h->block - have < len_bytes ? sizeof h->block - have : len_bytes;
        memcpy(h->block + have, p, n);
        p += n;
        len_bytes -= n;
        if (have + n < sizeof h->block) return;
        sha_block(h->state, h->block);
    }
    for (; len_bytes >= sizeof h->block; p += sizeof h->block, len_bytes -= sizeof h->block)
        sha_block(h->state, p);
    if (len_bytes) memcpy(h->block, p, len_bytes);
}

void em_sha256_end(em_sha256 *h, unsigned char out[EM_SHA256_BYTES])
{
    static const unsigned char pad[64] = {0x80};
    unsigned char length[8];
    uint64_t bits = h->total_bytes * 8;
    size_t have = h->total_bytes % sizeof h->block;
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(bits >> (56 - 8 * i));
    em_sha256_add(h, pad, (have < 56 ? 56 : 120) - have);
    em_sha256_add(h, length, sizeof length);
    for (int i = 0; i < EM_SHA256_BYTES; i++)
        out[i] = (unsigned char)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void em_sha256_hex(char out[EM_SHA256_HEX_BYTES], const unsigned char sum[EM_SHA256_BYTES])
{
    static const char digit[] = "0123456789abcdef";
    for (int i = 0; i < EM_SHA256_BYTES; i++) {
        out[2 * i] = digit[sum[i] >> 4];
        out[2 * i + 1] = digit[sum[i] & 15];
    }
    out[EM_SHA256_HEX_BYTES - 1] = 0;
}
