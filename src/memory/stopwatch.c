#include "memory/stopwatch.h"

#include "base/alloc.h"

em_status em_stopwatch_open(em_stopwatch **out, em_device *d, em_queue queue, em_err *err)
{
    if (!d->event_elapsed) return EM_OK;
    em_stopwatch *w = em_alloc(sizeof *w);
    if (!w) return em_fail(err, EM_NOMEM, "no memory for a clock");
    w->device = d;
    w->queue = queue;
    em_status st = EM_OK;
    for (int i = 0; !st && i < EM_LAPS; i++) {
        st = d->event_create_timed(d, &w->lap[i].from, err);
        if (!st) st = d->event_create_timed(d, &w->lap[i].to, err);
    }
    if (st)
        em_stopwatch_close(&w);
    else
        *out = w;
    return st;
}

void em_stopwatch_close(em_stopwatch **stopwatch)
{
    em_stopwatch *w = *stopwatch;
    if (!w) return;
    for (int i = 0; i < EM_LAPS; i++) {
        w->device->event_destroy(w->device, w->lap[i].from);
        w->device->event_destroy(w->device, w->lap[i].to);
    }
    em_free(w);
    *stopwatch = NULL;
}

/* The oldest lap; *over false: it is still under way. */
static em_status read_one(em_stopwatch *w, bool *over, em_err *err)
{
    size_t i = w->read % EM_LAPS;
    double ms = 0;
    em_status st = w->device->event_elapsed(w->device, w->lap[i].from, w->lap[i].to, &ms, err);
    *over = !st && ms >= 0;
    if (!*over) return st;
    w->ms += ms * w->lap[i].weight;
    w->read++;
    return EM_OK;
}

em_status em_stopwatch_begin(em_stopwatch *w, em_err *err)
{
    if (!w) return EM_OK;
    em_device *d = w->device;
    size_t i = w->begun % EM_LAPS;
    bool over = true;
    em_status st = EM_OK;
    if (w->begun - w->read == EM_LAPS) {
        st = d->event_sync(d, w->lap[i].to, err);
        if (!st) st = read_one(w, &over, err);
    }
    return st ? st : d->event_record(d, w->lap[i].from, w->queue, err);
}

em_status em_stopwatch_end(em_stopwatch *w, double weight, em_err *err)
{
    if (!w) return EM_OK;
    size_t i = w->begun % EM_LAPS;
    em_status st = w->device->event_record(w->device, w->lap[i].to, w->queue, err);
    w->lap[i].weight = weight;
    if (!st) w->begun++;
    return st;
}

em_status em_stopwatch_read(em_stopwatch *w, em_err *err)
{
    bool over = true;
    em_status st = EM_OK;
    while (!st && over && w && w->read < w->begun) st = read_one(w, &over, err);
    return st;
}
