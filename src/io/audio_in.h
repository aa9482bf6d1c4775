/* Sound in: WAV, MP3, FLAC, Ogg (Vorbis, Opus, FLAC), M4A/MP4 and ADTS AAC, through the FFmpeg
 * libraries; WAV alone in a build without them (EM_MEDIA=OFF, wav_in.c).
 *
 * The file is hostile until decoded: it is read into memory first and FFmpeg sees nothing but
 * that buffer (no protocol, no second file); containers and codecs are on short lists, sizes and
 * time are bounded. Decoding happens in this process: a caller that wants a crash of a decoder
 * to cost one job only runs it in a child. Encoder delay and padding are removed as the
 * container says. A truncated file is an error where the file declares a length; Ogg, ADTS and MP3
 * without a Xing header do not, and pass as a shorter sound. */
#ifndef EM_IO_AUDIO_IN_H
#define EM_IO_AUDIO_IN_H

#include "base/status.h"
#include "io/audio.h"

#include <stdatomic.h>
#include <stddef.h>

#define EM_AUDIO_MAX_BYTES ((size_t)512 << 20) /* of the file */

typedef struct em_audio_limits {
    /* of sound; 0 = one hour. Longer is refused: loudness is that of the whole */
    double max_seconds;
    double timeout_s;          /* of decoding; 0 = five minutes */
    const atomic_bool *cancel; /* looked at while decoding: EM_CANCELLED; NULL = never */
} em_audio_limits;

/* The first sound track of a file at its own rate with its own channels (1 to 6, or 8: what AAC
 * can hold). `limits` may be NULL. EM_IO: the file cannot be read; EM_FORMAT: empty, not sound,
 * a format that is not supported, no sound track, 0 samples, truncated, too long, too many
 * channels. The sentence names the file. EM_INVAL: a format that takes FFmpeg,
 * in a build without it. */
em_status em_audio_load(em_audio *out, const char *path, const em_audio_limits *limits,
                        em_err *err);

/* The same from memory; `name` stands for the file in sentences. */
em_status em_audio_decode(em_audio *out, const void *data, size_t size_bytes, const char *name,
                          const em_audio_limits *limits, em_err *err);

#endif
