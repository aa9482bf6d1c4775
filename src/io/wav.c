#include "io/wav.h"

#include <string.h>

enum { PCM = 1, IEEE_FLOAT = 3, EXTENSIBLE = 0xfffe, MIN_RATE_HZ = 4000, MAX_RATE_HZ = 384000 };

static uint32_t u16_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

static em_status read_format(em_wav *w, const uint8_t *p, size_t n, const char *name, em_err *err)
{
    if (n < 16) return em_fail(err, EM_FORMAT, "'%s' is a damaged WAV: its format is cut", name);
    uint32_t kind = u16_at(p);
    w->channels = (int)u16_at(p + 2);
    uint32_t rate = u32_at(p + 4);
    w->bits = (int)u16_at(p + 14);
    if (kind == EXTENSIBLE && n >= 26) kind = u16_at(p + 24);
    w->is_float = kind == IEEE_FLOAT;
    bool known = w->bits == 32 && w->is_float;
    known |= kind == PCM && (w->bits == 16 || w->bits == 24 || w->bits == 32);
    if (!known)
        return em_fail(
            err, EM_FORMAT,
            "'%s' holds %d-bit samples of kind %u: without FFmpeg, WAV is read with 16-, "
            "24- or 32-bit integers or 32-bit floats; convert it",
            name, w->bits, kind);
    if (w->channels < 1 || w->channels == 7 || w->channels > 8)
        return em_fail(err, EM_FORMAT,
                       "'%s' has %d channels, expected 1 to 6, or 8: mix it down to mono or stereo",
                       name, w->channels);
    if (rate < MIN_RATE_HZ || rate > MAX_RATE_HZ)
        return em_fail(err, EM_FORMAT,
                       "'%s' declares %u samples a second, expected %d to %d: convert it to 48000",
                       name, rate, MIN_RATE_HZ, MAX_RATE_HZ);
    w->rate_hz = (int)rate;
    return EM_OK;
}

/* Programs that write to a pipe declare 0xffffffff bytes of sound: then it lasts to the end. */
static em_status read_data(em_wav *w, size_t begin, size_t declared, size_t left, const char *name,
                           em_err *err)
{
    size_t frame = (size_t)w->channels * (size_t)w->bits / 8;
    if (w->rate_hz == 0)
        return em_fail(err, EM_FORMAT, "'%s' is a damaged WAV: it has no format", name);
    if (declared == UINT32_MAX) declared = left;
    if (declared > left)
        return em_fail(err, EM_FORMAT,
                       "'%s' is truncated or damaged: it declares %.2f s of sound, %.2f s are "
                       "there: give the whole file",
                       name, (double)(declared / frame) / w->rate_hz,
                       (double)(left / frame) / w->rate_hz);
    w->begin = begin;
    w->size_bytes = declared / frame * frame;
    return EM_OK;
}

em_status em_wav_parse(em_wav *out, const uint8_t *data, size_t size_bytes, const char *name,
                       em_err *err)
{
    em_wav w = {0};
    em_status st = EM_OK;
    if (size_bytes < 12 || memcmp(data, "RIFF", 4) != 0 || memcmp(data + 8, "WAVE", 4) != 0)
        return em_fail(err, EM_FORMAT, "'%s' is not a WAV: convert it (this build has no FFmpeg)",
                       name);
    for (size_t at = 12; at + 8 <= size_bytes;) {
        size_t size = u32_at(data + at + 4), left = size_bytes - at - 8;
        const uint8_t *body = data + at + 8;
        if (memcmp(data + at, "data", 4) == 0) {
            st = read_data(&w, at + 8, size, left, name, err);
            if (!st) *out = w;
            return st;
        }
        if (size > left) break;
        if (memcmp(data + at, "fmt ", 4) == 0) st = read_format(&w, body, size, name, err);
        if (st) return st;
        at += 8 + size + (size & 1);
    }
    return em_fail(err, EM_FORMAT, "'%s' is a damaged WAV: it holds no samples", name);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}

void em_wav_header(uint8_t out[EM_WAV_HEADER_BYTES], int rate_hz, int channels, uint32_t size_bytes)
{
    uint32_t frame = (uint32_t)channels * sizeof(float);
    memcpy(out, "RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0\0\0", 24);
    put_u32(out + 4, size_bytes + EM_WAV_HEADER_BYTES - 8);
    out[22] = (uint8_t)channels;
    put_u32(out + 24, (uint32_t)rate_hz);
    put_u32(out + 28, (uint32_t)rate_hz * frame);
    put_u32(out + 32, frame | 32u << 16);
    memcpy(out + 36, "data", 4);
    put_u32(out + 40, size_bytes);
}
