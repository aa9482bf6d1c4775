#include "io/model_folder.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"
#include "io/yaml.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFIG_BYTES = 1 << 20, /* of a config.json, at most */
    SIZE_MAX_ANY = 1 << 24, /* of a configured width or count, at most */
    TEXT_LENGTH = 512,
    DEFAULT_CKPT_IDX = 50000,
};

/* The released config.yaml, as far as anything in it has an effect. */
static const char builtin_yaml[] =
    "format: civitai\n"
    "pipeline: Wan\n"
    "transformer_additional_kwargs:\n"
    "  transformer_subpath: ./\n"
    "vae_kwargs:\n"
    "  vae_subpath: Wan2.1_VAE.pth\n"
    "text_encoder_kwargs:\n"
    "  text_encoder_subpath: models_t5_umt5-xxl-enc-bf16.pth\n"
    "  tokenizer_subpath: google/umt5-xxl\n"
    "scheduler_kwargs:\n"
    "  shift: 5.0\n"
    "image_encoder_kwargs:\n"
    "  image_encoder_subpath: models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth\n";

static em_status nomem(em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory reading the model's configuration");
}

/* ---- finding files ---- */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* Where one file was looked for: what was found, or what to say. */
typedef struct search {
    const char *dir;
    char *found; /* owned; NULL so far */
    em_str tried;
    bool folder; /* a folder has the name */
    em_status st;
} search;

/* dir/name, unless something was found before. */
static void try_file(search *s, const char *name)
{
    if (s->found || s->st) return;
    char *path = em_path_join(s->dir, name);
    if (!path) {
        s->st = EM_NOMEM;
    } else if (em_path_is_file(path)) {
        s->found = path;
        path = NULL;
    } else {
        s->folder = s->folder || em_path_is_dir(path);
        em_str_printf(&s->tried, "%s'%s'", s->tried.len ? ", " : "", name);
    }
    em_free(path);
}

/* The same, also as an index of shards. */
static void try_indexed(search *s, const char *name)
{
    em_str index = {0};
    try_file(s, name);
    em_str_printf(&index, "%s.index.json", name);
    if (index.failed)
        s->st = EM_NOMEM;
    else
        try_file(s, index.data);
    em_str_free(&index);
}

/* A name of one of the two formats, then the same name in the other. */
static void try_formats(search *s, const char *name)
{
    static const char plain[] = ".safetensors";
    const char *dot = strrchr(name, '.');
    try_indexed(s, name);
    if (!dot) return;
    bool torch = !strcmp(dot, ".pth") || !strcmp(dot, ".pt") || !strcmp(dot, ".bin");
    if (!torch && strcmp(dot, plain) != 0) return;
    em_str twin = {0};
    em_str_append(&twin, name, (size_t)(dot - name));
    em_str_printf(&twin, "%s", torch ? plain : ".pth");
    if (twin.failed)
        s->st = EM_NOMEM;
    else
        try_indexed(s, twin.data);
    em_str_free(&twin);
}

/* *out is owned. `what` for the sentence: "the VAE". */
static em_status end_search(search *s, char **out, const char *what, em_err *err)
{
    if (s->tried.failed) s->st = EM_NOMEM;
    if (s->st) {
        nomem(err);
    } else if (s->found) {
        *out = s->found;
        s->found = NULL;
    } else {
        s->st = em_fail(err, EM_IO, "%s is missing in '%s': tried %s%s", what,
                        *s->dir ? s->dir : ".", em_str_text(&s->tried),
                        s->folder ? " (one is a folder, a file was expected)" : "");
    }
    em_str_free(&s->tried);
    em_free(s->found);
    return s->st;
}

/* The file that the configuration names, then the same name in the folder itself. */
static em_status find_file(char **out, const char *dir, const char *name, const char *what,
                           em_err *err)
{
    search s = {.dir = dir};
    try_formats(&s, name);
    if (*dir && em_path_base(name) != name && name[0] != '/') try_formats(&s, em_path_base(name));
    return end_search(&s, out, what, err);
}

/* Whether dir/below/name is a file; *st collects a lack of memory. */
static bool has_file(const char *dir, const char *below, const char *name, em_status *st)
{
    char *sub = em_path_join(dir, below), *path = sub ? em_path_join(sub, name) : NULL;
    bool found = path && em_path_is_file(path);
    if (!path) *st = EM_NOMEM;
    em_free(sub);
    em_free(path);
    return found;
}

/* The first folder in dir (by name) in which below/name is a file; *out owned, NULL if there is
 * none. */
static em_status find_child(char **out, const char *dir, const char *below, const char *name,
                            em_err *err)
{
    em_status st = EM_OK;
    char *best = NULL;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && !st && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *child = em_path_join(dir, e->d_name);
        if (!child) {
            st = EM_NOMEM;
        } else if (em_path_is_dir(child) && has_file(child, below, name, &st) &&
                   (!best || strcmp(child, best) < 0)) {
            em_free(best);
            best = child;
            child = NULL;
        }
        em_free(child);
    }
    if (d) closedir(d);
    if (st) {
        em_free(best);
        return nomem(err);
    }
    *out = best;
    return EM_OK;
}

/* That `dir`, given by `flag`, is the folder in which below/name lies; if not, the one meant
 * perhaps. */
static em_status check_folder(const char *dir, const char *flag, const char *below,
                              const char *name, em_err *err)
{
    em_status st = EM_OK;
    char *parent = NULL, *child = NULL;
    if (!dir || !*dir) return em_fail(err, EM_INVAL, "%s is needed", flag);
    if (!em_path_is_dir(dir)) {
        return em_fail(err, EM_IO, "%s '%s': %s", flag, dir,
                       em_path_is_file(dir) ? "a folder was expected, it is a file"
                                            : "there is no such folder");
    }
    if (has_file(dir, below, name, &st)) return EM_OK;
    if (!st && !(parent = em_path_join(dir, ".."))) st = EM_NOMEM;
    bool in_parent = !st && has_file(parent, below, name, &st);
    em_free(parent);
    if (st) return nomem(err);
    if (in_parent) {
        return em_fail(err, EM_IO, "%s '%s' has no '%s': did you mean the folder that it lies in?",
                       flag, dir, name);
    }
    st = find_child(&child, dir, below, name, err);
    if (st) return st;
    if (child) {
        st = em_fail(err, EM_IO, "%s '%s' has no '%s': did you mean '%s', one folder further down?",
                     flag, dir, name, child);
    } else {
        st = em_fail(err, EM_IO, "%s '%s' has no '%s': it is another folder, or incomplete", flag,
                     dir, name);
    }
    em_free(child);
    return st;
}

/* ---- numbers ---- */

/* One document, and how messages call it. */
typedef struct doc {
    json_t *root; /* owned */
    char source[256];
} doc;

static em_status load_json(doc *d, const char *dir, const char *name, em_err *err)
{
    char *path = em_path_join(dir, name);
    if (!path) return nomem(err);
    em_status st = em_json_load(&d->root, path, CONFIG_BYTES, err);
    if (!st && !json_is_object(d->root)) {
        st = em_fail(err, EM_FORMAT, "'%s' must hold an object, it holds %s", path,
                     em_json_kind(d->root));
    }
    snprintf(d->source, sizeof d->source, "'%s'", path);
    em_free(path);
    return st;
}

static em_status get_size(int64_t *out, const doc *d, const char *key, em_err *err)
{
    return em_json_get_int(out, d->root, key, 1, SIZE_MAX_ANY, d->source, err);
}

/* A number that the upstream code calls by either name. */
static em_status get_alias(int64_t *out, const doc *d, const char *key, const char *other,
                           em_err *err)
{
    int64_t a = 0, b = 0;
    em_status st = get_size(&a, d, key, err);
    if (!st) st = get_size(&b, d, other, err);
    if (st) return st;
    if (a && b && a != b) {
        return em_fail(err, EM_FORMAT, "%s: '%s' is %lld but '%s' is %lld", d->source, key,
                       (long long)a, other, (long long)b);
    }
    *out = a ? a : b;
    return EM_OK;
}

/* A switch of the upstream model that has one position here. */
static em_status need_bool(const doc *d, const char *key, bool fallback, bool need, em_err *err)
{
    bool v = fallback;
    em_status st = em_json_get_bool(&v, d->root, key, d->source, err);
    if (st || v == need) return st;
    return em_fail(err, EM_FORMAT, "%s: '%s' is %s: only models with %s are supported", d->source,
                   key, v ? "true" : "false", need ? "true" : "false");
}

static em_status need_text(const doc *d, const char *key, const char *fallback, const char *need,
                           em_err *err)
{
    const char *v = fallback;
    em_status st = em_json_get_string(&v, d->root, key, d->source, err);
    if (st || strcmp(v, need) == 0) return st;
    return em_fail(err, EM_FORMAT, "%s: '%s' is '%s': only models with '%s' are supported",
                   d->source, key, v, need);
}

static em_status need_int(const doc *d, const char *key, int64_t need, em_err *err)
{
    int64_t v = need;
    em_status st = get_size(&v, d, key, err);
    if (st || v == need) return st;
    return em_fail(err, EM_FORMAT, "%s: '%s' is %lld: only %lld is supported", d->source, key,
                   (long long)v, (long long)need);
}

/* Fallbacks are the upstream class's defaults. */
static em_status read_transformer(em_transformer_numbers *t, const char *dir, em_err *err)
{
    doc d = {0};
    *t = (em_transformer_numbers){.out_dim = 16,
                                  .freq_dim = 256,
                                  .text_dim = 4096,
                                  .text_len = 512,
                                  .patch = {1, 2, 2},
                                  .eps = 1e-6};
    em_status st = load_json(&d, dir, "config.json", err);
    if (!st) st = need_text(&d, "model_type", "not given", "i2v", err);
    if (!st) st = get_alias(&t->dim, &d, "dim", "hidden_size", err);
    if (!st) st = get_alias(&t->in_dim, &d, "in_dim", "in_channels", err);
    if (!st) st = get_size(&t->ffn_dim, &d, "ffn_dim", err);
    if (!st) st = get_size(&t->num_layers, &d, "num_layers", err);
    if (!st) st = get_size(&t->num_heads, &d, "num_heads", err);
    if (!st) st = get_size(&t->out_dim, &d, "out_dim", err);
    if (!st) st = get_size(&t->freq_dim, &d, "freq_dim", err);
    if (!st) st = get_size(&t->text_dim, &d, "text_dim", err);
    if (!st) st = get_size(&t->text_len, &d, "text_len", err);
    if (!st) st = em_json_get_ints(t->patch, 3, d.root, "patch_size", 1, 64, d.source, err);
    if (!st) st = em_json_get_double(&t->eps, d.root, "eps", 1e-12, 1, d.source, err);
    if (!st) st = need_bool(&d, "qk_norm", true, true, err);
    if (!st) st = need_bool(&d, "cross_attn_norm", true, true, err);
    if (!st && !t->num_heads) {
        st = em_fail(err, EM_FORMAT, "%s: 'num_heads' is missing, and nothing else tells it",
                     d.source);
    }
    if (!st && t->dim % (2 * t->num_heads) != 0) {
        st = em_fail(err, EM_FORMAT, "%s: 'dim' %lld does not make %lld heads of an even size",
                     d.source, (long long)t->dim, (long long)t->num_heads);
    }
    json_decref(d.root);
    return st;
}

static em_status read_wav2vec2_sizes(em_wav2vec2_numbers *w, const doc *d, em_err *err)
{
    em_status st = get_size(&w->hidden, d, "hidden_size", err);
    if (!st) st = get_size(&w->ffn, d, "intermediate_size", err);
    if (!st) st = get_size(&w->num_layers, d, "num_hidden_layers", err);
    if (!st) st = get_size(&w->num_heads, d, "num_attention_heads", err);
    if (!st) st = get_size(&w->pos_conv_kernel, d, "num_conv_pos_embeddings", err);
    if (!st) st = get_size(&w->pos_conv_groups, d, "num_conv_pos_embedding_groups", err);
    if (!st) st = em_json_get_double(&w->eps, d->root, "layer_norm_eps", 1e-12, 1, d->source, err);
    if (!st) {
        st = em_json_get_ints(w->conv_dim, EM_FOLDER_CONVS, d->root, "conv_dim", 1, SIZE_MAX_ANY,
                              d->source, err);
    }
    if (!st) {
        st = em_json_get_ints(w->conv_kernel, EM_FOLDER_CONVS, d->root, "conv_kernel", 1, 1024,
                              d->source, err);
    }
    if (!st) {
        st = em_json_get_ints(w->conv_stride, EM_FOLDER_CONVS, d->root, "conv_stride", 1, 1024,
                              d->source, err);
    }
    if (!st && (w->hidden % w->num_heads || w->hidden % w->pos_conv_groups)) {
        st = em_fail(
            err, EM_FORMAT,
            "%s: 'hidden_size' %lld is not a multiple of the %lld heads and the %lld groups of "
            "the positional convolution",
            d->source, (long long)w->hidden, (long long)w->num_heads,
            (long long)w->pos_conv_groups);
    }
    return st;
}

/* Fallbacks are the defaults of transformers' Wav2Vec2Config, which are the base model's sizes. */
static em_status read_wav2vec2(em_wav2vec2_numbers *w, const char *dir, em_err *err)
{
    doc d = {0};
    *w = (em_wav2vec2_numbers){.hidden = 768,
                               .ffn = 3072,
                               .num_layers = 12,
                               .num_heads = 12,
                               .conv_dim = {512, 512, 512, 512, 512, 512, 512},
                               .conv_kernel = {10, 3, 3, 3, 3, 2, 2},
                               .conv_stride = {5, 2, 2, 2, 2, 2, 2},
                               .pos_conv_kernel = 128,
                               .pos_conv_groups = 16,
                               .eps = 1e-5,
                               .do_normalize = true};
    em_status st = load_json(&d, dir, "config.json", err);
    if (!st) st = need_text(&d, "model_type", "wav2vec2", "wav2vec2", err);
    if (!st) st = need_text(&d, "feat_extract_norm", "group", "group", err);
    if (!st) st = need_bool(&d, "conv_bias", false, false, err);
    if (!st) st = need_bool(&d, "do_stable_layer_norm", false, false, err);
    if (!st) st = need_text(&d, "hidden_act", "gelu", "gelu", err);
    if (!st) st = need_text(&d, "feat_extract_activation", "gelu", "gelu", err);
    if (!st) st = read_wav2vec2_sizes(w, &d, err);
    json_decref(d.root);
    return st;
}

/* The feature extractor's file; without one its class's defaults hold: normalise, 16 kHz. */
static em_status read_preprocessor(em_wav2vec2_numbers *w, const char *dir, em_err *err)
{
    doc d = {0};
    em_status st = EM_OK;
    bool there = has_file(dir, "./", "preprocessor_config.json", &st);
    if (st) return nomem(err);
    if (!there) return EM_OK;
    st = load_json(&d, dir, "preprocessor_config.json", err);
    if (!st) st = em_json_get_bool(&w->do_normalize, d.root, "do_normalize", d.source, err);
    if (!st) st = need_int(&d, "sampling_rate", 16000, err);
    json_decref(d.root);
    return st;
}

/* ---- config.yaml ---- */

/* A section as a document of its own (borrowed); an absent one is empty: *d has a NULL root. */
static em_status get_section(doc *d, const doc *yaml, const char *key, em_err *err)
{
    *d = (doc){0};
    json_t *v = json_object_get(yaml->root, key);
    if (v && !json_is_null(v) && !json_is_object(v)) {
        return em_fail(err, EM_FORMAT, "%s: '%s' must be a section of keys, it is %s", yaml->source,
                       key, em_json_kind(v));
    }
    d->root = json_is_object(v) ? v : NULL;
    snprintf(d->source, sizeof d->source, "%.180s: %.60s", yaml->source, key);
    return EM_OK;
}

/* What config.yaml says, strings borrowed from it. */
typedef struct layout {
    const char *transformer, *vae, *t5, *tokenizer, *clip;
} layout;

static em_status read_text_encoder(em_model_config *m, layout *at, const doc *yaml, em_err *err)
{
    doc d;
    em_status st = get_section(&d, yaml, "text_encoder_kwargs", err);
    m->t5_num_heads = 64;
    m->t5_text_length = TEXT_LENGTH;
    at->t5 = "text_encoder";
    at->tokenizer = "tokenizer";
    if (!st) st = em_json_get_string(&at->t5, d.root, "text_encoder_subpath", d.source, err);
    if (!st) st = em_json_get_string(&at->tokenizer, d.root, "tokenizer_subpath", d.source, err);
    if (!st) st = get_size(&m->t5_num_heads, &d, "num_heads", err);
    if (!st) {
        st = em_json_get_int(&m->t5_text_length, d.root, "text_length", 1, TEXT_LENGTH, d.source,
                             err);
    }
    if (!st) st = need_bool(&d, "shared_pos", false, false, err);
    return st;
}

static em_status read_yaml(em_model_config *m, layout *at, const doc *yaml, em_err *err)
{
    doc d;
    at->transformer = "transformer";
    em_status st = get_section(&d, yaml, "transformer_additional_kwargs", err);
    if (!st)
        st = em_json_get_string(&at->transformer, d.root, "transformer_subpath", d.source, err);

    at->vae = "vae";
    if (!st) st = get_section(&d, yaml, "vae_kwargs", err);
    if (!st) st = em_json_get_string(&at->vae, d.root, "vae_subpath", d.source, err);
    if (!st) st = need_int(&d, "temporal_compression_ratio", 4, err);
    if (!st) st = need_int(&d, "spatial_compression_ratio", 8, err);

    if (!st) st = read_text_encoder(m, at, yaml, err);

    m->scheduler_shift = 5.0;
    if (!st) st = get_section(&d, yaml, "scheduler_kwargs", err);
    if (!st)
        st = em_json_get_double(&m->scheduler_shift, d.root, "shift", 0.01, 100, d.source, err);
    if (!st) st = need_int(&d, "num_train_timesteps", 1000, err);
    if (!st) st = need_bool(&d, "use_dynamic_shifting", false, false, err);

    at->clip = "image_encoder";
    m->clip_num_heads = 16;
    if (!st) st = get_section(&d, yaml, "image_encoder_kwargs", err);
    if (!st) st = em_json_get_string(&at->clip, d.root, "image_encoder_subpath", d.source, err);
    if (!st) st = get_size(&m->clip_num_heads, &d, "num_heads", err);
    return st;
}

/* A value, or a list of values, as a command line would have it. */
static em_status setting_text(char **out, const doc *d, const char *key, const json_t *v,
                              em_err *err)
{
    em_str s = {0};
    if (!em_json_words(&s, v)) {
        em_str_free(&s);
        return em_fail(err, EM_FORMAT, "%s: '%s' must be a value or a list of values", d->source,
                       key);
    }
    if (s.failed || (!s.data && !(s.data = em_strdup("")))) {
        em_str_free(&s);
        return nomem(err);
    }
    *out = s.data;
    return EM_OK;
}

static em_status read_recommended(em_model_config *m, const doc *yaml, em_err *err)
{
    doc d;
    const char *key;
    json_t *v;
    size_t cap = 0;
    em_status st = get_section(&d, yaml, "recommended", err);
    json_object_foreach(d.root, key, v)
    {
        em_model_setting s = {.flag = em_strdup(key)};
        st = s.flag ? setting_text(&s.value, &d, key, v, err) : nomem(err);
        if (!st && !EM_PUSH(m->recommended, m->recommended_count, cap, s)) st = nomem(err);
        if (st) {
            em_free(s.flag);
            em_free(s.value);
            return st;
        }
    }
    return st;
}

/* *d: the config.yaml that holds; *own: MODEL/config.yaml where that is another and has
 * recommendations. */
static em_status load_yaml(doc *d, doc *own, em_model_config *m, const em_model_source *src,
                           em_err *err)
{
    em_status st = EM_OK;
    char *beside = em_path_join(src->model_dir, "config.yaml");
    if (!beside) return nomem(err);
    bool there = em_path_is_file(beside);
    const char *path = src->config_path ? src->config_path : there ? beside : NULL;
    if (path) {
        m->config_path = em_strdup(path);
        st = m->config_path ? em_yaml_load(&d->root, path, err) : nomem(err);
        snprintf(d->source, sizeof d->source, "'%s'", path);
    } else {
        st = em_yaml_parse(&d->root, builtin_yaml, sizeof builtin_yaml - 1,
                           "the built-in config.yaml", err);
        snprintf(d->source, sizeof d->source, "the built-in config.yaml");
    }
    if (!st && there && src->config_path) {
        st = em_yaml_load(&own->root, beside, err);
        snprintf(own->source, sizeof own->source, "'%s'", beside);
    }
    em_free(beside);
    return st;
}

/* ---- the transformer's files ---- */

static em_status push_transformer(em_model_files *f, size_t *cap, char *path, em_err *err)
{
    if (path && EM_PUSH(f->transformer, f->transformer_count, *cap, path)) return EM_OK;
    em_free(path);
    return nomem(err);
}

static int compare_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every *.safetensors of the folder that is no other model's, by name. */
static em_status push_shards(em_model_files *f, size_t *cap, const char *dir, em_err *err)
{
    em_status st = EM_OK;
    size_t first = f->transformer_count;
    DIR *d = opendir(dir);
    if (!d) return em_fail_errno(err, errno, "cannot read the folder '%s'", dir);
    for (struct dirent *e; !st && (e = readdir(d));) {
        if (e->d_name[0] == '.' || !ends_with(e->d_name, ".safetensors")) continue;
        char *path = em_path_join(dir, e->d_name);
        if (path &&
            (strcmp(path, f->vae) == 0 || strcmp(path, f->t5) == 0 || strcmp(path, f->clip) == 0)) {
            em_free(path);
            continue;
        }
        st = push_transformer(f, cap, path, err);
    }
    closedir(d);
    if (f->transformer_count > first) {
        qsort(f->transformer + first, f->transformer_count - first, sizeof *f->transformer,
              compare_path);
    }
    return st;
}

/* The names of a whole file or of an index, in the reference's order. */
static void try_base(search *s)
{
    try_indexed(s, "diffusion_pytorch_model.bin");
    try_indexed(s, "diffusion_pytorch_model.safetensors");
}

/* One of those, else shards, else nothing. */
static em_status push_base(em_model_files *f, size_t *cap, const char *dir, em_err *err)
{
    search s = {.dir = dir};
    char *path = NULL;
    try_base(&s);
    if (!s.found && !s.st) {
        em_str_free(&s.tried);
        return push_shards(f, cap, dir, err);
    }
    em_status st = end_search(&s, &path, "the transformer", err);
    return st ? st : push_transformer(f, cap, path, err);
}

/* --transformer_path: a file, or a folder with checkpoint-N.pth, or one that is laid out as the
 * released one. */
static em_status push_flash(em_model_files *f, size_t *cap, const em_model_source *src, em_err *err)
{
    char name[48], *path = NULL;
    if (em_path_is_file(src->transformer_path))
        return push_transformer(f, cap, em_strdup(src->transformer_path), err);
    if (!em_path_is_dir(src->transformer_path))
        return em_fail(err, EM_IO, "--transformer_path '%s' does not exist", src->transformer_path);
    search s = {.dir = src->transformer_path};
    snprintf(name, sizeof name, "checkpoint-%d.pth",
             src->ckpt_idx ? src->ckpt_idx : DEFAULT_CKPT_IDX);
    try_formats(&s, name);
    if (!src->ckpt_idx) try_base(&s);
    em_status st = end_search(&s, &path, "the transformer of --transformer_path", err);
    return st ? st : push_transformer(f, cap, path, err);
}

static em_status find_transformer(em_model_files *f, const char *dir, const em_model_source *src,
                                  em_err *err)
{
    size_t cap = 0;
    em_status st = push_base(f, &cap, dir, err);
    if (!st && src->transformer_path) st = push_flash(f, &cap, src, err);
    if (st || f->transformer_count) return st;
    return em_fail(
        err, EM_IO,
        "the transformer's weights are missing: '%s' has neither diffusion_pytorch_model.bin, "
        ".safetensors or their .index.json, nor another .safetensors, and no --transformer_path is "
        "given",
        dir);
}

/* ---- all of it ---- */

static em_status find_wav2vec2(char **out, const char *dir, em_err *err)
{
    search s = {.dir = dir};
    try_indexed(&s, "model.safetensors");
    try_indexed(&s, "pytorch_model.bin");
    return end_search(&s, out, "wav2vec2", err);
}

static em_status find_files(em_model_files *f, const layout *at, const em_model_source *src,
                            em_err *err)
{
    const char *dir = src->model_dir;
    const char *vae_dir = src->vae_path ? "" : dir, *vae = src->vae_path ? src->vae_path : at->vae;
    em_status st = find_file(&f->vae, vae_dir, vae, "the VAE", err);
    if (!st) st = find_file(&f->t5, dir, at->t5, "the text encoder", err);
    if (!st) st = find_file(&f->clip, dir, at->clip, "the image encoder", err);
    char *spiece = em_path_join(at->tokenizer, "spiece.model");
    if (!st && !spiece) st = nomem(err);
    if (!st) st = find_file(&f->tokenizer, dir, spiece, "the tokenizer", err);
    if (!st) st = find_wav2vec2(&f->wav2vec2, src->wav2vec_dir, err);
    em_free(spiece);
    return st;
}

static em_status open_all(em_model_config *m, doc *yaml, doc *own, const em_model_source *src,
                          em_err *err)
{
    layout at;
    if (!src->model_dir || !*src->model_dir)
        return em_fail(err, EM_INVAL, "--model_name is needed");
    em_status st = load_yaml(yaml, own, m, src, err);
    if (!st) st = read_yaml(m, &at, yaml, err);
    if (!st) st = read_recommended(m, json_object_get(yaml->root, "recommended") ? yaml : own, err);
    if (!st) st = check_folder(src->model_dir, "--model_name", at.transformer, "config.json", err);
    if (!st) st = check_folder(src->wav2vec_dir, "--wav2vec_model_dir", "./", "config.json", err);
    if (st) return st;

    char *dir = em_path_join(src->model_dir, at.transformer);
    if (!dir) return nomem(err);
    st = read_transformer(&m->transformer, dir, err);
    if (!st) st = read_wav2vec2(&m->wav2vec2, src->wav2vec_dir, err);
    if (!st) st = read_preprocessor(&m->wav2vec2, src->wav2vec_dir, err);
    if (!st) st = find_files(&m->files, &at, src, err);
    if (!st) st = find_transformer(&m->files, dir, src, err);
    em_free(dir);
    return st;
}

em_status em_model_folder_open(em_model_config **out, const em_model_source *source, em_err *err)
{
    doc yaml = {0}, own = {0};
    em_model_config *m = em_alloc(sizeof *m);
    if (!m) return nomem(err);
    em_status st = open_all(m, &yaml, &own, source, err);
    json_decref(yaml.root);
    json_decref(own.root);
    if (st) {
        em_model_folder_close(&m);
        return st;
    }
    *out = m;
    return EM_OK;
}

void em_model_folder_close(em_model_config **config)
{
    if (!config || !*config) return;
    em_model_config *m = *config;
    em_model_files *f = &m->files;
    for (size_t i = 0; i < f->transformer_count; i++) em_free(f->transformer[i]);
    em_free(f->transformer);
    em_free(f->vae);
    em_free(f->t5);
    em_free(f->clip);
    em_free(f->wav2vec2);
    em_free(f->tokenizer);
    for (size_t i = 0; i < m->recommended_count; i++) {
        em_free(m->recommended[i].flag);
        em_free(m->recommended[i].value);
    }
    em_free(m->recommended);
    em_free(m->config_path);
    em_free(m);
    *config = NULL;
}
