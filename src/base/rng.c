#include "base/rng.h"

/* ---- Mersenne Twister ------------------------------------------------------------------------ */

enum { MT_N = EM_MT19937_WORDS, MT_M = 397 };

void em_mt19937_seed(em_mt19937 *g, uint32_t seed)
{
    g->word[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t w = g->word[i - 1];
        g->word[i] = 1812433253u * (w ^ w >> 30) + i;
    }
    g->next = MT_N;
}

/* The recurrence x[k+n] = x[k+m] ^ (upper bit of x[k] | lower bits of x[k+1]) A, in place for all n
 * words. Word k + 1 is still the old one when word k is made, word k + m is new once it wraps: as
 * it should be. */
static void mt_twist(em_mt19937 *g)
{
    uint32_t *x = g->word;
    for (int k = 0; k < MT_N; k++) {
        uint32_t y = (x[k] & 0x80000000u) | (x[(k + 1) % MT_N] & 0x7fffffffu);
        x[k] = x[(k + MT_M) % MT_N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->next = 0;
}

uint32_t em_mt19937_next(em_mt19937 *g)
{
    if (g->next == MT_N) mt_twist(g);
    uint32_t y = g->word[g->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* ---- Philox ---------------------------------------------------------------------------------- */

void em_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u; /* the golden ratio … */
        k1 += 0xbb67ae85u; /* … and sqrt(3) - 1: a Weyl sequence of round keys */
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}
