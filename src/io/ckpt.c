#include "io/ckpt.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/file.h"
#include "io/fingerprint.h"
#include "io/json.h"
#include "io/pth.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* One of the two is open. */
typedef struct source {
    em_safetensors *plain;
    em_pth *torch;
} source;

struct em_ckpt {
    source *files; /* every file ever laid on, in that order: they own names and bytes */
    size_t file_count, file_cap;
    em_block *copies; /* of tensors whose place in the file does not suit their type */
    size_t copy_count, copy_cap;
    em_ckpt_tensor *tensors; /* sorted by name, no name twice */
    size_t count;
};

static em_status nomem(const char *path, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory opening '%s'", path);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void close_source(source *f)
{
    em_safetensors_close(&f->plain);
    em_pth_close(&f->torch);
}

static size_t source_count(const source *f)
{
    return f->torch ? em_pth_count(f->torch) : em_safetensors_count(f->plain);
}

/* The i-th tensor as models see it, wherever its bytes are. */
static em_ckpt_tensor source_at(const source *f, size_t i)
{
    const em_safetensors_entry *e =
        f->torch ? em_pth_at(f->torch, i) : em_safetensors_at(f->plain, i);
    const char *path = f->torch ? em_pth_path(f->torch) : em_safetensors_path(f->plain);
    const em_map *map = f->torch ? em_pth_map(f->torch) : em_safetensors_map(f->plain);
    em_ckpt_tensor t = {.name = e->name,
                        .dtype = e->dtype,
                        .ndim = e->ndim,
                        .data = e->data,
                        .size_bytes = e->size_bytes,
                        .file = path,
                        .place = em_map_place(map, e->data, e->size_bytes, path)};
    memcpy(t.dim, e->dim, sizeof t.dim);
    return t;
}

typedef enum content { PLAIN, TORCH, TORCH_OLD, INDEX, POINTER } content;

enum { SNIFF_BYTES = 512 };

static bool begins(const unsigned char *p, size_t n, const char *with)
{
    return n >= strlen(with) && memcmp(p, with, strlen(with)) == 0;
}

/* safetensors has no mark of its own: a length, which the format caps. */
static bool is_length(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = n < 8 ? n : 8; i-- > 0;) v = v << 8 | p[i];
    return v <= EM_SAFETENSORS_HEADER_BYTES_MAX;
}

static content sniff(const unsigned char *p, size_t n)
{
    enum { TAR_MARK = 257 };
    if (begins(p, n, "PK\3\4") || begins(p, n, "PK\5\6")) return TORCH;
    if (begins(p, n, "version https://git-lfs")) return POINTER;
    if (n >= SNIFF_BYTES && begins(p + TAR_MARK, n - TAR_MARK, "ustar")) return TORCH_OLD;
    if (is_length(p, n)) return PLAIN;
    if (p[0] == 0x80 && p[1] <= 5) return TORCH_OLD; /* how a pickle begins */
    return p[0] == '{' ? INDEX : PLAIN;
}

static em_status open_source(source *f, content *kind, const char *path, em_err *err)
{
    unsigned char head[SNIFF_BYTES];
    size_t n = 0;
    em_status st = em_file_peek(head, &n, path, sizeof head, err);
    if (st) return st;
    *kind = sniff(head, n);
    switch (*kind) {
    case TORCH: return em_pth_open(&f->torch, path, err);
    case INDEX: return EM_OK;
    case TORCH_OLD:
        return em_fail(
            err, EM_FORMAT,
            "'%s' is a PyTorch file in the old form, not a zip archive, and is not read. "
            "Where you trust it, save it anew in Python: "
            "torch.save(torch.load(name), name)",
            path);
    case POINTER:
        return em_fail(err, EM_FORMAT,
                       "'%s' is a pointer of Git LFS, not the weights: run 'git lfs pull' there",
                       path);
    case PLAIN:
    default: return em_safetensors_open(&f->plain, path, 0, err);
    }
}

/* ---- lists of tensors ------------------------------------------------------------------------ */

static int compare_name(const void *a, const void *b)
{
    return strcmp(((const em_ckpt_tensor *)a)->name, ((const em_ckpt_tensor *)b)->name);
}

/* Older writers do not pad the header, and then nothing after it is aligned. Those tensors are
 * copied, so that the rest of the program may read every tensor through a pointer of its type. */
static em_status align(em_ckpt *c, em_ckpt_tensor *t, em_err *err)
{
    if (t->size_bytes == 0 || (uintptr_t)t->data % em_dtype_bytes(t->dtype) == 0) return EM_OK;
    em_block copy = {0};
    em_status st = em_block_open(&copy, t->size_bytes, err);
    if (st) return st;
    if (!EM_PUSH(c->copies, c->copy_count, c->copy_cap, copy)) {
        em_block_close(&copy);
        return nomem(t->file, err);
    }
    memcpy(copy.data, t->data, t->size_bytes);
    em_map_drop(t->data, t->size_bytes);
    t->data = copy.data;
    t->place = (em_file_place){0};
    return EM_OK;
}

/* *out: the tensors of a file, sorted by name; owned. */
static em_status list_file(em_ckpt_tensor **out, em_ckpt *c, const source *f, const char *path,
                           em_err *err)
{
    size_t n = source_count(f);
    em_ckpt_tensor *list = em_alloc_array(n + 1, sizeof *list);
    if (!list) return nomem(path, err);
    for (size_t i = 0; i < n; i++) {
        list[i] = source_at(f, i);
        em_status st = align(c, &list[i], err);
        if (st) {
            em_free(list);
            return st;
        }
    }
    qsort(list, n, sizeof *list, compare_name);
    *out = list;
    return EM_OK;
}

/* Both sorted by name; where both have a name, b's tensor is kept. out has room for both; its
 * length. */
static size_t merge(em_ckpt_tensor *out, const em_ckpt_tensor *a, size_t na,
                    const em_ckpt_tensor *b, size_t nb)
{
    size_t n = 0, i = 0, j = 0;
    while (i < na || j < nb) {
        int order = i == na ? 1 : j == nb ? -1 : strcmp(a[i].name, b[j].name);
        if (order == 0) i++;
        out[n++] = order < 0 ? a[i++] : b[j++];
    }
    return n;
}

em_status em_ckpt_create(em_ckpt **out, em_err *err)
{
    em_ckpt *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "out of memory making a checkpoint");
    *out = c;
    return EM_OK;
}

em_status em_ckpt_open(em_ckpt **out, const char *path, em_err *err)
{
    em_ckpt *c = NULL;
    em_status st = em_ckpt_create(&c, err);
    if (st) return st;
    st = em_ckpt_overlay(c, path, err);
    if (st) {
        em_ckpt_close(&c);
        return st;
    }
    *out = c;
    return EM_OK;
}

/* Lays an open file over the others; it is the checkpoint's then. */
static em_status lay(em_ckpt *c, const source *f, const char *path, em_err *err)
{
    em_ckpt_tensor *list = NULL, *both = NULL;
    size_t copies_before = c->copy_count, total;
    em_status st = list_file(&list, c, f, path, err);
    if (st) goto fail;

    total = c->count + source_count(f);
    both = em_alloc_array(total + 1, sizeof *both);
    if (!both || !EM_PUSH(c->files, c->file_count, c->file_cap, *f)) {
        st = nomem(path, err);
        goto fail;
    }
    total = merge(both, c->tensors, c->count, list, source_count(f));
    em_free(list);
    em_free(c->tensors);
    c->tensors = both;
    c->count = total;
    return EM_OK;

fail:
    while (c->copy_count > copies_before) em_block_close(&c->copies[--c->copy_count]);
    em_free(both);
    em_free(list);
    return st;
}

/* ---- shards ---------------------------------------------------------------------------------- */

enum { INDEX_BYTES = 64 << 20 };

/* {"weight_map": {"NAME": "FILE", …}}: every NAME in its FILE, which lies beside the index. */
static em_status read_index(json_t **out, const char *path, em_err *err)
{
    json_t *doc = NULL;
    const char *name;
    json_t *file;
    em_status st = em_json_load(&doc, path, INDEX_BYTES, err);
    if (st) return st;
    const json_t *map = json_object_get(doc, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        st = em_fail(err, EM_FORMAT, "'%s' is JSON, but no index of shards: 'weight_map' is %s",
                     path, json_is_object(map) ? "empty" : em_json_kind(map));
    json_object_foreach((json_t *)map, name, file)
    {
        const char *text = json_string_value(file);
        if (st) break;
        if (!text)
            st = em_fail(err, EM_FORMAT, "'%s': '%.120s' must name a file, it is %s", path, name,
                         em_json_kind(file));
        else if (!*text || *text == '.' || strchr(text, '/'))
            st =
                em_fail(err, EM_FORMAT, "'%s': '%.120s' is in '%.120s', which is no file beside it",
                        path, name, text);
    }
    if (st)
        json_decref(doc);
    else
        *out = doc;
    return st;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The files of an index, each once, by name; *out is owned, the names are borrowed from the map. */
static em_status list_shards(const char ***out, size_t *count, const json_t *map, const char *path,
                             em_err *err)
{
    const char *name;
    json_t *file;
    size_t n = 0;
    const char **shard = em_alloc_array(json_object_size(map), sizeof *shard);
    if (!shard) return nomem(path, err);
    json_object_foreach((json_t *)map, name, file) shard[n++] = json_string_value(file);
    qsort(shard, n, sizeof *shard, compare_text);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (*count == 0 || strcmp(shard[*count - 1], shard[i]) != 0) shard[(*count)++] = shard[i];
    *out = shard;
    return EM_OK;
}

/* Every tensor came from the shard that the index names, and from no other. */
static em_status check_shards(const em_ckpt *shards, size_t laid, const json_t *map,
                              const char *path, em_err *err)
{
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)map, name, file)
    {
        const em_ckpt_tensor *t = em_ckpt_find(shards, name);
        if (!t || strcmp(em_path_base(t->file), json_string_value(file)) != 0)
            return em_fail(err, EM_FORMAT, "'%s': tensor '%.120s' is not in '%.120s', as it says",
                           path, name, json_string_value(file));
    }
    if (shards->count != laid)
        return em_fail(err, EM_FORMAT, "'%s': a tensor is in two of its shards", path);
    return EM_OK;
}

/* The shards of an index as a checkpoint of their own. */
static em_status open_shards(em_ckpt *shards, const json_t *map, const char *path, em_err *err)
{
    const char **shard = NULL;
    size_t count = 0, laid = 0;
    const size_t dir_bytes = (size_t)(em_path_base(path) - path);
    char *dir = em_strndup(path, dir_bytes);
    em_status st = dir ? list_shards(&shard, &count, map, path, err) : nomem(path, err);
    for (size_t i = 0; !st && i < count; i++) {
        source f = {0};
        content kind = PLAIN;
        char *file = em_path_join(dir, shard[i]);
        st = file ? open_source(&f, &kind, file, err) : nomem(path, err);
        if (!st && kind == INDEX)
            st = em_fail(err, EM_FORMAT, "'%s' names '%s', which is an index too", path, shard[i]);
        if (!st) laid += source_count(&f);
        if (!st) st = lay(shards, &f, file, err);
        if (st) close_source(&f);
        em_free(file);
    }
    if (!st) st = check_shards(shards, laid, map, path, err);
    em_free(shard);
    em_free(dir);
    return st;
}

/* Moves all of `from` over what is there. */
static em_status absorb(em_ckpt *c, em_ckpt *from, const char *path, em_err *err)
{
    em_ckpt_tensor *both = em_alloc_array(c->count + from->count + 1, sizeof *both);
    if (!both ||
        !em_array_grow((void **)&c->files, &c->file_cap, c->file_count, from->file_count,
                       sizeof *c->files) ||
        !em_array_grow((void **)&c->copies, &c->copy_cap, c->copy_count, from->copy_count,
                       sizeof *c->copies)) {
        em_free(both);
        return nomem(path, err);
    }
    c->count = merge(both, c->tensors, c->count, from->tensors, from->count);
    em_free(c->tensors);
    c->tensors = both;
    for (size_t i = 0; i < from->file_count; i++) c->files[c->file_count++] = from->files[i];
    for (size_t i = 0; i < from->copy_count; i++) c->copies[c->copy_count++] = from->copies[i];
    from->file_count = from->copy_count = 0;
    return EM_OK;
}

static em_status overlay_index(em_ckpt *c, const char *path, em_err *err)
{
    em_ckpt *shards = NULL;
    json_t *doc = NULL;
    em_status st = read_index(&doc, path, err);
    if (!st) st = em_ckpt_create(&shards, err);
    if (!st) st = open_shards(shards, json_object_get(doc, "weight_map"), path, err);
    if (!st) st = absorb(c, shards, path, err);
    em_ckpt_close(&shards);
    json_decref(doc);
    return st;
}

em_status em_ckpt_overlay(em_ckpt *c, const char *path, em_err *err)
{
    source f = {0};
    content kind = PLAIN;
    em_status st = open_source(&f, &kind, path, err);
    if (!st) st = kind == INDEX ? overlay_index(c, path, err) : lay(c, &f, path, err);
    if (st) close_source(&f);
    return st;
}

em_status em_ckpt_strip_prefix(em_ckpt *c, const char *prefix, em_err *err)
{
    size_t n = strlen(prefix);
    em_ckpt_tensor *list = em_alloc_array(c->count + 1, sizeof *list);
    if (!list) return em_fail(err, EM_NOMEM, "out of memory renaming tensors");
    for (size_t i = 0; i < c->count; i++) {
        list[i] = c->tensors[i];
        if (strncmp(list[i].name, prefix, n) == 0)
            list[i].name += n; /* the tail of the same string */
    }
    qsort(list, c->count, sizeof *list, compare_name);
    for (size_t i = 1; i < c->count; i++) {
        if (strcmp(list[i - 1].name, list[i].name) == 0) {
            em_fail(err, EM_FORMAT,
                    "'%s': tensor '%s' is there with and without '%s' before its name",
                    list[i].file, list[i].name, prefix);
            em_free(list);
            return EM_FORMAT;
        }
    }
    em_free(c->tensors);
    c->tensors = list;
    return EM_OK;
}

/* ---- every byte ------------------------------------------------------------------------------ */

typedef struct finding {
    size_t index; /* of the member that it is about; SIZE_MAX: none */
    em_err err;
} finding;

typedef struct verification {
    const em_ckpt *ckpt;
    const em_zip *zip;                     /* the archive at hand */
    unsigned char (*sum)[EM_SHA256_BYTES]; /* owned: one a tensor */
    finding *worst; /* owned: one a thread, the first in the archive that it met */
} verification;

static void check_member(void *arg, size_t i, int worker)
{
    verification *v = arg;
    finding f = {.index = i};
    const em_zip_member *m = em_zip_at(v->zip, i);
    if (em_zip_check(v->zip, m, &f.err) && i < v->worst[worker].index) v->worst[worker] = f;
    em_map_drop(m->data, m->size_bytes);
}

static void hash_tensor(void *arg, size_t i, int worker)
{
    (void)worker;
    verification *v = arg;
    const em_ckpt_tensor *t = em_ckpt_at(v->ckpt, i);
    em_sha256 h;
    em_sha256_start(&h);
    if (t->size_bytes) em_sha256_add(&h, t->data, t->size_bytes);
    em_sha256_end(&h, v->sum[i]);
    em_map_drop(t->data, t->size_bytes);
}

static em_status check_archives(verification *v, em_pool *pool, em_err *err)
{
    const int threads = em_pool_threads(pool);
    for (size_t k = 0; k < v->ckpt->file_count; k++) {
        const em_pth *torch = v->ckpt->files[k].torch;
        if (!torch) continue;
        v->zip = em_pth_archive(torch);
        for (int i = 0; i < threads; i++) v->worst[i] = (finding){.index = SIZE_MAX};
        em_parallel(pool, em_zip_count(v->zip), check_member, v);
        const finding *first = &v->worst[0];
        for (int i = 1; i < threads; i++)
            if (v->worst[i].index < first->index) first = &v->worst[i];
        if (first->index != SIZE_MAX) return em_fail(err, first->err.code, "%s", first->err.msg);
    }
    return EM_OK;
}

em_status em_ckpt_verify(const em_ckpt *c, em_pool *pool, char out[EM_SHA256_HEX_BYTES],
                         em_err *err)
{
    verification v = {.ckpt = c};
    em_sha256 h;
    unsigned char sum[EM_SHA256_BYTES];
    em_status st = EM_OK;
    v.sum = em_alloc_array(c->count + 1, sizeof *v.sum);
    v.worst = em_alloc_array((size_t)em_pool_threads(pool), sizeof *v.worst);
    if (!v.sum || !v.worst)
        st = em_fail(err, EM_NOMEM, "out of memory verifying %zu tensors", c->count);
    if (!st) st = check_archives(&v, pool, err);
    if (!st) {
        em_parallel(pool, c->count, hash_tensor, &v);
        em_sha256_start(&h);
        for (size_t i = 0; i < c->count; i++) {
            em_ckpt_hash_heading(&h, &c->tensors[i]);
            em_sha256_add(&h, v.sum[i], sizeof v.sum[i]);
        }
        em_sha256_end(&h, sum);
        em_sha256_hex(out, sum);
    }
    em_free(v.sum);
    em_free(v.worst);
    return st;
}

void em_ckpt_close(em_ckpt **ckpt)
{
    if (!ckpt || !*ckpt) return;
    em_ckpt *c = *ckpt;
    em_free(c->tensors);
    for (size_t i = 0; i < c->copy_count; i++) em_block_close(&c->copies[i]);
    em_free(c->copies);
    for (size_t i = 0; i < c->file_count; i++) close_source(&c->files[i]);
    em_free(c->files);
    em_free(c);
    *ckpt = NULL;
}

const em_ckpt_tensor *em_ckpt_find(const em_ckpt *c, const char *name)
{
    em_ckpt_tensor key = {.name = name};
    return c->count ? bsearch(&key, c->tensors, c->count, sizeof key, compare_name) : NULL;
}

size_t em_ckpt_count(const em_ckpt *c)
{
    return c->count;
}

const em_ckpt_tensor *em_ckpt_at(const em_ckpt *c, size_t i)
{
    return &c->tensors[i];
}
