#include "io/safetensors.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/json.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8 }; /* the header's own length, in front of it */

/* ---- reading ---- */

struct em_safetensors {
    char *path;
    em_map map;     /* closed where the bytes are the caller's */
    json_t *header; /* owns the names */
    em_safetensors_entry *entries;
    size_t count;
};

/* Bytes of a name to show in a sentence: not so many that the rule falls off the end, whole
 * characters. */
static int shown(const char *name)
{
    enum { MOST = 120 };
    size_t n = strnlen(name, MOST + 1);
    if (n <= MOST) return (int)n;
    for (n = MOST; n > 0 && ((unsigned char)name[n] & 0xC0) == 0x80;) n--;
    return (int)n;
}

/* EM_FORMAT and "'path': tensor 'name': …"; name NULL where no tensor is at fault. */
__attribute__((format(printf, 4, 5))) static em_status
refuse(em_err *err, const char *path, const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(err, EM_FORMAT, fmt, ap);
    va_end(ap);
    if (name) em_err_prefix(err, "tensor '%.*s'", shown(name), name);
    em_err_prefix(err, "'%s'", path);
    return EM_FORMAT;
}

static uint64_t load_le64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

/* Terminals obey control characters, and names end up in messages; NUL jansson refuses by
 * itself. */
static em_status check_name(const char *path, const char *name, em_err *err)
{
    size_t n = strlen(name);
    if (n > EM_TENSOR_NAME_BYTES) {
        return refuse(err, path, name, "a name of %zu bytes, at most %d are allowed", n,
                      EM_TENSOR_NAME_BYTES);
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) {
            return refuse(err, path, NULL, "a tensor's name has a control character at byte %zu",
                          i);
        }
    }
    return EM_OK;
}

static em_status check_metadata(const char *path, const json_t *meta, em_err *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(meta)) {
        return refuse(err, path, NULL, "__metadata__ must be an object, it is %s",
                      em_json_kind(meta));
    }
    json_object_foreach((json_t *)meta, key, value)
    {
        if (!json_is_string(value)) {
            return refuse(err, path, NULL, "__metadata__: '%.*s' must be a string, it is %s",
                          shown(key), key, em_json_kind(value));
        }
    }
    return EM_OK;
}

static em_status parse_dtype(em_safetensors_entry *e, const json_t *v, const char *path,
                             em_err *err)
{
    if (!json_is_string(v)) {
        return refuse(err, path, e->name, "'dtype' must be a string, it is %s", em_json_kind(v));
    }
    const char *text = json_string_value(v);
    for (int t = 0; t < EM_DTYPE_COUNT; t++) {
        if (strcmp(text, em_dtype_name((em_dtype)t)) == 0) {
            e->dtype = (em_dtype)t;
            return EM_OK;
        }
    }
    return refuse(
        err, path, e->name,
        "dtype '%.*s' is not supported (F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL are)",
        shown(text), text);
}

/* Sizes, and what they come to in bytes. */
static em_status parse_shape(em_safetensors_entry *e, const json_t *v, const char *path,
                             em_err *err)
{
    if (!json_is_array(v)) {
        return refuse(err, path, e->name, "'shape' must be an array, it is %s", em_json_kind(v));
    }
    if (json_array_size(v) > EM_TENSOR_DIMS) {
        return refuse(err, path, e->name, "%zu dimensions, at most %d are supported",
                      json_array_size(v), EM_TENSOR_DIMS);
    }
    size_t bytes = em_dtype_bytes(e->dtype), items = 1;
    e->ndim = (int)json_array_size(v);
    for (int i = 0; i < e->ndim; i++) {
        const json_t *d = json_array_get(v, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0) {
            return refuse(err, path, e->name, "'shape' must hold integers from 0 on, [%d] is %s", i,
                          json_is_integer(d) ? "negative" : em_json_kind(d));
        }
        e->dim[i] = json_integer_value(d);
        if (!em_size_mul(&items, items, (size_t)e->dim[i])) {
            return refuse(err, path, e->name, "the shape's product is too large");
        }
    }
    if (!em_size_mul(&e->size_bytes, items, bytes)) {
        return refuse(err, path, e->name, "the shape's size in bytes is too large");
    }
    return EM_OK;
}

/* data points to the first byte after the header, size_bytes of them are there. */
static em_status parse_offsets(em_safetensors_entry *e, const json_t *v, const unsigned char *data,
                               size_t size_bytes, const char *path, em_err *err)
{
    if (!json_is_array(v) || json_array_size(v) != 2) {
        return refuse(err, path, e->name, "'data_offsets' must be an array of two integers");
    }
    uint64_t at[2];
    for (int i = 0; i < 2; i++) {
        const json_t *o = json_array_get(v, (size_t)i);
        if (!json_is_integer(o) || json_integer_value(o) < 0) {
            return refuse(err, path, e->name,
                          "'data_offsets' must hold integers from 0 on, [%d] is %s", i,
                          json_is_integer(o) ? "negative" : em_json_kind(o));
        }
        at[i] = (uint64_t)json_integer_value(o);
    }
    if (at[1] < at[0]) return refuse(err, path, e->name, "'data_offsets' end before they begin");
    if (at[1] > size_bytes) {
        return refuse(
            err, path, e->name,
            "its bytes end at %llu, but only %zu follow the header: the file is cut short",
            (unsigned long long)at[1], size_bytes);
    }
    if (at[1] - at[0] != e->size_bytes) {
        return refuse(err, path, e->name,
                      "'data_offsets' span %llu bytes, shape and dtype need %zu",
                      (unsigned long long)(at[1] - at[0]), e->size_bytes);
    }
    e->data = data + at[0];
    return EM_OK;
}

static em_status parse_entry(em_safetensors_entry *e, const json_t *v, const unsigned char *data,
                             size_t size_bytes, const char *path, em_err *err)
{
    em_status st = check_name(path, e->name, err);
    if (st) return st;
    if (!json_is_object(v)) {
        return refuse(err, path, e->name, "its entry must be an object, it is %s", em_json_kind(v));
    }
    st = parse_dtype(e, json_object_get(v, "dtype"), path, err);
    if (!st) st = parse_shape(e, json_object_get(v, "shape"), path, err);
    if (!st) st = parse_offsets(e, json_object_get(v, "data_offsets"), data, size_bytes, path, err);
    return st;
}

/* By first byte, then by last: an empty tensor comes before the one that starts where it stands. */
static int compare_place(const void *a, const void *b)
{
    const em_safetensors_entry *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    if (x->size_bytes != y->size_bytes) return x->size_bytes < y->size_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Every byte belongs to exactly one tensor: no hole, no overlap, nothing after the last. */
static em_status check_cover(const em_safetensors *f, const unsigned char *data, size_t size_bytes,
                             em_err *err)
{
    size_t next = 0;
    for (size_t i = 0; i < f->count; i++) {
        const em_safetensors_entry *e = &f->entries[i];
        size_t begin = (size_t)((const unsigned char *)e->data - data);
        if (begin != next) {
            return refuse(err, f->path, e->name, "its bytes begin at %zu, %s at %zu", begin,
                          begin < next ? "inside another tensor's, which end"
                                       : "after a hole: the tensors before it end",
                          next);
        }
        next = begin + e->size_bytes;
    }
    if (next != size_bytes) {
        return refuse(err, f->path, NULL, "%zu bytes follow the last tensor", size_bytes - next);
    }
    return EM_OK;
}

static em_status parse_header(em_safetensors *f, const unsigned char *data, size_t size_bytes,
                              em_err *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(f->header)) {
        return refuse(err, f->path, NULL, "the header must be a JSON object, it is %s",
                      em_json_kind(f->header));
    }
    size_t tensors = json_object_size(f->header) - !!json_object_get(f->header, "__metadata__");
    if (tensors > EM_SAFETENSORS_TENSORS) {
        return refuse(err, f->path, NULL, "%zu tensors, at most %d are allowed", tensors,
                      EM_SAFETENSORS_TENSORS);
    }
    f->entries = em_alloc_array(tensors + 1, sizeof *f->entries);
    if (!f->entries) return em_fail(err, EM_NOMEM, "out of memory reading '%s'", f->path);

    em_status st = EM_OK;
    json_object_foreach(f->header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            st = check_metadata(f->path, value, err);
        } else {
            em_safetensors_entry *e = &f->entries[f->count++];
            e->name = name;
            st = parse_entry(e, value, data, size_bytes, f->path, err);
        }
        if (st) return st;
    }
    qsort(f->entries, f->count, sizeof *f->entries, compare_place);
    return check_cover(f, data, size_bytes, err);
}

/* The length, the header, the cover, into a new *f. */
static em_status parse(em_safetensors *f, const void *bytes, size_t size_bytes,
                       size_t header_cap_bytes, em_err *err)
{
    const unsigned char *p = bytes;
    size_t cap = header_cap_bytes ? header_cap_bytes : EM_SAFETENSORS_HEADER_BYTES;
    if (cap > EM_SAFETENSORS_HEADER_BYTES_MAX) cap = EM_SAFETENSORS_HEADER_BYTES_MAX;
    if (size_bytes < LENGTH_BYTES) {
        return refuse(err, f->path, NULL, "%zu bytes are too few for a safetensors file",
                      size_bytes);
    }
    uint64_t n = load_le64(p);
    if (n > cap) {
        return refuse(
            err, f->path, NULL,
            "not a safetensors file, or its header of %llu bytes is above the limit of %zu",
            (unsigned long long)n, cap);
    }
    if (n > size_bytes - LENGTH_BYTES) {
        return refuse(err, f->path, NULL, "the header should have %llu bytes, %zu are there",
                      (unsigned long long)n, size_bytes - LENGTH_BYTES);
    }
    p += LENGTH_BYTES;
    em_status st = em_json_parse(&f->header, (const char *)p, (size_t)n, "the header", err);
    if (st) {
        em_err_prefix(err, "'%s'", f->path);
        return st;
    }
    return parse_header(f, p + n, size_bytes - LENGTH_BYTES - (size_t)n, err);
}

/* Nothing but the path; NULL when out of memory. */
static em_safetensors *create_empty(const char *path, em_err *err)
{
    em_safetensors *f = em_alloc(sizeof *f);
    if (f) f->path = em_strdup(path);
    if (f && f->path) return f;
    em_fail(err, EM_NOMEM, "out of memory reading '%s'", path);
    em_safetensors_close(&f);
    return NULL;
}

em_status em_safetensors_parse(em_safetensors **out, const void *bytes, size_t size_bytes,
                               const char *path, size_t header_cap_bytes, em_err *err)
{
    em_safetensors *f = create_empty(path, err);
    if (!f) return EM_NOMEM;
    em_status st = parse(f, bytes, size_bytes, header_cap_bytes, err);
    if (st) {
        em_safetensors_close(&f);
        return st;
    }
    *out = f;
    return EM_OK;
}

em_status em_safetensors_open(em_safetensors **out, const char *path, size_t header_cap_bytes,
                              em_err *err)
{
    em_safetensors *f = create_empty(path, err);
    if (!f) return EM_NOMEM;
    em_status st = em_file_map(&f->map, path, false, err);
    if (!st) st = parse(f, f->map.data, f->map.size_bytes, header_cap_bytes, err);
    if (st) {
        em_safetensors_close(&f);
        return st;
    }
    *out = f;
    return EM_OK;
}

void em_safetensors_close(em_safetensors **file)
{
    if (!file || !*file) return;
    em_safetensors *f = *file;
    json_decref(f->header);
    em_map_close(&f->map);
    em_free(f->entries);
    em_free(f->path);
    em_free(f);
    *file = NULL;
}

const char *em_safetensors_path(const em_safetensors *file)
{
    return file->path;
}

const em_map *em_safetensors_map(const em_safetensors *file)
{
    return &file->map;
}

size_t em_safetensors_count(const em_safetensors *file)
{
    return file->count;
}

const em_safetensors_entry *em_safetensors_at(const em_safetensors *file, size_t i)
{
    return &file->entries[i];
}

/* ---- writing ---- */

typedef struct slot {
    uint64_t begin_bytes; /* in the file */
    size_t size_bytes;
    atomic_size_t missing_bytes; /* counts down as the tensor is written */
} slot;

struct em_safetensors_writer {
    char *path;
    em_file_writer *file;
    slot *slots;  /* as the caller's specs are ordered */
    char **names; /* the same; for messages */
    size_t count;
};

typedef struct order {
    const em_safetensors_spec *spec;
    size_t index; /* in specs */
} order;

static int compare_order(const void *a, const void *b)
{
    const em_safetensors_spec *x = ((const order *)a)->spec, *y = ((const order *)b)->spec;
    size_t p = em_dtype_bytes(x->dtype), q = em_dtype_bytes(y->dtype);
    if (p != q) return p > q ? -1 : 1;
    return strcmp(x->name, y->name);
}

static em_status spec_bytes(size_t *out, const em_safetensors_spec *s, const char *path,
                            em_err *err)
{
    em_status st = check_name(path, s->name, err);
    if (st) return st;
    if (s->ndim < 0 || s->ndim > EM_TENSOR_DIMS) {
        return em_fail(err, EM_INVAL, "'%s': tensor '%s' has %d dimensions, 0 to %d are allowed",
                       path, s->name, s->ndim, EM_TENSOR_DIMS);
    }
    size_t bytes = em_dtype_bytes(s->dtype);
    for (int i = 0; i < s->ndim; i++) {
        if (s->dim[i] < 0 || !em_size_mul(&bytes, bytes, (size_t)s->dim[i])) {
            return em_fail(err, EM_INVAL,
                           "'%s': tensor '%s': dimension %d is negative or too large", path,
                           s->name, i);
        }
    }
    *out = bytes;
    return EM_OK;
}

/* {"dtype": …, "shape": […], "data_offsets": […]}; NULL when out of memory. Owned. */
static json_t *entry_json(const em_safetensors_spec *s, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < s->ndim; i++) {
        if (json_array_append_new(shape, json_integer(s->dim[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", em_dtype_name(s->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* Places the tensors, offsets counted from the end of the header, and describes them in *out
 * (owned). */
static em_status describe(json_t **out, em_safetensors_writer *w, const order *by_place,
                          uint64_t *total, em_err *err)
{
    em_status st = EM_OK;
    uint64_t next = 0;
    /* transformers refuses files that do not say which framework's tensors they hold */
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    if (!header) goto nomem;
    for (size_t i = 0; i < w->count; i++) {
        const em_safetensors_spec *s = by_place[i].spec;
        slot *place = &w->slots[by_place[i].index];
        st = spec_bytes(&place->size_bytes, s, w->path, err);
        if (st) goto fail;
        place->begin_bytes = next;
        atomic_init(&place->missing_bytes, place->size_bytes);
        if (place->size_bytes > INT64_MAX - next) {
            st = em_fail(err, EM_INVAL, "'%s': the tensors together are too large", w->path);
            goto fail;
        }
        next += place->size_bytes;
        if (json_object_get(header, s->name)) {
            st = em_fail(err, EM_INVAL, "'%s': two tensors are named '%s'", w->path, s->name);
            goto fail;
        }
        json_t *entry = entry_json(s, place->begin_bytes, next);
        if (!entry || json_object_set_new(header, s->name, entry) != 0) goto nomem;
    }
    *out = header;
    *total = next;
    return EM_OK;

nomem:
    st = em_fail(err, EM_NOMEM, "out of memory writing '%s'", w->path);
fail:
    json_decref(header);
    return st;
}

/* The length, the header padded with spaces to 8, and room for the rest. */
static em_status write_header(em_safetensors_writer *w, const json_t *header, uint64_t data_bytes,
                              em_err *err)
{
    size_t n = json_dumpb(header, NULL, 0, JSON_COMPACT), padded = (n + 7) & ~(size_t)7;
    if (n > EM_SAFETENSORS_HEADER_BYTES) {
        return em_fail(err, EM_INVAL, "'%s': a header of %zu bytes, at most %u are allowed",
                       w->path, n, EM_SAFETENSORS_HEADER_BYTES);
    }
    char *bytes = em_alloc(LENGTH_BYTES + padded);
    if (!bytes || json_dumpb(header, bytes + LENGTH_BYTES, n, JSON_COMPACT) != n) {
        em_free(bytes);
        return em_fail(err, EM_NOMEM, "out of memory writing '%s'", w->path);
    }
    for (int i = 0; i < LENGTH_BYTES; i++) bytes[i] = (char)(padded >> 8 * i & 0xff);
    memset(bytes + LENGTH_BYTES + n, ' ', padded - n);

    uint64_t start = LENGTH_BYTES + padded;
    em_status st = em_file_writer_open(&w->file, w->path, err);
    if (!st) st = em_file_writer_reserve(w->file, start + data_bytes, err);
    if (!st) st = em_file_writer_write(w->file, 0, bytes, (size_t)start, err);
    for (size_t i = 0; i < w->count; i++) w->slots[i].begin_bytes += start;
    em_free(bytes);
    return st;
}

em_status em_safetensors_create(em_safetensors_writer **out, const char *path,
                                const em_safetensors_spec *specs, size_t count, em_err *err)
{
    em_status st = EM_NOMEM;
    json_t *header = NULL;
    uint64_t data_bytes = 0;
    em_json_setup();
    order *by_place = em_alloc_array(count + 1, sizeof *by_place);
    em_safetensors_writer *w = em_alloc(sizeof *w);
    if (w) {
        w->path = em_strdup(path);
        w->slots = em_alloc_array(count + 1, sizeof *w->slots);
        w->names = em_alloc_array(count + 1, sizeof *w->names);
    }
    if (!by_place || !w || !w->path || !w->slots || !w->names) goto nomem;
    w->count = count;
    for (size_t i = 0; i < count; i++) {
        by_place[i] = (order){.spec = &specs[i], .index = i};
        w->names[i] = em_strdup(specs[i].name);
        if (!w->names[i]) goto nomem;
    }
    qsort(by_place, count, sizeof *by_place, compare_order);

    st = describe(&header, w, by_place, &data_bytes, err);
    if (!st) st = write_header(w, header, data_bytes, err);
    if (st) goto fail;
    json_decref(header);
    em_free(by_place);
    *out = w;
    return EM_OK;

nomem:
    em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
fail:
    json_decref(header);
    em_free(by_place);
    em_safetensors_writer_close(&w);
    return st;
}

em_status em_safetensors_write(em_safetensors_writer *w, size_t i, size_t offset_bytes,
                               const void *data, size_t size_bytes, em_err *err)
{
    slot *s = &w->slots[i];
    if (offset_bytes > s->size_bytes || size_bytes > s->size_bytes - offset_bytes) {
        return em_fail(err, EM_INVAL, "'%s': tensor '%s' has %zu bytes, not %zu from %zu on",
                       w->path, w->names[i], s->size_bytes, size_bytes, offset_bytes);
    }
    em_status st =
        em_file_writer_write(w->file, s->begin_bytes + offset_bytes, data, size_bytes, err);
    if (!st) atomic_fetch_sub(&s->missing_bytes, size_bytes);
    return st;
}

em_status em_safetensors_commit(em_safetensors_writer **writer, em_err *err)
{
    em_safetensors_writer *w = *writer;
    em_status st = EM_OK;
    for (size_t i = 0; i < w->count && !st; i++) {
        size_t missing = atomic_load(&w->slots[i].missing_bytes);
        if (missing) {
            st = em_fail(err, EM_INVAL, "'%s': tensor '%s' lacks %zu of its %zu bytes", w->path,
                         w->names[i], missing, w->slots[i].size_bytes);
        }
    }
    if (!st) st = em_file_writer_commit(&w->file, err);
    em_safetensors_writer_close(writer);
    return st;
}

void em_safetensors_writer_close(em_safetensors_writer **writer)
{
    if (!writer || !*writer) return;
    em_safetensors_writer *w = *writer;
    em_file_writer_close(&w->file);
    for (size_t i = 0; w->names && i < w->count; i++) em_free(w->names[i]);
    em_free(w->names);
    em_free(w->slots);
    em_free(w->path);
    em_free(w);
    *writer = NULL;
}
