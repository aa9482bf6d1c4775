/* A request's picture and sound as they come from their files: decoded by a thread of their own, so
 * that the next request's are ready when its turn comes. */
#ifndef EM_PIPELINE_MEDIA_H
#define EM_PIPELINE_MEDIA_H

#include "echomimic.h" /* em_media_begin, _wait, _close */
#include "io/audio.h"
#include "io/image_in.h"

#include <stdatomic.h>

/* em_media_wait that gives up with EM_CANCELLED once *cancel is true (NULL: never). */
em_status em_media_wait_unless(em_media *m, const atomic_bool *cancel, em_err *err);

/* After em_media_wait said EM_OK; borrowed until the media is closed. */
const em_image *em_media_image(const em_media *m);
const em_audio *em_media_audio(const em_media *m); /* as in the file: what the video carries */
em_picture em_media_picture(const em_media *m);
em_sound em_media_sound(const em_media *m); /* mixed to one channel: what the model hears */
const char *em_media_audio_path(const em_media *m);

#endif
