/* What a file is by its first bytes: to choose a decoder, and to tell a person what was found
 * instead. */
#ifndef EM_IO_MEDIA_SNIFF_H
#define EM_IO_MEDIA_SNIFF_H

#include <stddef.h>

typedef enum em_media_kind {
    EM_MEDIA_UNKNOWN,
    EM_MEDIA_JPEG,
    EM_MEDIA_PNG,
    EM_MEDIA_WEBP,
    EM_MEDIA_PPM,
    EM_MEDIA_SOUND, /* a container that audio_in reads; the decoder looks closer */
    EM_MEDIA_OTHER  /* recognised, and nothing that we read */
} em_media_kind;

/* *name is "a PNG picture", "an HTML page", "text", …, or "data of an unknown kind"; static. */
em_media_kind em_media_sniff(const void *data, size_t size_bytes, const char **name);

#endif
