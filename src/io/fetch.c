#include "io/fetch.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/hash.h"
#include "base/time.h"
#include "io/fetch_item.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { TICK_MS = 100, PER_HOST = 6, PAUSED_MOST = 64 };

/*  WAITING --> RUNNING --> GOOD or BAD
 *     ^           |
 *     |           v
 *     +-------- PAUSED      after a failure that may pass, until its time has come */
typedef enum state { WAITING, RUNNING, PAUSED, GOOD, BAD } state;

typedef struct entry {
    em_fetch_item item;
    uint64_t url_hash;
    double due_ms; /* PAUSED: until then */
    /* Under the lock, because other threads read them: */
    state state;
    em_err err;
    em_fetch_result result;
} entry;

typedef struct slot {
    CURL *easy;   /* owned */
    entry *entry; /* NULL: idle */
} slot;

struct em_fetcher {
    em_fetch_options options;
    entry **entry; /* owned, each; a transfer must not move */
    size_t count, cap;
    size_t fresh;  /* entries from here on were never tried */
    size_t paused; /* how many are PAUSED */
    size_t ended;
    CURLM *multi; /* owned */
    slot *slot;   /* owned */
    bool started;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t verdict; /* some entry became GOOD or BAD */
    atomic_bool cancel;
    atomic_ullong received_bytes;
};

em_fetch_options em_fetch_options_default(void)
{
    return (em_fetch_options){.parallel = 8,
                              .tries = 5,
                              .backoff_ms = 1000,
                              .backoff_max_ms = 30e3,
                              .retry_after_max_ms = 120e3,
                              .connect_ms = 10e3,
                              .stall_ms = 30e3,
                              .total_ms = 600e3,
                              .free_bytes = 64 << 20};
}

/* ---- open, add, start ------------------------------------------------------------------------ */

static em_status no_memory(em_err *err)
{
    return em_fail(err, EM_NOMEM, "no memory for downloads");
}

em_status em_fetcher_open(em_fetcher **out, const em_fetch_options *options, em_err *err)
{
    em_http_init();
    assert(options->parallel > 0 && options->tries > 0);
    em_fetcher *f = em_alloc(sizeof *f);
    if (!f) return no_memory(err);
    f->options = *options;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->verdict, NULL);
    f->multi = curl_multi_init();
    f->slot = em_alloc_array((size_t)options->parallel, sizeof *f->slot);
    bool ok = f->multi && f->slot;
    for (int i = 0; ok && i < options->parallel; i++)
        ok = (f->slot[i].easy = curl_easy_init()) != NULL;
    if (!ok) {
        em_fetcher_close(&f);
        return no_memory(err);
    }
    curl_multi_setopt(f->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)PER_HOST);
    curl_multi_setopt(f->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)options->parallel);
    *out = f;
    return EM_OK;
}

static bool same(const entry *e, const em_fetch_request *q, uint64_t url_hash)
{
    return e->url_hash == url_hash && e->item.kind == q->kind &&
           e->item.max_bytes == q->max_bytes && !strcmp(e->item.url, q->url);
}

em_status em_fetcher_add(em_fetcher *f, const em_fetch_request *request, size_t *handle,
                         em_err *err)
{
    uint64_t hash = em_fnv1a64(EM_FNV1A64_INIT, request->url, strlen(request->url));
    assert(!f->started);
    for (size_t i = 0; i < f->count; i++)
        if (same(f->entry[i], request, hash)) return *handle = i, EM_OK;
    entry *e = em_alloc(sizeof *e);
    if (!e) return no_memory(err);
    e->url_hash = hash;
    e->item.kind = request->kind;
    e->item.max_bytes = request->max_bytes;
    e->item.received = &f->received_bytes;
    e->item.url = em_strdup(request->url);
    e->item.path = em_strdup(request->path);
    if (!e->item.url || !e->item.path || !EM_PUSH(f->entry, f->count, f->cap, e)) {
        em_fetch_item_close(&e->item);
        em_free(e);
        return no_memory(err);
    }
    *handle = f->count - 1;
    return EM_OK;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool cancelled(em_fetcher *f)
{
    return atomic_load(&f->cancel) || (f->options.cancel && atomic_load(f->options.cancel));
}

static void set_state(em_fetcher *f, entry *e, state s)
{
    pthread_mutex_lock(&f->lock);
    e->state = s;
    pthread_mutex_unlock(&f->lock);
}

/* The verdict. `err` NULL: it is there. */
static void end(em_fetcher *f, entry *e, const em_err *err)
{
    em_fetch_result r = {.path = e->item.path, .tries = e->item.tries};
    if (!err) {
        uint8_t digest[EM_SHA256_BYTES];
        em_sha256_end(&e->item.hash, digest);
        em_sha256_hex(r.sha256, digest);
        r.bytes = e->item.have_bytes;
    }
    em_fetch_item_abandon(&e->item);
    pthread_mutex_lock(&f->lock);
    e->result = r;
    if (err) e->err = *err;
    e->state = err ? BAD : GOOD;
    f->ended++;
    pthread_cond_broadcast(&f->verdict);
    pthread_mutex_unlock(&f->lock);
}

static void end_cancelled(em_fetcher *f, entry *e)
{
    char shown[EM_HTTP_SHOWN];
    em_err err = {0};
    em_fail(&err, EM_CANCELLED, "'%s': interrupted",
            em_url_public(shown, sizeof shown, e->item.url));
    end(f, e, &err);
}

static void pause_entry(em_fetcher *f, entry *e, double retry_after_ms, const em_err *err)
{
    double ms = em_http_pause_ms(&f->options, e->item.tries + 1, retry_after_ms, em_http_random());
    em_logf(&f->options.log, EM_LOG_INFO, "%s; try %d of %d in %.1f s", err->msg, e->item.tries + 1,
            f->options.tries, ms / 1000);
    e->due_ms = em_now_ms() + ms;
    f->paused++;
    set_state(f, e, PAUSED);
}

/* What to run next: one whose pause is over, or one that is new. Each that pauses may hold a file
 * open, so there is a bound on them. */
static entry *next_entry(em_fetcher *f, double now_ms)
{
    for (size_t i = 0; f->paused && i < f->fresh; i++) {
        entry *e = f->entry[i];
        if (e->state == PAUSED && e->due_ms <= now_ms) return f->paused--, e;
    }
    return f->fresh < f->count && f->paused < PAUSED_MOST ? f->entry[f->fresh++] : NULL;
}

/* How long nothing needs us but the transfers. */
static int idle_ms(const em_fetcher *f)
{
    double now = em_now_ms(), ms = TICK_MS;
    for (size_t i = 0; f->paused && i < f->fresh; i++)
        if (f->entry[i]->state == PAUSED && f->entry[i]->due_ms - now < ms)
            ms = f->entry[i]->due_ms - now;
    return ms < 1 ? 1 : (int)ms;
}

static void begin(em_fetcher *f, slot *s, entry *e)
{
    em_err err = {0};
    em_status st = e->item.tries ? EM_OK : em_http_precheck(e->item.url, &f->options, &err);
    if (!st) {
        e->item.tries++;
        st = em_fetch_item_begin(&e->item, s->easy, &f->options, &err);
    }
    if (!st && curl_multi_add_handle(f->multi, s->easy)) st = no_memory(&err);
    if (st) {
        end(f, e, &err);
        return;
    }
    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
    s->entry = e;
    set_state(f, e, RUNNING);
}

static void fill(em_fetcher *f)
{
    for (int i = 0; i < f->options.parallel; i++) {
        entry *e = NULL;
        if (f->slot[i].entry) continue;
        if (!(e = next_entry(f, em_now_ms()))) return;
        begin(f, &f->slot[i], e);
    }
}

static void finish(em_fetcher *f, slot *s, CURLcode rc)
{
    em_err err = {0};
    double retry_after_ms = 0;
    entry *e = s->entry;
    curl_multi_remove_handle(f->multi, s->easy);
    em_fetch_step step = em_fetch_item_end(&e->item, s->easy, rc, &retry_after_ms, &err);
    if (step == EM_FETCH_REDIRECTED) {
        if (!curl_multi_add_handle(f->multi, s->easy)) return;
        no_memory(&err);
        step = EM_FETCH_FAILED;
    }
    s->entry = NULL;
    if (step == EM_FETCH_AGAIN && e->item.tries < f->options.tries)
        pause_entry(f, e, retry_after_ms, &err);
    else
        end(f, e, step == EM_FETCH_FINISHED ? NULL : &err);
}

static void collect(em_fetcher *f)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(f->multi, &left));) {
        slot *s = NULL;
        if (m->msg != CURLMSG_DONE) continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        finish(f, s, m->data.result);
    }
}

static void stop_all(em_fetcher *f)
{
    for (int i = 0; i < f->options.parallel; i++) {
        slot *s = &f->slot[i];
        if (s->entry) curl_multi_remove_handle(f->multi, s->easy);
        s->entry = NULL;
    }
    for (size_t i = 0; i < f->count; i++)
        if (f->entry[i]->state != GOOD && f->entry[i]->state != BAD) end_cancelled(f, f->entry[i]);
}

static void *work(void *arg)
{
    em_fetcher *f = arg;
    while (f->ended < f->count && !cancelled(f)) {
        int running;
        fill(f);
        curl_multi_perform(f->multi, &running);
        collect(f);
        if (f->ended < f->count) curl_multi_poll(f->multi, NULL, 0, idle_ms(f), NULL);
    }
    stop_all(f);
    return NULL;
}

em_status em_fetcher_start(em_fetcher *f, em_err *err)
{
    assert(!f->started);
    if (pthread_create(&f->thread, NULL, work, f) != 0)
        return em_fail(err, EM_NOMEM, "no thread for downloads");
    f->started = true;
    return EM_OK;
}

/* ---- for other threads ----------------------------------------------------------------------- */

em_status em_fetcher_wait(em_fetcher *f, size_t handle, em_fetch_result *out, em_err *err)
{
    assert(f->started && handle < f->count);
    entry *e = f->entry[handle];
    pthread_mutex_lock(&f->lock);
    while (e->state != GOOD && e->state != BAD) pthread_cond_wait(&f->verdict, &f->lock);
    pthread_mutex_unlock(&f->lock);
    if (e->state == BAD) return em_fail(err, e->err.code, "%s", e->err.msg);
    *out = e->result;
    return EM_OK;
}

void em_fetcher_progress(em_fetcher *f, em_fetch_progress *out)
{
    em_fetch_progress p = {.items = f->count};
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->count; i++) {
        p.done += f->entry[i]->state == GOOD;
        p.failed += f->entry[i]->state == BAD;
    }
    pthread_mutex_unlock(&f->lock);
    p.bytes = atomic_load(&f->received_bytes);
    *out = p;
}

void em_fetcher_cancel(em_fetcher *f)
{
    atomic_store(&f->cancel, true);
    curl_multi_wakeup(f->multi);
}

void em_fetcher_close(em_fetcher **fetcher)
{
    em_fetcher *f = *fetcher;
    if (!f) return;
    if (f->started) {
        em_fetcher_cancel(f);
        pthread_join(f->thread, NULL);
    }
    for (int i = 0; f->slot && i < f->options.parallel; i++) curl_easy_cleanup(f->slot[i].easy);
    for (size_t i = 0; i < f->count; i++) {
        em_fetch_item_close(&f->entry[i]->item);
        em_free(f->entry[i]);
    }
    if (f->multi) curl_multi_cleanup(f->multi);
    pthread_cond_destroy(&f->verdict);
    pthread_mutex_destroy(&f->lock);
    em_free(f->slot);
    em_free(f->entry);
    em_free(f);
    *fetcher = NULL;
}
