#include "memory/staging.h"

#include "base/alloc.h"

struct em_staging {
    em_device *device;
    struct {
        void *data;
        em_event *free; /* the device has read what was in it */
    } buffer[EM_STAGING_BUFFERS];
    size_t buffer_bytes;
    unsigned turn;
};

em_status em_staging_open(em_staging **out, em_device *device, size_t buffer_bytes, em_err *err)
{
    em_staging *s = em_alloc(sizeof *s);
    if (!s) return em_fail(err, EM_NOMEM, "no memory for a ring of buffers");
    s->device = device;
    s->buffer_bytes = buffer_bytes;
    em_status st = EM_OK;
    for (int i = 0; !st && i < EM_STAGING_BUFFERS; i++) {
        st = device->host_alloc(device, &s->buffer[i].data, buffer_bytes, err);
        if (!st) st = device->event_create(device, &s->buffer[i].free, err);
    }
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
    for (int i = 0; i < EM_STAGING_BUFFERS; i++) {
        em_device *d = s->device;
        em_err ignored = {0};
        d->event_sync(d, s->buffer[i].free, &ignored);
        d->event_destroy(d, s->buffer[i].free);
        if (s->buffer[i].data) d->host_free(d, s->buffer[i].data, s->buffer_bytes);
    }
    em_free(s);
    *staging = NULL;
}

em_status em_staging_send(em_staging *s, const em_group *g, void *dst, em_pool *pool, em_err *err)
{
    em_device *d = s->device;
    em_status st = EM_OK;
    for (size_t at = 0; !st && at < g->image_bytes; at += s->buffer_bytes) {
        size_t n = g->image_bytes - at < s->buffer_bytes ? g->image_bytes - at : s->buffer_bytes;
        unsigned i = s->turn++ % EM_STAGING_BUFFERS;
        st = d->event_sync(d, s->buffer[i].free, err);
        if (st) break;
        em_group_write(g, s->buffer[i].data, at, n, pool);
        st = d->copy_async(d, (char *)dst + at, s->buffer[i].data, n, err);
        if (!st) st = d->event_record(d, s->buffer[i].free, EM_QUEUE_COPY, err);
    }
    return st;
}
