/* Job after job, and what overlaps:
 *
 *     thread      job k - 1           job k                job k + 1
 *     ahead                                                fetched, hashed, decoded
 *     this one                        conditions, steps, frames
 *     film        encoded, checked, recorded, renamed
 *     courier     (k - 2 and before) uploaded
 *
 * At most one job is in each place. Several lanes have such a line each, and take what comes next
 * from one queue, so that none waits while there is work. */
#include "batch/state.h"

#include "base/alloc.h"
#include "base/time.h"
#include "io/audio.h"
#include "io/file.h"
#include "io/image_resize.h"
#include "pipeline/film.h"
#include "pipeline/media.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

/* A coming job's media, on their way. */
typedef struct ahead {
    em_batch_item *it; /* NULL: the place is free */
    pthread_t thread;
    bool threaded;
    em_media *media; /* owned */
    em_status status;
} ahead;

/* A job on its way into its file. */
typedef struct shot {
    struct runner *r;
    em_batch_item *it;
    em_film *film; /* owned, like the next one */
    char *steps;   /* where the job could be continued from */
    double start_ms;
} shot;

/* What the lanes share. */
typedef struct crew {
    em_batch *b;
    const em_batch_events *events;
    pthread_mutex_t telling; /* events */
    pthread_mutex_t lock;    /* of the rest */
    int lanes;
    size_t next;                   /* in b->order */
    ahead place[2 * EM_LANES_MAX]; /* of those that come, and of those that are being taken */
    ahead *coming[EM_LANES_MAX];   /* the order of the former */
    int count;
} crew;

/* A lane. */
typedef struct runner {
    crew *crew;
    em_batch *b;
    em_engine *engine;
    int lane;
    pthread_t thread;
    bool threaded;
    shot *before; /* owned; the one whose film is being finished, or NULL */
    bool stopped; /* the engine was cancelled because the disk is full */
} runner;

/* ---- media ----------------------------------------------------------------------------------- */

static em_status fetched(em_batch_item *it, const char *from, size_t handle, const char **path,
                         char sha256[EM_SHA256_HEX_BYTES], em_err *err)
{
    em_fetch_result got;
    em_ledger_file file;
    em_status st;
    if (em_is_address(from)) {
        st = em_fetcher_wait(it->batch->fetcher, handle, &got, err);
        if (st) return st;
        *path = got.path;
        memcpy(sha256, got.sha256, EM_SHA256_HEX_BYTES);
        return EM_OK;
    }
    st = em_identity_of_file(&file, from, err);
    if (!st) memcpy(sha256, file.sha256, EM_SHA256_HEX_BYTES);
    return st;
}

/* Another process that shares the folder may have it, or have finished it since we looked. */
static em_status claim(em_batch_item *it, em_err *err)
{
    em_batch *b = it->batch;
    const char *name = em_path_base(it->output);
    if (b->claims < 0) return EM_OK;
    if (!em_claim_take(b->claims, name)) {
        it->elsewhere = true;
        return em_fail(err, EM_IO, "'%s' is being made by another process: wait for that one",
                       it->output);
    }
    return em_item_finished(it, err);
}

/* A sentence about a fetched file names the address, too. */
static void name_source(const em_batch_item *it, em_err *err)
{
    char from[300];
    const em_batch_job *j = it->job;
    const char *address = NULL;
    if (em_is_address(j->image) && strstr(err->msg, it->image)) address = j->image;
    if (em_is_address(j->audio) && strstr(err->msg, it->audio)) address = j->audio;
    if (!address) return;
    em_address_shown(from, sizeof from, address);
    em_err_prefix(err, "%s", from);
}

/* Until the media are decoded, or the job needs none: then it is KEPT. */
static em_status prepare(ahead *a)
{
    em_batch_item *it = a->it;
    const em_batch_job *j = it->job;
    em_err *err = &it->err;
    bool same = false;
    em_status st = claim(it, err);
    if (st || it->state != EM_JOB_WAITING) return st;
    st = fetched(it, j->image, it->image_handle, &it->image, it->image_sha256, err);
    if (!st) st = fetched(it, j->audio, it->audio_handle, &it->audio, it->audio_sha256, err);
    if (!st) st = em_item_record_same(it, &same, err);
    if (st) return st;
    if (same) {
        em_item_keep(it);
        return EM_OK;
    }
    st = em_media_begin(&a->media, it->image, it->audio, err);
    if (!st) st = em_media_wait_unless(a->media, it->batch->options.stop, err);
    if (st) name_source(it, err);
    return st;
}

static void *prepare_thread(void *arg)
{
    ahead *a = arg;
    a->status = prepare(a);
    return NULL;
}

/* ---- the queue ------------------------------------------------------------------------------- */

static ahead *free_place(crew *c)
{
    ahead *a = c->place;
    while (a->it) a++; /* a lane takes one at a time: there is a free one */
    return a;
}

/* Under the lock: one more comes, if there is one. */
static void begin_next(crew *c)
{
    em_batch *b = c->b;
    while (c->next < b->count && !em_item_waits(b->order[c->next])) c->next++;
    if (c->next == b->count || em_batch_disk_full(b) || em_batch_stopping(b)) return;
    ahead *a = free_place(c);
    *a = (ahead){.it = b->order[c->next++]};
    a->threaded = pthread_create(&a->thread, NULL, prepare_thread, a) == 0;
    if (!a->threaded) a->status = prepare(a);
    c->coming[c->count++] = a;
}

/* The first of those that come, with its media; and another one comes. False: there is none. */
static bool take_next(crew *c, ahead *out)
{
    ahead *a = NULL;
    assert(c);
    pthread_mutex_lock(&c->lock);
    if (!c->count) begin_next(c);
    if (c->count) {
        a = c->coming[0];
        memmove(c->coming, c->coming + 1, (size_t)--c->count * sizeof *c->coming);
    }
    pthread_mutex_unlock(&c->lock);
    if (!a) return false;
    if (a->threaded) pthread_join(a->thread, NULL);
    pthread_mutex_lock(&c->lock);
    *out = *a;
    a->it = NULL;
    if (c->count < c->lanes) begin_next(c);
    pthread_mutex_unlock(&c->lock);
    return true;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void tell_begin(crew *c, const em_batch_item *it)
{
    if (!c->events->begin) return;
    pthread_mutex_lock(&c->telling);
    c->events->begin(c->events->user, it);
    pthread_mutex_unlock(&c->telling);
}

static void tell_progress(crew *c, const em_batch_item *it, const em_progress *p)
{
    if (!c->events->progress) return;
    pthread_mutex_lock(&c->telling);
    c->events->progress(c->events->user, it, p);
    pthread_mutex_unlock(&c->telling);
}

static void tell_end(crew *c, const em_batch_item *it)
{
    if (!c->events->end) return;
    pthread_mutex_lock(&c->telling);
    c->events->end(c->events->user, it);
    pthread_mutex_unlock(&c->telling);
}

/* ---- the video that is being finished -------------------------------------------------------- */

static void end_item(runner *r, em_batch_item *it, em_status st)
{
    em_batch *b = r->b;
    em_item_end(it, st);
    if (it->state == EM_JOB_FAILED && !it->elsewhere) em_item_record_failure(it);
    if (it->state == EM_JOB_DONE && it->delivery == EM_DELIVERY_DUE) em_courier_take(b, it);
    if (b->claims >= 0) em_claim_drop(b->claims, em_path_base(it->output));
    tell_end(r->crew, it);
}

static void close_shot(shot **shot_to_close)
{
    shot *s = *shot_to_close;
    if (!s) return;
    em_film_close(&s->film);
    em_free(s->steps);
    em_free(s);
    *shot_to_close = NULL;
}

/* Waits for the film before this one. */
static void settle(runner *r)
{
    shot *s = r->before;
    if (!s) return;
    em_batch_item *it = s->it;
    em_status st = em_film_wait(s->film, &it->err);
    if (!st) st = em_item_record_done(it, &it->err);
    if (!st) em_resume_discard(s->steps);
    it->seconds = (em_now_ms() - s->start_ms) / 1000;
    close_shot(&r->before);
    end_item(r, it, st);
}

static void on_progress(void *user, const em_progress *p)
{
    runner *r = ((shot *)user)->r;
    if (r->before && em_film_settled(r->before->film)) settle(r);
    if (em_batch_disk_full(r->b) && !r->stopped) {
        r->stopped = true;
        em_engine_cancel(r->engine); /* this job's video would not fit either */
    }
    tell_progress(r->crew, ((shot *)user)->it, p);
}

/* In the film's thread. */
static em_status on_whole(void *user, const char *part, const em_video_info *video, em_err *err)
{
    (void)video;
    return em_item_record_whole(((shot *)user)->it, part, err);
}

/* ---- one job --------------------------------------------------------------------------------- */

/* How much of the sound becomes video; said before the work, not after it. */
static em_status check_length(em_batch_item *it, em_media *media, em_err *err)
{
    const em_params *p = &it->job->params;
    const em_audio *s = em_media_audio(media);
    int frames = em_audio_frames(s->n, s->rate_hz, p->fps, p->video_length);
    double seconds = (double)s->n / s->rate_hz, shown = (double)frames / p->fps;
    uint64_t covered = (uint64_t)s->n * (uint64_t)p->fps / (uint64_t)s->rate_hz;
    if (frames < 1)
        return em_fail(
            err, EM_INVAL,
            "'%s' has %zu samples at %d Hz, less than one frame at %d fps: give a longer "
            "sound",
            it->audio, s->n, s->rate_hz, p->fps);
    if (covered > (uint64_t)p->video_length) {
        it->cut_seconds = seconds - shown;
        em_logf(&it->log, EM_LOG_WARN,
                "'%s' is %.2f s long, the video will be %.2f s (%d frames): %.2f s are cut, raise "
                "--video_length to %llu to hear them",
                it->audio, seconds, shown, frames, it->cut_seconds, (unsigned long long)covered);
    }
    if (frames == 1)
        em_logf(&it->log, EM_LOG_WARN, "'%s' covers one frame: the video is a still", it->audio);
    return EM_OK;
}

static void set_current(runner *r, em_batch_item *it)
{
    pthread_mutex_lock(&r->b->lock);
    r->b->lane[r->lane].current = it;
    pthread_mutex_unlock(&r->b->lock);
}

/* From decoded media to a film that was handed all its frames. */
static em_status shoot(shot *s, em_media *media, em_err *err)
{
    em_batch_item *it = s->it;
    em_params p = it->job->params;
    p.resume_path = s->steps;
    p.resume_identity = it->batch->models_hash;
    const em_picture picture = em_media_picture(media);
    const em_sound sound = em_media_sound(media);
    em_status st = em_image_check_size(it->image, picture.width, picture.height, p.sample_size[0],
                                       p.sample_size[1], err);
    if (!st) st = check_length(it, media, err);
    const em_film_params params = {.output_path = it->output,
                                   .media = media,
                                   .fps = p.fps,
                                   .crf = p.crf,
                                   .log = it->log,
                                   .progress = on_progress,
                                   .whole = on_whole,
                                   .user = s};
    if (!st) st = em_film_open(&s->film, &params, err);
    if (st) name_source(it, err);
    if (st) return st;
    const em_sink sink = em_film_sink(s->film);
    return em_generate(s->r->engine, &picture, &sound, &p, &sink, &it->result, err);
}

/* Nothing is to be done for it, or nothing can be any more. */
static void give_up(runner *r, ahead *a)
{
    em_batch_item *it = a->it;
    if (it->state != EM_JOB_KEPT) it->err = (em_err){0};
    if (r->b->claims >= 0) em_claim_drop(r->b->claims, em_path_base(it->output));
    em_media_close(&a->media);
}

static em_status open_shot(shot **out, runner *r, em_batch_item *it, em_err *err)
{
    shot *s = em_alloc(sizeof *s);
    char *steps = em_item_beside(it, ".%s" EM_STEPS_SUFFIX);
    if (!s || !steps) {
        em_free(s);
        em_free(steps);
        return em_fail(err, EM_NOMEM, "no memory for a job");
    }
    *s = (shot){.r = r, .it = it, .steps = steps, .start_ms = em_now_ms()};
    *out = s;
    return EM_OK;
}

/* The disk was full for the job before: this one has not failed, it may run another time. */
static bool was_stopped(runner *r, em_batch_item *it, em_status st)
{
    if (!r->stopped || st != EM_CANCELLED || em_batch_stopping(r->b)) return false;
    em_engine_resume(r->engine);
    it->err = (em_err){0};
    if (r->b->claims >= 0) em_claim_drop(r->b->claims, em_path_base(it->output));
    return true;
}

static void run_item(runner *r, em_batch_item *it, em_media *media)
{
    shot *s = NULL;
    em_status st = open_shot(&s, r, it, &it->err);
    if (!st) st = shoot(s, media, &it->err);
    settle(r);
    if (!st) {
        em_film_end(s->film);
        r->before = s;
        return;
    }
    if (s) it->seconds = (em_now_ms() - s->start_ms) / 1000;
    close_shot(&s);
    if (!was_stopped(r, it, st)) end_item(r, it, st);
}

static void *work(void *arg)
{
    runner *r = arg;
    em_batch *b = r->b;
    for (ahead now = {0}; take_next(r->crew, &now);) {
        if (now.it->state == EM_JOB_KEPT || em_batch_disk_full(b) || em_batch_stopping(b)) {
            give_up(r, &now);
            continue;
        }
        now.it->lane = r->lane;
        set_current(r, now.it);
        tell_begin(r->crew, now.it);
        if (now.status)
            end_item(r, now.it, now.status);
        else
            run_item(r, now.it, now.media);
        em_media_close(&now.media);
    }
    set_current(r, NULL);
    settle(r);
    return NULL;
}

void em_batch_run(em_batch *b, em_engine *const *engines, int lanes, const em_batch_events *events)
{
    crew c = {.b = b, .events = events, .lanes = lanes};
    runner r[EM_LANES_MAX] = {0};
    double start_ms = em_now_ms();
    pthread_mutex_init(&c.telling, NULL);
    pthread_mutex_init(&c.lock, NULL);
    b->lanes = lanes;
    for (int i = 0; i < lanes; i++) r[i] = (runner){&c, .b = b, .engine = engines[i], .lane = i};
    for (int i = 1; i < lanes; i++) {
        r[i].threaded = pthread_create(&r[i].thread, NULL, work, &r[i]) == 0;
        if (!r[i].threaded)
            em_logf(&b->options.log, EM_LOG_WARN, "no thread could be had for a job more at once");
    }
    work(&r[0]);
    for (int i = 1; i < lanes; i++)
        if (r[i].threaded) pthread_join(r[i].thread, NULL);
    b->run_seconds = (em_now_ms() - start_ms) / 1000;
    pthread_mutex_destroy(&c.telling);
    pthread_mutex_destroy(&c.lock);
}
