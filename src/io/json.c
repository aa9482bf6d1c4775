#include "io/json.h"

#include "base/alloc.h"
#include "io/file.h"

#include <pthread.h>

/* jansson's parser takes a failed allocation for bad syntax: this remembers, for the thread that
 * parses, that there was one. */
static _Thread_local bool out_of_memory;

static void *alloc_for_jansson(size_t size_bytes)
{
    void *p = em_alloc(size_bytes);
    if (!p && size_bytes) out_of_memory = true;
    return p;
}

/* jansson's memory goes through ours too, so that tests can make it fail. Blocks that jansson made
 * before are freed alike, for em_free takes whatever malloc gave. */
static void use_our_memory(void)
{
    json_set_alloc_funcs(alloc_for_jansson, em_free);
}

void em_json_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, use_our_memory);
}

em_status em_json_parse(json_t **out, const char *text, size_t size_bytes, const char *source,
                        em_err *err)
{
    em_json_setup();
    json_error_t e;
    out_of_memory = false;
    json_t *doc = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &e);
    if (doc) {
        *out = doc;
        return EM_OK;
    }
    if (out_of_memory) return em_fail(err, EM_NOMEM, "out of memory reading %s", source);
    return em_fail(err, EM_FORMAT, "%s is not valid JSON: line %d, column %d: %s", source, e.line,
                   e.column, e.text);
}

em_status em_json_load(json_t **out, const char *path, size_t max_bytes, em_err *err)
{
    char *text, source[256];
    size_t size_bytes;
    em_status st = em_file_read(&text, &size_bytes, path, max_bytes, err);
    if (st) return st;
    snprintf(source, sizeof source, "'%s'", path);
    st = em_json_parse(out, text, size_bytes, source, err);
    em_free(text);
    return st;
}

const char *em_json_kind(const json_t *value)
{
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "nothing";
}

static em_status wrong_kind(const json_t *value, const char *key, const char *expected,
                            const char *source, em_err *err)
{
    return em_fail(err, EM_FORMAT, "%s: '%s' must be %s, it is %s", source, key, expected,
                   em_json_kind(value));
}

bool em_json_has(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

em_status em_json_get_int(int64_t *out, const json_t *obj, const char *key, int64_t min,
                          int64_t max, const char *source, em_err *err)
{
    if (!em_json_has(obj, key)) return EM_OK;
    const json_t *v = json_object_get(obj, key);
    if (!json_is_integer(v)) return wrong_kind(v, key, "an integer", source, err);
    int64_t x = json_integer_value(v);
    if (x < min || x > max) {
        return em_fail(err, EM_FORMAT, "%s: '%s' is %lld, it must be %lld to %lld", source, key,
                       (long long)x, (long long)min, (long long)max);
    }
    *out = x;
    return EM_OK;
}

em_status em_json_get_double(double *out, const json_t *obj, const char *key, double min,
                             double max, const char *source, em_err *err)
{
    if (!em_json_has(obj, key)) return EM_OK;
    const json_t *v = json_object_get(obj, key);
    if (!json_is_number(v)) return wrong_kind(v, key, "a number", source, err);
    double x = json_number_value(v);
    if (!(x >= min && x <= max)) {
        return em_fail(err, EM_FORMAT, "%s: '%s' is %g, it must be %g to %g", source, key, x, min,
                       max);
    }
    *out = x;
    return EM_OK;
}

em_status em_json_get_bool(bool *out, const json_t *obj, const char *key, const char *source,
                           em_err *err)
{
    if (!em_json_has(obj, key)) return EM_OK;
    const json_t *v = json_object_get(obj, key);
    if (!json_is_boolean(v)) return wrong_kind(v, key, "true or false", source, err);
    *out = json_is_true(v);
    return EM_OK;
}

em_status em_json_get_string(const char **out, const json_t *obj, const char *key,
                             const char *source, em_err *err)
{
    if (!em_json_has(obj, key)) return EM_OK;
    const json_t *v = json_object_get(obj, key);
    if (!json_is_string(v)) return wrong_kind(v, key, "a string", source, err);
    *out = json_string_value(v);
    return EM_OK;
}

em_status em_json_get_ints(int64_t *out, size_t n, const json_t *obj, const char *key, int64_t min,
                           int64_t max, const char *source, em_err *err)
{
    if (!em_json_has(obj, key)) return EM_OK;
    const json_t *v = json_object_get(obj, key);
    if (!json_is_array(v) || json_array_size(v) != n) {
        return em_fail(err, EM_FORMAT, "%s: '%s' must be an array of %zu integers", source, key, n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        if (!json_is_integer(item))
            return wrong_kind(item, key, "an array of integers", source, err);
        int64_t x = json_integer_value(item);
        if (x < min || x > max) {
            return em_fail(err, EM_FORMAT, "%s: '%s'[%zu] is %lld, it must be %lld to %lld", source,
                           key, i, (long long)x, (long long)min, (long long)max);
        }
    }
    for (size_t i = 0; i < n; i++) out[i] = json_integer_value(json_array_get(v, i));
    return EM_OK;
}

static bool append_scalar(em_str *s, const json_t *v)
{
    if (s->len) em_str_printf(s, " ");
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING: em_str_printf(s, "%s", json_string_value(v)); return true;
    case JSON_INTEGER: em_str_printf(s, "%lld", (long long)json_integer_value(v)); return true;
    case JSON_REAL: em_str_printf(s, "%.17g", json_real_value(v)); return true;
    case JSON_TRUE: em_str_printf(s, "true"); return true;
    case JSON_FALSE: em_str_printf(s, "false"); return true;
    default: return false;
    }
}

bool em_json_words(em_str *out, const json_t *value)
{
    if (!json_is_array(value)) return append_scalar(out, value);
    bool ok = json_array_size(value) > 0;
    for (size_t i = 0; ok && i < json_array_size(value); i++)
        ok = append_scalar(out, json_array_get(value, i));
    return ok;
}
