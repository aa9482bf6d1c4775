#include "memory/staging.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdatomic.h>

enum { LANE_BUFFERS = EM_STAGING_BUFFERS / EM_STAGING_LANES };

/* What one thread fills, in turns. */
typedef struct lane {
    em_event *free[LANE_BUFFERS]; /* the device has read what was in the buffer */
    unsigned turn;
} lane;

struct em_staging {
    em_device *device;
    char *data; /* all buffers, a lane's side by side */
    size_t buffer_bytes;
    lane lanes[EM_STAGING_LANES];
    pthread_rwlock_t queue; /* nobody gives COPY anything while a copy is timed */
};

static size_t data_bytes(const em_staging *s)
{
    return EM_STAGING_BUFFERS * s->buffer_bytes;
}

em_status em_staging_open(em_staging **out, em_device *device, size_t buffer_bytes, em_err *err)
{
    em_staging *s = em_alloc(sizeof *s);
    if (!s) return em_fail(err, EM_NOMEM, "no memory for a ring of buffers");
    s->device = device;
    s->buffer_bytes = buffer_bytes;
    pthread_rwlock_init(&s->queue, NULL);
    void *data = NULL;
    em_status st = device->host_alloc(device, &data, data_bytes(s), err);
    s->data = data;
    for (int i = 0; !st && i < EM_STAGING_BUFFERS; i++)
        st = device->event_create(device, &s->lanes[i / LANE_BUFFERS].free[i % LANE_BUFFERS], err);
    if (st)
        em_staging_close(&s);
    else
        *out = s;
    return st;
}

void em_staging_close(em_staging **staging)
{
    em_staging *s = *staging;
    if (!s) return;
    em_device *d = s->device;
    for (int i = 0; i < EM_STAGING_BUFFERS; i++) {
        em_event *free = s->lanes[i / LANE_BUFFERS].free[i % LANE_BUFFERS];
        em_err ignored = {0};
        d->event_sync(d, free, &ignored);
        d->event_destroy(d, free);
    }
    if (s->data) d->host_free(d, s->data, data_bytes(s));
    pthread_rwlock_destroy(&s->queue);
    em_free(s);
    *staging = NULL;
}

size_t em_staging_buffer_bytes(const em_staging *s)
{
    return s->buffer_bytes;
}

/* ---- sending --------------------------------------------------------------------------------- */

typedef struct sending {
    em_staging *staging;
    const em_staging_load *load;
    atomic_size_t next; /* piece that nobody has taken yet */
    atomic_bool failed; /* … with what is in err, the first one's */
    em_err err;
} sending;

/* What one buffer carries. */
typedef struct piece {
    const em_shipment *of;
    size_t at, size_bytes; /* in the image */
    size_t number;         /* in the group */
} piece;

/* The i-th of all groups' pieces; false: there are not so many. */
static bool find_piece(const sending *t, size_t i, piece *out)
{
    size_t step = t->staging->buffer_bytes;
    for (size_t k = 0; k < t->load->count; k++) {
        size_t bytes = t->load->item[k].group->image_bytes, pieces = (bytes + step - 1) / step;
        if (i < pieces) {
            size_t at = i * step, left = bytes - at;
            *out = (piece){&t->load->item[k], at, left < step ? left : step, i};
            return true;
        }
        i -= pieces;
    }
    return false;
}

/* Threads that wait for each other's events take longer than the copies, so the clock sees one copy
 * of so many, in the image's order. */
enum { TIMED_OF = 8 };

static bool is_timed(const piece *p)
{
    return p->number % TIMED_OF == 0;
}

/* With the queue's lock. Copies that are not timed may be given side by side: the event behind one
 * may come behind others, too, and is late then, but never early. */
static em_status queue_copy(sending *t, const piece *p, const char *from, em_event *free,
                            em_err *err)
{
    em_device *d = t->staging->device;
    size_t run = TIMED_OF * t->staging->buffer_bytes, left = p->of->group->image_bytes - p->at;
    size_t spoken_for = left < run ? left : run;
    em_stopwatch *clock = is_timed(p) ? t->load->clock : NULL;
    em_status st = em_stopwatch_begin(clock, err);
    if (!st) st = d->copy_async(d, (char *)p->of->dst + p->at, from, p->size_bytes, err);
    if (!st) st = d->event_record(d, free, EM_QUEUE_COPY, err);
    return st ? st : em_stopwatch_end(clock, (double)spoken_for / (double)p->size_bytes, err);
}

static em_status send_piece(sending *t, int i, const piece *p, em_err *err)
{
    em_staging *s = t->staging;
    lane *l = &s->lanes[i];
    int b = (int)(l->turn++ % LANE_BUFFERS);
    char *buffer = s->data + (size_t)(i * LANE_BUFFERS + b) * s->buffer_bytes;
    em_status st = s->device->event_sync(s->device, l->free[b], err);
    if (!st) st = em_group_write(p->of->group, buffer, p->at, p->size_bytes, err);
    if (st) return st;
    if (is_timed(p))
        pthread_rwlock_wrlock(&s->queue);
    else
        pthread_rwlock_rdlock(&s->queue);
    st = queue_copy(t, p, buffer, l->free[b], err);
    pthread_rwlock_unlock(&s->queue);
    return st;
}

/* Lanes that start when everything is taken find nothing to do: there may be more than threads. */
static void run_lane(void *arg, size_t i, int worker)
{
    sending *t = arg;
    piece p;
    (void)worker;
    if (i == 0 && t->load->next) em_group_fetch(t->load->next); /* the others read meanwhile */
    while (!atomic_load(&t->failed) && find_piece(t, atomic_fetch_add(&t->next, 1), &p)) {
        em_err err = {0};
        if (send_piece(t, (int)i, &p, &err) && !atomic_exchange(&t->failed, true)) t->err = err;
    }
}

em_status em_staging_send(em_staging *s, const em_staging_load *load, em_err *err)
{
    sending t = {.staging = s, .load = load};
    em_parallel(load->pool, EM_STAGING_LANES, run_lane, &t);
    return t.err.code ? em_fail(err, t.err.code, "%s", t.err.msg) : EM_OK;
}
