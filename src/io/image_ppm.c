/* Binary PPM (P6), 8 bits a channel: what programs exchange when they share no codec. */
#include "io/image_codec.h"

#include <stdbool.h>
#include <string.h>

typedef struct reader {
    const uint8_t *p, *end;
} reader;

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next number of the header; comments run from # to the end of their line. */
static bool number(reader *r, uint32_t *out)
{
    uint32_t v = 0;
    while (r->p < r->end && (is_space(*r->p) || *r->p == '#')) {
        bool comment = *r->p == '#';
        while (comment && r->p < r->end && *r->p != '\n') r->p++;
        if (r->p < r->end) r->p++;
    }
    const uint8_t *first = r->p;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
        v = v * 10 + (uint32_t)(*r->p - '0');
        if (v > 1u << 28) return false;
    }
    *out = v;
    return r->p > first;
}

em_status em_image_decode_ppm(em_image *out, int *orientation, const uint8_t *data,
                              size_t size_bytes, const char *name, em_err *err)
{
    reader r = {data + 2, data + size_bytes};
    uint32_t width, height, most;
    (void)orientation; /* the format knows none */
    if (!number(&r, &width) || !number(&r, &height) || !number(&r, &most) || r.p == r.end ||
        !is_space(*r.p))
        return em_fail(err, EM_FORMAT, "'%s' is a damaged PPM: its header ends early", name);
    if (most != 255)
        return em_fail(err, EM_FORMAT,
                       "'%s' is a PPM with values up to %u: only 255 is read, convert it", name,
                       most);
    em_image image = {0};
    em_status st = em_image_alloc(&image, width, height, name, err);
    if (st) return st;
    r.p++; /* one white space, then the pixels */
    size_t bytes = (size_t)width * height * 3;
    if ((size_t)(r.end - r.p) < bytes) {
        em_image_free(&image);
        return em_fail(err, EM_FORMAT,
                       "'%s' is a truncated PPM: it declares %zu bytes of pixels, %zu are there",
                       name, bytes, (size_t)(r.end - r.p));
    }
    memcpy(image.rgb, r.p, bytes);
    *out = image;
    return EM_OK;
}
