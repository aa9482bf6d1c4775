/* What the subcommands share: messages, signals, folders, the engine. */
#include "base/alloc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "io/file.h"
#include "io/model_folder.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages -------------------------------------------------------------------------------- */

static void log_text(void *user, em_level level, const char *msg)
{
    static const char *const prefix[] = {"debug: ", "", "warning: ", "error: "};
    const em_options *o = user;
    if (level == EM_LOG_DEBUG || (level == EM_LOG_INFO && o->quiet)) return;
    fprintf(stderr, "%s%s\n", prefix[level], msg);
}

static void log_json(void *user, em_level level, const char *msg)
{
    static const char *const name[] = {"debug", "info", "warning", "error"};
    (void)user;
    json_t *o = json_pack("{s:s, s:s, s:s}", "event", "message", "level", name[level], "text", msg);
    json_dumpf(o, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(o);
}

em_log em_cli_log(em_options *o)
{
    return (em_log){o->log_json ? log_json : log_text, o};
}

/* ---- signals --------------------------------------------------------------------------------- */

/* A handler has no other way to reach them. */
static em_engine *to_cancel;
static atomic_bool interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (atomic_exchange(&interrupted, true)) _exit(EM_EXIT_INTERRUPTED);
    if (to_cancel) em_engine_cancel(to_cancel);
}

void em_cli_catch_signals(em_engine *engine)
{
    struct sigaction act = {.sa_handler = on_signal};
    to_cancel = engine;
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
}

const atomic_bool *em_cli_interrupted(void)
{
    return &interrupted;
}

/* ---- folders --------------------------------------------------------------------------------- */

static char *existing(const char *base, const char *below)
{
    char *path = em_path_join(base, below), *probe = path ? em_path_join(path, "demo-model") : NULL;
    bool there = probe && em_path_is_dir(probe);
    em_free(probe);
    if (there) return path;
    em_free(path);
    return NULL;
}

char *em_cli_share_dir(void)
{
    static const char *const below[] = {"../share/echomimic", "../../../../share"};
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return NULL;
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        char *found = existing(program, below[i]);
        if (found) return found;
    }
    return NULL;
}

/* --demo-model: the folders of the small model; strings are kept by the options. */
static bool use_demo_model(em_options *o, em_command command)
{
    char *share = em_cli_share_dir();
    char *model = share ? em_path_join(share, "demo-model") : NULL;
    char *speech = model ? em_path_join(model, "wav2vec2") : NULL;
    bool ok = speech && em_options_recommend(o, command, "model_name", model) &&
              em_options_recommend(o, command, "wav2vec_model_dir", speech);
    em_free(share);
    em_free(model);
    em_free(speech);
    return ok;
}

/* ---- engine ---------------------------------------------------------------------------------- */

static int missing_flags(const em_options *o)
{
    if (!o->engine.model_name)
        fprintf(stderr, "--model_name is required: the folder of the base model\n");
    if (!o->engine.wav2vec_model_dir)
        fprintf(stderr, "--wav2vec_model_dir is required: the folder of the audio encoder\n");
    return !o->engine.model_name + !o->engine.wav2vec_model_dir;
}

/* Settings that the model's makers recommend, for flags that were not given. */
static em_status recommend(em_options *o, em_command command, em_err *err)
{
    em_model_config *c = NULL;
    em_str said = {0};
    const em_model_source source = {.model_dir = o->engine.model_name,
                                    .config_path = o->engine.config_path,
                                    .transformer_path = o->engine.transformer_path,
                                    .wav2vec_dir = o->engine.wav2vec_model_dir,
                                    .vae_path = o->engine.vae_path,
                                    .ckpt_idx = o->engine.ckpt_idx};
    em_status st = em_model_folder_open(&c, &source, err);
    for (size_t i = 0; !st && i < c->recommended_count; i++) {
        const em_model_setting *s = &c->recommended[i];
        if (em_options_recommend(o, command, s->flag, s->value))
            em_str_printf(&said, " --%s %s", s->flag, s->value);
        else
            fprintf(
                stderr,
                "warning: '%s' recommends '%s: %s', which is not a flag with one of its values\n",
                c->config_path, s->flag, s->value);
    }
    if (said.len && !o->quiet)
        fprintf(stderr, "recommended by the model (flags that you give win):%s\n",
                em_str_text(&said));
    em_str_free(&said);
    em_model_folder_close(&c);
    return st;
}

static void tell_mode(const em_options *o)
{
    static const char *const words[] = {
        [EM_MEMORY_LIGHTWEIGHT] =
            "lightweight, on the CPU: weights are mapped from their files and their pages "
            "given back after use",
        [EM_MEMORY_BEEFY] = "beefy, on the CPU: weights are mapped from their files and stay",
        [EM_MEMORY_AUTO] =
            "auto, on the CPU: as beefy, weights are mapped from their files and stay",
    };
    if (!o->quiet) fprintf(stderr, "memory mode %s\n", words[o->engine.memory_mode]);
}

int em_cli_open_engine(em_engine **out, em_options *o, em_command command)
{
    em_err err = {0};
    if ((o->demo_model || command == EM_CMD_DEMO) && !use_demo_model(o, command)) {
        fprintf(
            stderr,
            "the demo model is not installed beside this program (share/echomimic/demo-model)\n");
        return EM_EXIT_NOTHING;
    }
    if (missing_flags(o)) return EM_EXIT_USAGE;
    if (recommend(o, command, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return EM_EXIT_NOTHING;
    }
    em_options_settle(o);
    em_options_tell_unused(o, stderr);
    tell_mode(o);
    o->engine.log = em_cli_log(o);
    em_status st = em_engine_open(out, &o->engine, &err);
    if (!st) return EM_EXIT_OK;
    fprintf(stderr, "%s\n", err.msg);
    return st == EM_INVAL ? EM_EXIT_USAGE : EM_EXIT_NOTHING;
}
