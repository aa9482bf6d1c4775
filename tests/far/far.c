#include "far.h"

#include "ops/table.h"

#include <errno.h>
#include <pthread.h>
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

/* The real address of n far bytes; NULL when they are not all in one block. */
static void *real_of(const void *far, size_t n)
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

static em_status not_far(const char *what, em_err *err)
{
    return em_fail(err, EM_DEVICE, "%s: the bytes are not in memory of the device 'far'", what);
}

static em_status far_upload(em_device *d, void *dst, const void *host_src, size_t n, em_err *err)
{
    (void)d;
    void *to = real_of(dst, n);
    if (!to) return not_far("upload", err);
    memcpy(to, host_src, n);
    return EM_OK;
}

static em_status far_download(em_device *d, void *host_dst, const void *src, size_t n, em_err *err)
{
    (void)d;
    const void *from = real_of(src, n);
    if (!from) return not_far("download", err);
    memcpy(host_dst, from, n);
    return EM_OK;
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
};

static late_copy *first, **last = &first;
static uint64_t asked, copied;

/* Runs that go on at once share the queue: one of them may do what another asked for. */
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;

/* The first `count` copies that were ever asked for. */
static void catch_up(uint64_t count)
{
    pthread_mutex_lock(&queue_lock);
    while (copied < count && first) {
        late_copy *c = first;
        memcpy(c->to, c->from, c->size_bytes);
        first = c->next;
        if (!first) last = &first;
        free(c);
        copied++;
    }
    pthread_mutex_unlock(&queue_lock);
}

static em_status far_copy_async(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                                em_err *err)
{
    (void)d;
    void *to = real_of(dst, size_bytes);
    if (!to) return not_far("copy", err);
    late_copy *c = malloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "no memory for a copy");
    *c = (late_copy){.to = to, .from = host_src, .size_bytes = size_bytes};
    memset(to, 0xFF, size_bytes);
    pthread_mutex_lock(&queue_lock);
    *last = c;
    last = &c->next;
    asked++;
    pthread_mutex_unlock(&queue_lock);
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
    (void)d, (void)err;
    pthread_mutex_lock(&queue_lock);
    e->copies = q == EM_QUEUE_COPY ? asked : 0;
    pthread_mutex_unlock(&queue_lock);
    return EM_OK;
}

static em_status far_queue_wait(em_device *d, em_queue q, em_event *e, em_err *err)
{
    (void)d, (void)err;
    if (q == EM_QUEUE_COMPUTE) catch_up(e->copies);
    return EM_OK;
}

static em_status far_event_sync(em_device *d, em_event *e, em_err *err)
{
    (void)d, (void)err;
    if (e) catch_up(e->copies);
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
    return (void)d, (void)err, EM_OK;
}

/* A pointer that alloc did not hand out, or another size, ends the test: so does a real driver. */
static void far_free(em_device *d, void *far, size_t size_bytes)
{
    (void)d;
    if (!far) return;
    catch_up(asked);
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

static em_device device = {
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
};

/* ---- the table ------------------------------------------------------------------------------- */

/* The ops, and the table that they end up in. */
typedef struct far_table {
    em_ops ops;
    const em_ops *inner;
} far_table;

/* A run may carry a copy of our table (checkops' guarded one): its name tells which it was. */
static far_table tables[2];

static const em_ops *inner_of(const em_run *r)
{
    return !strcmp(r->ops->name, tables[1].ops.name) ? tables[1].inner : tables[0].inner;
}

/* Moves *t to real memory; an operand of the host's fails the run. */
static bool reach(em_run *r, const char *op, em_tensor *t)
{
    if (em_tensor_is_empty(*t)) return true;
    t->data = real_of(t->data, em_tensor_bytes(*t));
    if (!t->data) not_far(op, &r->err);
    return t->data != NULL;
}

/* Workspaces may be empty; how large they are is known to the wrapper alone. */
static bool reach_workspace(em_run *r, const char *op, void **ws)
{
    *ws = real_of(*ws, 0);
    if (!*ws) not_far(op, &r->err);
    return *ws != NULL;
}

#define REACH(op, ...) reach_all(r, op, (em_tensor *const[]){__VA_ARGS__, NULL})

static bool reach_all(em_run *r, const char *op, em_tensor *const *t)
{
    bool ok = true;
    for (; *t && ok; t++) ok = reach(r, op, *t);
    return ok;
}

static em_status linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    if (!REACH("linear", &y, &x, &w, &b) || !reach_workspace(r, "linear", &ws)) return EM_DEVICE;
    return inner_of(r)->linear(r, y, x, w, b, act, ws);
}

static em_status attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    em_attn near = *a;
    if (!REACH("attention", &y, &q, &k, &v, &near.rel_bias) ||
        !reach_workspace(r, "attention", &ws))
        return EM_DEVICE;
    return inner_of(r)->attention(r, y, q, k, v, &near, ws);
}

static em_status conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws)
{
    em_conv_args near = *c;
    if (!REACH("conv", &y, &near.x, &near.past, &near.w, &near.b) ||
        !reach_workspace(r, "conv", &ws))
        return EM_DEVICE;
    return inner_of(r)->conv(r, y, &near, ws);
}

static em_status weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v)
{
    if (!REACH("weight_norm", &y, &g, &v)) return EM_DEVICE;
    return inner_of(r)->weight_norm(r, y, g, v);
}

static em_status norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    em_norm_spec near = *s;
    if (!REACH("norm", &y, &x, &near.w, &near.b)) return EM_DEVICE;
    return inner_of(r)->norm(r, y, x, &near);
}

static em_status time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    if (!REACH("time_norm", &y, &x, &w, &b)) return EM_DEVICE;
    return inner_of(r)->time_norm(r, y, x, w, b, eps);
}

static em_status act(em_run *r, em_tensor x, em_act kind)
{
    if (!REACH("act", &x)) return EM_DEVICE;
    return inner_of(r)->act(r, x, kind);
}

static em_status binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    if (!REACH("binary", &x, &a, &b)) return EM_DEVICE;
    return inner_of(r)->binary(r, x, a, b, kind);
}

static em_status fill(em_run *r, em_tensor x, float value)
{
    if (!REACH("fill", &x)) return EM_DEVICE;
    return inner_of(r)->fill(r, x, value);
}

static em_status rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    if (!REACH("rope", &x, &table)) return EM_DEVICE;
    return inner_of(r)->rope(r, x, table, heads);
}

static em_status lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c)
{
    em_tensor near[EM_LINCOMB_MAX];
    if (!REACH("lincomb", &y)) return EM_DEVICE;
    for (int i = 0; i < n; i++) {
        near[i] = x[i];
        if (!reach(r, "lincomb", &near[i])) return EM_DEVICE;
    }
    return inner_of(r)->lincomb(r, y, n, near, c);
}

static em_status copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols)
{
    if (!REACH("copy_cols", &dst, &src)) return EM_DEVICE;
    return inner_of(r)->copy_cols(r, dst, dst_col, src, src_col, cols);
}

static em_status transpose(em_run *r, em_tensor y, em_tensor x)
{
    if (!REACH("transpose", &y, &x)) return EM_DEVICE;
    return inner_of(r)->transpose(r, y, x);
}

static em_status gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    if (!REACH("gather", &y, &table)) return EM_DEVICE;
    return inner_of(r)->gather(r, y, table, idx);
}

static em_status patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    if (!REACH("patchify", &y, &x)) return EM_DEVICE;
    return inner_of(r)->patchify(r, y, x, ph, pw);
}

static em_status unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    if (!REACH("unpatchify", &y, &x)) return EM_DEVICE;
    return inner_of(r)->unpatchify(r, y, x, ph, pw);
}

static em_status upload(em_run *r, em_tensor y, const void *host)
{
    return far_upload(&device, y.data, host, em_tensor_bytes(y), &r->err);
}

static em_status download(em_run *r, em_tensor x, void *host)
{
    return far_download(&device, host, x.data, em_tensor_bytes(x), &r->err);
}

static em_status lerp_time(em_run *r, em_tensor y, em_tensor x)
{
    if (!REACH("lerp_time", &y, &x)) return EM_DEVICE;
    return inner_of(r)->lerp_time(r, y, x);
}

static em_status resize_bicubic(em_run *r, em_tensor y, em_tensor x)
{
    if (!REACH("resize_bicubic", &y, &x)) return EM_DEVICE;
    return inner_of(r)->resize_bicubic(r, y, x);
}

static em_status to_u8(em_run *r, em_tensor y, em_tensor x)
{
    if (!REACH("to_u8", &y, &x)) return EM_DEVICE;
    return inner_of(r)->to_u8(r, y, x);
}

/* ---- registration ---------------------------------------------------------------------------- */

static far_table table_over(const char *name, const em_ops *inner)
{
    em_ops t = {
        .name = name,
        .device = &device,
        .thread_start = inner->thread_start,
        .linear_workspace = inner->linear_workspace,
        .linear = linear,
        .attention_workspace = inner->attention_workspace,
        .attention = attention,
        .conv_workspace = inner->conv_workspace,
        .conv = conv,
        .weight_norm = weight_norm,
        .norm = norm,
        .time_norm = time_norm,
        .act = act,
        .binary = binary,
        .fill = fill,
        .rope = rope,
        .lincomb = lincomb,
        .copy_cols = copy_cols,
        .transpose = transpose,
        .gather = gather,
        .patchify = patchify,
        .unpatchify = unpatchify,
        .upload = upload,
        .download = download,
        .lerp_time = lerp_time,
        .resize_bicubic = resize_bicubic,
        .to_u8 = to_u8,
    };
    return (far_table){t, inner};
}

static em_status open_far(const em_ops **out, int ordinal, em_err *err)
{
    if (ordinal > 1) return em_fail(err, EM_INVAL, "device 'far:%d': there are 0 and 1", ordinal);
    *out = &tables[ordinal].ops;
    return EM_OK;
}

void far_register(void)
{
    if (tables[0].inner) return;
    tables[0] = table_over("far", em_ops_cpu());
    tables[1] = table_over("far:1", em_ops_ref());
    em_ops_register((em_ops_entry){"far", open_far});
}
