/* Stands in for audio_in.c and video_out.c in a build without the FFmpeg libraries
 * (EM_MEDIA=OFF). */
#include "io/audio_in.h"
#include "io/video_out.h"

static em_status absent(const char *path, em_err *err)
{
    return em_fail(err, EM_INVAL,
                   "'%s': this build can neither read sound nor write video (no FFmpeg): build "
                   "with -DEM_MEDIA=ON",
                   path);
}

em_status em_audio_load(em_audio *out, const char *path, const em_audio_limits *limits, em_err *err)
{
    (void)out, (void)limits;
    return absent(path, err);
}

em_status em_audio_decode(em_audio *out, const void *data, size_t size_bytes, const char *name,
                          const em_audio_limits *limits, em_err *err)
{
    (void)out, (void)data, (void)size_bytes, (void)limits;
    return absent(name, err);
}

em_status em_video_out_open(em_video_out **out, const char *path, const em_video_params *params,
                            const em_log *log, em_err *err)
{
    (void)out, (void)params, (void)log;
    return absent(path, err);
}

em_status em_video_out_push(em_video_out *v, const uint8_t *rgb, em_err *err)
{
    (void)v, (void)rgb;
    return absent("video", err);
}

em_status em_video_out_finish(em_video_out *v, em_err *err)
{
    (void)v;
    return absent("video", err);
}

const char *em_video_out_part(const em_video_out *v)
{
    (void)v;
    return "";
}

em_status em_video_out_commit(em_video_out **v, em_err *err)
{
    (void)v;
    return absent("video", err);
}

void em_video_out_close(em_video_out **v)
{
    if (v) *v = NULL;
}

em_status em_video_check(em_video_info *info, const char *path, em_err *err)
{
    (void)info;
    return absent(path, err);
}
