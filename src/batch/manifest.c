#include "batch/manifest.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/file.h"
#include "io/json.h"
#include "pipeline/params.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MAX_LIST_BYTES = 64 << 20 };

/* What is read from, while reading. */
typedef struct reader {
    em_manifest *m;
    const em_params *defaults;
    const em_log *log;
    char *folder; /* of the list, owned */
    size_t *line; /* of every item, owned */
    size_t lines;
} reader;

/* ---- lines ----------------------------------------------------------------------------------- */

/* jansson keeps no positions: finds the line on which each element of the outermost array begins.
 * The text has been parsed, so it is well-formed. */
static bool find_lines(reader *r, const char *text, size_t size_bytes)
{
    size_t line = 1, depth = 0, cap = 0;
    bool in_string = false, expect = false;
    for (size_t i = 0; i < size_bytes; i++) {
        char c = text[i];
        if (c == '\n') line++;
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (isspace((unsigned char)c)) continue;
        if (depth == 1 && expect && c != ']') {
            if (!EM_PUSH(r->line, r->lines, cap, line)) return false;
            expect = false;
        }
        if (c == '"') in_string = true;
        if (c == '[' || c == '{') expect = depth++ == 0;
        if (c == ']' || c == '}') depth--;
        if (c == ',' && depth == 1) expect = true;
    }
    return true;
}

/* ---- names ----------------------------------------------------------------------------------- */

bool em_is_url(const char *text)
{
    return strstr(text, "://") != NULL;
}

em_status em_name_check(const char *name, em_err *err)
{
    size_t n = strlen(name);
    if (n == 0) return em_fail(err, EM_INVAL, "it is empty");
    if (n > EM_NAME_BYTES)
        return em_fail(err, EM_INVAL, "it has %zu bytes, at most %d are allowed", n, EM_NAME_BYTES);
    if (name[0] == '.' || name[0] == '-')
        return em_fail(err, EM_INVAL, "it may not begin with '%c'", name[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '/' || c == '\\')
            return em_fail(err, EM_INVAL, "'%c' would lead to another folder", c);
        if (c < 0x20 || c == 0x7f) return em_fail(err, EM_INVAL, "it has a control character");
    }
    return EM_OK;
}

/* ---- one item -------------------------------------------------------------------------------- */

static void complain(reader *r, size_t index, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void complain(reader *r, size_t index, const char *fmt, ...)
{
    em_err e = {0};
    va_list ap;
    va_start(ap, fmt);
    em_vfail(&e, EM_FORMAT, fmt, ap);
    va_end(ap);
    r->m->problems++;
    em_logf(r->log, EM_LOG_ERROR, "item %zu (line %zu): %s", index + 1, r->line[index], e.msg);
}

/* A required or optional string; false after a complaint. */
static bool read_string(reader *r, size_t i, const json_t *item, const char *key, bool required,
                        const char **out)
{
    const json_t *v = json_object_get(item, key);
    if (!v || json_is_null(v)) {
        if (required) complain(r, i, "'%s' is missing", key);
        return !required;
    }
    if (!json_is_string(v)) {
        complain(r, i, "'%s' must be a string, it is %s", key, em_json_kind(v));
        return false;
    }
    *out = json_string_value(v);
    return true;
}

/* A URL stays; a path is taken from the list's folder. Owned. */
static char *locate(const reader *r, const char *text)
{
    if (em_is_url(text)) return em_strdup(text);
    return em_path_join(r->folder, text);
}

static bool read_media(reader *r, size_t i, const json_t *item, const char *key, char **out)
{
    const char *text = NULL;
    if (!read_string(r, i, item, key, true, &text)) return false;
    if (!*text) {
        complain(r, i, "'%s' is empty", key);
        return false;
    }
    if (em_is_url(text) && strncasecmp(text, "https://", 8)) {
        complain(r, i, "'%s': only https addresses and file paths can be read", key);
        return false;
    }
    *out = locate(r, text);
    if (!*out) complain(r, i, "out of memory");
    return *out != NULL;
}

static bool read_name(reader *r, size_t i, const json_t *item, char **out)
{
    em_err err = {0};
    char fallback[32];
    const char *name = fallback;
    snprintf(fallback, sizeof fallback, "video_%04zu", i + 1);
    if (!read_string(r, i, item, "output_name", false, &name)) return false;
    if (em_name_check(name, &err)) {
        complain(r, i, "'output_name' %s", err.msg);
        return false;
    }
    for (size_t k = 0; k < r->m->count; k++)
        if (!strcasecmp(r->m->job[k].name, name)) {
            complain(
                r, i,
                "'output_name' \"%s\" is that of item %zu too: one video would overwrite the other",
                name, r->m->job[k].index);
            return false;
        }
    *out = em_strdup(name);
    if (!*out) complain(r, i, "out of memory");
    return *out != NULL;
}

/* Settings of this item alone, within the flags' ranges. */
static bool read_settings(reader *r, size_t i, const json_t *item, em_params *p)
{
    em_err err = {0};
    int64_t steps = p->num_inference_steps, length = p->video_length;
    int64_t size[2] = {p->sample_size[0], p->sample_size[1]};
    const int64_t most = 1 << 30;
    em_status st = em_json_get_int(&p->seed, item, "seed", 0, INT64_MAX, "the item", &err);
    if (!st)
        st = em_json_get_int(&steps, item, "num_inference_steps", -most, most, "the item", &err);
    if (!st) st = em_json_get_int(&length, item, "video_length", -most, most, "the item", &err);
    if (!st)
        st = em_json_get_double(&p->audio_guidance_scale, item, "audio_guidance_scale", -1e9, 1e9,
                                "the item", &err);
    if (!st && em_json_has(item, "sample_size"))
        st = em_json_get_ints(size, 2, item, "sample_size", -most, most, "the item", &err);
    p->num_inference_steps = (int)steps;
    p->video_length = (int)length;
    p->sample_size[0] = (int)size[0];
    p->sample_size[1] = (int)size[1];
    if (!st) st = em_params_check(p, &err);
    if (st) complain(r, i, "%s", err.msg);
    return !st;
}

static void warn_unknown_keys(reader *r, size_t i, const json_t *item)
{
    static const char *const known[] = {
        "portrait_image",      "portrait_audio",       "output_name",  "prompt",     "seed",
        "num_inference_steps", "audio_guidance_scale", "video_length", "sample_size"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)item, key, v)
    {
        bool found = false;
        const char *like = NULL;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            found = found || !strcmp(key, known[k]);
            if (strstr(known[k], key) || strstr(key, known[k]) || !strncasecmp(key, known[k], 5))
                like = known[k];
        }
        if (found) continue;
        em_logf(r->log, EM_LOG_WARN, "item %zu (line %zu): '%s' is not a key of a job%s%s%s", i + 1,
                r->line[i], key, like ? ": did you mean '" : "", like ? like : "",
                like ? "'?" : "");
    }
}

static void close_job(em_batch_job *j)
{
    em_free(j->image);
    em_free(j->audio);
    em_free(j->name);
    em_free(j->prompt);
    *j = (em_batch_job){0};
}

static void read_item(reader *r, size_t i, const json_t *item)
{
    if (!json_is_object(item)) {
        complain(r, i, "it must be an object, it is %s", em_json_kind(item));
        return;
    }
    em_batch_job j = {.params = *r->defaults, .index = i + 1, .line = r->line[i]};
    const char *prompt = NULL;
    warn_unknown_keys(r, i, item);
    /* & and not &&: all that is wrong with an item is told at once */
    bool good = read_media(r, i, item, "portrait_image", &j.image) &
                read_media(r, i, item, "portrait_audio", &j.audio) &
                read_name(r, i, item, &j.name) & read_string(r, i, item, "prompt", false, &prompt) &
                read_settings(r, i, item, &j.params);
    if (good && prompt) {
        j.prompt = em_strdup(prompt);
        j.params.prompt = j.prompt;
        good = j.prompt != NULL;
    }
    if (!good || !EM_PUSH(r->m->job, r->m->count, r->m->cap, j)) close_job(&j);
}

/* ---- the list -------------------------------------------------------------------------------- */

static em_status open_reader(reader *r, const char *path, const char *text, size_t size_bytes,
                             em_err *err)
{
    const char *slash = strrchr(path, '/');
    r->folder = slash ? em_strndup(path, (size_t)(slash - path) + (slash == path)) : em_strdup(".");
    if (!r->folder || !find_lines(r, text, size_bytes))
        return em_fail(err, EM_NOMEM, "no memory for '%s'", path);
    return EM_OK;
}

em_status em_manifest_read(em_manifest *m, const char *path, const em_params *defaults,
                           const em_log *log, em_err *err)
{
    char *text = NULL;
    size_t size_bytes = 0;
    json_t *list = NULL;
    reader r = {.m = m, .defaults = defaults, .log = log};
    *m = (em_manifest){0};
    em_status st = em_file_read(&text, &size_bytes, path, MAX_LIST_BYTES, err);
    if (!st) st = em_json_parse(&list, text, size_bytes, "the job list", err);
    if (!st && !json_is_array(list))
        st = em_fail(err, EM_FORMAT, "the job list '%s' must be a JSON array of jobs, it is %s",
                     path, em_json_kind(list));
    if (!st) st = open_reader(&r, path, text, size_bytes, err);
    if (!st) {
        m->items = json_array_size(list);
        for (size_t i = 0; i < m->items; i++) read_item(&r, i, json_array_get(list, i));
    }
    json_decref(list);
    em_free(text);
    em_free(r.folder);
    em_free(r.line);
    return st;
}

void em_manifest_close(em_manifest *m)
{
    for (size_t i = 0; i < m->count; i++) close_job(&m->job[i]);
    em_free(m->job);
    *m = (em_manifest){0};
}
