/* A clip's frames: how many latents they are, what sound each hears, how bytes become the models'
 * pixels, and whether what came out is a video at all. */
#ifndef EM_PIPELINE_FRAMES_H
#define EM_PIPELINE_FRAMES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The VAE makes one latent of the first frame and one of every four that follow: 1 + 4 k frames are
 * 1 + k latents. */
int em_latent_frames(int frames);

/* index (frames, EM_DIT_WINDOW): the audio frames that video frame i hears, i - 2 to i + 2, those
 * beyond an end replaced by the last one before it. */
void em_audio_windows(int32_t *index, int frames);

/* Bytes to [-1, 1]: 2 (v / 255) - 1 in float32. */
void em_pixels_from_u8(float *out, const uint8_t *in, size_t n);

/* Judges a video while it passes. {0} begins one; nothing is owned. */
typedef struct em_verdict {
    const char *broken;   /* which values held a NaN or an infinity; NULL: none */
    uint64_t frames;      /* seen so far */
    uint64_t first_hash;  /* of the first frame */
    uint8_t colour[3];    /* of the first frame's first pixel */
    bool varies, changes; /* some pixel has another colour; some frame differs from the first */
} em_verdict;

/* Values that must be finite; `what` names them in the verdict and is a literal: "latents". */
void em_verdict_values(em_verdict *v, const char *what, const float *x, size_t n);
/* The next frame, rgb (pixels, 3), pixels >= 1. */
void em_verdict_frame(em_verdict *v, const uint8_t *rgb, size_t pixels);
/* EM_VERDICT when a value was not finite, when there was no frame, when the video is one constant
 * colour, or when it has several frames and all are equal. */
em_status em_verdict_check(const em_verdict *v, em_err *err);

#endif
