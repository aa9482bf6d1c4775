#include "io/fingerprint.h"

#include "io/file.h"

#include <stdbool.h>
#include <string.h>

static void add_number(em_sha256 *h, uint64_t v)
{
    unsigned char le[8];
    for (int i = 0; i < 8; i++) le[i] = (unsigned char)(v >> 8 * i);
    em_sha256_add(h, le, sizeof le);
}

static void add_text(em_sha256 *h, const char *text)
{
    em_sha256_add(h, text, strlen(text) + 1);
}

void em_ckpt_hash_heading(em_sha256 *h, const em_ckpt_tensor *t)
{
    add_text(h, t->name);
    add_text(h, em_dtype_name(t->dtype));
    add_number(h, (uint64_t)t->ndim);
    for (int i = 0; i < t->ndim; i++) add_number(h, (uint64_t)t->dim[i]);
}

/* The two stretches that count, the second one empty where the first is all. */
typedef struct edges {
    const char *first, *last;
    size_t first_bytes, last_bytes;
} edges;

static edges edges_of(const em_ckpt_tensor *t)
{
    const size_t edge = EM_FINGERPRINT_EDGE_BYTES;
    const bool whole = t->size_bytes <= edge;
    return (edges){.first = t->data,
                   .first_bytes = whole ? t->size_bytes : edge,
                   .last = whole ? t->data : (const char *)t->data + t->size_bytes - edge,
                   .last_bytes = whole ? 0 : edge};
}

void em_ckpt_fingerprint(const em_ckpt *ckpt, char out[EM_SHA256_HEX_BYTES])
{
    enum { AHEAD = 32 }; /* tensors that the disk works on while one is hashed */
    const size_t count = em_ckpt_count(ckpt);
    em_sha256 h;
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256_start(&h);
    for (size_t i = 0; i < count + AHEAD; i++) {
        if (i < count) {
            const em_ckpt_tensor *t = em_ckpt_at(ckpt, i);
            const edges e = edges_of(t);
            em_map_jump(t->data, t->size_bytes);
            em_map_fetch(e.first, e.first_bytes);
            em_map_fetch(e.last, e.last_bytes);
        }
        if (i < AHEAD) continue;
        const em_ckpt_tensor *t = em_ckpt_at(ckpt, i - AHEAD);
        const edges e = edges_of(t);
        em_ckpt_hash_heading(&h, t);
        if (e.first_bytes) em_sha256_add(&h, e.first, e.first_bytes);
        if (e.last_bytes) em_sha256_add(&h, e.last, e.last_bytes);
        em_map_in_order(t->data, t->size_bytes);
    }
    em_sha256_end(&h, sum);
    em_sha256_hex(out, sum);
}
