/* Uploads, one after the other on a thread of their own: the next video need not wait for them. */
#include "batch/state.h"

#include "base/alloc.h"
#include "base/array.h"

#include <errno.h>
#include <pthread.h>

struct em_courier {
    pthread_t thread;
    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t more;
    em_batch_item **queue; /* owned; those from `next` on wait */
    size_t count, cap, next;
    bool last; /* none will follow */
};

static void deliver(em_batch_item *it)
{
    em_batch *b = it->batch;
    char target[200];
    em_fetch_options options = em_fetch_options_default();
    options.allow = b->options.allow;
    options.allow_count = b->options.allow_count;
    options.log = it->log;
    options.cancel = b->options.stop;
    em_status st = em_url_upload(it->job->upload_url, it->output, &options, &it->delivery_tries,
                                 &it->delivery_err);
    it->delivery = st ? EM_DELIVERY_FAILED : EM_DELIVERY_DONE;
    em_item_record_delivery(it);
    if (st)
        em_logf(&b->options.log, EM_LOG_ERROR,
                "'%s' is made, not delivered: %s (--retry_failed uploads it)", it->output,
                it->delivery_err.msg);
    else
        em_logf(&b->options.log, EM_LOG_INFO, "'%s' is delivered to %s", it->output,
                em_url_public(target, sizeof target, it->job->upload_url));
}

static void *carry(void *arg)
{
    em_courier *c = arg;
    pthread_mutex_lock(&c->lock);
    while (c->next < c->count || !c->last) {
        if (c->next == c->count) {
            pthread_cond_wait(&c->more, &c->lock);
            continue;
        }
        em_batch_item *it = c->queue[c->next++];
        pthread_mutex_unlock(&c->lock);
        deliver(it);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static em_courier *open_courier(void)
{
    em_courier *c = em_alloc(sizeof *c);
    if (!c) return NULL;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->more, NULL);
    if (pthread_create(&c->thread, NULL, carry, c) == 0) return c;
    pthread_cond_destroy(&c->more);
    pthread_mutex_destroy(&c->lock);
    em_free(c);
    return NULL;
}

void em_courier_take(em_batch *b, em_batch_item *it)
{
    bool taken = false;
    pthread_mutex_lock(&b->lock);
    if (!b->courier) b->courier = open_courier();
    pthread_mutex_unlock(&b->lock);
    if (b->courier) {
        em_courier *c = b->courier;
        pthread_mutex_lock(&c->lock);
        taken = EM_PUSH(c->queue, c->count, c->cap, it);
        pthread_cond_signal(&c->more);
        pthread_mutex_unlock(&c->lock);
    }
    if (!taken) deliver(it); /* without a thread: now */
}

void em_courier_close(em_courier **courier)
{
    em_courier *c = *courier;
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->last = true;
    pthread_cond_signal(&c->more);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->more);
    pthread_mutex_destroy(&c->lock);
    em_free(c->queue);
    em_free(c);
    *courier = NULL;
}

/* Finished earlier, not delivered yet: those too. */
void em_batch_deliver(em_batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        em_batch_item *it = b->order[i];
        if (it->state == EM_JOB_KEPT && it->delivery == EM_DELIVERY_DUE && !em_batch_stopping(b))
            em_courier_take(b, it);
    }
    em_courier_close(&b->courier);
    for (size_t i = 0; i < b->count; i++) {
        em_batch_item *it = &b->item[i];
        bool made = it->state == EM_JOB_DONE || it->state == EM_JOB_KEPT;
        if (!made || (it->delivery != EM_DELIVERY_FAILED && it->delivery != EM_DELIVERY_DUE))
            continue;
        it->state = EM_JOB_UNDELIVERED;
        it->err = it->delivery_err;
        if (!it->err.code) em_fail(&it->err, EM_CANCELLED, "interrupted before the upload");
    }
}
