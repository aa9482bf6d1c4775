/* Time, arithmetic and memory of every stage, as JSON: one object on standard output.
 *
 *     bench_pipeline --model_name DIR --wav2vec_model_dir DIR --image FILE --audio FILE
 *         [--transformer_path FILE] [--config_path FILE] [--frames N] [--size S] [--steps N]
 *         [--device D] [--memory_mode lightweight|beefy|auto] [--weight_dtype T] [--threads N]
 *         [--repeat N] [--label TEXT]
 *
 * driver_used_peak_bytes is what the device's driver counts, of everybody on the card; 0 on the
 * CPU. Copies that were hidden and that were not: docs/MEMORY.md.
 *
 * Medians over the repeats; the first run is not counted (pages of the weights, library start-up).
 * The prompt is another one in every run, so that the text stage is always measured. */
#include "base/alloc.h"
#include "base/thread.h"
#include "echomimic.h"
#include "io/audio_in.h"
#include "io/image_in.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_REPEATS = 32 };

typedef struct bench {
    em_engine_params engine;
    em_params params;
    const char *image, *audio, *label, *dtype, *mode;
    int repeat;
} bench;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static json_t *stage_json(const em_result *runs, int n, em_stage s)
{
    double ms[MAX_REPEATS];
    for (int i = 0; i < n; i++) ms[i] = runs[i].stage[s].ms;
    double m = median(ms, n), flops = runs[0].stage[s].flops;
    double copy[MAX_REPEATS], waited[MAX_REPEATS];
    for (int i = 0; i < n; i++) {
        copy[i] = runs[i].stage[s].copy_ms;
        waited[i] = runs[i].stage[s].copy_waited_ms;
    }
    double all = median(copy, n), open = median(waited, n);
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:o, s:o}", "median_ms", m, "min_ms",
                     ms[0], "max_ms", ms[n - 1], "gflop", flops / 1e9, "gflop_per_s",
                     m > 0 ? flops / m / 1e6 : 0.0, "peak_scratch_bytes",
                     (json_int_t)runs[0].stage[s].scratch_bytes, "store_bytes",
                     (json_int_t)runs[0].stage[s].store_bytes, "copied_bytes",
                     (json_int_t)runs[0].stage[s].copied_bytes, "copy_hidden_ms",
                     all < 0 ? json_null() : json_real(all > open ? all - open : 0),
                     "copy_not_hidden_ms", all < 0 ? json_null() : json_real(open));
}

static json_t *report(const bench *b, const em_result *runs, int n)
{
    double total[MAX_REPEATS], color[MAX_REPEATS], forward[MAX_REPEATS];
    struct rusage use;
    uint64_t driver = 0;
    json_t *stages = json_object();
    for (int i = 0; i < n; i++) {
        total[i] = 0;
        if (runs[i].driver_bytes > driver) driver = runs[i].driver_bytes;
        color[i] = runs[i].color_ms;
        forward[i] = runs[i].stage[EM_STAGE_DENOISE].ms / runs[i].forwards;
    }
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        json_object_set_new(stages, em_stage_name((em_stage)s), stage_json(runs, n, (em_stage)s));
        for (int i = 0; i < n; i++) total[i] += runs[i].stage[s].ms;
    }
    getrusage(RUSAGE_SELF, &use);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:I, "
        "s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
        "label", b->label, "device", b->engine.device, "memory_mode", b->mode, "weight_dtype",
        b->dtype, "threads", b->engine.threads ? b->engine.threads : em_cpu_count(), "repeats", n,
        "width", runs[0].width, "height", runs[0].height, "frames", runs[0].frames, "steps",
        b->params.num_inference_steps, "forwards", runs[0].forwards, "forwards_replayed",
        runs[0].forwards_replayed, "total_median_ms", median(total, n), "forward_median_ms",
        median(forward, n), "color_median_ms", median(color, n), "device_bytes",
        (json_int_t)runs[0].device_bytes, "driver_used_peak_bytes", (json_int_t)driver,
        "context_bytes", (json_int_t)runs[0].context_bytes, "peak_scratch_bytes",
        (json_int_t)runs[0].scratch_bytes, "peak_weight_bytes", (json_int_t)runs[0].weight_bytes,
        "copied_bytes", (json_int_t)runs[0].copied_bytes, "max_resident_bytes",
        (json_int_t)use.ru_maxrss * 1024, "stages", stages);
}

static em_status run_all(bench *b, em_engine *e, const em_picture *image, const em_sound *sound,
                         em_err *err)
{
    em_result runs[MAX_REPEATS] = {{0}};
    const em_sink sink = {0};
    em_status st = EM_OK;
    for (int i = -1; i < b->repeat && !st; i++) {
        char prompt[64];
        em_result warm;
        snprintf(prompt, sizeof prompt, "a person talks, take %d", i + 2);
        b->params.prompt = prompt;
        st = em_generate(e, image, sound, &b->params, &sink, i < 0 ? &warm : &runs[i], err);
    }
    if (st) return st;
    json_t *doc = report(b, runs, b->repeat);
    json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(doc);
    return EM_OK;
}

static em_status run(bench *b, em_err *err)
{
    em_engine *e = NULL;
    em_image image = {0};
    em_audio audio = {0};
    float *mono = NULL;
    em_status st = em_image_load(&image, b->image, EM_IMAGE_UPRIGHT, err);
    if (!st) st = em_audio_load(&audio, b->audio, NULL, err);
    if (!st) st = em_audio_mono(&mono, &audio, err);
    if (!st) st = em_engine_open(&e, &b->engine, err);
    if (!st) {
        const em_picture picture = {image.rgb, image.width, image.height};
        const em_sound sound = {mono, audio.n, audio.rate_hz};
        st = run_all(b, e, &picture, &sound, err);
    }
    em_engine_close(&e);
    em_free(mono);
    em_audio_free(&audio);
    em_image_free(&image);
    return st;
}

static bool read_number(int *out, const char *text, int least, int most)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || v < least || v > most) return false;
    *out = (int)v;
    return true;
}

static bool read_dtype(bench *b, const char *name)
{
    static const char *const names[] = {"bfloat16", "float16", "float32"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name)) continue;
        b->dtype = names[i];
        b->engine.dtype = (em_weight_dtype)i;
        return true;
    }
    return false;
}

static bool read_mode(bench *b, const char *name)
{
    static const char *const names[] = {"lightweight", "beefy", "auto"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name)) continue;
        b->mode = names[i];
        b->engine.memory_mode = (em_memory_mode)i;
        return true;
    }
    return false;
}

static bool read_flag(bench *b, const char *flag, const char *v)
{
    const struct {
        const char *flag;
        const char **to;
    } text[] = {{"--model_name", &b->engine.model_name},
                {"--wav2vec_model_dir", &b->engine.wav2vec_model_dir},
                {"--transformer_path", &b->engine.transformer_path},
                {"--config_path", &b->engine.config_path},
                {"--device", &b->engine.device},
                {"--image", &b->image},
                {"--audio", &b->audio},
                {"--label", &b->label}};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        if (strcmp(text[i].flag, flag)) continue;
        *text[i].to = v;
        return true;
    }
    if (!strcmp(flag, "--weight_dtype")) return read_dtype(b, v);
    if (!strcmp(flag, "--memory_mode")) return read_mode(b, v);
    if (!strcmp(flag, "--frames")) return read_number(&b->params.video_length, v, 1, 4093);
    if (!strcmp(flag, "--steps")) return read_number(&b->params.num_inference_steps, v, 1, 1000);
    if (!strcmp(flag, "--threads")) return read_number(&b->engine.threads, v, 0, 1024);
    if (!strcmp(flag, "--repeat")) return read_number(&b->repeat, v, 1, MAX_REPEATS);
    if (strcmp(flag, "--size") || !read_number(&b->params.sample_size[0], v, 16, 4096))
        return false;
    b->params.sample_size[1] = b->params.sample_size[0];
    return true;
}

int main(int argc, char **argv)
{
    em_err err = {0};
    bench b = {.engine = em_engine_params_default(),
               .params = em_params_default(),
               .label = "",
               .repeat = 3};
    b.dtype = "bfloat16";
    b.mode = "lightweight";
    b.params.teacache = EM_TEACACHE_OFF;
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !read_flag(&b, argv[i], argv[i + 1])) {
            fprintf(stderr, "bench_pipeline: what is %s? See the head of bench/bench_pipeline.c\n",
                    argv[i]);
            return 2;
        }
    if (!b.engine.model_name || !b.engine.wav2vec_model_dir || !b.image || !b.audio) {
        fprintf(
            stderr,
            "bench_pipeline: --model_name, --wav2vec_model_dir, --image and --audio are needed\n");
        return 2;
    }
    if (!run(&b, &err)) return 0;
    fprintf(stderr, "bench_pipeline: %s\n", err.msg);
    return 1;
}
