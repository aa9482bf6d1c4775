#include "io/media_whole.h"

#include <stdint.h>
#include <string.h>

/* Chunks of length, type, data, CRC, up to IEND. */
static bool whole_png(const uint8_t *p, size_t n)
{
    enum { SIGNATURE = 8, AROUND = 12 };
    size_t at = SIGNATURE;
    while (n >= AROUND && at <= n - AROUND) {
        const uint8_t *c = p + at;
        size_t length = (size_t)c[0] << 24 | (size_t)c[1] << 16 | (size_t)c[2] << 8 | c[3];
        if (length > n - AROUND - at) return false;
        if (!memcmp(c + 4, "IEND", 4)) return true;
        at += AROUND + length;
    }
    return false;
}

/* Segments of marker and length up to the first scan; behind it an end marker, which compressed
 * data cannot hold by chance (a thumbnail in front has one of its own). */
static bool whole_jpeg(const uint8_t *p, size_t n)
{
    enum { SCAN = 0xda, END = 0xd9 };
    size_t at = 2;
    while (at + 4 <= n && p[at] == 0xff && p[at + 1] != SCAN) {
        if (p[at + 1] == 0xff) { /* a fill byte */
            at++;
            continue;
        }
        at += 2 + ((size_t)p[at + 2] << 8 | p[at + 3]);
    }
    for (; at + 1 < n; at++)
        if (p[at] == 0xff && p[at + 1] == END) return true;
    return false;
}

static uint32_t riff_size(const uint8_t *p)
{
    return p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
}

bool em_media_whole(const void *data, size_t size_bytes, em_media_kind kind)
{
    enum { LEFT_OPEN = 0xffffff00 };
    const uint8_t *p = data;
    if (kind == EM_MEDIA_PNG) return whole_png(p, size_bytes);
    if (kind == EM_MEDIA_JPEG) return whole_jpeg(p, size_bytes);
    if (size_bytes < 12 || memcmp(p, "RIFF", 4) != 0) return true;
    if (kind == EM_MEDIA_WEBP) return riff_size(p) <= size_bytes - 8;
    /* Some count the header or a pad byte too: WAV gets eight bytes of grace. */
    return riff_size(p) >= (uint32_t)LEFT_OPEN || riff_size(p) <= size_bytes;
}
