/* em_render: from files to a file, one request at a time. The video has its name only when it is
 * whole and was counted. */
#include "io/image_resize.h"
#include "pipeline/engine.h"
#include "pipeline/film.h"
#include "pipeline/media.h"
#include "pipeline/params.h"

em_request em_request_default(void)
{
    return (em_request){.params = em_params_default()};
}

/* How much of the sound becomes video; said before the work, not after it. */
static em_status check_length(const em_request *q, const em_media *media, const em_log *log,
                              em_err *err)
{
    const em_params *p = &q->params;
    const em_audio *s = em_media_audio(media);
    int frames = em_audio_frames(s->n, s->rate_hz, p->fps, p->video_length);
    double seconds = (double)s->n / s->rate_hz;
    uint64_t covered = (uint64_t)s->n * (uint64_t)p->fps / (uint64_t)s->rate_hz;
    if (frames < 1)
        return em_fail(
            err, EM_INVAL,
            "'%s' has %zu samples at %d Hz, less than one frame at %d fps: give a longer "
            "sound",
            q->audio_path, s->n, s->rate_hz, p->fps);
    if (covered > (uint64_t)p->video_length)
        em_logf(log, EM_LOG_WARN,
                "'%s' is %.2f s long, the video will be %.2f s (%d frames): raise --video_length "
                "to %llu to hear it all",
                q->audio_path, seconds, (double)frames / p->fps, frames,
                (unsigned long long)covered);
    if (frames == 1)
        em_logf(log, EM_LOG_WARN, "'%s' covers one frame: the video is a still", q->audio_path);
    return EM_OK;
}

static em_status check_media(const em_request *q, em_engine *engine, em_media *media, em_err *err)
{
    const em_params *p = &q->params;
    em_status st = em_media_wait_unless(media, &engine->cancel, err);
    if (st) return st;
    const em_image *image = em_media_image(media);
    st = em_image_check_size(q->image_path, image->width, image->height, p->sample_size[0],
                             p->sample_size[1], err);
    return st ? st : check_length(q, media, &engine->log, err);
}

static em_status shoot(const em_request *q, em_engine *engine, em_media *media, em_result *made,
                       em_err *err)
{
    em_film *film = NULL;
    const em_film_params p = {.output_path = q->output_path,
                              .media = media,
                              .fps = q->params.fps,
                              .crf = q->params.crf,
                              .log = engine->log,
                              .progress = q->progress,
                              .user = q->user};
    const em_picture picture = em_media_picture(media);
    const em_sound sound = em_media_sound(media);
    em_status st = em_film_open(&film, &p, err);
    if (st) return st;
    const em_sink sink = em_film_sink(film);
    st = em_generate(engine, &picture, &sound, &q->params, &sink, made, err);
    if (!st) {
        em_film_end(film);
        st = em_film_wait(film, err);
    }
    em_film_close(&film);
    return st;
}

em_status em_render(em_engine *engine, const em_request *q, em_result *result, em_err *err)
{
    em_media *own = NULL;
    em_result made = {0};
    em_status st = em_params_check(&q->params, err);
    if (!st && !q->media) st = em_media_begin(&own, q->image_path, q->audio_path, err);
    em_media *media = q->media ? q->media : own;
    if (!st) st = check_media(q, engine, media, err);
    if (!st) st = shoot(q, engine, media, &made, err);
    if (!st) em_resume_discard(q->params.resume_path);
    if (!st && result) *result = made;
    em_media_close(&own);
    return st;
}
