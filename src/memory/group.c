#include "memory/group.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/file.h"

#include <string.h>

bool em_group_add(em_group *g, em_tensor *slot)
{
    em_weight w = {.slot = slot, .source = slot->data, .source_type = slot->dtype};
    if (!EM_PUSH(g->weight, g->count, g->cap, w)) return false;
    g->size_bytes += em_tensor_bytes(*slot);
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

enum { PIECE_BYTES = 1 << 20 };

typedef struct writing {
    const em_group *g;
    unsigned char *out;
    size_t begin, size;
} writing;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The part of one weight that lies in image bytes [begin, end), to where that is in out. */
static void write_part(const em_weight *w, unsigned char *out, size_t begin, size_t end)
{
    size_t item = em_dtype_bytes(w->slot->dtype);
    size_t first = w->offset_bytes, last = first + em_tensor_bytes(*w->slot);
    size_t from = begin > first ? begin : first, to = smaller(end, last);
    if (from >= to) return;
    const char *source =
        (const char *)w->source + (from - first) / item * em_dtype_bytes(w->source_type);
    if (w->slot->dtype == w->source_type)
        memcpy(out + (from - begin), source, to - from);
    else
        em_convert(out + (from - begin), w->slot->dtype, source, w->source_type,
                   (to - from) / item);
}

static void write_piece(void *arg, size_t i, int worker)
{
    const writing *t = arg;
    size_t begin = i * PIECE_BYTES, end = smaller(begin + PIECE_BYTES, t->size);
    (void)worker;
    for (size_t k = 0; k < t->g->count; k++) {
        const em_weight *w = &t->g->weight[k];
        size_t last = w->offset_bytes + em_tensor_bytes(*w->slot);
        size_t gap_end = k + 1 < t->g->count ? t->g->weight[k + 1].offset_bytes : t->g->image_bytes;
        size_t a = t->begin + begin, b = t->begin + end;
        write_part(w, t->out + begin, a, b);
        if (last < b && gap_end > a) {
            size_t from = last > a ? last : a;
            memset(t->out + (from - t->begin), 0, smaller(gap_end, b) - from);
        }
    }
}

void em_group_write(const em_group *g, void *out, size_t begin_bytes, size_t size_bytes,
                    em_pool *pool)
{
    writing t = {g, out, begin_bytes, size_bytes};
    em_parallel(pool, (size_bytes + PIECE_BYTES - 1) / PIECE_BYTES, write_piece, &t);
}

void em_group_drop_source(const em_group *g)
{
    for (size_t i = 0; i < g->count; i++) {
        const em_weight *w = &g->weight[i];
        em_map_drop(w->source, (size_t)em_tensor_count(*w->slot) * em_dtype_bytes(w->source_type));
    }
}
