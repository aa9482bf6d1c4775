#include "batch/manifest.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/problems.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"
#include "io/url.h"
#include "pipeline/params.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LIST_BYTES = 64 << 20, SOURCE_BYTES = 300 };

/* A list while it is read. */
typedef struct reader {
    const char *path;
    const em_manifest_options *options;
    em_manifest *list;
    em_problems problems;
    em_batch_job *job;         /* the one at hand … */
    char source[SOURCE_BYTES]; /* … and how messages call it: "'jobs.json' item 3 (line 14)" */
} reader;

static const char *const known_keys[] = {
    "portrait_image",      "portrait_audio",       "output_name",  "prompt",      "seed",
    "num_inference_steps", "audio_guidance_scale", "video_length", "sample_size", "upload_url",
};
enum { KNOWN_KEYS = sizeof known_keys / sizeof *known_keys };

/* ---- problems -------------------------------------------------------------------------------- */

static void take(reader *r, const em_err *e)
{
    if (r->job && !r->job->problem.code) {
        r->job->problem = *e;
        r->list->invalid++;
    }
    if (r->job && r->options->skip_invalid)
        em_logf(&r->options->log, EM_LOG_WARN, "skipped: %s", e->msg);
    else
        em_problems_take(&r->problems, e);
}

static void wrong(reader *r, em_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void wrong(reader *r, em_status code, const char *fmt, ...)
{
    em_err e = {0};
    va_list ap;
    va_start(ap, fmt);
    em_vfail(&e, code, fmt, ap);
    va_end(ap);
    em_err_prefix(&e, "%s", r->source);
    take(r, &e);
}

static void name_source(reader *r)
{
    snprintf(r->source, sizeof r->source, "'%.200s' item %zu (line %d)", r->path, r->job->index,
             r->job->line);
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* Where each item of the array begins; the text is valid JSON. `line` has room for `count`. */
static void find_lines(const char *text, int *line, size_t count)
{
    size_t found = 0;
    int depth = 0, at = 1;
    bool fresh = true; /* the next character but blanks begins an item */
    for (const char *p = text; *p && found < count; p++) {
        if (*p == '\n') at++;
        if (strchr(" \t\r\n", *p)) continue;
        if (*p == ',' && depth == 1) {
            fresh = true;
            continue;
        }
        if (depth == 1 && fresh && *p != ']') {
            line[found++] = at;
            fresh = false;
        }
        if (*p == '[' || *p == '{') depth++;
        if (*p == ']' || *p == '}') depth--;
        if (*p == '"')
            for (p++; *p != '"'; p++)
                if (*p == '\\') p++;
    }
}

/* ---- one item -------------------------------------------------------------------------------- */

bool em_is_address(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && !strncmp(text + n, "://", 3);
}

void em_address_shown(char *out, size_t room, const char *text)
{
    if (em_is_address(text))
        em_url_public(out, room, text);
    else
        snprintf(out, room, "%s", text);
}

static char *copy(reader *r, const char *text)
{
    char *own = em_strdup(text);
    if (!own) wrong(r, EM_NOMEM, "out of memory");
    return own;
}

/* A text, or NULL when it is absent (said if `needed`) or no text (said). */
static const char *get_text(reader *r, const json_t *item, const char *key, bool needed)
{
    em_err e = {0};
    const char *text = NULL;
    if (em_json_get_string(&text, item, key, r->source, &e))
        take(r, &e);
    else if (!text && needed)
        wrong(r, EM_INVAL, "'%s' is missing", key);
    return text;
}

/* The path that is meant: beside the list, or where older lists have it, from the folder that the
 * program was started in, if it is only there. */
static char *locate(reader *r, const char *text)
{
    const char *base = em_path_base(r->path);
    if (em_is_address(text) || base == r->path) return copy(r, text);
    char *folder = em_strndup(r->path, (size_t)(base - r->path));
    char *beside = folder ? em_path_join(folder, text) : NULL;
    em_free(folder);
    if (!beside) wrong(r, EM_NOMEM, "out of memory");
    if (!beside || em_path_is_file(beside) || !em_path_is_file(text)) return beside;
    em_free(beside);
    return copy(r, text);
}

/* What is wrong with an address; NULL: nothing. */
static const char *address_fault(const reader *r, const char *text)
{
    em_url_scheme scheme = em_url_scheme_of(text);
    if (scheme == EM_URL_HTTPS || (scheme == EM_URL_HTTP && r->options->plain_http)) return NULL;
    return scheme == EM_URL_HTTP
               ? "only https addresses can be had (http within --allow_private networks)"
               : "only https addresses and files can be had";
}

static char *read_media(reader *r, const json_t *item, const char *key)
{
    const char *text = get_text(r, item, key, true);
    if (!text) return NULL;
    if (!*text) {
        wrong(r, EM_INVAL, "'%s' is empty: give a file or an https address", key);
    } else if (em_is_address(text) && address_fault(r, text)) {
        char shown[120];
        em_address_shown(shown, sizeof shown, text);
        wrong(r, EM_INVAL, "'%s' is '%s': %s", key, shown, address_fault(r, text));
    } else {
        return locate(r, text);
    }
    return NULL;
}

static char *read_upload(reader *r, const json_t *item)
{
    char shown[120];
    const char *text = get_text(r, item, "upload_url", false);
    if (!text) return NULL;
    em_address_shown(shown, sizeof shown, em_is_address(text) ? text : "");
    if (!em_is_address(text))
        wrong(r, EM_INVAL, "'upload_url' is no address: https://… is expected");
    else if (address_fault(r, text))
        wrong(r, EM_INVAL, "'upload_url' is '%s': %s", shown, address_fault(r, text));
    else
        return copy(r, text);
    return NULL;
}

/* What is wrong with a name that becomes part of a path; NULL: nothing. */
static const char *name_fault(const char *name)
{
    if (!*name) return "is empty";
    if (strlen(name) > EM_OUTPUT_NAME_BYTES) return "is too long, 200 bytes are possible";
    if (strpbrk(name, "/\\")) return "has a slash: it is a name, --save_path is the folder";
    if (*name == '.' || *name == '-') return "must not begin with a dot or a dash";
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f) return "has a control character";
    return NULL;
}

static char *read_name(reader *r, const json_t *item)
{
    char fallback[32];
    snprintf(fallback, sizeof fallback, "video_%04zu", r->job->index);
    const char *name = get_text(r, item, "output_name", false);
    if (!name) return copy(r, fallback);
    const char *fault = name_fault(name);
    if (!fault) return copy(r, name);
    wrong(r, EM_INVAL, "'output_name' '%.60s%s' %s", name, strlen(name) > 60 ? "…" : "", fault);
    return NULL;
}

/* The settings that a job may have of its own. */
static const struct {
    const char *key;
    size_t offset, size_bytes; /* in em_params */
} settings[] = {
#define SETTING(field)                                                                             \
    {                                                                                              \
#field, offsetof(em_params, field), sizeof(((em_params *)0)->field)                        \
    }
    SETTING(prompt),       SETTING(seed),        SETTING(num_inference_steps),
    SETTING(video_length), SETTING(sample_size), SETTING(audio_guidance_scale),
#undef SETTING
};
enum { SETTINGS = sizeof settings / sizeof *settings };

void em_manifest_rebase(em_manifest *m, const em_params *params)
{
    for (size_t i = 0; i < m->count; i++) {
        em_params mixed = *params;
        em_batch_job *j = &m->job[i];
        for (int k = 0; k < SETTINGS; k++)
            if (j->own & 1u << k)
                memcpy((char *)&mixed + settings[k].offset,
                       (const char *)&j->params + settings[k].offset, settings[k].size_bytes);
        j->params = mixed;
    }
}

/* An integer, or two, within the range of the flag of that name. */
static void read_ints(reader *r, const json_t *item, const char *key, int64_t *to, size_t n)
{
    em_err e = {0};
    double least = 0, most = 0;
    em_params_range(key, &least, &most);
    int64_t top = most >= 0x1p63 ? INT64_MAX : (int64_t)most;
    em_status st = n == 1 ? em_json_get_int(to, item, key, (int64_t)least, top, r->source, &e)
                          : em_json_get_ints(to, n, item, key, (int64_t)least, top, r->source, &e);
    if (st) take(r, &e);
}

static void read_params(reader *r, const json_t *item)
{
    em_params *p = &r->job->params;
    em_err e = {0};
    double least = 0, most = 0;
    int64_t steps = p->num_inference_steps, length = p->video_length;
    int64_t size[2] = {p->sample_size[0], p->sample_size[1]};
    const char *prompt = get_text(r, item, "prompt", false);
    if (prompt && (r->job->prompt = copy(r, prompt))) p->prompt = r->job->prompt;
    read_ints(r, item, "seed", &p->seed, 1);
    read_ints(r, item, "num_inference_steps", &steps, 1);
    read_ints(r, item, "video_length", &length, 1);
    read_ints(r, item, "sample_size", size, 2);
    p->num_inference_steps = (int)steps;
    p->video_length = (int)length;
    for (int i = 0; i < 2; i++) p->sample_size[i] = (int)size[i];

    em_params_range("audio_guidance_scale", &least, &most);
    if (em_json_get_double(&p->audio_guidance_scale, item, "audio_guidance_scale", least, most,
                           r->source, &e))
        take(r, &e);
    for (int k = 0; k < SETTINGS; k++)
        if (em_json_has(item, settings[k].key)) r->job->own |= 1u << k;
}

/* The known key that one is, or resembles; NULL: none. */
static const char *nearest_key(const char *key)
{
    const char *best = NULL;
    size_t least = strlen(key) / 3 + 2;
    for (int i = 0; i < KNOWN_KEYS; i++) {
        size_t d = em_str_distance(key, known_keys[i]);
        if (!strcmp(key, known_keys[i])) return known_keys[i];
        if (d >= least) continue;
        least = d;
        best = known_keys[i];
    }
    return best;
}

/* People keep their own notes in lists; a note that resembles a key may be a slip. */
static void check_keys(reader *r, json_t *item)
{
    const char *key;
    json_t *value;
    json_object_foreach(item, key, value)
    {
        const char *near = nearest_key(key);
        if (near && !strcmp(near, key)) continue;
        em_logf(&r->options->log, EM_LOG_WARN, "%s: the key '%.60s' is not known%s%s%s", r->source,
                key, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
}

static void read_item(reader *r, json_t *item)
{
    em_batch_job *j = r->job;
    j->params = *r->options->params;
    if (!json_is_object(item)) {
        wrong(r, EM_FORMAT, "an object was expected, it is %s", em_json_kind(item));
        return;
    }
    check_keys(r, item);
    j->image = read_media(r, item, "portrait_image");
    j->audio = read_media(r, item, "portrait_audio");
    j->name = read_name(r, item);
    read_params(r, item);
    j->upload_url = read_upload(r, item);
}

/* ---- the whole list -------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const em_batch_job *x = *(em_batch_job *const *)a, *y = *(em_batch_job *const *)b;
    int d = strcasecmp(x->name, y->name);
    return d ? d : x->index < y->index ? -1 : 1;
}

/* Two jobs with one name would overwrite each other; on some file systems capitals are no
 * difference. */
static void check_duplicates(reader *r)
{
    em_manifest *m = r->list;
    size_t n = 0;
    em_batch_job **named = em_alloc_array(m->count, sizeof *named);
    if (!named) {
        em_problems_add(&r->problems, EM_NOMEM, "no memory to check '%s'", r->path);
        return;
    }
    for (size_t i = 0; i < m->count; i++)
        if (m->job[i].name) named[n++] = &m->job[i];
    qsort(named, n, sizeof *named, by_name);
    for (size_t i = 1; i < n; i++) {
        const em_batch_job *before = named[i - 1];
        if (strcasecmp(before->name, named[i]->name) != 0) continue;
        r->job = named[i];
        name_source(r);
        wrong(r, EM_INVAL, "'output_name' '%s' is that of item %zu (line %d) too", named[i]->name,
              before->index, before->line);
    }
    em_free(named);
}

static void read_items(reader *r, const json_t *doc, const char *text)
{
    size_t count = json_array_size(doc);
    em_manifest *m = r->list;
    int *line = em_alloc_array(count, sizeof *line);
    m->job = em_alloc_array(count, sizeof *m->job);
    if (!line || !m->job) {
        em_problems_add(&r->problems, EM_NOMEM, "no memory to read '%s'", r->path);
        em_free(line);
        return;
    }
    find_lines(text, line, count);
    for (; m->count < count; m->count++) {
        r->job = &m->job[m->count];
        r->job->index = m->count + 1;
        r->job->line = line[m->count];
        name_source(r);
        read_item(r, json_array_get(doc, m->count));
    }
    em_free(line);
    check_duplicates(r);
}

em_status em_manifest_read(em_manifest *out, const char *path, const em_manifest_options *options,
                           em_err *err)
{
    em_manifest list = {0};
    reader r = {.path = path,
                .options = options,
                .list = &list,
                .problems = {.log = &options->log}};
    char *text = NULL, source[SOURCE_BYTES];
    size_t size_bytes;
    json_t *doc = NULL;
    em_status st = em_file_read(&text, &size_bytes, path, LIST_BYTES, err);
    if (st) return st;
    snprintf(source, sizeof source, "'%.200s'", path);
    st = em_json_parse(&doc, text, size_bytes, source, err);
    if (!st && !json_is_array(doc))
        st = em_fail(err, EM_FORMAT, "'%s' must hold a list of jobs, [ … ], it holds %s", path,
                     em_json_kind(doc));
    if (!st && json_array_size(doc) > 0) {
        read_items(&r, doc, text);
        st = em_problems_end(&r.problems, source, err);
    }
    json_decref(doc);
    em_free(text);
    if (st)
        em_manifest_close(&list);
    else
        *out = list;
    return st;
}

/* ---- a list of one --------------------------------------------------------------------------- */

em_status em_manifest_single(em_manifest *out, const char *image, const char *audio,
                             const char *output, const em_params *params, em_err *err)
{
    char shown[EM_OUTPUT_NAME_BYTES + 1];
    em_manifest list = {.count = 1, .job = em_alloc(sizeof *list.job)};
    if (!list.job) return em_fail(err, EM_NOMEM, "no memory for a job");
    em_batch_job *j = list.job;
    em_address_shown(shown, sizeof shown, image);
    const char *base = em_path_base(shown);
    *j = (em_batch_job){.index = 1,
                        .image = em_strdup(image),
                        .audio = em_strdup(audio),
                        .name = em_strndup(base, strcspn(base, ".")),
                        .output = output ? em_strdup(output) : NULL,
                        .params = *params};
    if (j->image && j->audio && j->name && (j->output || !output)) {
        *out = list;
        return EM_OK;
    }
    em_manifest_close(&list);
    return em_fail(err, EM_NOMEM, "no memory for a job");
}

void em_manifest_close(em_manifest *m)
{
    for (size_t i = 0; i < m->count; i++) {
        em_batch_job *j = &m->job[i];
        em_free(j->image);
        em_free(j->audio);
        em_free(j->name);
        em_free(j->output);
        em_free(j->prompt);
        em_free(j->upload_url);
    }
    em_free(m->job);
    *m = (em_manifest){0};
}
