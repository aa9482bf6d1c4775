#include "cli/options.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/str.h"
#include "io/yaml.h"
#include "pipeline/params.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum kind {
    TEXT,
    INT,
    INT64,
    DOUBLE,
    SWITCH, /* no value: sets a bool */
    CHOICE, /* one of `choices`, by index, into an int or an enum */
    SIZE,   /* two ints: height, width */
    UNUSED, /* accepted with a value, has no effect */
    UNUSED_SWITCH,
} kind;

typedef struct option {
    const char *name; /* with _; - is the same */
    const char *arg;  /* what --help calls the value */
    kind kind;
    unsigned commands;
    size_t offset;
    const char *help;
    const char *choices;  /* "a|b|c" */
    const char *fallback; /* for --help, where it is not plain */
} option;

enum {
    MAKE = EM_CMD_BATCH | EM_CMD_RUN | EM_CMD_DEMO, /* commands that make videos */
    LOAD = MAKE | EM_CMD_PLAN,                      /* … or ask what that would take */
    ALL = LOAD | EM_CMD_INSPECT | EM_CMD_SYNTH,
};

#define AT(field) offsetof(em_options, field)

static const option table[] = {
    {"json_path", "FILE", TEXT, EM_CMD_BATCH, AT(json_path), "the job list", NULL, "required"},
    {"image_path", "FILE", TEXT, EM_CMD_RUN | EM_CMD_PLAN | EM_CMD_DEMO, AT(image_path),
     "the portrait", NULL, NULL},
    {"image", "FILE", TEXT, EM_CMD_RUN | EM_CMD_PLAN | EM_CMD_DEMO, AT(image_path), "the same",
     NULL, NULL},
    {"audio_path", "FILE", TEXT, EM_CMD_RUN | EM_CMD_PLAN | EM_CMD_DEMO, AT(audio_path),
     "the voice", NULL, NULL},
    {"audio", "FILE", TEXT, EM_CMD_RUN | EM_CMD_PLAN | EM_CMD_DEMO, AT(audio_path), "the same",
     NULL, NULL},
    {"output", "FILE", TEXT, EM_CMD_RUN | EM_CMD_DEMO, AT(output), "the video", NULL,
     "SAVE_PATH/PICTURE_output.mp4"},
    {"save_path", "DIR", TEXT, MAKE, AT(save_path), "where videos and the report go", NULL,
     "outputs"},
    {"demo_model", NULL, SWITCH, EM_CMD_RUN | EM_CMD_BATCH | EM_CMD_PLAN, AT(demo_model),
     "use the small model that comes with the program", NULL, NULL},
    {"model_name", "DIR", TEXT, LOAD, AT(engine.model_name),
     "folder of the base model: VAE, UMT5, CLIP, tokenizer, transformer", NULL, "required"},
    {"transformer_path", "FILE", TEXT, LOAD, AT(engine.transformer_path),
     "Flash transformer, laid over the base one", NULL, "none"},
    {"wav2vec_model_dir", "DIR", TEXT, LOAD, AT(engine.wav2vec_model_dir),
     "folder of the audio encoder", NULL, "required"},
    {"config_path", "FILE", TEXT, LOAD, AT(engine.config_path), "config.yaml of the model", NULL,
     "MODEL_NAME/config.yaml, else built in"},
    {"vae_path", "FILE", TEXT, EM_CMD_RUN | EM_CMD_PLAN, AT(engine.vae_path), "another VAE", NULL,
     "as configured"},
    {"ckpt_idx", "N", INT, EM_CMD_RUN | EM_CMD_PLAN, AT(engine.ckpt_idx),
     "checkpoint-N.pth of a --transformer_path folder", NULL, "50000"},
    {"prompt", "TEXT", TEXT, LOAD, AT(params.prompt), "what the video shows", NULL, NULL},
    {"sampler_name", "NAME", CHOICE, LOAD, AT(params.sampler), "solver",
     "Flow_Unipc|Flow_DPM++|Flow", NULL},
    {"video_length", "N", INT, LOAD, AT(params.video_length), "frames at most", NULL, NULL},
    {"num_inference_steps", "N", INT, LOAD, AT(params.num_inference_steps), "denoising steps", NULL,
     NULL},
    {"guidance_scale", "X", DOUBLE, LOAD, AT(params.guidance_scale),
     "above 1: a second, silent branch guides; the value has no other effect", NULL, NULL},
    {"audio_guidance_scale", "X", DOUBLE, LOAD, AT(params.audio_guidance_scale),
     "how strongly the voice drives the picture", NULL, NULL},
    {"cfg_skip_ratio", "X", DOUBLE, LOAD, AT(params.cfg_skip_ratio),
     "this last part of the steps runs the audio branch alone", NULL, NULL},
    {"seed", "N", INT64, LOAD, AT(params.seed), "of the noise, for every job without its own", NULL,
     NULL},
    {"shift", "X", DOUBLE, LOAD, AT(params.shift), "of the noise schedule", NULL, "5.0"},
    {"rng", "KIND", CHOICE, LOAD, AT(params.rng),
     "whose noise a seed means: PyTorch on a GPU or a CPU", "cuda|cpu", NULL},
    {"rng_sm_count", "N", INT, LOAD, AT(params.rng_sm_count), "multiprocessors of that GPU", NULL,
     NULL},
    {"rng_threads_per_sm", "N", INT, LOAD, AT(params.rng_threads_per_sm), "and threads on each",
     NULL, NULL},
    {"sample_size", "H W", SIZE, LOAD, AT(params.sample_size), "bounds the picture's area", NULL,
     "512 512"},
    {"fps", "N", INT, LOAD, AT(params.fps), "frames a second", NULL, NULL},
    {"crf", "N", INT, MAKE, AT(params.crf), "H.264 quality, smaller is better", NULL, NULL},
    {"color_transfer", "on|off", CHOICE, LOAD, AT(color_transfer), "hold the first frame's colours",
     "off|on", "on"},
    {"enable_teacache", NULL, SWITCH, LOAD, AT(teacache_on),
     "reuse what hardly changes (the default)", NULL, NULL},
    {"no_teacache", NULL, SWITCH, LOAD, AT(no_teacache), "compute every forward", NULL, NULL},
    {"teacache_threshold", "X", DOUBLE, LOAD, AT(params.teacache_threshold), "larger reuses more",
     NULL, NULL},
    {"num_skip_start_steps", "N", INT, LOAD, AT(params.num_skip_start_steps),
     "steps that always compute", NULL, NULL},
    {"teacache_mode", "MODE", CHOICE, LOAD, AT(teacache_mode),
     "branch: one decision a step; reference: as upstream counts", "branch|reference", "branch"},
    {"teacache_offload", NULL, UNUSED_SWITCH, LOAD, 0,
     "residuals are in host memory on a CPU anyway", NULL, NULL},
    {"enable_riflex", NULL, SWITCH, LOAD, AT(enable_riflex), "RIFLEx, for long videos", NULL, NULL},
    {"riflex_k", "N", INT, LOAD, AT(riflex_k), "its frequency", NULL, "6"},
    {"weight_dtype", "TYPE", CHOICE, LOAD, AT(engine.dtype), "operands of matrix products",
     "bfloat16|float16|float32", NULL},
    {"device", "NAME", TEXT, LOAD, AT(engine.device), "auto, cpu, or ref (slow reference loops)",
     NULL, "auto"},
    {"memory_mode", "MODE", CHOICE, LOAD, AT(engine.memory_mode),
     "lightweight gives a weight's pages back after use, beefy keeps them; auto is beefy on a CPU",
     "lightweight|beefy|auto", NULL},
    {"threads", "N", INT, ALL & ~EM_CMD_INSPECT, AT(engine.threads),
     "0: every core; results do not depend on it", NULL, NULL},
    {"temp_dir", "DIR", TEXT, EM_CMD_BATCH, AT(temp_dir), "where downloads go", NULL,
     "the system's"},
    {"keep_temp", NULL, SWITCH, EM_CMD_BATCH, AT(keep_temp), "keep downloads", NULL, NULL},
    {"skip_invalid", NULL, SWITCH, EM_CMD_BATCH, AT(skip_invalid),
     "run the good items of a faulty list", NULL, NULL},
    {"dry_run", NULL, SWITCH, EM_CMD_BATCH, AT(dry_run), "check the list, print the jobs, stop",
     NULL, NULL},
    {"force", NULL, SWITCH, MAKE, AT(force), "make videos anew that are there already", NULL, NULL},
    {"config", "FILE", TEXT, LOAD, AT(config), "YAML file of flags; the command line wins", NULL,
     NULL},
    {"quiet", NULL, SWITCH, ALL, AT(quiet), "no progress", NULL, NULL},
    {"log_json", NULL, SWITCH, LOAD, AT(log_json),
     "progress and messages as JSON lines on standard error", NULL, NULL},
    {"json", NULL, SWITCH, EM_CMD_PLAN, AT(json), "print JSON", NULL, NULL},
    {"size", "NAME", TEXT, EM_CMD_SYNTH, AT(size), "tiny, full, or a JSON file of sizes", NULL,
     "tiny"},
    {"seed", "N", INT64, EM_CMD_SYNTH, AT(synth_seed), "of the weights", NULL, "1"},
    {"out", "DIR", TEXT, EM_CMD_SYNTH, AT(out), "where the checkpoint goes", NULL, "required"},
    {"with_base", NULL, SWITCH, EM_CMD_SYNTH, AT(with_base),
     "write the base folder's own transformer too", NULL, NULL},
    {"negative_prompt", "TEXT", UNUSED, LOAD, 0, "this model ignores it", NULL, NULL},
    {"audio_scale", "X", UNUSED, LOAD, 0, "no effect in this model", NULL, NULL},
    {"neg_scale", "X", UNUSED, LOAD, 0, "no effect in this model", NULL, NULL},
    {"neg_steps", "N", UNUSED, LOAD, 0, "no effect in this model", NULL, NULL},
    {"use_dynamic_cfg", NULL, UNUSED_SWITCH, LOAD, 0, "no effect in this model", NULL, NULL},
    {"use_dynamic_acfg", NULL, UNUSED_SWITCH, LOAD, 0, "no effect in this model", NULL, NULL},
    {"use_un_ip_mask", NULL, UNUSED_SWITCH, LOAD, 0, "no effect in this model", NULL, NULL},
    {"add_prompt", "TEXT", UNUSED, EM_CMD_RUN, 0, "no effect here", NULL, NULL},
    {"mouth_prompts", "TEXT", UNUSED, EM_CMD_RUN, 0, "no effect here", NULL, NULL},
    {"fsdp_dit", NULL, UNUSED_SWITCH, EM_CMD_RUN, 0, "no effect here", NULL, NULL},
    {"GPU_memory_mode", "MODE", UNUSED, EM_CMD_RUN, 0, "--memory_mode takes its place", NULL, NULL},
    {"lora_path", "FILE", TEXT, EM_CMD_RUN, AT(lora_path), "not supported: refused", NULL, NULL},
    {"ulysses_degree", "N", INT, EM_CMD_RUN, AT(ulysses_degree),
     "above 1: refused, one device only", NULL, NULL},
    {"ring_degree", "N", INT, EM_CMD_RUN, AT(ring_degree), "above 1: refused, one device only",
     NULL, NULL},
    {"help", NULL, SWITCH, ALL, AT(help), "this text", NULL, NULL},
};

enum { ROWS = sizeof table / sizeof *table };

static bool takes_value(const option *p)
{
    return p->kind != SWITCH && p->kind != UNUSED_SWITCH;
}

/* ---- looking up ------------------------------------------------------------------------------ */

/* Equal when _ and - count as one; n characters of flag. */
static bool same_flag(const char *name, const char *flag, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = flag[i] == '-' ? '_' : flag[i];
        if (!name[i] || name[i] != c) return false;
    }
    return !name[n];
}

static const option *find(em_command command, const char *flag, size_t n)
{
    for (int i = 0; i < ROWS; i++)
        if ((table[i].commands & (unsigned)command) && same_flag(table[i].name, flag, n))
            return &table[i];
    return NULL;
}

/* Levenshtein distance, for words of a flag's length. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 64 };
    int row[MOST + 1], n = (int)strlen(b);
    if (n > MOST) return MOST;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int up = row[j], best = diagonal + ((a[i - 1] == '-' ? '_' : a[i - 1]) != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[n];
}

static const char *nearest(em_command command, const char *flag)
{
    const char *best = NULL;
    int least = 4;
    for (int i = 0; i < ROWS; i++) {
        int d = table[i].commands & (unsigned)command ? distance(flag, table[i].name) : least;
        if (d >= least) continue;
        least = d;
        best = table[i].name;
    }
    return best;
}

/* ---- setting --------------------------------------------------------------------------------- */

/* Fills *why (at least 160 bytes) and returns false when the value is not one of the flag's. */
static bool in_range(const option *p, double v, char why[160])
{
    double least, most;
    bool known = em_params_range(p->name, &least, &most);
    if (!strcmp(p->name, "threads")) known = true, least = 0, most = 1024;
    if (!known || (v >= least && v <= most)) return true;
    snprintf(why, 160, "it must be between %.15g and %.15g", least, most);
    return false;
}

static bool set_int(const option *p, void *to, const char *text, char why[160])
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    snprintf(why, 160, "it must be a whole number");
    if (end == text || *end || errno) return false;
    if (!in_range(p, (double)v, why)) return false;
    if (p->kind == INT64) {
        *(int64_t *)to = v;
        return true;
    }
    if (v < -1000000000 || v > 1000000000) return false;
    *(int *)to = (int)v;
    return true;
}

static bool set_double(const option *p, void *to, const char *text, char why[160])
{
    char *end;
    double v = strtod(text, &end);
    snprintf(why, 160, "it must be a number");
    if (end == text || *end || !isfinite(v) || !in_range(p, v, why)) return false;
    *(double *)to = v;
    return true;
}

static bool set_choice(const option *p, void *to, const char *text, char why[160])
{
    int index = 0;
    size_t n = strlen(text);
    for (const char *c = p->choices; *c; index++) {
        size_t len = strcspn(c, "|");
        if (len == n && !strncasecmp(c, text, n)) {
            *(int *)to = index;
            return true;
        }
        c += len + (c[len] == '|');
    }
    snprintf(why, 160, "it must be one of %s", p->choices);
    return false;
}

/* "512 512" */
static bool set_size(const option *p, void *to, const char *text, char why[160])
{
    char first[32], second[32], rest;
    option one = *p;
    int v[2];
    one.kind = INT;
    snprintf(why, 160, "it must be two numbers: height and width");
    if (sscanf(text, " %31s %31s %c", first, second, &rest) != 2) return false;
    if (!set_int(&one, &v[0], first, why) || !set_int(&one, &v[1], second, why)) return false;
    memcpy(to, v, sizeof v);
    return true;
}

static bool set(em_options *o, const option *p, const char *value, char why[160])
{
    void *to = (char *)o + p->offset;
    bool ok = true;
    switch (p->kind) {
    case TEXT: *(const char **)to = value; break;
    case INT:
    case INT64: ok = set_int(p, to, value, why); break;
    case DOUBLE: ok = set_double(p, to, value, why); break;
    case CHOICE: ok = set_choice(p, to, value, why); break;
    case SIZE: ok = set_size(p, to, value, why); break;
    case SWITCH: *(bool *)to = true; break;
    case UNUSED:
    case UNUSED_SWITCH: break;
    }
    return ok;
}

/* A copy that lives as long as the options; NULL when out of memory. */
static const char *keep(em_options *o, const char *text)
{
    char *copy = em_strdup(text);
    if (copy && EM_PUSH(o->owned, o->n_owned, o->cap_owned, copy)) return copy;
    em_free(copy);
    return NULL;
}

bool em_options_recommend(em_options *o, em_command command, const char *flag, const char *value)
{
    char why[160];
    const option *p = find(command, flag, strlen(flag));
    if (!p) return false;
    if (o->given[p - table]) return true;
    if (!takes_value(p) && !strcasecmp(value, "false")) return true;
    const char *copy = keep(o, value);
    if (!copy || !set(o, p, copy, why)) return false;
    o->given[p - table] = 1;
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* One argument and what follows it; returns how many were used, 0 after a complaint about one. */
static int read_flag(em_options *o, em_command command, int argc, char **argv, FILE *to)
{
    char why[160] = "", joined[96];
    const char *flag = argv[0] + 2, *equals = strchr(flag, '=');
    size_t n = equals ? (size_t)(equals - flag) : strlen(flag);
    const option *p = find(command, flag, n);
    if (!p) {
        const char *near = nearest(command, flag);
        fprintf(to, "unknown flag %s%s%s%s\n", argv[0], near ? ": did you mean --" : "",
                near ? near : "", near ? "?" : "; --help lists them");
        return 0;
    }
    int used = 1;
    const char *value = equals ? equals + 1 : NULL;
    if (takes_value(p) && !value) {
        if (argc < 2) return fprintf(to, "--%s needs a value: %s\n", p->name, p->arg), 0;
        value = argv[used++];
    }
    if (p->kind == SIZE && !strchr(value, ' ') && used < argc) {
        snprintf(joined, sizeof joined, "%s %s", value, argv[used++]);
        value = joined;
    }
    if (!takes_value(p) && equals) return fprintf(to, "--%s takes no value\n", p->name), 0;
    if (!set(o, p, value, why)) return fprintf(to, "--%s %s: %s\n", p->name, value, why), 0;
    o->given[p - table] = 1;
    return used;
}

/* A value of a YAML file as the command line would spell it. */
static void value_text(em_str *out, const json_t *v)
{
    size_t i;
    json_t *item;
    if (json_is_string(v)) em_str_printf(out, "%s", json_string_value(v));
    if (json_is_integer(v)) em_str_printf(out, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) em_str_printf(out, "%.17g", json_real_value(v));
    if (json_is_boolean(v)) em_str_printf(out, "%s", json_is_true(v) ? "true" : "false");
    json_array_foreach(v, i, item)
    {
        if (i) em_str_printf(out, " ");
        value_text(out, item);
    }
}

static int read_config(em_options *o, em_command command, FILE *to)
{
    em_err err = {0};
    json_t *doc = NULL, *v;
    const char *key;
    int problems = 0;
    if (em_yaml_load(&doc, o->config, &err)) return fprintf(to, "--config: %s\n", err.msg), 1;
    json_object_foreach(doc, key, v)
    {
        em_str text = {0};
        value_text(&text, v);
        if (!em_options_recommend(o, command, key, em_str_text(&text))) {
            fprintf(
                to,
                "--config '%s': '%s: %s' is not a flag of this command with one of its values\n",
                o->config, key, em_str_text(&text));
            problems++;
        }
        em_str_free(&text);
    }
    json_decref(doc);
    return problems;
}

static em_options defaults(void)
{
    return (em_options){.engine = em_engine_params_default(),
                        .params = em_params_default(),
                        .save_path = "outputs",
                        .size = "tiny",
                        .synth_seed = 1,
                        .color_transfer = 1,
                        .riflex_k = 6};
}

int em_options_read(em_options *o, em_command command, int argc, char **argv, FILE *to)
{
    int problems = 0;
    *o = defaults();
    o->given = em_alloc(ROWS);
    if (!o->given) return fprintf(to, "out of memory\n"), 1;
    for (int i = 0; i < argc;) {
        int used = 1;
        if (!strncmp(argv[i], "--", 2) && argv[i][2])
            used = read_flag(o, command, argc - i, argv + i, to);
        else if (!strcmp(argv[i], "-h"))
            o->help = true;
        else if (command == EM_CMD_INSPECT && !o->path)
            o->path = argv[i];
        else
            used = fprintf(to, "what is '%s'? Flags begin with --\n", argv[i]) < 0;
        problems += used < 1;
        i += used < 1 ? 1 : used;
    }
    if (o->config && !problems) problems += read_config(o, command, to);
    return problems;
}

void em_options_settle(em_options *o)
{
    bool on = !o->no_teacache;
    o->params.teacache = !on                     ? EM_TEACACHE_OFF
                         : o->teacache_mode == 1 ? EM_TEACACHE_REFERENCE
                                                 : EM_TEACACHE_BRANCH;
    o->params.riflex_k = o->enable_riflex ? o->riflex_k : 0;
    o->params.color_transfer = o->color_transfer == 1;
}

void em_options_close(em_options *o)
{
    for (size_t i = 0; i < o->n_owned; i++) em_free(o->owned[i]);
    em_free(o->owned);
    em_free(o->given);
    *o = (em_options){0};
}

void em_options_tell_unused(const em_options *o, FILE *to)
{
    for (int i = 0; i < ROWS; i++)
        if (o->given[i] && (table[i].kind == UNUSED || table[i].kind == UNUSED_SWITCH))
            fprintf(to, "--%s is accepted: %s\n", table[i].name, table[i].help);
}

/* ---- help ------------------------------------------------------------------------------------ */

static void fallback_text(char out[64], const option *p)
{
    em_options o = defaults();
    const void *at = (const char *)&o + p->offset;
    out[0] = 0;
    if (p->fallback) {
        snprintf(out, 64, "%s", p->fallback);
        return;
    }
    switch (p->kind) {
    case INT: snprintf(out, 64, "%d", *(const int *)at); break;
    case INT64: snprintf(out, 64, "%lld", (long long)*(const int64_t *)at); break;
    case DOUBLE: snprintf(out, 64, "%g", *(const double *)at); break;
    case CHOICE: snprintf(out, 64, "%.*s", (int)strcspn(p->choices, "|"), p->choices); break;
    default: break;
    }
}

void em_options_help(em_command command, FILE *to)
{
    for (int i = 0; i < ROWS; i++) {
        const option *p = &table[i];
        char flag[64], fallback[64];
        double least, most;
        if (!(p->commands & (unsigned)command)) continue;
        snprintf(flag, sizeof flag, "--%s%s%s", p->name, p->arg ? " " : "", p->arg ? p->arg : "");
        fprintf(to, "  %-32s %s", flag, p->help);
        if (p->choices && p->kind == CHOICE) fprintf(to, " (%s)", p->choices);
        if (em_params_range(p->name, &least, &most) && takes_value(p))
            fprintf(to, " [%.15g to %.15g]", least, most);
        fallback_text(fallback, p);
        if (*fallback) fprintf(to, "; default %s", fallback);
        fputc('\n', to);
    }
}
