/* Is all of it there? A server that announces too short a length, or closes in the middle of an
 * answer without one, leaves a file that only its own header shows to be cut. */
#ifndef EM_IO_MEDIA_WHOLE_H
#define EM_IO_MEDIA_WHOLE_H

#include "io/media_sniff.h"

#include <stdbool.h>
#include <stddef.h>

/* False: it ends before its own end, by what PNG, JPEG, WebP and WAV say about themselves. Other
 * kinds, and recorders that left their size open, do not say: true. No judgement on the content. */
bool em_media_whole(const void *data, size_t size_bytes, em_media_kind kind);

#endif
