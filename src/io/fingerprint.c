#include "io/fingerprint.h"

#include "io/file.h"

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

static void add_heading(em_sha256 *h, const em_ckpt_tensor *t)
{
    add_text(h, t->name);
    add_text(h, em_dtype_name(t->dtype));
    add_number(h, (uint64_t)t->ndim);
    for (int i = 0; i < t->ndim; i++) add_number(h, (uint64_t)t->dim[i]);
}

void em_ckpt_fingerprint(const em_ckpt *ckpt, char out[EM_SHA256_HEX_BYTES])
{
    em_sha256 h;
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256_start(&h);
    for (size_t i = 0; i < em_ckpt_count(ckpt); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(ckpt, i);
        const size_t edge = EM_FINGERPRINT_EDGE_BYTES;
        add_heading(&h, t);
        if (t->size_bytes <= edge) {
            if (t->size_bytes) em_sha256_add(&h, t->data, t->size_bytes);
        } else {
            em_sha256_add(&h, t->data, edge);
            em_sha256_add(&h, (const char *)t->data + t->size_bytes - edge, edge);
        }
    }
    em_sha256_end(&h, sum);
    em_sha256_hex(out, sum);
}
