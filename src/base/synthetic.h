/* Synthetic weights: every value a pure function of (seed, name, index), so that any program
 * rebuilds the same checkpoint at any size without shipping it. The values are exact in
 * bfloat16. */
#ifndef EM_BASE_SYNTHETIC_H
#define EM_BASE_SYNTHETIC_H

#include "base/dtype.h"

#include <stddef.h>
#include <stdint.h>

/* value = bfloat16(offset + scale u), u uniform in [-1, 1) */
typedef struct em_synth_rule {
    float offset, scale;
} em_synth_rule;

/* The rule for tensor `tensor` (its name in the file) of `model` (transformer, vae, t5, clip,
 * wav2vec2). ndim 0 is a scalar. */
em_synth_rule em_synth_rule_of(const char *model, const char *tensor, const int64_t *dim, int ndim);

/* What identifies the stream of "MODEL/TENSOR" (or of "input.NAME"). */
uint64_t em_synth_key(const char *model, const char *tensor, uint64_t seed);
/* u of value `index` before rounding: a multiple of 2^-23 in [-1, 1). */
float em_synth_unit(uint64_t key, uint64_t index);

/* Values first … first + count - 1 of a stream into dst, as dtype (a float type). Any range from
 * any thread: there is no state. */
void em_synth_values(void *dst, em_dtype dtype, uint64_t key, em_synth_rule rule, uint64_t first,
                     size_t count);

#endif
