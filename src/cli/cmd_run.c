#include "base/alloc.h"
#include "base/str.h"
#include "batch/render.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "io/file.h"

#include <string.h>

/* SAVE_PATH/PICTURE_output.mp4, PICTURE up to its first dot. Owned; NULL when out of memory. */
static char *default_output(const em_options *o)
{
    em_str name = {0};
    const char *base = em_path_base(o->image_path);
    em_str_printf(&name, "%.*s_output.mp4", (int)strcspn(base, "."), base);
    char *path = name.failed ? NULL : em_path_join(o->save_path, em_str_text(&name));
    em_str_free(&name);
    return path;
}

static int refuse(const em_options *o)
{
    if (o->lora_path) fprintf(stderr, "--lora_path: LoRA weights are not supported\n");
    if (o->ulysses_degree > 1 || o->ring_degree > 1)
        fprintf(stderr, "--ulysses_degree, --ring_degree: one device only, 1 is the most\n");
    if (!o->image_path) fprintf(stderr, "--image_path is required: the portrait\n");
    if (!o->audio_path) fprintf(stderr, "--audio_path is required: the voice\n");
    return o->lora_path || o->ulysses_degree > 1 || o->ring_degree > 1 || !o->image_path ||
           !o->audio_path;
}

static int exit_code(em_status st)
{
    switch (st) {
    case EM_OK: return EM_EXIT_OK;
    case EM_CANCELLED: return EM_EXIT_INTERRUPTED;
    case EM_NOSPC: return EM_EXIT_DISK_FULL;
    default: return EM_EXIT_SOME_FAILED;
    }
}

static int render(em_options *o, em_engine *engine, const char *output)
{
    em_err err = {0};
    em_result result;
    bool made = false;
    char took[24];
    em_progress_view v = em_progress_view_open(o);
    const em_log log = em_cli_log(o);
    v.job = em_path_base(output);
    const em_render_job j = {.image_path = o->image_path,
                             .audio_path = o->audio_path,
                             .output_path = output,
                             .params = &o->params,
                             .overwrite = o->force,
                             .progress = em_progress_view_show,
                             .user = &v,
                             .log = &log};
    em_cli_catch_signals(engine);
    em_status st = em_render_run(engine, &j, &result, &made, &err);
    em_cli_catch_signals(NULL);
    if (st) {
        fprintf(stderr, "%s\n", st == EM_CANCELLED ? "interrupted" : err.msg);
        return exit_code(st);
    }
    if (!made) {
        printf("%s is there already; --force makes it anew\n", output);
        return EM_EXIT_OK;
    }
    double ms = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) ms += result.stage[s].ms;
    printf("%s: %d frames of %d x %d, %d forwards, %s\n", output, result.frames, result.width,
           result.height, result.forwards, em_format_seconds(took, ms / 1e3));
    return EM_EXIT_OK;
}

int em_cmd_run(em_options *o)
{
    em_err err = {0};
    em_engine *engine = NULL;
    if (refuse(o)) return EM_EXIT_USAGE;
    char *output = o->output ? em_strdup(o->output) : default_output(o);
    int code = EM_EXIT_NOTHING;
    if (!output)
        fprintf(stderr, "out of memory\n");
    else if (!o->output && em_dir_create(o->save_path, &err))
        fprintf(stderr, "--save_path: %s\n", err.msg);
    else
        code = em_cli_open_engine(&engine, o, o->demo_model ? EM_CMD_DEMO : EM_CMD_RUN);
    if (!code) code = render(o, engine, output);
    em_engine_close(&engine);
    em_free(output);
    return code;
}
