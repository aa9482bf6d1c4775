/* An engine on synthetic models of the smallest size, for tests of whole requests. */
#ifndef EM_TEST_TINY_ENGINE_H
#define EM_TEST_TINY_ENGINE_H

#include "pipeline/synthetic_model.h"

#include "test.h"

#include <math.h>
#include <stdio.h>

enum { TINY_SIDE = 32, TINY_RATE_HZ = 16000, TINY_SAMPLES = TINY_RATE_HZ / 2, TINY_FRAMES = 5 };

/* Writes the five models below dir. */
static inline void tiny_models(const char *dir, uint64_t seed)
{
    em_err err = {0};
    const em_synthetic_sizes sizes = em_synthetic_sizes_tiny();
    const em_synthetic_folder to = {.dir = dir, .seed = seed};
    assert_ok(em_synthetic_write_folder(&sizes, &to, &err), err);
}

/* For the models in dir; strings live until the next call. */
static inline em_engine_params tiny_engine_params(const char *dir)
{
    enum { PARTS = 4 };
    static char path[PARTS][256];
    static const char *const at[PARTS] = {EM_SYNTHETIC_BASE, EM_SYNTHETIC_FLASH,
                                          EM_SYNTHETIC_WAV2VEC2, EM_SYNTHETIC_CONFIG};
    em_engine_params p = em_engine_params_default();
    for (int i = 0; i < PARTS; i++) snprintf(path[i], sizeof path[i], "%s/%s", dir, at[i]);
    p.model_name = path[0];
    p.transformer_path = path[1];
    p.wav2vec_model_dir = path[2];
    p.config_path = path[3];
    p.dtype = EM_WEIGHT_FLOAT32;
    p.threads = 1;
    return p;
}

/* Any picture and any sound. */
static inline void tiny_inputs(uint8_t rgb[TINY_SIDE * TINY_SIDE * 3], float mono[TINY_SAMPLES])
{
    for (int i = 0; i < TINY_SIDE * TINY_SIDE * 3; i++) rgb[i] = (uint8_t)(i * 7 + i / TINY_SIDE);
    for (int i = 0; i < TINY_SAMPLES; i++) mono[i] = (float)(0.3 * sin(i * 0.07) * sin(i * 0.0011));
}

#endif
