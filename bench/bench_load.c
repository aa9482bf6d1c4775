/* How long a checkpoint takes to load and what that takes of memory and of the disk, as JSON.
 *
 *     bench_load --model_name DIR --wav2vec_model_dir DIR [--transformer_path FILE]
 *         [--config_path FILE] [--device D] [--weight_dtype T] [--threads N] [--ring_bytes N]
 *         [--cold] [--verify]
 *
 * Stages: `open` finds, maps and checks the five models; `fingerprint` names their content; `read`
 * touches every byte of every tensor once through the maps and gives its pages back; `verify`
 * (asked for) hashes all and checks the archives' CRCs; `pcie` copies page-locked memory to the
 * device (a GPU's alone); `disk` reads the files with all threads; `load` brings all weights of all
 * models to the device, as a request in beefy mode does, and says which share of the slower of the
 * two it reached. On the CPU that is what has to be converted. --cold asks the kernel to forget the
 * files before each stage; --ring_bytes is the size of each of the page-locked buffers. Peaks are
 * those of the stage: resident pages (VmHWM), and of them what is not a file's (anonymous and
 * shared). */
#include "base/alloc.h"
#include "base/thread.h"
#include "base/time.h"
#include "echomimic.h"
#include "io/file.h"
#include "io/fingerprint.h"
#include "memory/staging.h"
#include "pipeline/job.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct bench {
    em_engine_params params;
    bool cold, verify;
    em_engine *engine;
    em_pool *pool;
    json_t *stages;
    uint64_t tensor_bytes;
    int ring_bytes;              /* 0: as a request has it */
    double pcie_rate, disk_rate; /* bytes/ms; 0: not measured */
    json_t *more;                /* what the stage has to say; owned until the stage is over */
} bench;

/* ---- what the kernel counts ------------------------------------------------------------------ */

/* The number behind `key` in a file of /proc/self; 0 when it is not there. */
static uint64_t count_of(const char *file, const char *key)
{
    char line[256];
    unsigned long long v = 0;
    FILE *f = fopen(file, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), "%llu", &v) == 1) break;
    if (f) fclose(f);
    return v;
}

static uint64_t own_bytes(void)
{
    return 1024 *
           (count_of("/proc/self/status", "RssAnon:") + count_of("/proc/self/status", "RssShmem:"));
}

static void reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5\n", f);
    fclose(f);
}

/* Samples what is not a file's, for there is no peak of it to ask for. */
typedef struct watch {
    pthread_t thread;
    atomic_bool stop;
    uint64_t peak;
} watch;

static void *watch_memory(void *arg)
{
    watch *w = arg;
    while (!atomic_load(&w->stop)) {
        uint64_t now = own_bytes();
        if (now > w->peak) w->peak = now;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return NULL;
}

/* ---- stages ---------------------------------------------------------------------------------- */

static void forget_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* Pages that are mapped stay: those that a stage has read are dropped by then. */
static void forget_files(const em_model_config *folder)
{
    const em_model_files *f = &folder->files;
    const char *const path[] = {f->vae, f->t5, f->clip, f->wav2vec2};
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) forget_file(path[i]);
    for (size_t i = 0; i < f->transformer_count; i++) forget_file(f->transformer[i]);
}

static em_status open_engine(bench *b, em_err *err)
{
    return em_engine_open(&b->engine, &b->params, err);
}

static em_status fingerprint(bench *b, em_err *err)
{
    char text[EM_SHA256_HEX_BYTES];
    (void)err;
    for (int k = 0; k < EM_MODEL_COUNT; k++) em_ckpt_fingerprint(b->engine->ckpt[k], text);
    return EM_OK;
}

enum { PIECE_BYTES = 1 << 20 };

typedef struct reading {
    const em_ckpt_tensor *tensor;
    atomic_uint_fast64_t sum; /* so that nothing is left out */
} reading;

static void read_piece(void *arg, size_t i, int worker)
{
    (void)worker;
    reading *r = arg;
    const unsigned char *p = (const unsigned char *)r->tensor->data + i * PIECE_BYTES;
    size_t left = r->tensor->size_bytes - i * PIECE_BYTES,
           n = left < PIECE_BYTES ? left : PIECE_BYTES;
    uint64_t sum = 0;
    for (size_t k = 0; k < n; k++) sum += p[k];
    atomic_fetch_add(&r->sum, sum);
    em_map_drop(p, n);
}

static em_status read_all(bench *b, em_err *err)
{
    (void)err;
    reading r = {0};
    for (int k = 0; k < EM_MODEL_COUNT; k++)
        for (size_t i = 0; i < em_ckpt_count(b->engine->ckpt[k]); i++) {
            r.tensor = em_ckpt_at(b->engine->ckpt[k], i);
            em_parallel(b->pool, (r.tensor->size_bytes + PIECE_BYTES - 1) / PIECE_BYTES, read_piece,
                        &r);
        }
    return atomic_load(&r.sum) ? EM_OK : em_fail(err, EM_IO, "nothing was read");
}

static em_status verify_all(bench *b, em_err *err)
{
    char text[EM_SHA256_HEX_BYTES];
    em_status st = EM_OK;
    for (int k = 0; k < EM_MODEL_COUNT && !st; k++)
        st = em_ckpt_verify(b->engine->ckpt[k], b->pool, text, err);
    return st;
}

/* ---- the two floors -------------------------------------------------------------------------- */

enum { COPY_BYTES = EM_STAGING_BYTES, COPIES = 2048 }; /* 4 GiB in all */

static em_status copy_all(em_device *d, char *block, const char *ring, em_event *done, em_err *err)
{
    em_status st = EM_OK;
    for (int i = 0; !st && i < COPIES; i++) {
        size_t at = (size_t)(i % EM_STAGING_BUFFERS) * COPY_BYTES;
        st = d->copy_async(d, block + at, ring + at, COPY_BYTES, err);
    }
    if (!st) st = d->event_record(d, done, EM_QUEUE_COPY, err);
    return st ? st : d->event_sync(d, done, err);
}

/* The second of two rounds: the first wakes the link up. */
static em_status measure_pcie(bench *b, em_err *err)
{
    em_device *d = b->engine->ops->device;
    const size_t size = (size_t)EM_STAGING_BUFFERS * COPY_BYTES;
    void *block = NULL, *ring = NULL;
    em_event *done = NULL;
    double ms = 0;
    em_status st = d->alloc(d, &block, size, err);
    if (!st) st = d->host_alloc(d, &ring, size, err);
    if (!st) st = d->event_create(d, &done, err);
    if (!st) memset(ring, 1, size);
    for (int i = 0; !st && i < 2; i++) {
        double begin = em_now_ms();
        st = copy_all(d, block, ring, done, err);
        ms = em_now_ms() - begin;
    }
    if (!st) b->pcie_rate = (double)COPIES * COPY_BYTES / ms;
    b->more = json_pack("{s:f}", "gb_per_s", b->pcie_rate / 1e6);
    d->event_destroy(d, done);
    if (ring) d->host_free(d, ring, size);
    d->free(d, block, size);
    return st;
}

typedef struct reader {
    em_file_place file;
    size_t size_bytes;
    char *buffers; /* owned: one a thread */
    atomic_int failed;
} reader;

static void read_file_piece(void *arg, size_t i, int worker)
{
    reader *k = arg;
    em_err err = {0};
    em_file_place at = k->file;
    at.offset_bytes = (uint64_t)i * COPY_BYTES;
    size_t left = k->size_bytes - (size_t)at.offset_bytes;
    if (em_file_read_at(k->buffers + (size_t)worker * COPY_BYTES,
                        left < COPY_BYTES ? left : COPY_BYTES, &at, &err))
        atomic_store(&k->failed, 1);
}

static em_status read_file(bench *b, reader *k, const char *path, uint64_t *sum, em_err *err)
{
    em_map map = {0};
    em_status st = em_file_map(&map, path, false, err);
    if (st) return st;
    k->file = em_map_place(&map, map.data, map.size_bytes, path);
    k->size_bytes = map.size_bytes;
    *sum += map.size_bytes;
    em_parallel(b->pool, (k->size_bytes + COPY_BYTES - 1) / COPY_BYTES, read_file_piece, k);
    em_map_close(&map);
    return atomic_load(&k->failed) ? em_fail(err, EM_IO, "cannot read '%s'", path) : EM_OK;
}

static em_status measure_disk(bench *b, em_err *err)
{
    reader k = {.buffers = em_alloc((size_t)em_pool_threads(b->pool) * COPY_BYTES)};
    const em_model_files *f = &b->engine->folder->files;
    const char *const path[] = {f->vae, f->t5, f->clip, f->wav2vec2};
    uint64_t sum = 0;
    em_status st = k.buffers ? EM_OK : em_fail(err, EM_NOMEM, "no memory to read into");
    double begin = em_now_ms();
    for (size_t i = 0; !st && i < sizeof path / sizeof *path; i++)
        st = read_file(b, &k, path[i], &sum, err);
    for (size_t i = 0; !st && i < f->transformer_count; i++)
        st = read_file(b, &k, f->transformer[i], &sum, err);
    b->disk_rate = (double)sum / (em_now_ms() - begin);
    b->more = json_pack("{s:I, s:f}", "bytes", (json_int_t)sum, "gb_per_s", b->disk_rate / 1e6);
    em_free(k.buffers);
    return st;
}

/* ---- the real thing -------------------------------------------------------------------------- */

/* A small request, rehearsed: its trace has every group of every model. */
static em_status rehearse(bench *b, em_job *j, em_err *err)
{
    static em_memo memo;
    static em_params p;
    static const em_sink nowhere;
    const em_picture picture = {NULL, 64, 64};
    const em_sound sound = {NULL, 16000, 16000};
    p = em_params_default();
    p.sample_size[0] = p.sample_size[1] = 64;
    p.video_length = 5;
    p.num_inference_steps = 1;
    em_status st = em_job_open(j, b->engine, &picture, &sound, &p, &nowhere, err);
    return st ? st : em_job_rehearse(j, (em_cut){0}, &memo, err);
}

/* Of the groups that are copied, each once: their images and what the files have of them. */
static void add_up(const em_trace *t, size_t *image_bytes, size_t *source_bytes)
{
    *image_bytes = *source_bytes = 0;
    for (size_t i = 0; i < t->count; i++) {
        const em_trace_step *s = &t->step[i];
        if (!s->pin || s->next != SIZE_MAX || s->group->in_place) continue;
        *image_bytes += s->group->image_bytes;
        *source_bytes += s->group->size_bytes;
    }
}

static em_status pin_all(em_residency *r, const em_trace *t, em_err *err)
{
    em_device *d = r->device;
    em_status st = EM_OK;
    for (size_t i = 0; !st && i < t->count; i++)
        st = t->step[i].pin ? em_residency_pin(r, t->step[i].group, err)
                            : em_residency_unpin(r, t->step[i].group, err);
    if (!st) st = d->event_record(d, r->moved, EM_QUEUE_COPY, err);
    return st ? st : d->event_sync(d, r->moved, err);
}

static void report_load(bench *b, const em_residency *r, size_t images, size_t sources, double ms)
{
    double pcie = b->pcie_rate > 0 ? (double)images / b->pcie_rate : 0;
    double disk = (double)sources / b->disk_rate, floor = pcie > disk ? pcie : disk;
    b->more = json_pack("{s:I, s:I, s:f, s:f, s:s, s:o}", "bytes", (json_int_t)images,
                        "source_bytes", (json_int_t)sources, "load_ms", ms, "gb_per_s",
                        (double)images / ms / 1e6, "slower_floor", pcie > disk ? "pcie" : "disk",
                        "share_of_slower_floor", images ? json_real(floor / ms) : json_null());
    if (r->copied_bytes != images) json_object_set_new(b->more, "copied_twice", json_true());
}

/* Everything that a request takes before it starts is taken before the clock starts. */
static em_status load_all(bench *b, em_err *err)
{
    em_engine *e = b->engine;
    em_device *d = e->ops->device;
    em_job j = {0};
    void *store = NULL;
    size_t images = 0, sources = 0;
    bool ignored;
    em_residency r = {.device = d,
                      .dtype = e->dtype,
                      .pool = e->pool,
                      .prefetch = !d->host_addressable,
                      .ring_bytes = (size_t)b->ring_bytes,
                      .follow = &j.trace};
    em_status st = rehearse(b, &j, err);
    if (!st) add_up(&j.trace, &images, &sources);
    if (!st) st = d->alloc(d, &store, images, err);
    if (!st) st = em_residency_prepare(&r, &j.trace, 0, &ignored, err);
    if (!st) st = em_residency_set_store(&r, store, images, err);
    if (b->cold) forget_files(e->folder);
    double begin = em_now_ms();
    if (!st) st = pin_all(&r, &j.trace, err);
    report_load(b, &r, images, sources, em_now_ms() - begin);
    em_residency_close(&r);
    if (store) d->free(d, store, images);
    em_job_close(&j);
    return st;
}

static em_status run_stage(bench *b, const char *name, em_status (*stage)(bench *b, em_err *err),
                           em_err *err)
{
    watch w = {.stop = false};
    if (b->cold && b->engine) forget_files(b->engine->folder);
    reset_peak();
    uint64_t read_before = count_of("/proc/self/io", "read_bytes:");
    if (pthread_create(&w.thread, NULL, watch_memory, &w) != 0)
        return em_fail(err, EM_IO, "cannot start a thread");
    double begin = em_now_ms();
    em_status st = stage(b, err);
    double ms = em_now_ms() - begin;
    atomic_store(&w.stop, true);
    pthread_join(w.thread, NULL);
    uint64_t peak = 1024 * count_of("/proc/self/status", "VmHWM:");
    json_t *row =
        json_pack("{s:f, s:I, s:I, s:I}", "ms", ms, "peak_resident_bytes", (json_int_t)peak,
                  "peak_own_bytes", (json_int_t)w.peak, "disk_read_bytes",
                  (json_int_t)(count_of("/proc/self/io", "read_bytes:") - read_before));
    if (b->more) json_object_update(row, b->more);
    json_decref(b->more);
    b->more = NULL;
    json_object_set_new(b->stages, name, row);
    return st;
}

static em_status run(bench *b, em_err *err)
{
    em_status st = em_pool_create(&b->pool, b->params.threads, NULL, err);
    b->stages = json_object();
    if (!st && b->cold) { /* the files' names are known only once they were opened */
        st = open_engine(b, err);
        em_model_config *folder = NULL;
        if (!st) {
            folder = b->engine->folder;
            b->engine->folder = NULL;
        }
        em_engine_close(&b->engine);
        if (folder) forget_files(folder);
        em_model_folder_close(&folder);
    }
    if (!st) st = run_stage(b, "open", open_engine, err);
    if (!st) st = run_stage(b, "fingerprint", fingerprint, err);
    if (!st) st = run_stage(b, "read", read_all, err);
    if (!st && b->verify) st = run_stage(b, "verify", verify_all, err);
    if (!st && !b->engine->ops->device->host_addressable)
        st = run_stage(b, "pcie", measure_pcie, err);
    if (!st) st = run_stage(b, "disk", measure_disk, err);
    if (!st) st = run_stage(b, "load", load_all, err);
    size_t tensors = 0;
    for (int k = 0; !st && k < EM_MODEL_COUNT; k++) {
        tensors += em_ckpt_count(b->engine->ckpt[k]);
        for (size_t i = 0; i < em_ckpt_count(b->engine->ckpt[k]); i++)
            b->tensor_bytes += em_ckpt_at(b->engine->ckpt[k], i)->size_bytes;
    }
    if (!st) {
        json_t *doc = json_pack("{s:s, s:b, s:i, s:I, s:I, s:O}", "device",
                                b->engine->ops->device->name, "cold", b->cold, "threads",
                                em_pool_threads(b->pool), "tensors", (json_int_t)tensors, "bytes",
                                (json_int_t)b->tensor_bytes, "stages", b->stages);
        json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(doc);
    }
    json_decref(b->stages);
    em_engine_close(&b->engine);
    em_pool_destroy(&b->pool);
    return st;
}

static bool read_number(int *out, const char *text, int step, int most)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || v < 0 || v > most || v % step) return false;
    *out = (int)v;
    return true;
}

static bool read_dtype(bench *b, const char *name)
{
    static const char *const names[] = {"bfloat16", "float16", "float32"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name)) continue;
        b->params.dtype = (em_weight_dtype)i;
        return true;
    }
    return false;
}

static bool read_flag(bench *b, char **argv, int *i)
{
    const struct {
        const char *name;
        const char **to;
    } text[] = {{"--model_name", &b->params.model_name},
                {"--wav2vec_model_dir", &b->params.wav2vec_model_dir},
                {"--transformer_path", &b->params.transformer_path},
                {"--config_path", &b->params.config_path},
                {"--device", &b->params.device}};
    for (size_t k = 0; k < sizeof text / sizeof *text; k++)
        if (!strcmp(argv[*i], text[k].name) && argv[*i + 1]) return *text[k].to = argv[++*i], true;
    if (!strcmp(argv[*i], "--cold")) return b->cold = true;
    if (!strcmp(argv[*i], "--verify")) return b->verify = true;
    if (!argv[*i + 1]) return false;
    if (!strcmp(argv[*i], "--weight_dtype")) return read_dtype(b, argv[++*i]);
    if (!strcmp(argv[*i], "--threads")) return read_number(&b->params.threads, argv[++*i], 1, 1024);
    if (!strcmp(argv[*i], "--ring_bytes"))
        return read_number(&b->ring_bytes, argv[++*i], EM_IMAGE_ALIGN, 64 << 20);
    return false;
}

int main(int argc, char **argv)
{
    bench b = {.params = em_engine_params_default()};
    em_err err = {0};
    b.params.device = "cpu";
    for (int i = 1; i < argc; i++)
        if (!read_flag(&b, argv, &i)) {
            fprintf(stderr, "bench_load: what is %s? See the head of bench/bench_load.c\n",
                    argv[i]);
            return 2;
        }
    if (run(&b, &err)) {
        fprintf(stderr, "bench_load: %s\n", err.msg);
        return 1;
    }
    return 0;
}
