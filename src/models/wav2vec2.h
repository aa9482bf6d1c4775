/* The audio encoder: a waveform to one stack of hidden states a video frame. */
#ifndef EM_MODELS_WAV2VEC2_H
#define EM_MODELS_WAV2VEC2_H

#include "models/bind.h"
#include "ops/run.h"

enum { EM_WAV2VEC2_CONVS = 16 }; /* convolutions of the feature extractor, at most */

typedef struct em_wav2vec2_config {
    /* what config.json alone says */
    int64_t heads;
    int64_t convs;
    int64_t conv_stride[EM_WAV2VEC2_CONVS];
    float eps; /* layer_norm_eps */
    /* what the shapes say */
    int64_t conv_dim[EM_WAV2VEC2_CONVS], conv_kernel[EM_WAV2VEC2_CONVS];
    int64_t hidden, ffn, layers;
    int64_t pos_kernel, pos_groups; /* the positional convolution */
} em_wav2vec2_config;

/* wav2vec2-base: the released sizes. */
em_wav2vec2_config em_wav2vec2_config_default(void);
/* Fills in the sizes that the checkpoint's shapes state; the first group of fields is the caller's.
 * Names start at "feature_extractor.": strip "wav2vec2." first (em_ckpt_strip_prefix). */
em_status em_wav2vec2_config_read(em_wav2vec2_config *cfg, const em_ckpt *ckpt, em_err *err);

typedef struct em_wav2vec2 em_wav2vec2;

/* Binds the weights; ckpt is borrowed until close. */
em_status em_wav2vec2_open(em_wav2vec2 **out, const em_wav2vec2_config *cfg, const em_ckpt *ckpt,
                           const em_log *log, em_err *err);
void em_wav2vec2_close(em_wav2vec2 **m);
const em_wav2vec2_config *em_wav2vec2_sizes(const em_wav2vec2 *m); /* borrowed until close */

/* Names every tensor of such a checkpoint to a visiting binder. */
void em_wav2vec2_visit(em_binder *b, const em_wav2vec2_config *cfg);

/* Intermediate results for a caller who compares: float32, kept (em_run_keep). */
typedef struct em_wav2vec2_taps {
    em_tensor features; /* (frames, conv_dim of the last convolution), before projection */
    em_tensor hidden0;  /* (frames, hidden), the first layer's input */
} em_wav2vec2_taps;

/* wave F32 (n): 16 kHz mono, normalised as preprocessor_config.json says.   taps may be NULL
 * -> F32 (frames, layers, hidden), scratch: hidden states 1 … layers. Computes in float32 whatever
 * the run's type is. */
em_tensor em_wav2vec2_forward(em_run *r, const em_wav2vec2 *m, em_tensor wave, int64_t frames,
                              em_wav2vec2_taps *taps);

#endif
