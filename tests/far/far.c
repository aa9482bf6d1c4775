#include "far_device.h"

#include "far.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct block {
    unsigned char *real; /* far = real + size_bytes */
    size_t size_bytes;   /* whole pages */
    struct block *next;
} block;

static block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t whole_pages(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return n ? (n + page - 1) / page * page : page;
}

void *far_real(const void *far, size_t n)
{
    uintptr_t p = (uintptr_t)far;
    unsigned char *real = NULL;
    pthread_mutex_lock(&lock);
    for (const block *b = blocks; b && !real; b = b->next) {
        uintptr_t begin = (uintptr_t)b->real + b->size_bytes;
        if (p >= begin && p - begin <= b->size_bytes && n <= b->size_bytes - (p - begin))
            real = b->real + (p - begin);
    }
    pthread_mutex_unlock(&lock);
    return real;
}

static em_status far_alloc(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    (void)d;
    if (size_bytes > SIZE_MAX / 4)
        return em_fail(err, EM_NOVRAM, "no room for %zu bytes far away", size_bytes);
    block *b = malloc(sizeof *b);
    if (!b) return em_fail(err, EM_NOMEM, "no memory for a block");
    *b = (block){.size_bytes = whole_pages(size_bytes)};
    void *p = mmap(NULL, 2 * b->size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED || mprotect(p, b->size_bytes, PROT_READ | PROT_WRITE)) {
        if (p != MAP_FAILED) munmap(p, 2 * b->size_bytes);
        free(b);
        return em_fail(err, EM_NOVRAM, "no room for %zu bytes far away", size_bytes);
    }
    b->real = p;
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    *out = b->real + b->size_bytes;
    return EM_OK;
}

em_status far_refuse(const char *what, em_err *err)
{
    return em_fail(err, EM_DEVICE, "%s: the bytes are not in memory of the device 'far'", what);
}

/* What the clocks of the queues say, in ms. Made up: a copy takes a nanosecond a byte, every
 * operand of an op a microsecond, and who waits goes on when what he waits for is over. */
static double clock_ms[2];
enum { NS_A_MS = 1000000, OPERANDS_A_MS = 1000 };
static pthread_mutex_t queue =
    PTHREAD_MUTEX_INITIALIZER; /* guards them, and the copies under way */

static em_status perform(em_run *r, const far_call *c)
{
    int operands = 0;
    for (size_t i = 0; i < sizeof c->t / sizeof *c->t; i++) operands += c->t[i].data != NULL;
    pthread_mutex_lock(&queue);
    clock_ms[EM_QUEUE_COMPUTE] += (double)operands / OPERANDS_A_MS;
    pthread_mutex_unlock(&queue);
    return c->run(r, c);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

/* Of the run what kernels look at; a graph that was launched is not cancelled. */
struct em_graph {
    em_run run;
    far_call *call;
    size_t count, cap;
    bool broken;
};

static _Thread_local em_graph *capture; /* under way; NULL: ops are done at once */

static struct {
    atomic_int count, fail_at; /* lanes record their graphs at the same time */
} watched[FAR_STEPS];

void far_watch(far_step s, int fail_at)
{
    atomic_store(&watched[s].count, 0);
    atomic_store(&watched[s].fail_at, fail_at);
}

int far_watched(far_step s)
{
    return atomic_load(&watched[s].count);
}

static em_status step(far_step s, em_err *err)
{
    bool fails = atomic_fetch_add(&watched[s].count, 1) + 1 == atomic_load(&watched[s].fail_at);
    return fails ? em_fail(err, EM_DEVICE, "far has enough of graphs") : EM_OK;
}

em_status far_uncapturable(const char *what, em_err *err)
{
    if (!capture) return EM_OK;
    capture->broken = true;
    return em_fail(err, EM_DEVICE, "%s: not in a graph", what);
}

em_status far_enqueue(em_run *r, const far_call *c)
{
    em_graph *g = capture;
    if (!g) return perform(r, c);
    em_status st = step(FAR_CAPTURED_OP, &r->err);
    if (st) return st;
    if (g->count == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 64;
        far_call *more = realloc(g->call, cap * sizeof *more);
        if (!more) return EM_NOMEM;
        g->call = more;
        g->cap = cap;
    }
    g->run = (em_run){.ops = r->ops, .pool = r->pool, .dtype = r->dtype, .cut = r->cut};
    g->call[g->count++] = *c;
    return EM_OK;
}

static atomic_int graphs;

int far_graphs(void)
{
    return atomic_load(&graphs);
}

static void far_graph_destroy(em_device *d, em_graph *g)
{
    if (g) atomic_fetch_sub(&graphs, 1);
    (void)d;
    if (g) free(g->call);
    free(g);
}

static em_status far_capture_begin(em_device *d, em_err *err)
{
    (void)d;
    if (capture) abort();
    em_status st = step(FAR_CAPTURE_BEGIN, err);
    if (st) return st;
    capture = calloc(1, sizeof *capture);
    if (!capture) return em_fail(err, EM_NOMEM, "no memory for a graph");
    atomic_fetch_add(&graphs, 1);
    return EM_OK;
}

static em_status far_capture_end(em_device *d, em_graph **out, em_err *err)
{
    em_graph *g = capture;
    if (!g) abort();
    capture = NULL;
    em_status st = step(FAR_CAPTURE_END, err);
    if (!st && g->broken) st = em_fail(err, EM_DEVICE, "the capture was broken");
    if (st)
        far_graph_destroy(d, g);
    else
        *out = g;
    return st;
}

static em_status far_graph_launch(em_device *d, em_graph *g, em_err *err)
{
    (void)d;
    em_status st = far_uncapturable("a graph", err);
    if (!st) st = step(FAR_LAUNCH, err);
    em_run again = g->run;
    for (size_t i = 0; !st && i < g->count; i++) st = perform(&again, &g->call[i]);
    return st;
}

/* ---- copies ---------------------------------------------------------------------------------- */

static em_status far_upload(em_device *d, void *dst, const void *host_src, size_t n, em_err *err)
{
    (void)d;
    void *to = far_real(dst, n);
    if (!to) return far_refuse("upload", err);
    em_status st = far_uncapturable("upload", err);
    if (!st) memcpy(to, host_src, n);
    return st;
}

static em_status far_download(em_device *d, void *host_dst, const void *src, size_t n, em_err *err)
{
    (void)d;
    const void *from = far_real(src, n);
    if (!from) return far_refuse("download", err);
    em_status st = far_uncapturable("download", err);
    if (!st) memcpy(host_dst, from, n);
    return st;
}

static void far_memory_info(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes)
{
    (void)d;
    em_device_host.memory_info(&em_device_host, total_bytes, free_bytes);
}

/* ---- queues ---------------------------------------------------------------------------------- */

/* COMPUTE is never behind. COPY is as late as it may be: a copy leaves NaN where it goes, and
 * happens when somebody waits for an event behind it. Who reads too early, or changes the source
 * too early, is found out by the numbers. */
typedef struct late_copy {
    void *to;
    const void *from;
    size_t size_bytes;
    struct late_copy *next;
} late_copy;

struct em_event {
    uint64_t copies; /* that were asked for when it was recorded on COPY */
    double ms;       /* of its queue's clock then */
};

static late_copy *first, **last = &first;
static uint64_t asked, copied; /* guarded by `queue` */

/* The first `count` copies that were ever asked for. With the lock. */
static void catch_up(uint64_t count)
{
    while (copied < count && first) {
        late_copy *c = first;
        memcpy(c->to, c->from, c->size_bytes);
        first = c->next;
        if (!first) last = &first;
        free(c);
        copied++;
    }
}

static em_status far_copy_async(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                                em_err *err)
{
    (void)d;
    void *to = far_real(dst, size_bytes);
    if (!to) return far_refuse("copy", err);
    late_copy *c = malloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "no memory for a copy");
    *c = (late_copy){.to = to, .from = host_src, .size_bytes = size_bytes};
    pthread_mutex_lock(&queue);
    memset(to, 0xFF, size_bytes);
    *last = c;
    last = &c->next;
    asked++;
    clock_ms[EM_QUEUE_COPY] += (double)size_bytes / NS_A_MS;
    pthread_mutex_unlock(&queue);
    return EM_OK;
}

static em_status far_event_create(em_device *d, em_event **out, em_err *err)
{
    (void)d;
    em_event *e = calloc(1, sizeof *e);
    if (!e) return em_fail(err, EM_NOMEM, "no memory for an event");
    *out = e;
    return EM_OK;
}

static void far_event_destroy(em_device *d, em_event *e)
{
    (void)d;
    free(e);
}

static em_status far_event_record(em_device *d, em_event *e, em_queue q, em_err *err)
{
    (void)d;
    em_status st = q == EM_QUEUE_COMPUTE ? far_uncapturable("recording an event", err) : EM_OK;
    if (st) return st;
    pthread_mutex_lock(&queue);
    e->copies = q == EM_QUEUE_COPY ? asked : 0;
    e->ms = clock_ms[q];
    pthread_mutex_unlock(&queue);
    return EM_OK;
}

static em_status far_queue_wait(em_device *d, em_queue q, em_event *e, em_err *err)
{
    (void)d;
    em_status st = q == EM_QUEUE_COMPUTE ? far_uncapturable("waiting for an event", err) : EM_OK;
    if (st) return st;
    pthread_mutex_lock(&queue);
    if (q == EM_QUEUE_COMPUTE) catch_up(e->copies);
    if (clock_ms[q] < e->ms) clock_ms[q] = e->ms;
    pthread_mutex_unlock(&queue);
    return EM_OK;
}

static em_status far_event_sync(em_device *d, em_event *e, em_err *err)
{
    (void)d, (void)err;
    pthread_mutex_lock(&queue);
    if (e) catch_up(e->copies);
    pthread_mutex_unlock(&queue);
    return EM_OK;
}

static em_status far_event_elapsed(em_device *d, em_event *from, em_event *to, double *ms,
                                   em_err *err)
{
    (void)d, (void)err;
    pthread_mutex_lock(&queue);
    *ms = copied < to->copies ? -1 : to->ms - from->ms;
    pthread_mutex_unlock(&queue);
    return EM_OK;
}

static em_status far_host_alloc(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    (void)d;
    return em_device_host.alloc(&em_device_host, out, size_bytes, err);
}

static void far_host_free(em_device *d, void *p, size_t size_bytes)
{
    (void)d;
    em_device_host.free(&em_device_host, p, size_bytes);
}

/* COMPUTE alone: what COPY owes it does not wait for. */
static em_status far_sync(em_device *d, em_err *err)
{
    (void)d;
    return far_uncapturable("waiting for all", err);
}

/* A pointer that alloc did not hand out, or another size, ends the test: so does a real driver. */
static void far_free(em_device *d, void *far, size_t size_bytes)
{
    (void)d;
    if (!far) return;
    pthread_mutex_lock(&queue);
    catch_up(asked);
    pthread_mutex_unlock(&queue);
    pthread_mutex_lock(&lock);
    block **at = &blocks;
    while (*at && (*at)->real + (*at)->size_bytes != far) at = &(*at)->next;
    block *b = *at;
    if (!b || b->size_bytes != whole_pages(size_bytes)) abort();
    *at = b->next;
    pthread_mutex_unlock(&lock);
    munmap(b->real, 2 * b->size_bytes);
    free(b);
}

em_device far_device = {
    .name = "far",
    .alloc = far_alloc,
    .free = far_free,
    .memory_info = far_memory_info,
    .upload = far_upload,
    .download = far_download,
    .download_async = far_download,
    .sync = far_sync,
    .host_alloc = far_host_alloc,
    .host_free = far_host_free,
    .copy_async = far_copy_async,
    .event_create = far_event_create,
    .event_destroy = far_event_destroy,
    .event_record = far_event_record,
    .queue_wait = far_queue_wait,
    .event_sync = far_event_sync,
    .event_create_timed = far_event_create,
    .event_elapsed = far_event_elapsed,
    .capture_begin = far_capture_begin,
    .capture_end = far_capture_end,
    .graph_launch = far_graph_launch,
    .graph_destroy = far_graph_destroy,
};
