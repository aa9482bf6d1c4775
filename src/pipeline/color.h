/* Colour transfer: every frame is moved to the first frame's mean and deviation in CIE Lab
 * (Reinhard et al., "Color transfer between images", 2001), which undoes the slow drift of
 * generated video.
 *
 * On 8 bits, as the reference does it with OpenCV: both conversions are integer arithmetic,
 * restated here to the bit, because the textbook formulas in floating point miss by up to 13
 * levels. */
#ifndef EM_PIPELINE_COLOR_H
#define EM_PIPELINE_COLOR_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct em_color em_color;

/* Builds the tables (12 KiB). *out is owned by the caller: em_color_close. */
em_status em_color_open(em_color **out, em_err *err);
void em_color_close(em_color **c);

/* The next frame is the first of another video. */
void em_color_restart(em_color *c);

/* The next frame of a video, rgb (pixels, 3) with pixels >= 1. The first one is measured and passes
 * untouched; later ones are changed in place. */
void em_color_frame(em_color *c, uint8_t *rgb, size_t pixels);

#endif
