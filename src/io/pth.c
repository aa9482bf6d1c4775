#include "io/pth.h"

#include "base/alloc.h"
#include "base/str.h"
#include "io/file.h"
#include "io/pickle.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PROBABLY_BYTES = 512 << 10 }; /* of a pickle, and of a directory */

struct em_pth {
    char *path;
    em_map map; /* closed where the bytes are the caller's */
    em_zip *zip;
    em_pickle pickle;
    char *top;           /* owned: "archive/", which every member's name begins with */
    unsigned char *type; /* owned: one a member, 1 + the dtype that the pickle reads it as */
    em_pth_entry *entries;
    char *names;      /* owned: of the entries, each with a NUL */
    em_block *copies; /* owned: of the tensors that are not contiguous */
    size_t count, copy_count;
};

/* EM_FORMAT and "'path': …". */
__attribute__((format(printf, 3, 4))) static em_status refuse(const em_pth *f, em_err *err,
                                                              const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(err, EM_FORMAT, fmt, ap);
    va_end(ap);
    em_err_prefix(err, "'%s'", f->path);
    return EM_FORMAT;
}

static em_status nomem(const em_pth *f, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory reading '%s'", f->path);
}

/* ---- the archive ----------------------------------------------------------------------------- */

/* The member top + name; NULL if absent or the name is too long to be one. */
static const em_zip_member *member(const em_pth *f, const char *folder, const char *name, size_t n)
{
    char path[EM_ZIP_NAME_BYTES + 1];
    int len = snprintf(path, sizeof path, "%s%s%.*s", f->top, folder, (int)n, name);
    return len < (int)sizeof path ? em_zip_find(f->zip, path) : NULL;
}

static const em_zip_member *record(const em_pth *f, const char *name)
{
    return member(f, "", name, strlen(name));
}

/* Every member lies in one folder, whose name is the writer's choice. */
static em_status find_top(em_pth *f, em_err *err)
{
    const char *first = em_zip_first(f->zip)->name, *slash = strchr(first, '/');
    size_t n = slash ? (size_t)(slash - first) + 1 : 0;
    f->top = em_strndup(first, n);
    if (!f->top) return nomem(f, err);
    for (size_t i = 0; i < em_zip_count(f->zip); i++) {
        const char *name = em_zip_at(f->zip, i)->name;
        if (n == 0 || strncmp(name, f->top, n) != 0)
            return refuse(f, err,
                          "a zip archive, but not of PyTorch: member '%s' is not in one folder "
                          "with the others",
                          name);
    }
    return EM_OK;
}

/* A member that holds a decimal number, and perhaps a line end. */
static bool read_decimal(const em_zip_member *m, unsigned *out)
{
    const char *p = m->data;
    size_t n = m->size_bytes;
    if (n > 0 && p[n - 1] == '\n') n--;
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        *out = *out * 10 + (unsigned)(p[i] - '0');
    }
    return n >= 1 && n <= 6;
}

/* Members that older files lack; where they are, they must say what we take for granted. */
static em_status check_records(const em_pth *f, em_err *err)
{
    static const struct {
        const char *name;
        unsigned most;
    } number[] = {{"version", 10}, {".data/version", 10}, {".storage_alignment", 999999}};
    const em_zip_member *m = record(f, "byteorder");
    if (m && !(m->size_bytes == 6 && memcmp(m->data, "little", 6) == 0))
        return refuse(f, err, "member '%s': %s", m->name,
                      m->size_bytes == 3 && memcmp(m->data, "big", 3) == 0
                          ? "written on a big-endian machine, which is not read"
                          : "neither 'little' nor 'big'");
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        unsigned v = 0;
        m = record(f, number[i].name);
        if (m && (!read_decimal(m, &v) || v < 1 || v > number[i].most))
            return refuse(f, err, "member '%s' must hold a number from 1 to %u", m->name,
                          number[i].most);
    }
    m = record(f, ".data/serialization_id");
    if (m && !em_utf8_valid(m->data, m->size_bytes))
        return refuse(f, err, "member '%s' is not text", m->name);
    m = record(f, "constants.pkl");
    if (m) return refuse(f, err, "member '%s': a TorchScript program, not a checkpoint", m->name);
    return EM_OK;
}

static em_status read_pickle(em_pth *f, em_err *err)
{
    const em_zip_member *m = record(f, "data.pkl");
    if (!m)
        return refuse(f, err, "a zip archive, but not of PyTorch: it has no member '%sdata.pkl'",
                      f->top);
    return em_pickle_parse(&f->pickle, m->data, m->size_bytes, f->path, err);
}

/* ---- storages -------------------------------------------------------------------------------- */

static const em_zip_member *member_of(const em_pth *f, const em_pickle_storage *s)
{
    return member(f, "data/", s->key, s->key_bytes);
}

/* The member is there, as long as the pickle says, and always read as the same type. */
static em_status check_storage(em_pth *f, const em_pickle_storage *s, em_err *err)
{
    const em_zip_member *m = member_of(f, s);
    const int n = (int)s->key_bytes;
    size_t need;
    if (!m)
        return refuse(f, err,
                      "data.pkl at byte %zu names storage '%.*s', but there is no member "
                      "'%sdata/%.*s'",
                      s->at_bytes, n, s->key, f->top, n, s->key);
    if (!em_size_mul(&need, s->items, em_dtype_bytes(s->dtype)) || need != m->size_bytes)
        return refuse(f, err,
                      "data.pkl at byte %zu: storage '%.*s' has %llu items of %s, but member '%s' "
                      "has %zu bytes",
                      s->at_bytes, n, s->key, (unsigned long long)s->items, em_dtype_name(s->dtype),
                      m->name, m->size_bytes);
    unsigned char *type = &f->type[m - em_zip_at(f->zip, 0)], now = (unsigned char)(s->dtype + 1);
    if (*type && *type != now)
        return refuse(f, err, "data.pkl at byte %zu: storage '%.*s' is %s here and %s before",
                      s->at_bytes, n, s->key, em_dtype_name(s->dtype),
                      em_dtype_name((em_dtype)(*type - 1)));
    *type = now;
    return EM_OK;
}

static em_status check_storages(em_pth *f, em_err *err)
{
    em_status st = EM_OK;
    f->type = em_alloc(em_zip_count(f->zip));
    if (!f->type) return nomem(f, err);
    for (size_t i = 0; !st && i < f->pickle.storages; i++)
        st = check_storage(f, &f->pickle.storage[i], err);
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* Number of items, and one more than the last one's place in the storage, from offset on. */
typedef struct extent {
    size_t items, end;
    bool contiguous;
} extent;

static bool measure(extent *out, const em_pickle_tensor *t)
{
    extent x = {.items = 1, .end = (size_t)t->offset + 1, .contiguous = true};
    size_t most = 1; /* without the empty dimensions, so that their order does not matter */
    bool empty = false;
    for (int i = t->ndim - 1; i >= 0; i--) {
        size_t dim = (size_t)t->dim[i], stride = (size_t)t->stride[i], reach;
        if (dim == 0) {
            empty = true;
            continue;
        }
        if (dim > 1 && stride != most) x.contiguous = false;
        if (!em_size_mul(&reach, dim - 1, stride) || !em_size_add(&x.end, x.end, reach) ||
            !em_size_mul(&most, most, dim))
            return false;
    }
    x.items = empty ? 0 : most;
    if (empty) x.end = (size_t)t->offset;
    *out = x;
    return most <= INT64_MAX;
}

static em_status check_tensor(const em_pth *f, const em_pickle_tensor *t, em_err *err)
{
    const em_pickle_storage *s = &f->pickle.storage[t->storage];
    extent x;
    size_t bytes;
    if (!measure(&x, t) || !em_size_mul(&bytes, x.items, em_dtype_bytes(s->dtype)))
        return refuse(f, err, "data.pkl at byte %zu: a tensor's shape or strides are too large",
                      t->at_bytes);
    if (x.end > s->items)
        return refuse(f, err,
                      "data.pkl at byte %zu: a tensor reaches to item %zu of storage '%.*s', which "
                      "has %llu",
                      t->at_bytes, x.end, (int)s->key_bytes, s->key, (unsigned long long)s->items);
    return EM_OK;
}

/* Row-major copies of the items that a tensor's strides visit. */
static void gather(unsigned char *out, const unsigned char *from, const em_pickle_tensor *t,
                   size_t item_bytes)
{
    int64_t at[EM_TENSOR_DIMS] = {0};
    const int last = t->ndim - 1; /* a tensor without dimensions is contiguous, not here */
    size_t step = (size_t)t->stride[last] * item_bytes;
    for (;;) {
        size_t row = 0;
        for (int i = 0; i < last; i++) row += (size_t)at[i] * (size_t)t->stride[i];
        const unsigned char *p = from + row * item_bytes;
        for (int64_t j = 0; j < t->dim[last]; j++, p += step, out += item_bytes)
            memcpy(out, p, item_bytes);
        int i = last - 1;
        for (; i >= 0 && ++at[i] == t->dim[i]; i--) at[i] = 0;
        if (i < 0) return;
    }
}

/* e->data: in the map, or a copy, for which *budget is left. */
static em_status place(em_pth *f, em_pth_entry *e, const em_pickle_tensor *t, size_t *budget,
                       em_err *err)
{
    const em_pickle_storage *s = &f->pickle.storage[t->storage];
    const size_t item = em_dtype_bytes(s->dtype);
    const unsigned char *base = member_of(f, s)->data;
    extent x;
    measure(&x, t); /* check_tensor has */
    e->size_bytes = x.items * item;
    e->data = base + (size_t)t->offset * item;
    if (x.contiguous || e->size_bytes == 0) return EM_OK;
    if (e->size_bytes > *budget)
        return refuse(f, err,
                      "tensor '%.120s' is not stored row by row, and its copy of %zu bytes is more "
                      "than a file of this size may take",
                      e->name, e->size_bytes);
    *budget -= e->size_bytes;
    em_block *copy = &f->copies[f->copy_count];
    em_status st = em_block_open(copy, e->size_bytes, err);
    if (st) return st;
    f->copy_count++;
    gather(copy->data, e->data, t, item);
    e->data = copy->data;
    return EM_OK;
}

static em_status make_entries(em_pth *f, size_t file_bytes, em_err *err)
{
    const em_pickle *p = &f->pickle;
    size_t names = 0, budget = file_bytes;
    em_status st = EM_OK;
    if (!em_size_add(&budget, budget, EM_PTH_SPARE_COPY_BYTES)) budget = SIZE_MAX;
    for (size_t i = 0; i < p->items; i++) names += p->item[i].name_bytes + 1;
    f->names = em_alloc(names);
    f->entries = em_alloc_array(p->items, sizeof *f->entries);
    f->copies = em_alloc_array(p->items, sizeof *f->copies);
    if (!f->names || !f->entries || !f->copies) return nomem(f, err);
    char *name = f->names;
    for (; !st && f->count < p->items; f->count++) {
        const em_pickle_item *it = &p->item[f->count];
        const em_pickle_tensor *t = &p->tensor[it->tensor];
        em_pth_entry *e = &f->entries[f->count];
        e->name = memcpy(name, it->name, it->name_bytes); /* zeroed memory: the NUL is there */
        name += it->name_bytes + 1;
        e->dtype = p->storage[t->storage].dtype;
        e->ndim = t->ndim;
        memcpy(e->dim, t->dim, sizeof e->dim);
        st = place(f, e, t, &budget, err);
    }
    return st;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static em_status parse(em_pth *f, const void *data, size_t size_bytes, em_err *err)
{
    em_status st = em_zip_parse(&f->zip, data, size_bytes, f->path, err);
    if (!st) st = find_top(f, err);
    if (!st) st = check_records(f, err);
    if (!st) st = read_pickle(f, err);
    if (!st) st = check_storages(f, err);
    for (size_t i = 0; !st && i < f->pickle.tensors; i++)
        st = check_tensor(f, &f->pickle.tensor[i], err);
    return st ? st : make_entries(f, size_bytes, err);
}

/* The same in the map. The members' headers are all over the file, a page each is read of it; the
 * pickle is torch's first member, the directory the end. */
static em_status parse_map(em_pth *f, em_err *err)
{
    const char *data = f->map.data;
    const size_t size = f->map.size_bytes, part = size < PROBABLY_BYTES ? size : PROBABLY_BYTES;
    em_map_jump(data, size);
    em_map_fetch(data, part);
    em_map_fetch(data + size - part, part);
    em_status st = parse(f, data, size, err);
    em_map_in_order(data, size);
    return st;
}

/* Nothing but the path; NULL when out of memory. */
static em_pth *create_empty(const char *path, em_err *err)
{
    em_pth *f = em_alloc(sizeof *f);
    if (f) f->path = em_strdup(path);
    if (f && f->path) return f;
    em_fail(err, EM_NOMEM, "out of memory reading '%s'", path);
    em_pth_close(&f);
    return NULL;
}

em_status em_pth_parse(em_pth **out, const void *data, size_t size_bytes, const char *path,
                       em_err *err)
{
    em_pth *f = create_empty(path, err);
    if (!f) return EM_NOMEM;
    em_status st = parse(f, data, size_bytes, err);
    if (st) {
        em_pth_close(&f);
        return st;
    }
    *out = f;
    return EM_OK;
}

em_status em_pth_open(em_pth **out, const char *path, em_err *err)
{
    em_pth *f = create_empty(path, err);
    if (!f) return EM_NOMEM;
    em_status st = em_file_map(&f->map, path, false, err);
    if (!st) st = parse_map(f, err);
    if (st) {
        em_pth_close(&f);
        return st;
    }
    *out = f;
    return EM_OK;
}

void em_pth_close(em_pth **file)
{
    if (!file || !*file) return;
    em_pth *f = *file;
    for (size_t i = 0; i < f->copy_count; i++) em_block_close(&f->copies[i]);
    em_free(f->copies);
    em_free(f->entries);
    em_free(f->names);
    em_free(f->type);
    em_free(f->top);
    em_pickle_close(&f->pickle);
    em_zip_close(&f->zip);
    em_map_close(&f->map);
    em_free(f->path);
    em_free(f);
    *file = NULL;
}

const char *em_pth_path(const em_pth *file)
{
    return file->path;
}

const em_map *em_pth_map(const em_pth *file)
{
    return &file->map;
}

size_t em_pth_count(const em_pth *file)
{
    return file->count;
}

const em_pth_entry *em_pth_at(const em_pth *file, size_t i)
{
    return &file->entries[i];
}

const em_zip *em_pth_archive(const em_pth *file)
{
    return file->zip;
}
