/* Sound in without FFmpeg (EM_MEDIA=OFF): WAV with 16-, 24- or 32-bit integers or 32-bit floats.
 * The contract is audio_in.h's. */
#include "io/audio_in.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/media_sniff.h"
#include "io/wav.h"

#include <string.h>

static uint32_t u16_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

/* ---- samples --------------------------------------------------------------------------------- */

/* Integers as fractions of full scale; a NaN or an infinity counts as silence. */
static void read_samples(float *out, const em_wav *w, const uint8_t *p, size_t n)
{
    size_t step = (size_t)w->bits / 8;
    for (size_t i = 0; i < n; i++, p += step) {
        uint32_t v = w->bits == 16   ? u16_at(p) << 16
                     : w->bits == 24 ? u16_at(p) << 8 | (uint32_t)p[2] << 24
                                     : u32_at(p);
        if (w->is_float) {
            memcpy(&out[i], &v, sizeof v);
            if ((v & 0x7f800000u) == 0x7f800000u) out[i] = 0;
        } else {
            int32_t s;
            memcpy(&s, &v, sizeof s);
            out[i] = (float)s * 0x1p-31f;
        }
    }
}

em_status em_audio_decode(em_audio *out, const void *data, size_t size_bytes, const char *name,
                          const em_audio_limits *limits, em_err *err)
{
    em_wav w;
    const char *found;
    double most = limits && limits->max_seconds > 0 ? limits->max_seconds : 3600.0;
    if (size_bytes == 0)
        return em_fail(err, EM_FORMAT, "'%s' is empty (0 bytes): expected WAV", name);
    if (em_media_sniff(data, size_bytes, &found) != EM_MEDIA_SOUND)
        return em_fail(err, EM_FORMAT,
                       "'%s' is not a sound that can be read: expected WAV, found %s", name, found);
    if (memcmp(data, "RIFF", 4) != 0)
        return em_fail(
            err, EM_INVAL,
            "'%s' is %s, and this build reads WAV alone (no FFmpeg): convert it, or build "
            "with -DEM_MEDIA=ON",
            name, found);
    em_status st = em_wav_parse(&w, data, size_bytes, name, err);
    if (st) return st;
    size_t values = w.size_bytes / ((size_t)w.bits / 8), n = values / (size_t)w.channels;
    if (n == 0)
        return em_fail(err, EM_FORMAT, "'%s' holds no sound (0 samples): give another recording",
                       name);
    if ((double)n > most * w.rate_hz)
        return em_fail(err, EM_FORMAT, "'%s' is longer than the %.0f s that are read: cut it", name,
                       most);
    float *samples = em_alloc_array(values, sizeof *samples);
    if (!samples) return em_fail(err, EM_NOMEM, "'%s': no memory for its samples", name);
    read_samples(samples, &w, (const uint8_t *)data + w.begin, values);
    *out = (em_audio){.samples = samples, .n = n, .rate_hz = w.rate_hz, .channels = w.channels};
    return EM_OK;
}

em_status em_audio_load(em_audio *out, const char *path, const em_audio_limits *limits, em_err *err)
{
    char *data;
    size_t size_bytes;
    em_status st = em_file_read(&data, &size_bytes, path, EM_AUDIO_MAX_BYTES, err);
    if (st) return st;
    st = em_audio_decode(out, data, size_bytes, path, limits, err);
    em_free(data);
    return st;
}
