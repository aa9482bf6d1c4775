/* MP4 out: H.264 (libx264) and AAC, streamed frame by frame; the whole video is never held.
 *
 * Colour: RGB becomes yuv420p, limited range, with the BT.601 matrix: what FFmpeg does by
 * default and so what the reference's files hold. Unlike those, the stream says so (matrix
 * smpte170m; primaries and transfer bt709, which RGB pictures have).
 *
 * The same frames and samples give the same bytes: two encoder threads whatever the machine
 * (x264's result depends on the count), bit-exact flags, no creation time.
 *
 *     open -> push x frames -> finish -> [em_video_check on the part file] -> commit
 *
 * Bytes go to a temporary beside the target; close without commit removes it.
 *
 * A build without FFmpeg (EM_MEDIA=OFF, y4m_out.c) writes the same frames uncompressed instead,
 * NAME.y4m, and the sound beside them, NAME.wav. */
#ifndef EM_IO_VIDEO_OUT_H
#define EM_IO_VIDEO_OUT_H

#include "base/log.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct em_video_out em_video_out;

typedef struct em_video_params {
    int width, height; /* even */
    int fps;
    int frames; /* how many will be pushed, exactly */
    int crf;    /* 0 to 51; 18 looks lossless; nothing to Y4M */
    /* The original sound, (audio_n, audio_channels) interleaved, cut here to frames / fps
     * seconds; borrowed during open only. Rates that AAC does not know are resampled to the
     * nearest one that it does. */
    const float *audio; /* NULL: no sound track */
    size_t audio_n;
    int audio_rate_hz;
    int audio_channels; /* 1 to 6, or 8 */
} em_video_params;

/* The name under which a video asked for as `path` ends: path itself, or NAME.y4m for NAME.mp4 in a
 * build without FFmpeg. Owned (em_free); NULL when out of memory. */
char *em_video_out_name(const char *path);

/* `path` is the final name, before or after em_video_out_name. `log` may be NULL, else it is
 * borrowed until close. */
em_status em_video_out_open(em_video_out **out, const char *path, const em_video_params *params,
                            const em_log *log, em_err *err);

/* The next frame: rgb (height, width, 3), borrowed for the call. EM_NOSPC when the disk is full.
 * After a failure only close is left. */
em_status em_video_out_push(em_video_out *v, const uint8_t *rgb, em_err *err);

/* Drains the encoders and completes the part file. */
em_status em_video_out_finish(em_video_out *v, em_err *err);

/* Where the bytes are before commit; borrowed until commit or close. */
const char *em_video_out_part(const em_video_out *v);

/* fsync, rename to the final name, close. Only after finish. */
em_status em_video_out_commit(em_video_out **v, em_err *err);

/* Closes without committing and removes the temporary; NULL and a closed one are allowed. */
void em_video_out_close(em_video_out **v);

typedef struct em_video_info {
    int width, height;
    int video_streams, audio_streams;
    int64_t frames;
    double fps;
    double video_seconds, audio_seconds; /* as they are played: after edit lists */
    uint64_t size_bytes;
} em_video_info;

/* Reopens a finished video and counts what is in it; decodes nothing. EM_FORMAT when it is not
 * whole. */
em_status em_video_check(em_video_info *info, const char *path, em_err *err);

#endif
