#include "pipeline/film.h"

#include "base/alloc.h"
#include "io/file.h"
#include "pipeline/media.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

/*          end                  file has its name, or failed
 *   OPEN --------> ENDED -----------------------------------> SETTLED
 *     |  \______________________ encoder failed ______________^  ^
 *     +-- close --> DROPPED -------------------------------------+
 *
 * The generating thread moves from OPEN, the film's own thread does the rest. */
typedef enum phase { OPEN, ENDED, DROPPED, SETTLED } phase;

struct em_film {
    em_film_params p;
    char *output_path; /* owned */
    int width, height, frames;
    size_t frame_bytes;
    em_video_out *out; /* owned; once there is a frame, the thread's */
    uint8_t *queue;    // (EM_FILM_QUEUE, frame_bytes), owned
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t turn;
    int first, count; /* frames in the queue: from slot `first` on, around the end */
    phase phase;
    em_err err; /* why it settled without a file */
};

/* ---- the thread ------------------------------------------------------------------------------ */

static em_status check(const em_film *f, em_video_info *v, em_err *err)
{
    em_status st = em_video_check(v, em_video_out_part(f->out), err);
    if (st) return st;
    if (v->width == f->width && v->height == f->height && v->frames == f->frames &&
        v->video_streams == 1 && v->audio_streams == 1)
        return EM_OK;
    return em_fail(err, EM_VERDICT,
                   "'%s' was to have %d frames of %d x %d with sound, it has %lld of %d x %d with "
                   "%d sound tracks: make it again",
                   f->output_path, f->frames, f->width, f->height, (long long)v->frames, v->width,
                   v->height, v->audio_streams);
}

/* All frames are encoded: the file becomes whole, known, and named, in this order. */
static em_status complete(em_film *f, em_err *err)
{
    em_video_info v = {0};
    em_status st = em_video_out_finish(f->out, err);
    if (!st) st = check(f, &v, err);
    if (!st) st = em_file_sync(em_video_out_part(f->out), err);
    if (!st && f->p.whole) {
        st = f->p.whole(f->p.user, em_video_out_part(f->out), &v, err);
        if (st && !err->msg[0])
            em_fail(err, st, "'%s' could not be recorded: %s", f->output_path, em_status_text(st));
    }
    return st ? st : em_video_out_commit(&f->out, err);
}

static void settle(em_film *f, em_status st, const em_err *err)
{
    f->phase = SETTLED;
    f->err = *err;
    f->err.code = st;
    pthread_cond_broadcast(&f->turn);
}

static void *encode(void *arg)
{
    em_film *f = arg;
    em_err err = {0};
    pthread_mutex_lock(&f->lock);
    for (em_status st = EM_OK; f->phase != SETTLED;) {
        bool work = f->count > 0;
        size_t slot = (size_t)f->first;
        if (f->phase == DROPPED) {
            settle(f, em_fail(&err, EM_CANCELLED, "cancelled"), &err);
        } else if (!work && f->phase == OPEN) {
            pthread_cond_wait(&f->turn, &f->lock);
        } else {
            pthread_mutex_unlock(&f->lock);
            st = work ? em_video_out_push(f->out, f->queue + slot * f->frame_bytes, &err)
                      : complete(f, &err);
            pthread_mutex_lock(&f->lock);
            if (work) {
                f->first = (f->first + 1) % EM_FILM_QUEUE;
                f->count--;
                pthread_cond_broadcast(&f->turn);
            }
            if (st || !work) settle(f, st, &err);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- what em_generate calls ------------------------------------------------------------------ */

static void on_progress(void *user, const em_progress *p)
{
    const em_film *f = user;
    if (f->p.progress) f->p.progress(f->p.user, p);
}

static em_status on_begin(void *user, int width, int height, int frames, em_err *err)
{
    em_film *f = user;
    const em_audio *sound = em_media_audio(f->p.media);
    const em_video_params v = {.width = width,
                               .height = height,
                               .fps = f->p.fps,
                               .frames = frames,
                               .crf = f->p.crf,
                               .audio = sound->samples,
                               .audio_n = sound->n,
                               .audio_rate_hz = sound->rate_hz,
                               .audio_channels = sound->channels};
    f->width = width;
    f->height = height;
    f->frames = frames;
    f->frame_bytes = (size_t)width * (size_t)height * 3;
    f->queue = em_alloc_array(EM_FILM_QUEUE, f->frame_bytes);
    if (!f->queue)
        return em_fail(err, EM_NOMEM, "'%s': no memory for %d frames of %d x %d", f->output_path,
                       EM_FILM_QUEUE, width, height);
    return em_video_out_open(&f->out, f->output_path, &v, &f->p.log, err);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    em_film *f = user;
    (void)index;
    pthread_mutex_lock(&f->lock);
    while (f->count == EM_FILM_QUEUE && f->phase == OPEN) pthread_cond_wait(&f->turn, &f->lock);
    bool failed = f->phase == SETTLED;
    int slot = (f->first + f->count) % EM_FILM_QUEUE;
    pthread_mutex_unlock(&f->lock);
    if (failed) return em_fail(err, f->err.code, "%s", f->err.msg);
    memcpy(f->queue + (size_t)slot * f->frame_bytes, rgb, f->frame_bytes);
    pthread_mutex_lock(&f->lock);
    f->count++;
    pthread_cond_broadcast(&f->turn);
    pthread_mutex_unlock(&f->lock);
    return EM_OK;
}

em_sink em_film_sink(em_film *f)
{
    return (em_sink){.progress = on_progress, .begin = on_begin, .frame = on_frame, .user = f};
}

/* ---- the film -------------------------------------------------------------------------------- */

em_status em_film_open(em_film **out, const em_film_params *p, em_err *err)
{
    em_film *f = em_alloc(sizeof *f);
    if (!f) goto no_memory;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->turn, NULL);
    f->p = *p;
    f->output_path = em_strdup(p->output_path);
    if (!f->output_path) goto no_memory;
    f->p.output_path = f->output_path;
    f->started = pthread_create(&f->thread, NULL, encode, f) == 0;
    if (!f->started) goto no_memory;
    *out = f;
    return EM_OK;

no_memory:
    em_film_close(&f);
    return em_fail(err, EM_NOMEM, "no memory to write '%s'", p->output_path);
}

static void leave_open(em_film *f, phase to)
{
    pthread_mutex_lock(&f->lock);
    if (f->phase == OPEN) f->phase = to;
    pthread_cond_broadcast(&f->turn);
    pthread_mutex_unlock(&f->lock);
}

void em_film_end(em_film *f)
{
    assert(f->out);
    leave_open(f, ENDED);
}

em_status em_film_wait(em_film *f, em_err *err)
{
    pthread_mutex_lock(&f->lock);
    assert(f->phase != OPEN);
    while (f->phase != SETTLED) pthread_cond_wait(&f->turn, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return f->err.code ? em_fail(err, f->err.code, "%s", f->err.msg) : EM_OK;
}

bool em_film_settled(em_film *f)
{
    pthread_mutex_lock(&f->lock);
    bool settled = f->phase == SETTLED;
    pthread_mutex_unlock(&f->lock);
    return settled;
}

void em_film_close(em_film **film)
{
    em_film *f = *film;
    if (!f) return;
    if (f->started) {
        leave_open(f, DROPPED);
        pthread_join(f->thread, NULL);
    }
    em_video_out_close(&f->out);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->turn);
    em_free(f->queue);
    em_free(f->output_path);
    em_free(f);
    *film = NULL;
}
