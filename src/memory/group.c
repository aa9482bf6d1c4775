#include "memory/group.h"

#include "base/alloc.h"
#include "base/array.h"

#include <stdatomic.h>
#include <string.h>

bool em_group_add(em_group *g, em_tensor *slot, const em_file_place *place)
{
    em_weight w = {.slot = slot, .source = slot->data, .source_type = slot->dtype};
    if (place) w.place = *place;
    if (!EM_PUSH(g->weight, g->count, g->cap, w)) return false;
    g->size_bytes += em_tensor_bytes(*slot);
    if (!w.place.path) g->loose_bytes += em_tensor_bytes(*slot);
    return true;
}

void em_group_close(em_group *g)
{
    em_free(g->weight);
    *g = (em_group){0};
}

/* ---- what ops see ---------------------------------------------------------------------------- */

static em_dtype target_type(em_weight_rule rule, em_dtype source, em_dtype working)
{
    if (rule == EM_WEIGHTS_STORED || rule == EM_WEIGHTS_ON_HOST) return source;
    if (rule == EM_WEIGHTS_WIDE && working == EM_F16) working = EM_BF16;
    return working == EM_F32 ? source : working;
}

void em_group_settle(em_group *g, em_dtype working, bool host_addressable)
{
    size_t end = 0;
    bool as_is = true;
    for (size_t i = 0; i < g->count; i++) {
        em_weight *w = &g->weight[i];
        w->slot->dtype = target_type(g->rule, w->source_type, working);
        as_is = as_is && w->slot->dtype == w->source_type;
        w->offset_bytes = end;
        end += (em_tensor_bytes(*w->slot) + EM_IMAGE_ALIGN - 1) & ~(size_t)(EM_IMAGE_ALIGN - 1);
    }
    g->in_place = as_is && (host_addressable || g->rule == EM_WEIGHTS_ON_HOST);
    g->image_bytes = g->in_place ? 0 : end;
    for (size_t i = 0; g->in_place && i < g->count; i++)
        g->weight[i].slot->data = (void *)(uintptr_t)g->weight[i].source;
    g->working = working;
    g->host_addressable = host_addressable;
    g->settled = true;
}

void em_group_place(em_group *g, void *base)
{
    for (size_t i = 0; i < g->count; i++)
        g->weight[i].slot->data = (char *)base + g->weight[i].offset_bytes;
}

/* ---- the image ------------------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static em_status read_source(const em_weight *w, size_t offset_bytes, void *out, size_t size_bytes,
                             em_err *err)
{
    em_file_place from = w->place;
    from.offset_bytes += offset_bytes;
    if (from.path) return em_file_read_at(out, size_bytes, &from, err);
    memcpy(out, (const char *)w->source + offset_bytes, size_bytes);
    return EM_OK;
}

/* What a thread reads before it converts: small enough for its cache and its stack. */
enum { CONVERT_BYTES = 64 << 10 };

/* Values [first, first + count) of a weight, in the slot's type. */
static em_status read_values(const em_weight *w, size_t first, size_t count, unsigned char *out,
                             em_err *err)
{
    size_t wide = em_dtype_bytes(w->source_type), item = em_dtype_bytes(w->slot->dtype);
    if (w->slot->dtype == w->source_type)
        return read_source(w, first * wide, out, count * wide, err);
    _Alignas(64) unsigned char raw[CONVERT_BYTES];
    em_status st = EM_OK;
    for (size_t n; !st && count; first += n, count -= n, out += n * item) {
        n = smaller(count, CONVERT_BYTES / wide);
        st = read_source(w, first * wide, raw, n * wide, err);
        if (!st) em_convert(out, w->slot->dtype, raw, w->source_type, n);
    }
    return st;
}

/* The part of one weight that lies in image bytes [begin, end), to where that is in out. */
static em_status write_part(const em_weight *w, unsigned char *out, size_t begin, size_t end,
                            em_err *err)
{
    size_t item = em_dtype_bytes(w->slot->dtype);
    size_t first = w->offset_bytes, last = first + em_tensor_bytes(*w->slot);
    size_t from = begin > first ? begin : first, to = smaller(end, last);
    if (from >= to) return EM_OK;
    return read_values(w, (from - first) / item, (to - from) / item, out + (from - begin), err);
}

em_status em_group_write(const em_group *g, void *to, size_t begin_bytes, size_t size_bytes,
                         em_err *err)
{
    unsigned char *out = to;
    size_t begin = begin_bytes, end = begin + size_bytes;
    em_status st = EM_OK;
    for (size_t k = 0; !st && k < g->count; k++) {
        const em_weight *w = &g->weight[k];
        size_t last = w->offset_bytes + em_tensor_bytes(*w->slot);
        size_t gap_end = k + 1 < g->count ? g->weight[k + 1].offset_bytes : g->image_bytes;
        st = write_part(w, out, begin, end, err);
        if (last < end && gap_end > begin) {
            size_t from = last > begin ? last : begin;
            memset(out + (from - begin), 0, smaller(gap_end, end) - from);
        }
    }
    return st;
}

enum { PIECE_BYTES = 1 << 20 };

typedef struct writing {
    const em_group *g;
    unsigned char *out;
    atomic_flag failed; /* somebody has the error: */
    em_err err;
} writing;

static void write_piece(void *arg, size_t i, int worker)
{
    writing *t = arg;
    em_err err = {0};
    size_t begin = i * PIECE_BYTES, size = smaller(PIECE_BYTES, t->g->image_bytes - begin);
    (void)worker;
    if (em_group_write(t->g, t->out + begin, begin, size, &err) &&
        !atomic_flag_test_and_set(&t->failed))
        t->err = err;
}

em_status em_group_write_all(const em_group *g, void *out, em_pool *pool, em_err *err)
{
    writing t = {.g = g, .out = out, .failed = ATOMIC_FLAG_INIT};
    em_parallel(pool, (g->image_bytes + PIECE_BYTES - 1) / PIECE_BYTES, write_piece, &t);
    return t.err.code ? em_fail(err, t.err.code, "%s", t.err.msg) : EM_OK;
}

static size_t source_bytes(const em_weight *w)
{
    return (size_t)em_tensor_count(*w->slot) * em_dtype_bytes(w->source_type);
}

void em_group_fetch(const em_group *g)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->weight[i].place.path)
            em_file_fetch(&g->weight[i].place, source_bytes(&g->weight[i]));
}

void em_group_drop_source(const em_group *g)
{
    for (size_t i = 0; i < g->count; i++)
        em_map_drop(g->weight[i].source, source_bytes(&g->weight[i]));
}
