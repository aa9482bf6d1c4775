#include "io/yaml.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct reader {
    yaml_parser_t parser;
    const char *source;
    em_err *err;
} reader;

__attribute__((format(printf, 3, 4))) static em_status
refuse(const reader *r, const yaml_event_t *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(r->err, EM_FORMAT, fmt, ap);
    va_end(ap);
    em_err_prefix(r->err, "%s: line %zu", r->source, at->start_mark.line + 1);
    return EM_FORMAT;
}

static em_status nomem(const reader *r)
{
    return em_fail(r->err, EM_NOMEM, "out of memory reading %s", r->source);
}

/* *event is the caller's to delete on success. */
static em_status next_event(reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event)) return EM_OK;
    if (r->parser.error == YAML_MEMORY_ERROR) return nomem(r);
    return em_fail(r->err, EM_FORMAT, "%s is not valid YAML: line %zu: %s", r->source,
                   r->parser.problem_mark.line + 1,
                   r->parser.problem ? r->parser.problem : "unreadable");
}

static bool one_of(const char *s, const char *const words[])
{
    for (; *words; words++) {
        if (strcmp(s, *words) == 0) return true;
    }
    return false;
}

static size_t digits(const char *s)
{
    return strspn(s, "0123456789");
}

/* [+-] (0 | 1-9 …) */
static bool looks_integer(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t n = digits(s);
    return n > 0 && s[n] == 0 && (n == 1 || s[0] != '0');
}

/* [+-] digits [. digits] [e [+-] digits], with a point or an exponent */
static bool looks_real(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t whole = digits(s), fraction = 0;
    s += whole;
    bool point = *s == '.';
    if (point) {
        fraction = digits(++s);
        s += fraction;
    }
    if (whole + fraction == 0) return false;
    if (*s != 'e' && *s != 'E') return point && *s == 0;
    s++;
    s += *s == '-' || *s == '+';
    size_t n = digits(s);
    return n > 0 && s[n] == 0;
}

/* What an unquoted scalar means; numbers that fit nothing stay text, so that a getter names
 * them. */
static json_t *plain_value(const char *s)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    if (one_of(s, nulls)) return json_null();
    if (one_of(s, yes)) return json_true();
    if (one_of(s, no)) return json_false();
    if (looks_integer(s)) {
        errno = 0;
        long long v = strtoll(s, NULL, 10);
        if (errno == 0) return json_integer(v);
    } else if (looks_real(s)) {
        double v = strtod(s, NULL);
        if (isfinite(v)) return json_real(v);
    }
    return json_string(s);
}

static em_status check_scalar(const reader *r, const yaml_event_t *e)
{
    if (e->data.scalar.anchor) return refuse(r, e, "anchors (&) are not supported");
    if (e->data.scalar.tag) return refuse(r, e, "tags (!) are not supported");
    if (memchr(e->data.scalar.value, 0, e->data.scalar.length)) {
        return refuse(r, e, "a value holds a NUL character");
    }
    return EM_OK;
}

static em_status scalar(reader *r, json_t **out, const yaml_event_t *e)
{
    em_status st = check_scalar(r, e);
    if (st) return st;
    const char *text = (const char *)e->data.scalar.value;
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    json_t *v = plain ? plain_value(text) : json_string(text);
    if (!v) return nomem(r);
    *out = v;
    return EM_OK;
}

static em_status node(reader *r, json_t **out, const yaml_event_t *first, int depth);

static em_status list(reader *r, json_t **out, int depth)
{
    yaml_event_t e;
    em_status st = EM_OK;
    json_t *items = json_array();
    if (!items) return nomem(r);
    for (;;) {
        json_t *item = NULL;
        st = next_event(r, &e);
        if (st) break;
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        if (!end) st = node(r, &item, &e, depth);
        yaml_event_delete(&e);
        if (end || st) break;
        if (json_array_append_new(items, item) != 0) {
            st = nomem(r);
            break;
        }
    }
    if (st) {
        json_decref(items);
        return st;
    }
    *out = items;
    return EM_OK;
}

static em_status check_key(const reader *r, const yaml_event_t *e, const json_t *map)
{
    if (e->type == YAML_ALIAS_EVENT) return refuse(r, e, "aliases (*) are not supported");
    if (e->type != YAML_SCALAR_EVENT) return refuse(r, e, "a key must be a word");
    em_status st = check_scalar(r, e);
    if (st) return st;
    const char *key = (const char *)e->data.scalar.value;
    if (strcmp(key, "<<") == 0) return refuse(r, e, "merge keys (<<) are not supported");
    if (json_object_get(map, key)) return refuse(r, e, "the key '%.80s' is there twice", key);
    return EM_OK;
}

static em_status map(reader *r, json_t **out, int depth)
{
    em_status st = EM_OK;
    json_t *entries = json_object();
    if (!entries) return nomem(r);
    for (;;) {
        yaml_event_t key, value;
        json_t *v = NULL;
        st = next_event(r, &key);
        if (st) break;
        bool end = key.type == YAML_MAPPING_END_EVENT;
        if (!end) st = check_key(r, &key, entries);
        if (!end && !st) st = next_event(r, &value);
        if (!end && !st) {
            st = node(r, &v, &value, depth);
            yaml_event_delete(&value);
        }
        if (!end && !st &&
            json_object_set_new(entries, (const char *)key.data.scalar.value, v) != 0) {
            st = nomem(r);
        }
        yaml_event_delete(&key);
        if (end || st) break;
    }
    if (st) {
        json_decref(entries);
        return st;
    }
    *out = entries;
    return EM_OK;
}

/* The value that starts with *first; depth counts the collections around it. */
static em_status node(reader *r, json_t **out, const yaml_event_t *first, int depth)
{
    bool is_map = first->type == YAML_MAPPING_START_EVENT;
    if (first->type == YAML_SCALAR_EVENT) return scalar(r, out, first);
    if (first->type == YAML_ALIAS_EVENT) return refuse(r, first, "aliases (*) are not supported");
    if (!is_map && first->type != YAML_SEQUENCE_START_EVENT) return refuse(r, first, "no value");

    if (depth == EM_YAML_DEPTH) {
        return refuse(r, first, "more than %d levels", EM_YAML_DEPTH);
    }
    if (is_map ? first->data.mapping_start.anchor : first->data.sequence_start.anchor) {
        return refuse(r, first, "anchors (&) are not supported");
    }
    if (is_map ? first->data.mapping_start.tag : first->data.sequence_start.tag) {
        return refuse(r, first, "tags (!) are not supported");
    }
    return is_map ? map(r, out, depth + 1) : list(r, out, depth + 1);
}

/* Stream start, one document whose root is a map, stream end. */
static em_status stream(reader *r, json_t **out)
{
    static const yaml_event_type_t before[] = {YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT};
    static const yaml_event_type_t after[] = {YAML_DOCUMENT_END_EVENT, YAML_STREAM_END_EVENT};
    yaml_event_t e;
    json_t *root = NULL;
    em_status st = EM_OK;
    for (int i = 0; i < 2; i++) {
        st = next_event(r, &e);
        if (st) return st;
        if (e.type != before[i]) st = refuse(r, &e, "the file holds no settings");
        yaml_event_delete(&e);
        if (st) return st;
    }
    st = next_event(r, &e);
    if (st) return st;
    st = e.type == YAML_MAPPING_START_EVENT ? node(r, &root, &e, 0)
                                            : refuse(r, &e, "'key: value' lines are expected");
    yaml_event_delete(&e);
    for (int i = 0; i < 2 && !st; i++) {
        st = next_event(r, &e);
        if (st) break;
        if (e.type != after[i]) st = refuse(r, &e, "a second document is not supported");
        yaml_event_delete(&e);
    }
    if (st) {
        json_decref(root);
        return st;
    }
    *out = root;
    return EM_OK;
}

em_status em_yaml_parse(json_t **out, const char *text, size_t size_bytes, const char *source,
                        em_err *err)
{
    reader r = {.source = source, .err = err};
    if (size_bytes > EM_YAML_BYTES) {
        return em_fail(err, EM_FORMAT, "%s has %zu bytes, at most %u are read", source, size_bytes,
                       EM_YAML_BYTES);
    }
    em_json_setup();
    if (!yaml_parser_initialize(&r.parser)) return nomem(&r);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size_bytes);
    em_status st = stream(&r, out);
    yaml_parser_delete(&r.parser);
    return st;
}

em_status em_yaml_load(json_t **out, const char *path, em_err *err)
{
    char *text, source[256];
    size_t size_bytes;
    em_status st = em_file_read(&text, &size_bytes, path, EM_YAML_BYTES, err);
    if (st) return st;
    snprintf(source, sizeof source, "'%s'", path);
    st = em_yaml_parse(out, text, size_bytes, source, err);
    em_free(text);
    return st;
}
