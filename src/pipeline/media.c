#include "pipeline/media.h"

#include "base/alloc.h"
#include "io/audio_in.h"

#include <pthread.h>
#include <time.h>

struct em_media {
    char *image_path, *audio_path; /* owned */
    em_image image;
    em_audio audio;
    float *mono;          /* (audio.n), owned */
    atomic_bool unwanted; /* nobody waits for it any more */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards `done` */
    pthread_cond_t settled;
    bool done;  /* the thread is through: everything above is final, */
    em_err err; /* and so is this */
};

static void *decode(void *arg)
{
    em_media *m = arg;
    em_err err = {0};
    const em_audio_limits limits = {.cancel = &m->unwanted};
    em_status st = em_image_load(&m->image, m->image_path, EM_IMAGE_UPRIGHT, &err);
    if (!st) st = em_audio_load(&m->audio, m->audio_path, &limits, &err);
    if (!st) st = em_audio_mono(&m->mono, &m->audio, &err);
    pthread_mutex_lock(&m->lock);
    m->err = err;
    m->err.code = st;
    m->done = true;
    pthread_cond_broadcast(&m->settled);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

em_status em_media_begin(em_media **out, const char *image_path, const char *audio_path,
                         em_err *err)
{
    em_media *m = em_alloc(sizeof *m);
    if (!m) goto no_memory;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->settled, NULL);
    m->image_path = em_strdup(image_path);
    m->audio_path = em_strdup(audio_path);
    if (!m->image_path || !m->audio_path) goto no_memory;
    m->started = pthread_create(&m->thread, NULL, decode, m) == 0;
    if (!m->started) goto no_memory;
    *out = m;
    return EM_OK;

no_memory:
    em_media_close(&m);
    return em_fail(err, EM_NOMEM, "no memory to read '%s' and '%s'", image_path, audio_path);
}

/* A signal handler may set the flag and cannot wake us: we look, ten times a second. */
em_status em_media_wait_unless(em_media *m, const atomic_bool *cancel, em_err *err)
{
    enum { LOOK_NS = 100000000, SECOND_NS = 1000000000 };
    bool stop = false;
    pthread_mutex_lock(&m->lock);
    while (!m->done && !stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_NS;
        if (until.tv_nsec >= SECOND_NS) {
            until.tv_nsec -= SECOND_NS;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&m->settled, &m->lock, &until);
        stop = cancel && atomic_load(cancel);
    }
    bool done = m->done;
    pthread_mutex_unlock(&m->lock);
    if (!done) return em_fail(err, EM_CANCELLED, "cancelled");
    return m->err.code ? em_fail(err, m->err.code, "%s", m->err.msg) : EM_OK;
}

em_status em_media_wait(em_media *m, em_err *err)
{
    return em_media_wait_unless(m, NULL, err);
}

void em_media_close(em_media **media)
{
    em_media *m = *media;
    if (!m) return;
    atomic_store(&m->unwanted, true);
    if (m->started) pthread_join(m->thread, NULL);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->settled);
    em_image_free(&m->image);
    em_audio_free(&m->audio);
    em_free(m->mono);
    em_free(m->image_path);
    em_free(m->audio_path);
    em_free(m);
    *media = NULL;
}

const em_image *em_media_image(const em_media *m)
{
    return &m->image;
}

const em_audio *em_media_audio(const em_media *m)
{
    return &m->audio;
}

em_picture em_media_picture(const em_media *m)
{
    return (em_picture){m->image.rgb, m->image.width, m->image.height};
}

em_sound em_media_sound(const em_media *m)
{
    return (em_sound){m->mono, m->audio.n, m->audio.rate_hz};
}

const char *em_media_audio_path(const em_media *m)
{
    return m->audio_path;
}
