#include "io/pth_writer.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/hash.h"
#include "base/str.h"
#include "io/file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_BYTES = 64 };
static const uint64_t narrow_most = 0xffffffff; /* and this itself means: see the zip64 field */

/* A member of the archive: one of the small ones, or a tensor's bytes. */
typedef struct member {
    char *name;
    const char *text; /* of a small one, its bytes; NULL: a tensor's */
    uint64_t header_at, data_at, size_bytes;
    uint32_t crc;
} member;

/* What em_pth_write wrote, for the CRC of the whole. */
typedef struct piece {
    size_t tensor, offset_bytes, size_bytes;
    uint32_t crc;
} piece;

struct em_pth_writer {
    char *path;
    em_file_writer *file;
    em_str pickle;
    member *member; /* data.pkl, records, tensors, records; as torch orders them */
    size_t members, first_tensor, tensors;
    uint64_t end_bytes;   /* of the last member: where the directory goes */
    pthread_mutex_t lock; /* of the pieces */
    piece *piece;
    size_t pieces, piece_cap;
};

static em_status nomem(const em_pth_writer *w, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory writing '%s'", w->path);
}

static void put_le(em_str *s, uint64_t v, int bytes)
{
    char le[8];
    for (int i = 0; i < bytes; i++) le[i] = (char)(v >> 8 * i & 0xff);
    em_str_append(s, le, (size_t)bytes);
}

/* ---- the pickle ------------------------------------------------------------------------------ */

static void put_text(em_str *s, const char *text)
{
    em_str_append(s, "X", 1);
    put_le(s, strlen(text), 4);
    em_str_append(s, text, strlen(text));
}

/* The shortest instruction that holds the number. */
static void put_int(em_str *s, uint64_t v)
{
    if (v <= 0xff) {
        em_str_append(s, "K", 1);
        put_le(s, v, 1);
    } else if (v <= 0xffff) {
        em_str_append(s, "M", 1);
        put_le(s, v, 2);
    } else if (v <= INT32_MAX) {
        em_str_append(s, "J", 1);
        put_le(s, v, 4);
    } else {
        em_str_append(s, "\x8a\x08", 2);
        put_le(s, v, 8);
    }
}

static void put_words(em_str *s, const char *text)
{
    em_str_append(s, text, strlen(text));
}

static const char *storage_class(em_dtype t)
{
    static const char *const name[EM_DTYPE_COUNT] = {
        [EM_F32] = "Float", [EM_F16] = "Half", [EM_BF16] = "BFloat16", [EM_F64] = "Double",
        [EM_I64] = "Long",  [EM_I32] = "Int",  [EM_I16] = "Short",     [EM_I8] = "Char",
        [EM_U8] = "Byte",   [EM_BOOL] = "Bool"};
    return name[t];
}

/* name: _rebuild_tensor_v2(('storage', class, KEY, 'cpu', items), 0, shape, strides, False,
 * OrderedDict()) */
static void put_tensor(em_str *s, const em_safetensors_spec *t, size_t key)
{
    char text[24];
    uint64_t items = 1;
    for (int i = 0; i < t->ndim; i++) items *= (uint64_t)t->dim[i];
    snprintf(text, sizeof text, "%zu", key);
    put_text(s, t->name);
    put_words(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    em_str_printf(s, "ctorch\n%sStorage\n", storage_class(t->dtype));
    put_text(s, text);
    put_text(s, "cpu");
    put_int(s, items);
    put_words(s, "tQ");
    put_int(s, 0);
    put_words(s, "(");
    for (int i = 0; i < t->ndim; i++) put_int(s, (uint64_t)t->dim[i]);
    put_words(s, "t(");
    for (int i = 0; i < t->ndim; i++) {
        uint64_t stride = 1;
        for (int k = i + 1; k < t->ndim; k++) stride *= (uint64_t)t->dim[k];
        put_int(s, stride);
    }
    put_words(s, "t\x89"
                 "ccollections\nOrderedDict\n)RtR");
}

static void put_pickle(em_str *s, const em_safetensors_spec *specs, size_t count)
{
    put_words(s, "\x80\x02"
                 "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; i < count; i++) put_tensor(s, &specs[i], i);
    put_words(s, "u.");
}

/* ---- places ---------------------------------------------------------------------------------- */

static bool is_wide(const member *m)
{
    return m->size_bytes >= narrow_most || m->header_at >= narrow_most;
}

/* The zip64 field for those numbers that need it. */
static void put_wide(em_str *s, const member *m)
{
    const bool size = m->size_bytes >= narrow_most, at = m->header_at >= narrow_most;
    if (!size && !at) return;
    put_le(s, 1, 2);
    put_le(s, (size ? 16 : 0) + (at ? 8 : 0), 2);
    if (size) put_le(s, m->size_bytes, 8);
    if (size) put_le(s, m->size_bytes, 8);
    if (at) put_le(s, m->header_at, 8);
}

/* The header in front of a member, up to its first byte. */
static void put_local(em_str *s, const member *m, em_str *wide)
{
    enum { FIXED = 30 + 4 };
    wide->len = 0;
    put_wide(wide, m);
    const size_t head = FIXED + strlen(m->name) + wide->len;
    const size_t pad = (ALIGN_BYTES - (m->header_at + head) % ALIGN_BYTES) % ALIGN_BYTES;
    put_le(s, 0x04034b50, 4);
    put_le(s, 0, 2);
    put_le(s, 0x0808, 2); /* UTF-8; sizes and CRC behind */
    put_le(s, 0, 2 + 4);  /* stored; no time */
    put_le(s, 0, 4);
    put_le(s, 0, 4 + 4);
    put_le(s, strlen(m->name), 2);
    put_le(s, wide->len + 4 + pad, 2);
    put_words(s, m->name);
    em_str_append(s, em_str_text(wide), wide->len);
    put_words(s, "FB");
    put_le(s, pad, 2);
    for (size_t i = 0; i < pad; i++) em_str_append(s, "Z", 1);
}

/* Behind a member; an empty one has none. */
static void put_descriptor(em_str *s, const member *m)
{
    if (!m->size_bytes) return;
    put_le(s, 0x08074b50, 4);
    put_le(s, m->crc, 4);
    put_le(s, m->size_bytes, is_wide(m) ? 8 : 4);
    put_le(s, m->size_bytes, is_wide(m) ? 8 : 4);
}

static void put_record(em_str *s, const member *m, em_str *wide)
{
    const uint64_t size = m->size_bytes < narrow_most ? m->size_bytes : narrow_most;
    wide->len = 0;
    put_wide(wide, m);
    put_le(s, 0x02014b50, 4);
    put_le(s, 0, 2 + 2);
    put_le(s, 0x0808, 2);
    put_le(s, 0, 2 + 4);
    put_le(s, m->crc, 4);
    put_le(s, size, 4);
    put_le(s, size, 4);
    put_le(s, strlen(m->name), 2);
    put_le(s, wide->len, 2);
    put_le(s, 0, 2 + 2 + 2);
    put_le(s, 0, 4);
    put_le(s, m->header_at < narrow_most ? m->header_at : narrow_most, 4);
    put_words(s, m->name);
    em_str_append(s, em_str_text(wide), wide->len);
}

/* torch writes the zip64 end record always. */
static void put_ends(em_str *s, const em_pth_writer *w, uint64_t directory_bytes)
{
    const uint64_t at = w->end_bytes, end64 = at + directory_bytes;
    const uint64_t count = w->members < 0xffff ? w->members : 0xffff;
    put_le(s, 0x06064b50, 4);
    put_le(s, 44, 8);
    put_le(s, 0x002d031e, 4);
    put_le(s, 0, 4 + 4);
    put_le(s, w->members, 8);
    put_le(s, w->members, 8);
    put_le(s, directory_bytes, 8);
    put_le(s, at, 8);
    put_le(s, 0x07064b50, 4);
    put_le(s, 0, 4);
    put_le(s, end64, 8);
    put_le(s, 1, 4);
    put_le(s, 0x06054b50, 4);
    put_le(s, 0, 2 + 2);
    put_le(s, count, 2);
    put_le(s, count, 2);
    put_le(s, directory_bytes < narrow_most ? directory_bytes : narrow_most, 4);
    put_le(s, at < narrow_most ? at : narrow_most, 4);
    put_le(s, 0, 2);
}

/* ---- creating -------------------------------------------------------------------------------- */

static em_status spec_bytes(uint64_t *out, const em_pth_writer *w, const em_safetensors_spec *s,
                            em_err *err)
{
    size_t bytes = em_dtype_bytes(s->dtype);
    bool good = s->ndim >= 0 && s->ndim <= EM_TENSOR_DIMS;
    for (int i = 0; good && i < s->ndim; i++)
        good = s->dim[i] >= 0 && em_size_mul(&bytes, bytes, (size_t)s->dim[i]);
    if (!good || bytes > INT64_MAX / 4)
        return em_fail(err, EM_INVAL, "'%s': tensor '%s' has a negative or too large size", w->path,
                       s->name);
    *out = bytes;
    return EM_OK;
}

/* "TOP/name", TOP being the file's name without its ending, as torch has it. */
static em_status add_member(em_pth_writer *w, const char *name, const char *text, uint64_t size,
                            em_err *err)
{
    const char *base = em_path_base(w->path), *dot = strrchr(base, '.');
    em_str s = {0};
    em_str_append(&s, base, dot && dot != base ? (size_t)(dot - base) : strlen(base));
    em_str_printf(&s, "/%s", name);
    if (s.failed) {
        em_str_free(&s);
        return nomem(w, err);
    }
    w->member[w->members++] = (member){.name = s.data, .text = text, .size_bytes = size};
    return EM_OK;
}

static em_status add_text(em_pth_writer *w, const char *name, const char *text, em_err *err)
{
    return add_member(w, name, text, strlen(text), err);
}

static em_status list_members(em_pth_writer *w, const em_safetensors_spec *specs, size_t count,
                              em_err *err)
{
    put_pickle(&w->pickle, specs, count);
    if (w->pickle.failed) return nomem(w, err);
    em_status st = add_member(w, "data.pkl", w->pickle.data, w->pickle.len, err);
    if (!st) st = add_text(w, ".format_version", "1", err);
    if (!st) st = add_text(w, ".storage_alignment", "64", err);
    if (!st) st = add_text(w, "byteorder", "little", err);
    w->first_tensor = w->members;
    for (size_t i = 0; !st && i < count; i++) {
        char name[32];
        uint64_t bytes = 0;
        st = spec_bytes(&bytes, w, &specs[i], err);
        snprintf(name, sizeof name, "data/%zu", i);
        if (!st) st = add_member(w, name, NULL, bytes, err);
    }
    if (!st) st = add_text(w, "version", "3\n", err);
    return st;
}

/* Headers, small members, and where the tensors' bytes will be. */
static em_status write_frame(em_pth_writer *w, em_err *err)
{
    uint64_t at = 0;
    em_status st = EM_OK;
    em_str head = {0}, wide = {0};
    for (size_t i = 0; !st && i < w->members; i++) {
        member *m = &w->member[i];
        m->header_at = at;
        head.len = 0;
        put_local(&head, m, &wide);
        if (head.failed || wide.failed) {
            st = nomem(w, err);
            break;
        }
        m->data_at = at + head.len;
        st = em_file_writer_write(w->file, at, head.data, head.len, err);
        if (!st && m->text) {
            m->crc = em_crc32(0, m->text, m->size_bytes);
            st = em_file_writer_write(w->file, m->data_at, m->text, m->size_bytes, err);
        }
        if (m->size_bytes > INT64_MAX / 2 - m->data_at && !st)
            st = em_fail(err, EM_INVAL, "'%s': the tensors together are too large", w->path);
        at = m->data_at + m->size_bytes;
        if (m->size_bytes) at += is_wide(m) ? 24 : 16;
    }
    w->end_bytes = at;
    em_str_free(&head);
    em_str_free(&wide);
    return st;
}

em_status em_pth_create(em_pth_writer **out, const char *path, const em_safetensors_spec *specs,
                        size_t count, em_err *err)
{
    enum { SMALL_MEMBERS = 5 };
    em_status st = EM_OK;
    em_pth_writer *w = em_alloc(sizeof *w);
    if (!w) return em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    pthread_mutex_init(&w->lock, NULL);
    w->path = em_strdup(path);
    w->member = em_alloc_array(count + SMALL_MEMBERS, sizeof *w->member);
    w->tensors = count;
    if (!w->path || !w->member) st = em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    if (!st) st = list_members(w, specs, count, err);
    if (!st) st = em_file_writer_open(&w->file, path, err);
    if (!st) st = write_frame(w, err);
    if (!st) st = em_file_writer_reserve(w->file, w->end_bytes, err);
    if (st)
        em_pth_writer_close(&w);
    else
        *out = w;
    return st;
}

em_status em_pth_write(em_pth_writer *w, size_t i, size_t offset_bytes, const void *data,
                       size_t size_bytes, em_err *err)
{
    const member *m = &w->member[w->first_tensor + i];
    if (offset_bytes > m->size_bytes || size_bytes > m->size_bytes - offset_bytes)
        return em_fail(err, EM_INVAL, "'%s': member '%s' has %llu bytes, not %zu from %zu on",
                       w->path, m->name, (unsigned long long)m->size_bytes, size_bytes,
                       offset_bytes);
    const piece p = {.tensor = i,
                     .offset_bytes = offset_bytes,
                     .size_bytes = size_bytes,
                     .crc = em_crc32(0, data, size_bytes)};
    em_status st = em_file_writer_write(w->file, m->data_at + offset_bytes, data, size_bytes, err);
    if (st) return st;
    pthread_mutex_lock(&w->lock);
    bool pushed = EM_PUSH(w->piece, w->pieces, w->piece_cap, p);
    pthread_mutex_unlock(&w->lock);
    return pushed ? EM_OK : nomem(w, err);
}

/* ---- finishing ------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return x->offset_bytes < y->offset_bytes ? -1 : x->offset_bytes > y->offset_bytes;
}

/* The tensors' CRCs from those of their pieces, which must be all there. */
static em_status join_pieces(em_pth_writer *w, em_err *err)
{
    size_t k = 0;
    if (w->pieces) qsort(w->piece, w->pieces, sizeof *w->piece, by_place);
    for (size_t i = 0; i < w->tensors; i++) {
        member *m = &w->member[w->first_tensor + i];
        uint64_t next = 0;
        for (; k < w->pieces && w->piece[k].tensor == i; k++) {
            if (w->piece[k].offset_bytes != next) break;
            m->crc = em_crc32_join(m->crc, w->piece[k].crc, w->piece[k].size_bytes);
            next += w->piece[k].size_bytes;
        }
        if (next != m->size_bytes)
            return em_fail(err, EM_INVAL,
                           "'%s': member '%s' of %llu bytes was not written once from its start to "
                           "its end: byte %llu",
                           w->path, m->name, (unsigned long long)m->size_bytes,
                           (unsigned long long)next);
    }
    return EM_OK;
}

static em_status write_rest(em_pth_writer *w, em_err *err)
{
    em_status st = EM_OK;
    em_str s = {0}, wide = {0};
    for (size_t i = 0; !st && i < w->members; i++) {
        const member *m = &w->member[i];
        s.len = 0;
        put_descriptor(&s, m);
        st = s.failed
                 ? nomem(w, err)
                 : em_file_writer_write(w->file, m->data_at + m->size_bytes, s.data, s.len, err);
    }
    s.len = 0;
    for (size_t i = 0; i < w->members; i++) put_record(&s, &w->member[i], &wide);
    put_ends(&s, w, s.len);
    if (!st && (s.failed || wide.failed)) st = nomem(w, err);
    if (!st) st = em_file_writer_write(w->file, w->end_bytes, s.data, s.len, err);
    em_str_free(&s);
    em_str_free(&wide);
    return st;
}

em_status em_pth_commit(em_pth_writer **writer, em_err *err)
{
    em_pth_writer *w = *writer;
    em_status st = join_pieces(w, err);
    if (!st) st = write_rest(w, err);
    if (!st) st = em_file_writer_commit(&w->file, err);
    em_pth_writer_close(writer);
    return st;
}

void em_pth_writer_close(em_pth_writer **writer)
{
    if (!writer || !*writer) return;
    em_pth_writer *w = *writer;
    em_file_writer_close(&w->file);
    for (size_t i = 0; i < w->members; i++) em_free(w->member[i].name);
    em_free(w->member);
    em_free(w->piece);
    em_str_free(&w->pickle);
    em_free(w->path);
    pthread_mutex_destroy(&w->lock);
    em_free(w);
    *writer = NULL;
}
