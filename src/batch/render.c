/* em_render: from files to a file. Reads the picture and the sound, and lets the frames run into an
 * MP4 as they are decoded; the video has its name only when it is whole and was counted. */
#include "base/alloc.h"
#include "io/audio_in.h"
#include "io/image_in.h"
#include "io/image_resize.h"
#include "io/video_out.h"
#include "pipeline/engine.h"
#include "pipeline/params.h"

#include <limits.h>

/* A request on its way. */
typedef struct film {
    const em_request *q;
    const em_log *log;
    em_image image;
    em_audio sound; /* as in the file: what the video carries */
    float *mono;    /* what the model hears */
    em_video_out *out;
    int width, height, frames;
} film;

em_request em_request_default(void)
{
    return (em_request){.params = em_params_default()};
}

/* ---- before ---------------------------------------------------------------------------------- */

/* How much of the sound becomes video; said before the work, not after it. */
static em_status check_length(const film *f, em_err *err)
{
    const em_params *p = &f->q->params;
    const em_audio *s = &f->sound;
    int frames = em_audio_frames(s->n, s->rate_hz, p->fps, p->video_length);
    double seconds = (double)s->n / s->rate_hz;
    uint64_t covered = (uint64_t)s->n * (uint64_t)p->fps / (uint64_t)s->rate_hz;
    if (frames < 1)
        return em_fail(
            err, EM_INVAL,
            "'%s' has %zu samples at %d Hz, less than one frame at %d fps: give a longer "
            "sound",
            f->q->audio_path, s->n, s->rate_hz, p->fps);
    if (covered > (uint64_t)p->video_length)
        em_logf(f->log, EM_LOG_WARN,
                "'%s' is %.2f s long, the video will be %.2f s (%d frames): raise --video_length "
                "to %llu to hear it all",
                f->q->audio_path, seconds, (double)frames / p->fps, frames,
                (unsigned long long)covered);
    if (frames == 1)
        em_logf(f->log, EM_LOG_WARN, "'%s' covers one frame: the video is a still",
                f->q->audio_path);
    return EM_OK;
}

static em_status open_inputs(film *f, em_err *err)
{
    const em_params *p = &f->q->params;
    em_status st = em_params_check(p, err);
    if (!st) st = em_image_load(&f->image, f->q->image_path, EM_IMAGE_UPRIGHT, err);
    if (!st)
        st = em_image_check_size(f->q->image_path, f->image.width, f->image.height,
                                 p->sample_size[0], p->sample_size[1], err);
    if (!st) st = em_audio_load(&f->sound, f->q->audio_path, NULL, err);
    if (!st) st = check_length(f, err);
    return st ? st : em_audio_mono(&f->mono, &f->sound, err);
}

/* ---- during ---------------------------------------------------------------------------------- */

static void on_progress(void *user, const em_progress *p)
{
    const film *f = user;
    if (f->q->progress) f->q->progress(f->q->user, p);
}

static em_status on_begin(void *user, int width, int height, int frames, em_err *err)
{
    film *f = user;
    const em_params *p = &f->q->params;
    const em_video_params v = {.width = width,
                               .height = height,
                               .fps = p->fps,
                               .frames = frames,
                               .crf = p->crf,
                               .audio = f->sound.samples,
                               .audio_n = f->sound.n,
                               .audio_rate_hz = f->sound.rate_hz,
                               .audio_channels = f->sound.channels};
    f->width = width;
    f->height = height;
    f->frames = frames;
    return em_video_out_open(&f->out, f->q->output_path, &v, f->log, err);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    film *f = user;
    (void)index;
    return em_video_out_push(f->out, rgb, err);
}

/* ---- after ----------------------------------------------------------------------------------- */

static em_status check_video(const film *f, em_err *err)
{
    em_video_info v;
    em_status st = em_video_check(&v, em_video_out_part(f->out), err);
    if (st) return st;
    if (v.width == f->width && v.height == f->height && v.frames == f->frames &&
        v.video_streams == 1 && v.audio_streams == 1)
        return EM_OK;
    return em_fail(err, EM_VERDICT,
                   "'%s' was to have %d frames of %d x %d with sound, it has %lld of %d x %d with "
                   "%d sound tracks: make it again",
                   f->q->output_path, f->frames, f->width, f->height, (long long)v.frames, v.width,
                   v.height, v.audio_streams);
}

em_status em_render(em_engine *engine, const em_request *q, em_result *result, em_err *err)
{
    film f = {.q = q, .log = &engine->log};
    em_result made = {0};
    em_status st = open_inputs(&f, err);
    if (st) goto done;
    const em_picture picture = {f.image.rgb, f.image.width, f.image.height};
    const em_sound sound = {f.mono, f.sound.n, f.sound.rate_hz};
    const em_sink sink = {on_progress, on_begin, on_frame, &f};
    st = em_generate(engine, &picture, &sound, &q->params, &sink, &made, err);
    if (!st) st = em_video_out_finish(f.out, err);
    if (!st) st = check_video(&f, err);
    if (!st) st = em_video_out_commit(&f.out, err);
    if (!st && result) *result = made;

done:
    em_video_out_close(&f.out);
    em_image_free(&f.image);
    em_audio_free(&f.sound);
    em_free(f.mono);
    return st;
}
