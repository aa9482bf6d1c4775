#include "base/alloc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "io/audio_in.h"
#include "io/image_in.h"

#include <jansson.h>

static void print_table(const em_result *r)
{
    char bytes[16];
    printf("%d frames of %d x %d, %d forwards at most\n\n%-10s %12s %12s\n", r->frames, r->width,
           r->height, r->forwards, "stage", "scratch", "TFLOP");
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++)
        printf("%-10s %12s %12.3f\n", em_stage_name((em_stage)s),
               em_format_bytes(bytes, r->stage[s].scratch_bytes), r->stage[s].flops / 1e12);
    printf("\nscratch, one block for the whole run: %s\n",
           em_format_bytes(bytes, r->scratch_bytes));
    printf("weights in use at once: %s\n", em_format_bytes(bytes, r->weight_bytes));
}

static void print_json(const em_result *r)
{
    json_t *stages = json_object();
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++)
        json_object_set_new(stages, em_stage_name((em_stage)s),
                            json_pack("{s:I, s:f}", "scratch_bytes",
                                      (json_int_t)r->stage[s].scratch_bytes, "flops",
                                      r->stage[s].flops));
    json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:I, s:I, s:o}", "width", r->width, "height",
                          r->height, "frames", r->frames, "forwards", r->forwards, "scratch_bytes",
                          (json_int_t)r->scratch_bytes, "weight_bytes", (json_int_t)r->weight_bytes,
                          "stages", stages);
    json_dumpf(o, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(o);
}

/* A picture and a sound of the largest sizes that the flags allow, where none is given. */
static em_status read_sizes(const em_options *o, em_picture *p, em_sound *s, em_err *err)
{
    em_image image = {0};
    em_audio audio = {0};
    em_status st = EM_OK;
    *p = (em_picture){.width = o->params.sample_size[1], .height = o->params.sample_size[0]};
    *s = (em_sound){.n = (size_t)o->params.video_length, .rate_hz = o->params.fps};
    if (o->image_path && !(st = em_image_load(&image, o->image_path, EM_IMAGE_UPRIGHT, err)))
        *p = (em_picture){.width = image.width, .height = image.height};
    if (!st && o->audio_path && !(st = em_audio_load(&audio, o->audio_path, NULL, err)))
        *s = (em_sound){.n = audio.n, .rate_hz = audio.rate_hz};
    em_image_free(&image);
    em_audio_free(&audio);
    return st;
}

int em_cmd_plan(em_options *o)
{
    em_err err = {0};
    em_engine *engine = NULL;
    em_picture picture;
    em_sound sound;
    em_result r;
    int code = em_cli_open_engine(&engine, o, EM_CMD_PLAN);
    if (code) return code;
    em_status st = read_sizes(o, &picture, &sound, &err);
    if (!st) st = em_plan(engine, &picture, &sound, &o->params, &r, &err);
    if (st)
        fprintf(stderr, "%s\n", err.msg);
    else if (o->json)
        print_json(&r);
    else
        print_table(&r);
    em_engine_close(&engine);
    return st ? EM_EXIT_SOME_FAILED : EM_EXIT_OK;
}
