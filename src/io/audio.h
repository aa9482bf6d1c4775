/* Sound as samples, and the arithmetic between a decoded file and the speech model. */
#ifndef EM_IO_AUDIO_H
#define EM_IO_AUDIO_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_AUDIO_MODEL_HZ 16000 /* what wav2vec2 hears */
#define EM_AUDIO_MODEL_FPS 25 /* wav2vec2's frames stay at 25 a second whatever the video's rate */

/* {0} is empty. Samples are in [-1, 1]; lossy codecs may exceed it a little. */
typedef struct em_audio {
    float *samples; /* (n, channels) interleaved; owned: em_audio_free */
    size_t n;       /* samples of one channel */
    int rate_hz;
    int channels;
    bool via_s16; /* AAC: the reference's decoder hands these over as 16-bit integers */
} em_audio;

void em_audio_free(em_audio *audio); /* NULL and an empty one are allowed */

/* The mean of the channels at the source's rate: *out (n) is owned (em_free). With via_s16 each
 * sample is rounded to 16 bits first, as the reference heard it. */
em_status em_audio_mono(float **out, const em_audio *audio, em_err *err);

/* libsoxr at its HQ setting (librosa's default). in (n, channels) -> *out (*n_out, channels),
 * owned (em_free), *n_out = ceil(n * to_hz / from_hz); what the filter leaves short is zero.
 * Equal rates copy. n is at least 1. */
em_status em_audio_resample(float **out, size_t *n_out, const float *in, size_t n, int channels,
                            int from_hz, int to_hz, em_err *err);

/* Video frames that n samples cover: floor(n * fps / rate), at most video_length, then down to
 * 4k + 1. 0 when they do not fill one frame. Integers throughout: doubles lose a frame at 29, 57,
 * 113, 201. */
int em_audio_frames(uint64_t n, int rate_hz, int fps, int video_length);

/* 16 kHz samples that belong to `frames` model frames: (int)(frames / 25.0 * 16000) in doubles,
 * as the reference computes it (201 frames give 128639). */
size_t em_audio_cut_samples(int frames);

/* x <- (x - mean) / sqrt(variance + 1e-7) over all n: wav2vec2's feature extractor. In place. */
void em_audio_standardise(float *x, size_t n);

#endif
