#include "cli/options.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/json.h"
#include "io/yaml.h"
#include "pipeline/params.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- the table ------------------------------------------------------------------------------- */

typedef enum kind {
    SWITCH,     /* bool, on when named */
    SWITCH_OFF, /* bool, off when named */
    TEXT,
    INT,
    INT64,
    REAL,
    CHOICE, /* an enum, by a word of `choices` */
    SIZE,   /* int[2]: two numbers */
    BYTES,  /* uint64_t: a number and K, M or G */
    SHARE,  /* int[2]: "i/n" */
    LIST,   /* em_texts: one or more, also by naming the flag again */
} kind;

typedef struct choice {
    const char *word; /* NULL ends a list */
    int value;
} choice;

static const choice samplers[] = {{"Flow_Unipc", EM_SAMPLER_UNIPC},
                                  {"Flow_DPM++", EM_SAMPLER_DPMPP},
                                  {"Flow", EM_SAMPLER_EULER},
                                  {0}};
static const choice dtypes[] = {{"bfloat16", EM_WEIGHT_BFLOAT16},
                                {"float16", EM_WEIGHT_FLOAT16},
                                {"float32", EM_WEIGHT_FLOAT32},
                                {0}};
static const choice memory_modes[] = {{"lightweight", EM_MEMORY_LIGHTWEIGHT},
                                      {"beefy", EM_MEMORY_BEEFY},
                                      {"auto", EM_MEMORY_AUTO},
                                      {0}};
static const choice audio_devices[] = {{"auto", EM_AUDIO_DEVICE_AUTO},
                                       {"cpu", EM_AUDIO_DEVICE_CPU},
                                       {"device", EM_AUDIO_DEVICE_DEVICE},
                                       {0}};
static const choice teacache_modes[] = {{"branch", EM_TEACACHE_BRANCH},
                                        {"reference", EM_TEACACHE_REFERENCE},
                                        {0}};
static const choice formats[] = {{"safetensors", 0}, {"pth", 1}, {0}};
static const choice rngs[] = {{"cuda", EM_RNG_CUDA}, {"cpu", EM_RNG_CPU}, {0}};

typedef enum effect {
    ACTS,
    INERT,  /* taken, has no effect in this model or here: said once */
    HIDDEN, /* acts; an old spelling that --help does not list */
} effect;

typedef struct option {
    const char *name;
    kind kind;
    size_t offset; /* in em_options */
    unsigned commands;
    const char *argument; /* its name in --help */
    const char *help;
    const choice *choices;
    double least, most;   /* equal: em_params_range knows, if there is one */
    const char *fallback; /* the default in --help, where em_options_open's value does not say it */
    effect effect;
} option;

/* What a row says beyond this is named: .choices, .least, .most, .effect. */
#define OPT(row_name, row_kind, field, row_commands, row_argument, row_help, ...)                  \
    {                                                                                              \
        .name = row_name, .kind = row_kind, .offset = offsetof(em_options, field),                 \
        .commands = row_commands, .argument = row_argument, .help = row_help, __VA_ARGS__          \
    }
#define JOB (EM_COMMAND_BATCH | EM_COMMAND_RUN | EM_COMMAND_PLAN)
#define MAKE (EM_COMMAND_BATCH | EM_COMMAND_RUN)
#define ALL (JOB | EM_COMMAND_INSPECT | EM_COMMAND_SYNTH)
#define ONE (EM_COMMAND_RUN | EM_COMMAND_PLAN)

/* In the order of --help. */
static const option table[] = {
    OPT("json_path", TEXT, json_path, EM_COMMAND_BATCH, "FILE", "the job list",
        .fallback = "required"),
    OPT("image_path", TEXT, image_path, ONE, "FILE", "the portrait: JPEG, PNG or WebP"),
    OPT("image", TEXT, image_path, ONE, "FILE", "the same", .effect = HIDDEN),
    OPT("audio_path", TEXT, audio_path, ONE, "FILE", "the voice: WAV, MP3, FLAC, Ogg, M4A"),
    OPT("audio", TEXT, audio_path, ONE, "FILE", "the same", .effect = HIDDEN),
    OPT("output", TEXT, output, EM_COMMAND_RUN, "FILE", "the video",
        .fallback = "SAVE_PATH/PICTURE_output.mp4"),
    OPT("save_path", TEXT, save_path, MAKE, "DIR", "folder of the videos"),

    OPT("demo_model", SWITCH, demo_model, JOB, NULL,
        "use the small trained model that comes with the program"),
    OPT("model_name", TEXT, engine.model_name, JOB, "DIR",
        "base model: VAE, UMT5, CLIP, tokenizer, config.json", .fallback = "required"),
    OPT("transformer_path", TEXT, engine.transformer_path, JOB, "FILE",
        "Flash transformer, laid over the base model's", .fallback = "none"),
    OPT("wav2vec_model_dir", TEXT, engine.wav2vec_model_dir, JOB, "DIR", "audio encoder",
        .fallback = "required"),
    OPT("config_path", TEXT, engine.config_path, JOB, "FILE", "config.yaml of the checkpoint",
        .fallback = "the model's own, config/config.yaml, or a built-in copy"),
    OPT("vae_path", TEXT, engine.vae_path, JOB, "FILE", "instead of the configured VAE"),
    OPT("ckpt_idx", INT, engine.ckpt_idx, JOB, "N",
        "which checkpoint of a --transformer_path folder", .most = 1e9, .fallback = "50000"),

    OPT("prompt", TEXT, params.prompt, JOB, "TEXT", "what the speaker does"),
    OPT("negative_prompt", TEXT, unused, JOB, "TEXT", "without effect in this model",
        .effect = INERT),
    OPT("sampler_name", CHOICE, params.sampler, JOB, "NAME", "solver", .choices = samplers),
    OPT("num_inference_steps", INT, params.num_inference_steps, JOB, "N", "steps"),
    OPT("guidance_scale", REAL, params.guidance_scale, JOB, "X",
        "above 1: two branches, with and without the voice"),
    OPT("audio_guidance_scale", REAL, params.audio_guidance_scale, JOB, "X",
        "how much the voice leads"),
    OPT("cfg_skip_ratio", REAL, params.cfg_skip_ratio, JOB, "X",
        "last part of the steps that runs one branch"),
    OPT("shift", REAL, params.shift, JOB, "X", "of the noise schedule", .fallback = "5"),
    OPT("seed", INT64, params.seed, JOB, "N", "of every job without its own"),
    OPT("rng", CHOICE, params.rng, JOB, "NAME", "whose noise a seed means", .choices = rngs),
    OPT("rng_sm_count", INT, params.rng_sm_count, JOB, "N", "multiprocessors of that GPU"),
    OPT("rng_threads_per_sm", INT, params.rng_threads_per_sm, JOB, "N", "and threads on each"),
    OPT("video_length", INT, params.video_length, JOB, "N", "frames at most"),
    OPT("sample_size", SIZE, params.sample_size, JOB, "H W", "bound on the area"),
    OPT("fps", INT, params.fps, JOB, "N", "frames a second"),
    OPT("enable_teacache", SWITCH, teacache, JOB, NULL, "skip forwards that change little"),
    OPT("no_teacache", SWITCH_OFF, teacache, JOB, NULL, "do not"),
    OPT("teacache_mode", CHOICE, params.teacache, JOB, "NAME",
        "a memory a branch, or the reference's single one", .choices = teacache_modes),
    OPT("teacache_threshold", REAL, params.teacache_threshold, JOB, "X", "how little"),
    OPT("num_skip_start_steps", INT, params.num_skip_start_steps, JOB, "N",
        "steps at first that always run"),
    OPT("teacache_offload", SWITCH, params.teacache_offload, JOB, NULL,
        "what is kept for that in host memory, not the device's"),
    OPT("enable_riflex", SWITCH, riflex, JOB, NULL, "stretch time for long clips"),
    OPT("riflex_k", INT, params.riflex_k, JOB, "N", "which frequency is stretched", .least = 1,
        .most = 22, .fallback = "6"),
    OPT("color_transfer", SWITCH, params.color_transfer, JOB, NULL,
        "every frame takes the first one's colours; --color_transfer off: it does not"),
    OPT("crf", INT, params.crf, JOB, "N", "H.264 quality, lower is better"),

    OPT("weight_dtype", CHOICE, engine.dtype, JOB, "NAME", "type of matrix products",
        .choices = dtypes),
    OPT("memory_mode", CHOICE, engine.memory_mode, JOB, "NAME",
        "least memory, everything in memory, or what fits", .choices = memory_modes),
    OPT("vram_budget", BYTES, engine.vram_budget_bytes, JOB, "SIZE",
        "of the device's memory, never exceeded: 6G, 512M", .fallback = "all that is free"),
    OPT("ram_budget", BYTES, engine.ram_budget_bytes, JOB, "SIZE",
        "of the host's memory, for everything", .fallback = "all that is free"),
    OPT("memory_report", TEXT, engine.memory_report_path, MAKE, "FILE",
        "what was planned and used, as JSON; a drawing of it beside it", .fallback = "none"),
    OPT("device", TEXT, engine.device, JOB, "NAME",
        "auto: a GPU if there is one; cpu, cuda, cuda:N; ref: slow loops"),
    OPT("audio_device", CHOICE, engine.audio_device, JOB, "NAME",
        "where the voice is heard; auto is device; cpu changes the last bits",
        .choices = audio_devices),
    OPT("threads", INT, engine.threads, JOB | EM_COMMAND_SYNTH | EM_COMMAND_INSPECT, "N",
        "0: every core that this process may use", .most = 1024),

    OPT("parallel_jobs", INT, parallel_jobs, EM_COMMAND_BATCH | EM_COMMAND_PLAN, "N",
        "jobs at once, each with its share of threads and budgets", .least = 1,
        .most = EM_LANES_MAX),

    OPT("force", SWITCH, force, MAKE, NULL, "make finished videos anew"),
    OPT("only", LIST, only, EM_COMMAND_BATCH, "NAME...", "these jobs, by output_name",
        .fallback = "all"),
    OPT("retry_failed", SWITCH, retry_failed, EM_COMMAND_BATCH, NULL,
        "only jobs and uploads that failed before"),
    OPT("shard", SHARE, shard, EM_COMMAND_BATCH, "I/N",
        "the I-th of N parts of the list, for array jobs", .fallback = "all"),
    OPT("dry_run", SWITCH, dry_run, MAKE, NULL, "check everything, print what would be done"),
    OPT("skip_invalid", SWITCH, skip_invalid, EM_COMMAND_BATCH, NULL,
        "run the good items of a list with bad ones"),
    OPT("temp_dir", TEXT, temp_dir, MAKE, "DIR", "where fetched files go",
        .fallback = "the system's"),
    OPT("keep_temp", SWITCH, keep_temp, MAKE, NULL, "leave them there"),
    OPT("allow_private", LIST, allow_private, MAKE, "CIDR...",
        "networks that are not public and may be fetched from all the same", .fallback = "none"),

    OPT("verify", SWITCH, verify, EM_COMMAND_INSPECT, NULL,
        "read every byte: hash them all, check the archives' CRCs"),
    OPT("json", SWITCH, json, EM_COMMAND_PLAN | EM_COMMAND_INSPECT, NULL, "print JSON"),
    OPT("size", TEXT, size, EM_COMMAND_SYNTH, "SIZE",
        "tiny, full (the released sizes, 20 GB) or FILE.json"),
    OPT("seed", INT64, synth_seed, EM_COMMAND_SYNTH, "N", "of the weights",
        .most = 9223372036854775807.0),
    OPT("out", TEXT, out, EM_COMMAND_SYNTH, "DIR", "folder of the checkpoint",
        .fallback = "required"),
    OPT("format", CHOICE, synth_torch, EM_COMMAND_SYNTH, "NAME",
        "safetensors, or pth as released: VAE, text and image encoder in .pth, wav2vec2 in .bin",
        .choices = formats),
    OPT("with_base", SWITCH, with_base, EM_COMMAND_SYNTH, NULL,
        "write the base model's own transformer too"),

    OPT("config", TEXT, config, ALL, "FILE", "more flags, as YAML (flag: value)"),
    OPT("quiet", SWITCH, quiet, ALL, NULL, "no progress, only warnings and errors"),
    OPT("log_json", SWITCH, log_json, ALL, NULL, "progress and messages as JSON lines"),
    OPT("help", SWITCH, help, ALL, NULL, "this text"),
    OPT("version", SWITCH, version, ALL, NULL, "versions and licence"),

    /* The reference's single-job script. */
    OPT("audio_scale", TEXT, unused, EM_COMMAND_RUN, "X", NULL, .effect = INERT),
    OPT("neg_scale", TEXT, unused, EM_COMMAND_RUN, "X", NULL, .effect = INERT),
    OPT("neg_steps", TEXT, unused, EM_COMMAND_RUN, "N", NULL, .effect = INERT),
    OPT("use_dynamic_cfg", SWITCH, unused_switch, EM_COMMAND_RUN, NULL, NULL, .effect = INERT),
    OPT("use_dynamic_acfg", SWITCH, unused_switch, EM_COMMAND_RUN, NULL, NULL, .effect = INERT),
    OPT("use_un_ip_mask", SWITCH, unused_switch, EM_COMMAND_RUN, NULL, NULL, .effect = INERT),
    OPT("add_prompt", TEXT, unused, EM_COMMAND_RUN, "TEXT", NULL, .effect = INERT),
    OPT("mouth_prompts", TEXT, unused, EM_COMMAND_RUN, "TEXT", NULL, .effect = INERT),
    OPT("fsdp_dit", SWITCH, unused_switch, EM_COMMAND_RUN, NULL, NULL, .effect = INERT),
    OPT("lora_path", TEXT, lora_path, EM_COMMAND_RUN, "FILE", NULL, .effect = HIDDEN),
    OPT("ulysses_degree", INT, ulysses_degree, EM_COMMAND_RUN, "N", NULL, .most = 1024,
        .effect = HIDDEN),
    OPT("ring_degree", INT, ring_degree, EM_COMMAND_RUN, "N", NULL, .most = 1024, .effect = HIDDEN),
    OPT("GPU_memory_mode", TEXT, gpu_memory_mode, EM_COMMAND_RUN, "NAME", NULL, .effect = HIDDEN),
};

enum { OPTIONS = sizeof table / sizeof *table };
_Static_assert((int)OPTIONS <= (int)EM_OPTIONS_MAX, "em_options.source has a place for every row");

static bool same_name(const char *a, const char *b)
{
    return em_str_distance(a, b) == 0;
}

static const option *find(em_command command, const char *name)
{
    for (int i = 0; i < OPTIONS; i++)
        if (table[i].commands & command && same_name(table[i].name, name)) return &table[i];
    return NULL;
}

/* The flag that was meant perhaps; NULL when none is near. */
static const char *nearest(em_command command, const char *name)
{
    const char *best = NULL;
    size_t least = strlen(name) / 3 + 2;
    for (int i = 0; i < OPTIONS; i++) {
        if (!(table[i].commands & command)) continue;
        size_t d = em_str_distance(table[i].name, name);
        if (d < least) {
            least = d;
            best = table[i].name;
        }
    }
    return best;
}

static bool takes_value(const option *r)
{
    return r->kind != SWITCH && r->kind != SWITCH_OFF;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool range_of(const option *r, double *least, double *most)
{
    *least = r->least;
    *most = r->most;
    return r->least < r->most || em_params_range(r->name, least, most);
}

static em_status check_range(const option *r, double v, em_err *err)
{
    double least, most;
    if (!range_of(r, &least, &most) || (v >= least && v <= most)) return EM_OK;
    return em_fail(err, EM_INVAL, "--%s is %.17g, it must be %.17g to %.17g", r->name, v, least,
                   most);
}

static bool is_truth(const char *text, bool *on)
{
    static const char *const word[2][3] = {{"false", "off", "0"}, {"true", "on", "1"}};
    for (int i = 0; text && i < 6; i++)
        if (!strcasecmp(text, word[i / 3][i % 3])) return *on = i / 3, true;
    return false;
}

static em_status set_switch(bool *to, const option *r, const char *text, em_err *err)
{
    bool on;
    if (text && !is_truth(text, &on))
        return em_fail(err, EM_INVAL, "--%s takes true or false, not '%s'", r->name, text);
    if (!text) on = true;
    *to = r->kind == SWITCH ? on : !on;
    return EM_OK;
}

/* An integer and nothing behind it but what `end` then points at. */
static em_status read_int(int64_t *to, const option *r, const char *text, const char **end,
                          em_err *err)
{
    char *rest;
    errno = 0;
    long long v = strtoll(text, &rest, 10);
    if (rest == text || errno)
        return em_fail(err, EM_INVAL, "--%s takes a whole number, not '%s'", r->name, text);
    *to = v;
    *end = rest;
    return check_range(r, (double)v, err);
}

static em_status set_int(void *to, const option *r, const char *text, em_err *err)
{
    int64_t v;
    const char *end;
    em_status st = read_int(&v, r, text, &end, err);
    if (st) return st;
    if (*end) return em_fail(err, EM_INVAL, "--%s takes a whole number, not '%s'", r->name, text);
    if (r->kind == INT64)
        *(int64_t *)to = v;
    else
        *(int *)to = (int)v; /* every INT row has a range within int */
    return EM_OK;
}

static em_status set_real(double *to, const option *r, const char *text, em_err *err)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end)
        return em_fail(err, EM_INVAL, "--%s takes a number, not '%s'", r->name, text);
    em_status st = check_range(r, v, err);
    if (!st) *to = v;
    return st;
}

/* "6G", "512M", "1.5GiB", "4096": binary units. */
static em_status set_bytes(uint64_t *to, const option *r, const char *text, em_err *err)
{
    static const char unit[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    const char *u = *end ? strchr(unit, toupper((unsigned char)*end)) : NULL;
    const char *rest = u ? end + 1 : end;
    if (!strcasecmp(rest, "iB") || !strcasecmp(rest, "B")) rest = "";
    if (end == text || *rest || !(v > 0))
        return em_fail(err, EM_INVAL, "--%s takes a size such as 6G or 512M, not '%s'", r->name,
                       text);
    for (long i = u ? u - unit + 1 : 0; i > 0; i--) v *= 1024;
    if (v < 1 << 20 || v > 0x1p50)
        return em_fail(err, EM_INVAL, "--%s is '%s', it must be 1M to 1024T", r->name, text);
    *to = (uint64_t)v;
    return EM_OK;
}

static em_status set_choice(void *to, const option *r, const char *text, em_err *err)
{
    em_str words = {0};
    for (const choice *c = r->choices; c->word; c++) {
        if (!strcmp(c->word, text)) {
            memcpy(to, &c->value, sizeof c->value); /* an enum, as large as an int */
            em_str_free(&words);
            return EM_OK;
        }
        em_str_printf(&words, "%s%s", words.len ? ", " : "", c->word);
    }
    em_fail(err, EM_INVAL, "--%s takes one of %s, not '%s'", r->name, em_str_text(&words), text);
    em_str_free(&words);
    return EM_INVAL;
}

/* "512 768", "512,768" or "512x768". */
static em_status set_size(int *to, const option *r, const char *text, em_err *err)
{
    int64_t v[2];
    const char *end = text;
    em_status st = read_int(&v[0], r, text, &end, err);
    if (st) return st;
    end += strspn(end, " ,x");
    if (!*end)
        return em_fail(err, EM_INVAL, "--%s takes two numbers, height and width, not '%s'", r->name,
                       text);
    st = read_int(&v[1], r, end, &end, err);
    if (st) return st;
    if (*end)
        return em_fail(err, EM_INVAL, "--%s takes two numbers, height and width, not '%s'", r->name,
                       text);
    for (int i = 0; i < 2; i++) to[i] = (int)v[i];
    return EM_OK;
}

/* "2/8" */
static em_status set_share(int *to, const option *r, const char *text, em_err *err)
{
    enum { MOST = 100000 };
    char *slash, *end;
    errno = 0;
    long part = strtol(text, &slash, 10), parts = 0;
    bool ok = slash != text && *slash == '/' && slash[1] >= '0' && slash[1] <= '9';
    if (ok) parts = strtol(slash + 1, &end, 10);
    if (!ok || *end || errno || parts < 1 || parts > MOST || part < 1 || part > parts)
        return em_fail(err, EM_INVAL,
                       "--%s takes I/N, the I-th (from 1) of at most %d parts, not '%s'", r->name,
                       MOST, text);
    to[0] = (int)part;
    to[1] = (int)parts;
    return EM_OK;
}

/* Whoever is heard says the whole list. */
static em_status add_text(em_texts *to, bool fresh, const char *text, em_err *err)
{
    if (fresh) to->count = 0;
    return EM_PUSH(to->item, to->count, to->cap, text)
               ? EM_OK
               : em_fail(err, EM_NOMEM, "no memory for the command line");
}

/* text: NULL for a switch that stands alone; otherwise it must live as long as *o. */
static em_status set(em_options *o, const option *r, const char *text, em_option_source source,
                     em_err *err)
{
    void *to = (char *)o + r->offset;
    em_status st = EM_OK;
    switch (r->kind) {
    case SWITCH:
    case SWITCH_OFF: st = set_switch(to, r, text, err); break;
    case TEXT: *(const char **)to = text; break;
    case INT:
    case INT64: st = set_int(to, r, text, err); break;
    case REAL: st = set_real(to, r, text, err); break;
    case CHOICE: st = set_choice(to, r, text, err); break;
    case SIZE: st = set_size(to, r, text, err); break;
    case BYTES: st = set_bytes(to, r, text, err); break;
    case SHARE: st = set_share(to, r, text, err); break;
    case LIST: st = add_text(to, o->source[r - table] != source, text, err); break;
    }
    if (!st) o->source[r - table] = source;
    return st;
}

/* Two rows of one field (enable_teacache and no_teacache) are one flag to whoever speaks later. */
static em_option_source heard_from(const em_options *o, const option *r)
{
    em_option_source most = EM_SOURCE_DEFAULT;
    for (int i = 0; i < OPTIONS; i++)
        if (table[i].offset == r->offset && o->source[i] > most) most = o->source[i];
    return most;
}

bool em_options_given(const em_options *o, const char *flag)
{
    const option *r = find(o->command, flag);
    return r && heard_from(o, r) > EM_SOURCE_DEFAULT;
}

const char *em_options_text(const em_options *o, const char *flag)
{
    const option *r = find(o->command, flag);
    const char *text = r ? *(const char *const *)((const char *)o + r->offset) : NULL;
    return text && *text ? text : NULL;
}

/* ---- files of flags -------------------------------------------------------------------------- */

/* Moves the text of *s into o; NULL when out of memory. */
static const char *keep(em_options *o, em_str *s)
{
    char *text = s->failed ? NULL : s->data ? s->data : em_strdup("");
    if (text && EM_PUSH(o->kept, o->kept_count, o->kept_cap, text)) return text;
    em_str_free(s);
    return NULL;
}

bool em_options_keep(em_options *o, const char **to, const char *text)
{
    em_str s = {0};
    em_str_printf(&s, "%s", text);
    const char *copy = keep(o, &s);
    if (copy) *to = copy;
    return copy != NULL;
}

/* One `flag: value` of a file. */
static void set_from_file(em_options *o, const char *where, const char *flag, const json_t *value,
                          em_problems *all)
{
    em_err e = {0};
    em_str words = {0};
    const option *r = find(o->command, flag);
    if (!r) {
        const char *near = nearest(o->command, flag);
        em_problems_add(all, EM_INVAL, "'%s': there is no flag '%s'%s%s%s", where, flag,
                        near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
        return;
    }
    if (json_is_null(value)) return;
    if (r->kind == LIST && json_is_array(value)) {
        size_t i;
        json_t *one;
        json_array_foreach(value, i, one) set_from_file(o, where, flag, one, all);
        return;
    }
    if (!em_json_words(&words, value)) {
        em_problems_add(all, EM_INVAL, "'%s': '%s' must be a value or a list of values", where,
                        flag);
        em_str_free(&words);
        return;
    }
    const char *text = keep(o, &words);
    if (!text) {
        em_problems_add(all, EM_NOMEM, "no memory to read '%s'", where);
    } else if (heard_from(o, r) <= EM_SOURCE_CONFIG && set(o, r, text, EM_SOURCE_CONFIG, &e)) {
        em_err_prefix(&e, "'%s'", where);
        em_problems_take(all, &e);
    }
}

static void read_config(em_options *o, em_problems *all)
{
    em_err e = {0};
    json_t *doc = NULL, *value;
    const char *flag;
    if (em_yaml_load(&doc, o->config, &e)) {
        em_err_prefix(&e, "--config");
        em_problems_take(all, &e);
        return;
    }
    json_object_foreach(doc, flag, value) set_from_file(o, o->config, flag, value, all);
    json_decref(doc);
}

em_status em_options_recommend(em_options *o, const em_model_config *model, em_str *told,
                               const em_log *log, em_err *err)
{
    em_problems all = {.log = log};
    for (size_t i = 0; i < model->recommended_count; i++) {
        const em_model_setting *s = &model->recommended[i];
        em_err e = {0};
        const char *kept = NULL;
        const option *r = find(o->command, s->flag);
        if (!r) {
            em_logf(log, EM_LOG_WARN, "the model recommends '%s', which is no flag of ours",
                    s->flag);
            continue;
        }
        if (heard_from(o, r) > EM_SOURCE_RECOMMENDED) continue;
        if (!em_options_keep(o, &kept, s->value))
            return em_fail(err, EM_NOMEM, "no memory to read the model's recommendations");
        if (set(o, r, kept, EM_SOURCE_RECOMMENDED, &e)) {
            em_err_prefix(&e, "recommended by the model");
            em_problems_take(&all, &e);
        } else if (told) {
            em_str_printf(told, "%s--%s %s", told->len ? ", " : "", r->name, kept);
        }
    }
    return em_problems_end(&all, "the model's config.yaml", err);
}

/* ---- argv ------------------------------------------------------------------------------------ */

typedef struct args {
    int count;
    char *const *arg;
    int next;
} args;

static const char *peek(const args *a)
{
    return a->next < a->count ? a->arg[a->next] : NULL;
}

static bool is_flag(const char *text)
{
    return text && !strncmp(text, "--", 2);
}

/* The value of r: behind `=`, or what follows. False when there is none. */
static bool take_value(em_options *o, const option *r, const char *inline_value, args *a,
                       const char **value)
{
    bool on;
    *value = inline_value;
    if (inline_value) return true;
    if (!takes_value(r)) {
        if (is_truth(peek(a), &on)) *value = a->arg[a->next++];
        return true;
    }
    if (!peek(a) || is_flag(peek(a))) return false;
    *value = a->arg[a->next++];
    if (r->kind == SIZE && !strpbrk(*value, " ,x") && peek(a) && !is_flag(peek(a))) {
        em_str both = {0};
        em_str_printf(&both, "%s %s", *value, a->arg[a->next++]);
        *value = keep(o, &both);
    }
    return *value != NULL;
}

static void unknown_flag(const em_options *o, const char *name, em_problems *all)
{
    const char *near = nearest(o->command, name);
    if (near)
        em_problems_add(all, EM_INVAL, "there is no flag --%s, did you mean --%s?", name, near);
    else
        em_problems_add(all, EM_INVAL, "there is no flag --%s: see --help", name);
}

/* What follows the first value of a list, up to the next flag. */
static void set_rest(em_options *o, const option *r, args *a, em_problems *all)
{
    em_err e = {0};
    while (peek(a) && !is_flag(peek(a)))
        if (set(o, r, a->arg[a->next++], EM_SOURCE_COMMAND_LINE, &e)) em_problems_take(all, &e);
}

static void parse_flag(em_options *o, args *a, em_problems *all)
{
    char name[64];
    em_err e = {0};
    const char *text = a->arg[a->next++] + 2, *equals = strchr(text, '='), *value;
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - text) : 63, text);
    const option *r = find(o->command, name);
    if (!r) {
        unknown_flag(o, name, all);
        if (!equals && peek(a) && !is_flag(peek(a))) a->next++;
    } else if (!take_value(o, r, equals ? equals + 1 : NULL, a, &value)) {
        em_problems_add(all, EM_INVAL, "--%s needs a value: %s", r->name, r->argument);
    } else if (set(o, r, value, EM_SOURCE_COMMAND_LINE, &e)) {
        em_problems_take(all, &e);
    } else if (r->kind == LIST && !equals) {
        set_rest(o, r, a, all);
    }
}

em_status em_options_parse(em_options *o, int argc, char *const *argv, const em_log *log,
                           em_err *err)
{
    em_problems all = {.log = log};
    args a = {.count = argc, .arg = argv};
    while (a.next < argc) {
        const char *text = argv[a.next];
        if (is_flag(text)) {
            parse_flag(o, &a, &all);
        } else if (o->command == EM_COMMAND_INSPECT && !o->path) {
            o->path = argv[a.next++];
        } else {
            em_problems_add(&all, EM_INVAL, "'%s' is not expected here: flags begin with --", text);
            a.next++;
        }
    }
    if (o->help || o->version) return EM_OK;
    if (o->config) read_config(o, &all);
    return em_problems_end(&all, "the command line", err);
}

/* ---- defaults and what follows from several flags -------------------------------------------- */

void em_options_open(em_options *o, em_command command)
{
    *o = (em_options){.command = command,
                      .params = em_params_default(),
                      .engine = em_engine_params_default(),
                      .teacache = true,
                      .save_path = "outputs",
                      .parallel_jobs = 1,
                      .size = "tiny",
                      .synth_seed = 1};
}

void em_options_close(em_options *o)
{
    for (size_t i = 0; i < o->kept_count; i++) em_free(o->kept[i]);
    em_free(o->kept);
    em_free(o->only.item);
    em_free(o->allow_private.item);
    *o = (em_options){0};
}

/* Flags of the reference's script that ask for what is not there. */
static void check_old_flags(em_options *o, em_problems *all)
{
    if (o->lora_path && *o->lora_path)
        em_problems_add(all, EM_INVAL, "--lora_path '%s': LoRA weights cannot be used yet",
                        o->lora_path);
    if (o->ulysses_degree > 1 || o->ring_degree > 1)
        em_problems_add(all, EM_INVAL,
                        "--ulysses_degree %d, --ring_degree %d: a video is made on one device, 1 "
                        "is possible",
                        o->ulysses_degree, o->ring_degree);
}

static void translate_memory_mode(em_options *o, const em_log *log)
{
    if (!o->gpu_memory_mode) return;
    bool all = !strncmp(o->gpu_memory_mode, "model_full_load", strlen("model_full_load"));
    if (!em_options_given(o, "memory_mode"))
        o->engine.memory_mode = all ? EM_MEMORY_BEEFY : EM_MEMORY_LIGHTWEIGHT;
    em_logf(log, EM_LOG_INFO, "--GPU_memory_mode %s is --memory_mode %s here", o->gpu_memory_mode,
            memory_modes[o->engine.memory_mode].word);
}

static void say_inert(const em_options *o, const em_log *log)
{
    em_str names = {0};
    for (int i = 0; i < OPTIONS; i++)
        if (table[i].effect == INERT && o->source[i] > EM_SOURCE_DEFAULT)
            em_str_printf(&names, "%s--%s", names.len ? ", " : "", table[i].name);
    if (names.len) em_logf(log, EM_LOG_INFO, "without effect here: %s", em_str_text(&names));
    em_str_free(&names);
}

em_status em_options_finish(em_options *o, const em_log *log, em_err *err)
{
    em_problems all = {.log = log};
    check_old_flags(o, &all);
    translate_memory_mode(o, log);
    say_inert(o, log);
    if (!o->teacache) o->params.teacache = EM_TEACACHE_OFF;
    if (!o->riflex)
        o->params.riflex_k = 0;
    else if (!o->params.riflex_k)
        o->params.riflex_k = 6;
    return em_problems_end(&all, "the command line", err);
}

/* ---- help ------------------------------------------------------------------------------------ */

/* "; least to most", or the words of a choice. */
static void describe_values(em_str *to, const option *r)
{
    double least, most;
    if (r->choices) {
        for (const choice *c = r->choices; c->word; c++)
            em_str_printf(to, "%s%s", c == r->choices ? ": " : ", ", c->word);
    } else if (takes_value(r) && r->kind != TEXT && range_of(r, &least, &most) && most < 0x1p53) {
        em_str_printf(to, "; %g to %.10g", least, most);
    }
}

static const char *word_of(const choice *c, int value)
{
    while (c->word && c->value != value) c++;
    return c->word ? c->word : "";
}

/* " [default]": what em_options_open put there, unless the row says it better. */
static void describe_default(em_str *to, const option *r, const em_options *fresh)
{
    const void *at = (const char *)fresh + r->offset;
    const char *text = r->fallback;
    if (!text && r->kind == TEXT && r->effect == ACTS) text = *(const char *const *)at;
    if (!text && r->kind == CHOICE) text = word_of(r->choices, *(const int *)at);
    if (!text && r->kind == SWITCH && *(const bool *)at) text = "on";
    if (text) {
        em_str_printf(to, " [%s]", text);
        return;
    }
    switch (r->kind) {
    case INT: em_str_printf(to, " [%d]", *(const int *)at); break;
    case INT64: em_str_printf(to, " [%lld]", (long long)*(const int64_t *)at); break;
    case REAL: em_str_printf(to, " [%g]", *(const double *)at); break;
    case SIZE: em_str_printf(to, " [%d %d]", ((const int *)at)[0], ((const int *)at)[1]); break;
    default: break;
    }
}

void em_options_help(FILE *to, em_command command)
{
    bool old = false;
    em_options fresh;
    em_options_open(&fresh, command);
    for (int i = 0; i < OPTIONS; i++) {
        const option *r = &table[i];
        em_str left = {0}, right = {0};
        if (!(r->commands & command)) continue;
        old |= !r->help;
        if (!r->help || r->effect == HIDDEN) continue;
        em_str_printf(&left, "--%s%s%s", r->name, r->argument ? " " : "",
                      r->argument ? r->argument : "");
        em_str_printf(&right, "%s", r->help);
        describe_values(&right, r);
        describe_default(&right, r, &fresh);
        fprintf(to, "  %-29s %s\n", em_str_text(&left), em_str_text(&right));
        em_str_free(&left);
        em_str_free(&right);
    }
    em_options_close(&fresh);
    if (!old) return;
    fprintf(to, "\nTaken so that older command lines work, without effect or refused when they ask "
                "for more:\n ");
    for (int i = 0; i < OPTIONS; i++)
        if (table[i].commands & command && !table[i].help) fprintf(to, " --%s", table[i].name);
    fprintf(to, "\n");
}
