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

static void print_table(const em_result *r)
{
    char bytes[16];
    printf("%d frames of %d x %d, seed %lld\n\n", r->frames, r->width, r->height,
           (long long)r->seed);
    printf("%-8s %12s %12s\n", "stage", "scratch", "TFLOP");
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        printf("%-8s %12s %12.4f\n", em_stage_name((em_stage)s),
               em_format_bytes(bytes, r->stage[s].scratch_bytes), r->stage[s].flops / 1e12);
    printf("%-8s %12s %12.4f\n\n", "all", em_format_bytes(bytes, r->scratch_bytes),
           total_flops(r) / 1e12);
    printf("weights in use at once: %s\n", em_format_bytes(bytes, r->weight_bytes));
    printf("together:               %s\n",
           em_format_bytes(bytes, r->weight_bytes + r->scratch_bytes));
}

static void print_json(const em_result *r)
{
    printf("{\"width\": %d, \"height\": %d, \"frames\": %d, \"seed\": %lld,\n"
           " \"scratch_bytes\": %llu, \"weight_bytes\": %llu, \"flops\": %.6g,\n \"stages\": {",
           r->width, r->height, r->frames, (long long)r->seed, (unsigned long long)r->scratch_bytes,
           (unsigned long long)r->weight_bytes, total_flops(r));
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        printf("%s\n  \"%s\": {\"scratch_bytes\": %llu, \"flops\": %.6g}", s ? "," : "",
               em_stage_name((em_stage)s), (unsigned long long)r->stage[s].scratch_bytes,
               r->stage[s].flops);
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
    if (!st) st = em_command_engine(&engine, o, NULL, NULL, t, &err);
    if (!st) st = read_subject(&s, o, &err);
    if (!st) st = em_plan(engine, &s.picture, &s.sound, &o->params, &r, &err);
    em_engine_close(&engine);
    if (st) return em_command_fail(t, &err, EM_EXIT_NOTHING);
    if (o->json)
        print_json(&r);
    else
        print_table(&r);
    return EM_EXIT_OK;
}
