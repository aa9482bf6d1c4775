#include "pipeline/film.h"

#include "base/alloc.h"
#include "pipeline/media.h"

#include <unistd.h>

struct em_film {
    em_film_params p;
    em_video_out *out;
    em_status st;
    em_err err;
};

em_status em_film_open(em_film **out, const em_film_params *p, em_err *err)
{
    em_film *f = em_alloc(sizeof *f);
    if (!f) return em_fail(err, EM_NOMEM, "no memory");
    f->p = *p;
    *out = f;
    return EM_OK;
}

static void on_progress(void *user, const em_progress *p)
{
    em_film *f = user;
    if (f->p.progress) f->p.progress(f->p.user, p);
}

static em_status on_begin(void *user, int width, int height, int frames, em_err *err)
{
    em_film *f = user;
    const em_audio *s = em_media_audio(f->p.media);
    const em_video_params v = {.width = width,
                               .height = height,
                               .fps = f->p.fps,
                               .frames = frames,
                               .crf = f->p.crf,
                               .audio = s->samples,
                               .audio_n = s->n,
                               .audio_rate_hz = s->rate_hz,
                               .audio_channels = s->channels};
    return em_video_out_open(&f->out, f->p.output_path, &v, &f->p.log, err);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    em_film *f = user;
    (void)index;
    return em_video_out_push(f->out, rgb, err);
}

em_sink em_film_sink(em_film *f)
{
    return (em_sink){on_progress, on_begin, on_frame, f};
}

void em_film_end(em_film *f)
{
    em_video_info v;
    f->st = em_video_out_finish(f->out, &f->err);
    if (!f->st) f->st = em_video_check(&v, em_video_out_part(f->out), &f->err);
    if (!f->st) sync();
    if (!f->st && f->p.whole)
        f->st = f->p.whole(f->p.user, em_video_out_part(f->out), &v, &f->err);
    if (!f->st) f->st = em_video_out_commit(&f->out, &f->err);
    em_video_out_close(&f->out);
}
em_status em_film_wait(em_film *f, em_err *err)
{
    if (f->st) *err = f->err;
    return f->st;
}
bool em_film_settled(em_film *f)
{
    (void)f;
    return true;
}
void em_film_close(em_film **film)
{
    em_film *f = *film;
    if (!f) return;
    em_video_out_close(&f->out);
    em_free(f);
    *film = NULL;
}
