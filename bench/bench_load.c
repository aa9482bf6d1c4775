/* How long a checkpoint takes to load and what that takes of memory and of the disk, as JSON.
 *
 *     bench_load --model_name DIR --wav2vec_model_dir DIR [--transformer_path FILE]
 *         [--config_path FILE] [--threads N] [--cold] [--verify]
 *
 * Stages: `open` finds, maps and checks the five models; `fingerprint` names their content; `read`
 * touches every byte of every tensor once and gives its pages back, which no load can do faster;
 * `verify` (asked for) hashes all and checks the archives' CRCs. --cold asks the kernel to forget
 * the files before each stage. Peaks are those of the stage: resident pages (VmHWM), and of them
 * what is not a file's (anonymous and shared). */
#include "base/alloc.h"
#include "base/thread.h"
#include "base/time.h"
#include "echomimic.h"
#include "io/file.h"
#include "io/fingerprint.h"
#include "pipeline/engine.h"

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
    if (st) return st;
    uint64_t peak = 1024 * count_of("/proc/self/status", "VmHWM:");
    json_object_set_new(
        b->stages, name,
        json_pack("{s:f, s:I, s:I, s:I}", "ms", ms, "peak_resident_bytes", (json_int_t)peak,
                  "peak_own_bytes", (json_int_t)w.peak, "disk_read_bytes",
                  (json_int_t)(count_of("/proc/self/io", "read_bytes:") - read_before)));
    return EM_OK;
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
    size_t tensors = 0;
    for (int k = 0; !st && k < EM_MODEL_COUNT; k++) {
        tensors += em_ckpt_count(b->engine->ckpt[k]);
        for (size_t i = 0; i < em_ckpt_count(b->engine->ckpt[k]); i++)
            b->tensor_bytes += em_ckpt_at(b->engine->ckpt[k], i)->size_bytes;
    }
    if (!st) {
        json_t *doc = json_pack("{s:b, s:i, s:I, s:I, s:O}", "cold", b->cold, "threads",
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

static bool read_flag(bench *b, char **argv, int *i)
{
    const struct {
        const char *name;
        const char **to;
    } text[] = {{"--model_name", &b->params.model_name},
                {"--wav2vec_model_dir", &b->params.wav2vec_model_dir},
                {"--transformer_path", &b->params.transformer_path},
                {"--config_path", &b->params.config_path}};
    for (size_t k = 0; k < sizeof text / sizeof *text; k++)
        if (!strcmp(argv[*i], text[k].name) && argv[*i + 1]) return *text[k].to = argv[++*i], true;
    if (!strcmp(argv[*i], "--cold")) return b->cold = true;
    if (!strcmp(argv[*i], "--verify")) return b->verify = true;
    if (strcmp(argv[*i], "--threads") != 0 || !argv[*i + 1]) return false;
    char *end;
    long threads = strtol(argv[++*i], &end, 10);
    b->params.threads = (int)threads;
    return !*end && threads >= 0 && threads <= 1024;
}

int main(int argc, char **argv)
{
    bench b = {.params = em_engine_params_default()};
    em_err err = {0};
    b.params.device = "cpu";
    for (int i = 1; i < argc; i++)
        if (!read_flag(&b, argv, &i)) {
            fputs("usage: bench_load --model_name DIR --wav2vec_model_dir DIR "
                  "[--transformer_path FILE]\n    [--config_path FILE] [--threads N] [--cold] "
                  "[--verify]\n",
                  stderr);
            return 2;
        }
    if (run(&b, &err)) {
        fprintf(stderr, "bench_load: %s\n", err.msg);
        return 1;
    }
    return 0;
}
