/* Standard normal noise that a seed means in PyTorch, so that a seed means the same video there and
 * here. */
#ifndef EM_PIPELINE_NOISE_H
#define EM_PIPELINE_NOISE_H

#include "base/dtype.h"
#include "echomimic.h" /* em_rng_kind */

#include <stddef.h>
#include <stdint.h>

/* The card whose stream EM_RNG_CUDA reproduces: PyTorch sizes its grid by the card, and the grid
 * decides which thread makes which value once there are more values than threads. */
typedef struct em_noise_device {
    int sm_count;       /* multiprocessors, >= 1 */
    int threads_per_sm; /* resident at most, >= 256 */
} em_noise_device;

/* The card that the released results were made on, an H100: the default. */
enum { EM_NOISE_SM_COUNT = 132, EM_NOISE_THREADS_PER_SM = 2048 };

/* n float32 normals. `device` matters to EM_RNG_CUDA only. The CUDA stream differs from the card's
 * by its fast sine and cosine: up to 4e-6. */
void em_noise_fill(float *dst, size_t n, uint64_t seed, em_rng_kind rng,
                   const em_noise_device *device);

/* Rounds to what the working type (F32, BF16, F16) can hold, in place: torch draws in float32 on
 * CUDA and rounds. */
void em_noise_round(float *x, size_t n, em_dtype dtype);

#endif
