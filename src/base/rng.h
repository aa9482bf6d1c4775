/* The two random generators behind PyTorch's seeds. Integers only: what a float becomes of them is
 * the caller's business. Not for secrets. */
#ifndef EM_BASE_RNG_H
#define EM_BASE_RNG_H

#include <stdint.h>

/* Mersenne Twister, period 2^19937 - 1 (Matsumoto and Nishimura, ACM TOMACS 8(1), 1998). Plain
 * data: a copy continues where the original stood. */
enum { EM_MT19937_WORDS = 624 };
typedef struct em_mt19937 {
    uint32_t word[EM_MT19937_WORDS];
    int next; /* the first word not handed out yet */
} em_mt19937;

void em_mt19937_seed(em_mt19937 *g, uint32_t seed);
uint32_t em_mt19937_next(em_mt19937 *g);

/* Philox4x32-10, counter-based: 128 random bits that are a function of (counter, key) alone
 * (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
void em_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
