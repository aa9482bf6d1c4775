#include "cli/command.h"

#include "base/alloc.h"
#include "base/thread.h"
#include "cli/interrupt.h"
#include "io/file.h"
#include "ops/table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFERENCE_CONFIG "config/config.yaml" /* where the reference's script looks */

em_exit em_command_fail(em_terminal *t, const em_err *err, em_exit fallback)
{
    em_terminal_say(t, EM_LOG_ERROR, "%s", err->msg);
    if (err->code == EM_NOSPC) return EM_EXIT_DISK_FULL;
    return err->code == EM_CANCELLED ? EM_EXIT_INTERRUPTED : fallback;
}

/* ---- flags that must be there ---------------------------------------------------------------- */

/* DIR/below, if that is a folder. Owned. */
static char *folder_in(const char *dir, const char *below)
{
    char *path = em_path_join(dir, below);
    if (path && em_path_is_dir(path)) return path;
    em_free(path);
    return NULL;
}

/* share/NAME as installed beside the program's own folder, or in the source tree that it was built
 * in; NULL when it is in neither. Owned. */
static char *find_share(const char *name)
{
    static const char *const share[] = {"../share/echomimic", "../../../../share"};
    char program[4096], *found = NULL;
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return NULL;
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < sizeof share / sizeof *share && !found; i++) {
        char *dir = folder_in(program, share[i]);
        found = dir ? folder_in(dir, name) : NULL;
        em_free(dir);
    }
    return found;
}

static em_status use_demo_model(em_options *o, em_err *err)
{
    char *model = find_share("demo-model"), *speech = model ? folder_in(model, "wav2vec2") : NULL;
    em_status st = EM_OK;
    if (!speech)
        st = em_fail(err, EM_IO, "--demo_model: share/echomimic/demo-model is not installed");
    else if (!em_options_keep(o, &o->engine.model_name, model) ||
             !em_options_keep(o, &o->engine.wav2vec_model_dir, speech))
        st = em_fail(err, EM_NOMEM, "no memory for a path");
    em_free(model);
    em_free(speech);
    return st;
}

em_status em_command_need(em_options *o, const char *const *flags, em_terminal *t, em_err *err)
{
    const em_log log = em_terminal_log(t);
    em_problems all = {.log = &log};
    em_err e = {0};
    if (o->demo_model && use_demo_model(o, &e)) em_problems_take(&all, &e);
    if (o->demo_model)
        em_terminal_say(t, EM_LOG_INFO,
                        "The demo model knows one family of drawings (share/portraits): other "
                        "pictures become a moving blur. The prompt has no effect.");
    for (; *flags; flags++)
        if (!em_options_text(o, *flags)) em_problems_add(&all, EM_INVAL, "--%s is needed", *flags);
    return em_problems_end(&all, "the command line", err);
}

/* ---- the model's own settings ---------------------------------------------------------------- */

/* The checkpoint's own config.yaml comes before the reference's, that before the built-in copy. */
static em_status find_config(em_options *o, em_err *err)
{
    if (o->engine.config_path) return EM_OK;
    char *own = em_path_join(o->engine.model_name, "config.yaml");
    if (!own) return em_fail(err, EM_NOMEM, "no memory for a path");
    if (!em_path_is_file(own) && em_path_is_file(REFERENCE_CONFIG))
        o->engine.config_path = REFERENCE_CONFIG;
    em_free(own);
    return EM_OK;
}

em_status em_command_settings(em_model_config **models, em_options *o, em_terminal *t, em_err *err)
{
    const em_log log = em_terminal_log(t);
    em_model_config *model = NULL;
    em_str told = {0};
    const em_ops *ops;
    em_status st = em_ops_open(&ops, o->engine.device, err);
    if (st) return em_err_prefix(err, "--device"), st;
    st = find_config(o, err);
    const em_model_source source = {.model_dir = o->engine.model_name,
                                    .config_path = o->engine.config_path,
                                    .transformer_path = o->engine.transformer_path,
                                    .wav2vec_dir = o->engine.wav2vec_model_dir,
                                    .vae_path = o->engine.vae_path,
                                    .ckpt_idx = o->engine.ckpt_idx};
    if (!st) st = em_model_folder_open(&model, &source, err);
    if (!st) st = em_options_recommend(o, model, &told, &log, err);
    if (!st && told.len)
        em_terminal_say(t, EM_LOG_INFO, "recommended by the model: %s", em_str_text(&told));
    if (!st) st = em_options_finish(o, &log, err);
    em_str_free(&told);
    if (!st && models)
        *models = model;
    else
        em_model_folder_close(&model);
    return st;
}

/* ---- the engine ------------------------------------------------------------------------------ */

static int all_threads(const em_options *o)
{
    return o->engine.threads ? o->engine.threads : em_cpu_count();
}

static void say_mode(const em_options *o, int lanes, em_terminal *t)
{
    char jobs[96] = "";
    static const char lightweight[] = "lightweight: weights come in when a block runs and go "
                                      "afterwards, as far as that costs next to no time";
    static const char *const mode[] = {
        [EM_MEMORY_LIGHTWEIGHT] = lightweight,
        [EM_MEMORY_BEEFY] = "beefy: weights stay in memory once they are there",
        [EM_MEMORY_AUTO] = "auto: as many weights stay in memory as fit",
    };
    static const char *const dtype[] = {"bfloat16", "float16", "float32"};
    if (lanes > 1)
        snprintf(jobs, sizeof jobs,
                 " %d jobs at once, each with a share of the threads and of the memory.", lanes);
    em_terminal_say(t, EM_LOG_INFO, "%s. Device %s, %d threads, %s.%s", mode[o->engine.memory_mode],
                    o->engine.device, all_threads(o), dtype[o->engine.dtype], jobs);
    if (getenv("PYTORCH_CUDA_ALLOC_CONF"))
        em_terminal_say(t, EM_LOG_INFO, "PYTORCH_CUDA_ALLOC_CONF has no effect here.");
}

/* NAME in $XDG_CACHE_HOME/echomimic or ~/.cache/echomimic; NULL: there is no home. Owned. */
static char *in_cache(const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    em_str path = {0};
    char *out = NULL;
    if (cache && *cache == '/')
        em_str_printf(&path, "%s/echomimic/%s", cache, name);
    else if (home && *home == '/')
        em_str_printf(&path, "%s/.cache/echomimic/%s", home, name);
    if (path.len && !path.failed) out = em_strdup(em_str_text(&path));
    em_str_free(&path);
    return out;
}

/* Threads and the report's name of one lane: r.json, r.2.json, … */
static void share_out(em_engine_params *p, const em_options *o, em_str *report)
{
    const char *path = p->memory_report_path;
    if (p->lanes > 1) {
        int threads = all_threads(o), n = threads / p->lanes + (p->lane < threads % p->lanes);
        p->threads = n ? n : 1;
    }
    if (!path || !p->lane) return;
    size_t stem = strlen(path);
    if (stem > 5 && !strcmp(path + stem - 5, ".json")) stem -= 5;
    em_str_printf(report, "%.*s.%d%s", (int)stem, path, p->lane + 1, path + stem);
    p->memory_report_path = em_str_text(report);
}

em_status em_command_engine(em_engine **out, const em_options *o, const em_command_lane *at,
                            em_terminal *t, em_err *err)
{
    em_engine_params p = o->engine;
    em_str report = {0};
    char *rates = in_cache("rates.json");
    char *prompts = at->prompt_key ? in_cache("prompts") : NULL;
    p.rates_path = rates;
    p.log = at->log ? *at->log : em_terminal_log(t);
    p.prompt_dir = prompts;
    p.prompt_key = at->prompt_key;
    p.lane = at->lane;
    p.lanes = at->lanes ? at->lanes : o->parallel_jobs;
    share_out(&p, o, &report);
    if (!p.lane) say_mode(o, p.lanes, t);
    em_status st = report.failed ? em_fail(err, EM_NOMEM, "no memory for a path")
                                 : em_engine_open(out, &p, err);
    em_free(rates);
    if (!st) em_interrupt_watch(*out);
    em_free(prompts);
    em_str_free(&report);
    return st;
}

/* ---- demo ------------------------------------------------------------------------------------ */

/* *to, where nobody gave it, becomes share/FOLDER/FILE. */
static em_status from_share(em_options *o, const char **to, const char *folder, const char *file,
                            em_err *err)
{
    if (*to && **to) return EM_OK;
    char *dir = find_share(folder), *path = dir ? em_path_join(dir, file) : NULL;
    em_status st = EM_OK;
    if (!path || !em_path_is_file(path))
        st = em_fail(err, EM_IO, "share/echomimic/%s/%s is not installed", folder, file);
    else if (!em_options_keep(o, to, path))
        st = em_fail(err, EM_NOMEM, "no memory for a path");
    em_free(dir);
    em_free(path);
    return st;
}

em_exit em_command_demo(em_options *o, em_terminal *t)
{
    em_err err = {0};
    o->demo_model = true;
    em_status st = from_share(o, &o->image_path, "portraits", "ada.png", &err);
    if (!st) st = from_share(o, &o->audio_path, "voices", "linda.wav", &err);
    return st ? em_command_fail(t, &err, EM_EXIT_NOTHING) : em_command_run(o, t);
}
