/* `plan`: what a job would take, without running it. */
#include "base/alloc.h"
#include "cli/command.h"
#include "io/audio_in.h"
#include "io/image_in.h"
#include "io/json.h"

/* What is planned for: the given picture and sound, or the largest that the flags allow. */
typedef struct subject {
    em_picture picture;
    em_sound sound;
} subject;

static em_status read_subject(subject *s, const em_options *o, em_err *err)
{
    const em_params *p = &o->params;
    em_image image = {0};
    em_audio audio = {0};
    em_status st = EM_OK;
    *s = (subject){.picture = {NULL, p->sample_size[1], p->sample_size[0]},
                   .sound = {NULL, (size_t)p->video_length, p->fps}};
    if (o->image_path) st = em_image_load(&image, o->image_path, EM_IMAGE_UPRIGHT, err);
    if (!st && o->audio_path) st = em_audio_load(&audio, o->audio_path, NULL, err);
    if (!st && o->image_path) s->picture = (em_picture){NULL, image.width, image.height};
    if (!st && o->audio_path) s->sound = (em_sound){NULL, audio.n, audio.rate_hz};
    em_image_free(&image);
    em_audio_free(&audio);
    return st;
}

static double total_flops(const em_result *r)
{
    double sum = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) sum += r->stage[s].flops;
    return sum;
}

/* A row of the table: bytes and seconds. */
static void print_row(const char *name, const uint64_t *bytes, int n, double ms)
{
    char text[16], time[24];
    printf("%-8s", name);
    for (int i = 0; i < n; i++) printf(" %11s", bytes[i] ? em_format_bytes(text, bytes[i]) : "-");
    printf(" %14s\n", em_format_seconds(time, ms / 1000));
}

static unsigned long long mebibytes(uint64_t bytes)
{
    return (unsigned long long)((bytes + (1 << 20) - 1) >> 20);
}

static void print_table(const em_result *r)
{
    char a[16], b[16], c[24];
    printf("%d frames of %d x %d, seed %lld, at most %d forwards, %.4g TFLOP\n%s\n\n", r->frames,
           r->width, r->height, (long long)r->seed, r->forwards, total_flops(r) / 1e12, r->policy);
    printf("%-8s %11s %11s %11s %11s %11s %14s\n", "", "scratch", "weights", "in files", "copied",
           "converted", "about");
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
        const em_stage_report *g = &r->stage[s];
        const uint64_t row[] = {g->scratch_bytes, g->weights_bytes, g->mapped_bytes,
                                g->copied_bytes, g->packed_bytes};
        print_row(em_stage_name((em_stage)s), row, 5, g->forecast_ms);
    }
    printf("\nblock (scratch and weights)  %s, from %s to %s\n",
           em_format_bytes(a, r->device_bytes), em_format_bytes(b, r->smallest_bytes),
           em_format_bytes(c, r->largest_bytes));
    printf("page-locked                  %s\n", em_format_bytes(a, r->pinned_bytes));
    printf("process in host memory       %s\n", em_format_bytes(a, r->host_bytes));
    printf("voice heard on               %s", r->voice_device);
    if (r->voice_block_bytes)
        printf(", in %s of host memory of its own, %s of files",
               em_format_bytes(a, r->voice_block_bytes), em_format_bytes(b, r->voice_mapped_bytes));
    printf("\n");
    printf("weights there at once        %s\n", em_format_bytes(a, r->weight_bytes));
    printf("time                         %s by %s rates\n",
           em_format_seconds(c, r->forecast_ms / 1000), r->rates_measured ? "measured" : "assumed");
    printf("smallest budgets             --vram_budget %lluM, --ram_budget %lluM\n",
           mebibytes(r->smallest_vram_budget), mebibytes(r->smallest_ram_budget));
}

static void print_number(const char *name, uint64_t v)
{
    printf(" \"%s\": %llu,", name, (unsigned long long)v);
}

static void print_json(const em_result *r)
{
    printf("{\"width\": %d, \"height\": %d, \"frames\": %d, \"seed\": %lld, \"forwards\": %d,\n"
           " \"flops\": %.6g, \"seconds\": %.6g, \"rates\": \"%s\", \"policy\": \"%s\",\n",
           r->width, r->height, r->frames, (long long)r->seed, r->forwards, total_flops(r),
           r->forecast_ms / 1000, r->rates_measured ? "measured" : "assumed", r->policy);
    print_number("block_bytes", r->device_bytes);
    print_number("smallest_block_bytes", r->smallest_bytes);
    print_number("largest_block_bytes", r->largest_bytes);
    print_number("smallest_vram_budget_bytes", r->smallest_vram_budget);
    print_number("smallest_ram_budget_bytes", r->smallest_ram_budget);
    printf("\n");
    print_number("pinned_bytes", r->pinned_bytes);
    print_number("host_bytes", r->host_bytes);
    print_number("scratch_bytes", r->scratch_bytes);
    print_number("weight_bytes", r->weight_bytes);
    print_number("copied_bytes", r->copied_bytes);
    printf("\n \"voice_device\": \"%s\",", r->voice_device);
    print_number("voice_block_bytes", r->voice_block_bytes);
    print_number("voice_scratch_bytes", r->voice_scratch_bytes);
    print_number("voice_mapped_bytes", r->voice_mapped_bytes);
    printf("\n \"stages\": {");
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
        const em_stage_report *g = &r->stage[s];
        printf("%s\n  \"%s\": {", s > EM_STAGE_ENCODE ? "," : "", em_stage_name((em_stage)s));
        print_number("scratch_bytes", g->scratch_bytes);
        print_number("weights_bytes", g->weights_bytes);
        print_number("mapped_bytes", g->mapped_bytes);
        print_number("copied_bytes", g->copied_bytes);
        print_number("packed_bytes", g->packed_bytes);
        printf(" \"flops\": %.6g, \"seconds\": %.6g}", g->flops, g->forecast_ms / 1000);
    }
    printf("}}\n");
}

em_exit em_command_plan(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"model_name", "wav2vec_model_dir", NULL};
    em_err err = {0};
    em_engine *engine = NULL;
    subject s;
    em_result r;
    if (em_command_need(o, flags, t, &err)) return em_command_fail(t, &err, EM_EXIT_USAGE);
    em_status st = em_command_settings(NULL, o, t, &err);
    if (!st) st = em_command_engine(&engine, o, &(em_command_lane){0}, t, &err);
    if (!st) st = read_subject(&s, o, &err);
    o->params.resume_path = ".steps"; /* `run` and `batch` have one */
    if (!st) st = em_plan(engine, &s.picture, &s.sound, &o->params, &r, &err);
    em_engine_close(&engine);
    if (st) return em_command_fail(t, &err, EM_EXIT_NOTHING);
    if (o->json)
        print_json(&r);
    else
        print_table(&r);
    return EM_EXIT_OK;
}
