#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char to_remove[HARNESS_PATH];

/* ---- folders --------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

void remove_folder(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("FAIL: ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    if (getenv("EM_KEEP"))
        printf("left in %s\n", to_remove);
    else if (to_remove[0])
        remove_folder(to_remove);
    fflush(stdout);
    _exit(1);
}

void make_folder(const char *path)
{
    if (mkdir(path, 0777) != 0 && errno != EEXIST) fail("%s: %s", path, strerror(errno));
}

const char *harness_path(const harness *h, const char *name)
{
    enum { RING = 16 };
    static char ring[RING][HARNESS_PATH + 256];
    static int next;
    char *p = ring[next++ % RING];
    snprintf(p, sizeof ring[0], "%s/%s", h->dir, name);
    return p;
}

/* ---- children -------------------------------------------------------------------------------- */

static pid_t start(const char *const *argv, const char *log, const char *const *env)
{
    pid_t pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    if (pid > 0) return pid;
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666), in = open("/dev/null", O_RDONLY);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    for (; env && *env; env++) putenv((char *)(uintptr_t)*env);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) fail("waitpid: %s", strerror(errno));
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

pid_t start_batch(const harness *h, const char *list, const char *save_path, const char *log,
                  const char *const *more, const char *const *env)
{
    char base[4][HARNESS_PATH + 128];
    snprintf(base[0], sizeof base[0], "%s/config.yaml", h->model);
    snprintf(base[1], sizeof base[1], "%s/Wan2.1-Fun-V1.1-1.3B-InP", h->model);
    snprintf(base[2], sizeof base[2], "%s/transformer/diffusion_pytorch_model.safetensors",
             h->model);
    snprintf(base[3], sizeof base[3], "%s/chinese-wav2vec2-base", h->model);
    const char *argv[HARNESS_ARGS] = {h->program,
                                      "batch",
                                      "--config_path",
                                      base[0],
                                      "--model_name",
                                      base[1],
                                      "--transformer_path",
                                      base[2],
                                      "--wav2vec_model_dir",
                                      base[3],
                                      "--sample_size",
                                      "64",
                                      "64",
                                      "--video_length",
                                      "5",
                                      "--log_json",
                                      "--json_path",
                                      list,
                                      "--save_path",
                                      save_path};
    int n = 0;
    while (argv[n]) n++;
    for (; more && *more && n < HARNESS_ARGS - 1; more++) argv[n++] = *more;
    return start(argv, log, env);
}

/* ---- the common folder ----------------------------------------------------------------------- */

void harness_open(harness *h, const char *program, const char *share)
{
    static char cache[HARNESS_PATH + 32];
    const char *tmp = getenv("TMPDIR");
    char pattern[HARNESS_PATH];
    *h = (harness){.program = program, .share = share};
    snprintf(pattern, sizeof pattern, "%s/em-torture-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(pattern) || !realpath(pattern, to_remove))
        fail("%s: %s", pattern, strerror(errno));
    snprintf(h->dir, sizeof h->dir, "%s", to_remove);
    snprintf(h->model, sizeof h->model, "%s", harness_path(h, "model"));
    snprintf(cache, sizeof cache, "XDG_CACHE_HOME=%s/cache", h->dir);
    putenv(cache);
    const char *const argv[] = {program, "synth", "--size", "tiny", "--out", h->model, NULL};
    int rc = wait_for(start(argv, harness_path(h, "synth.log"), NULL));
    if (rc) fail("synth ended with %d", rc);
}

void harness_close(harness *h)
{
    remove_folder(h->dir);
}

/* ---- what is left ---------------------------------------------------------------------------- */

bool hash_file(char out[EM_SHA256_HEX_BYTES], const char *path)
{
    unsigned char sum[EM_SHA256_BYTES];
    char block[1 << 14];
    size_t n;
    em_sha256 h;
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    em_sha256_start(&h);
    while ((n = fread(block, 1, sizeof block, f)) > 0) em_sha256_add(&h, block, n);
    fclose(f);
    em_sha256_end(&h, sum);
    em_sha256_hex(out, sum);
    return true;
}

json_t *read_report(const char *save_path)
{
    char path[HARNESS_PATH + 64];
    json_error_t e;
    snprintf(path, sizeof path, "%s/batch_report.json", save_path);
    json_t *report = json_load_file(path, 0, &e);
    if (!report) fail("%s: %s", path, e.text);
    return report;
}

json_t *report_item(json_t *report, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(report, "jobs"), i, item)
    {
        const char *n = json_string_value(json_object_get(item, "output_name"));
        if (n && !strcmp(n, name)) return item;
    }
    fail("the report lacks '%s'", name);
}

double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
