/* The frames of a finished MP4, for measuring them. */
#ifndef EM_DEMO_VIDEO_IN_H
#define EM_DEMO_VIDEO_IN_H

#include "base/status.h"

#include <stdint.h>

typedef struct demo_video {
    uint8_t *rgb; /* (frames, height, width, 3), owned: em_free */
    int frames, width, height;
} demo_video;

em_status demo_video_load(demo_video *out, const char *path, em_err *err);

#endif
