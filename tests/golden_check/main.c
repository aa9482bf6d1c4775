#include "check.h"

#include "far/far.h"
#include "io/file.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_DEVICE = 77 }; /* exit status */

static const struct {
    const char *pattern;
    void (*run)(check *c); /* NULL: read by another checker */
} checkers[] = {
    {"t5.safetensors", check_t5},
    {"t5_*.safetensors", check_t5},
    {"clip.safetensors", check_clip},
    {"wav2vec2.safetensors", check_wav2vec2},
    {"vae.safetensors", check_vae},
    {"dit.safetensors", check_dit},
    {"schedulers*.safetensors", check_schedulers},
    {"rng.safetensors", check_rng},
    {"teacache.json", check_teacache},
    {"pipeline.safetensors", check_pipeline},
    {"e2e.safetensors", check_e2e},
    {"audio.safetensors", check_audio},
    {"images.safetensors", check_images},
    {"pth.safetensors", check_pth},
    {"tokens.json", check_tokens},
    {"sizes.json", check_sizes},
    {"loudness.json", check_loudness},
    {"report.json", NULL},
    {"e2e.json", NULL},
    {"notes.json", NULL},
};

static void check_file(check *c)
{
    for (size_t i = 0; i < sizeof checkers / sizeof *checkers; i++) {
        if (fnmatch(checkers[i].pattern, c->file, 0)) continue;
        if (checkers[i].run) checkers[i].run(c);
        fflush(stdout);
        return;
    }
    bool tensors = !fnmatch("*.safetensors", c->file, 0);
    printf("%s: skipped: %s\n", c->file,
           tensors ? "no checker for a file of this name" : "not a golden");
    c->skipped += tensors;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int check_folder(check *c, const char *only)
{
    struct dirent **entry = NULL;
    int n = scandir(c->dir, &entry, not_hidden, by_name);
    if (n < 0) {
        fprintf(stderr, "golden_check: '%s' is not a folder that can be read\n", c->dir);
        return 2;
    }
    for (int i = 0; i < n; i++) {
        char *path = em_path_join(c->dir, entry[i]->d_name);
        c->file = entry[i]->d_name;
        if (path && em_path_is_file(path) && (!only || !fnmatch(only, c->file, 0))) check_file(c);
        em_free(path);
        free(entry[i]);
    }
    free(entry);
    printf("%s, %s: %d passed, %d failed, %d without a bound, %d skipped\n", c->ops->name,
           em_dtype_name(c->dtype), c->passed, c->failed, c->unbounded, c->skipped);
    return c->failed || !c->passed;
}

/* Sizes, seed and the reference's own distances; without a report.json: the released sizes, seed
 * 1. */
static em_status read_report(check *c, em_err *err)
{
    int64_t seed = 1;
    c->sizes = em_synthetic_sizes_full();
    c->seed = 1;
    char *path = em_path_join(c->dir, "report.json");
    em_status st = EM_OK;
    if (path && em_path_is_file(path)) st = em_json_load(&c->doc, path, 16 << 20, err);
    if (!st && c->doc) {
        const json_t *config = json_object_get(c->doc, "config");
        st = em_synthetic_sizes_read(&c->sizes, c->doc, path, err);
        if (!st && config) st = em_json_get_int(&seed, config, "seed", 0, INT64_MAX, path, err);
        c->seed = (uint64_t)seed;
        c->report = json_object_get(c->doc, "report");
    }
    em_free(path);
    return st;
}

static int usage(void)
{
    fputs("usage: golden_check DIR [--device cpu|ref|far|cuda] [--dtype float32|bfloat16|float16] "
          "[--threads N] "
          "[--only PATTERN]\n"
          "Compares this build with the reference's numbers in DIR; exit 1 when anything is too "
          "far,\n"
          "77 when there is no such device.\n",
          stderr);
    return 2;
}

static bool read_dtype(em_dtype *out, const char *name)
{
    static const struct {
        const char *name;
        em_dtype dtype;
    } known[] = {{"float32", EM_F32}, {"bfloat16", EM_BF16}, {"float16", EM_F16}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name)) continue;
        *out = known[i].dtype;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    check c = {.dtype = EM_F32};
    const char *only = NULL, *device = "cpu";
    int threads = 0;
    em_err err = {0};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (argv[i][0] != '-' && !c.dir)
            c.dir = argv[i];
        else if (!strcmp(argv[i], "--device") && *value)
            device = value, i++;
        else if (!strcmp(argv[i], "--dtype") && read_dtype(&c.dtype, value))
            i++;
        else if (!strcmp(argv[i], "--threads") && (threads = (int)strtol(value, NULL, 10)) > 0)
            i++;
        else if (!strcmp(argv[i], "--only") && *value)
            only = value, i++;
        else
            return usage();
    }
    if (!c.dir) return usage();
    far_register();
    if (em_ops_open(&c.ops, device, &err)) {
        printf("skipped: %s\n", err.msg);
        return NO_DEVICE;
    }
    em_json_setup();
    if (read_report(&c, &err) || em_pool_create(&c.pool, threads, c.ops->thread_start, &err)) {
        fprintf(stderr, "golden_check: %s\n", err.msg);
        return 2;
    }
    int code = check_folder(&c, only);
    em_pool_destroy(&c.pool);
    json_decref(c.doc);
    return code;
}
