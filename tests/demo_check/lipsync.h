/* The demo family's ground truth: how far a mouth should open for a sound, and how far it does in a
 * picture. Both are definitions of the drawings that the small model was trained on
 * (tools/train_demo/audio.py `mouth`, portrait.py `opening`), restated. */
#ifndef EM_DEMO_LIPSYNC_H
#define EM_DEMO_LIPSYNC_H

#include "base/status.h"

#include <stdint.h>

enum { DEMO_SIDE = 256, DEMO_HZ = 16000, DEMO_FPS = 25 };

/* A drawn portrait, in pixels of 256 x 256. */
typedef struct demo_face {
    double mouth_x, mouth_y, mouth_half_width;
    double lips[3]; /* RGB in [0, 1] */
} demo_face;

/* Truth: opening in [0, 1] of every frame, from the sound alone: the level of 90 to 2200 Hz in a 50
 * ms window about the frame's middle, from -17 dB (shut) to +4 dB of the clip's mean, less where 3
 * kHz and more dominates, averaged over three frames. wave (n) mono 16 kHz -> opening (frames). */
em_status demo_truth(double *opening, int frames, const float *wave, size_t n, em_err *err);

/* Measured: the dark area inside the mouth, in pixels.   rgb (256, 256, 3) */
double demo_opening(const uint8_t *rgb, const demo_face *face);

/* Pearson's correlation of a and b over n values; 0 when either is constant. */
double demo_correlation(const double *a, const double *b, int n);

#endif
