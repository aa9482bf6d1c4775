#include "batch/render.h"

#include "base/alloc.h"
#include "io/audio_in.h"
#include "io/file.h"
#include "io/image_in.h"
#include "io/video_out.h"

#include <math.h>
#include <string.h>

/* What the sink writes to. */
typedef struct writer {
    const em_render_job *job;
    const em_audio *audio;
    em_video_out *video;
    int width, height, frames;
} writer;

static void on_progress(void *user, const em_progress *p)
{
    const writer *w = user;
    if (w->job->progress) w->job->progress(w->job->user, p);
}

static em_status on_begin(void *user, int width, int height, int frames, em_err *err)
{
    writer *w = user;
    const em_video_params v = {.width = width,
                               .height = height,
                               .fps = w->job->params->fps,
                               .frames = frames,
                               .crf = w->job->params->crf,
                               .audio = w->audio->samples,
                               .audio_n = w->audio->n,
                               .audio_rate_hz = w->audio->rate_hz,
                               .audio_channels = w->audio->channels};
    w->width = width;
    w->height = height;
    w->frames = frames;
    return em_video_out_open(&w->video, w->job->output_path, &v, w->job->log, err);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    writer *w = user;
    (void)index;
    return em_video_out_push(w->video, rgb, err);
}

/* Said before the run, with both lengths and the flag to raise. */
static void tell_cut(const em_render_job *j, const em_audio *audio)
{
    const em_params *p = j->params;
    int whole = em_audio_frames(audio->n, audio->rate_hz, p->fps, 4093);
    if (whole <= p->video_length) return;
    em_logf(j->log, EM_LOG_WARN,
            "the sound lasts %.2f s (%d frames), the video will end after %d: raise --video_length "
            "to keep all",
            (double)audio->n / audio->rate_hz, whole,
            em_audio_frames(audio->n, audio->rate_hz, p->fps, p->video_length));
}

/* The file is reopened before it gets its name. */
static em_status check_part(const writer *w, em_err *err)
{
    em_video_info info;
    const char *part = em_video_out_part(w->video);
    em_status st = em_video_check(&info, part, err);
    if (st) return st;
    double seconds = (double)w->frames / w->job->params->fps;
    if (info.video_streams != 1 || info.audio_streams != 1 || info.frames != w->frames ||
        info.width != w->width || info.height != w->height ||
        fabs(info.video_seconds - seconds) > 0.1)
        return em_fail(
            err, EM_IO,
            "'%s' does not hold what was written: %lld frames of %d x %d, %.2f s, expected %d of "
            "%d x %d, %.2f s",
            part, (long long)info.frames, info.width, info.height, info.video_seconds, w->frames,
            w->width, w->height, seconds);
    return EM_OK;
}

static em_status generate(em_engine *engine, const em_render_job *j, const em_image *image,
                          const em_audio *audio, em_result *result, em_err *err)
{
    float *mono = NULL;
    writer w = {.job = j, .audio = audio};
    em_status st = em_audio_mono(&mono, audio, err);
    if (st) return st;
    const em_picture picture = {image->rgb, image->width, image->height};
    const em_sound sound = {mono, audio->n, audio->rate_hz};
    const em_sink sink = {.progress = on_progress,
                          .begin = on_begin,
                          .frame = on_frame,
                          .user = &w};
    tell_cut(j, audio);
    st = em_generate(engine, &picture, &sound, j->params, &sink, result, err);
    em_free(mono);
    if (!st) st = em_video_out_finish(w.video, err);
    if (!st) st = check_part(&w, err);
    if (!st) st = em_video_out_commit(&w.video, err);
    em_video_out_close(&w.video);
    return st;
}

/* True when a whole video has the final name; a broken or foreign file there is an error. */
static em_status look_for_finished(const em_render_job *j, bool *there, em_err *err)
{
    em_video_info info;
    em_err why = {0};
    *there = false;
    if (em_path_is_dir(j->output_path))
        return em_fail(err, EM_INVAL, "'%s' is a folder", j->output_path);
    if (j->overwrite || !em_path_is_file(j->output_path)) return EM_OK;
    if (em_video_check(&info, j->output_path, &why))
        return em_fail(err, EM_INVAL,
                       "'%s' is there and is not a whole video: remove it, or use --force",
                       j->output_path);
    *there = true;
    return EM_OK;
}

em_status em_render_run(em_engine *engine, const em_render_job *j, em_result *result, bool *made,
                        em_err *err)
{
    em_image image = {0};
    em_audio audio = {0};
    bool there = false;
    em_status st = look_for_finished(j, &there, err);
    if (!st && !there) {
        st = em_image_load(&image, j->image_path, EM_IMAGE_UPRIGHT, err);
        if (!st) st = em_audio_load(&audio, j->audio_path, NULL, err);
        if (!st) st = generate(engine, j, &image, &audio, result, err);
    }
    em_image_free(&image);
    em_audio_free(&audio);
    if (!st && made) *made = !there;
    return st;
}

em_request em_request_default(void)
{
    return (em_request){.params = em_params_default()};
}

em_status em_render(em_engine *engine, const em_request *q, em_result *result, em_err *err)
{
    if (!q->image_path || !q->audio_path || !q->output_path)
        return em_fail(err, EM_INVAL,
                       "a request needs a picture, a sound and the name of its video");
    const em_render_job j = {.image_path = q->image_path,
                             .audio_path = q->audio_path,
                             .output_path = q->output_path,
                             .params = &q->params,
                             .overwrite = true,
                             .progress = q->progress,
                             .user = q->user};
    return em_render_run(engine, &j, result, NULL, err);
}
