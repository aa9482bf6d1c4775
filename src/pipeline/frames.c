#include "pipeline/frames.h"

#include "base/hash.h"
#include "models/wan_dit.h"

#include <math.h>
#include <string.h>

int em_latent_frames(int frames)
{
    return (frames - 1) / 4 + 1;
}

void em_audio_windows(int32_t *index, int frames)
{
    for (int i = 0; i < frames; i++) {
        for (int k = 0; k < EM_DIT_WINDOW; k++) {
            int at = i + k - EM_DIT_WINDOW / 2;
            *index++ = at < 0 ? 0 : at > frames - 1 ? frames - 1 : at;
        }
    }
}

void em_pixels_from_u8(float *out, const uint8_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = 2.0f * ((float)in[i] / 255.0f) - 1.0f;
}

/* ---- verdict --------------------------------------------------------------------------------- */

void em_verdict_values(em_verdict *v, const char *what, const float *x, size_t n)
{
    for (size_t i = 0; i < n && !v->broken; i++)
        if (!isfinite(x[i])) v->broken = what;
}

void em_verdict_frame(em_verdict *v, const uint8_t *rgb, size_t pixels)
{
    if (v->frames++ == 0) {
        memcpy(v->colour, rgb, sizeof v->colour);
        v->first_hash = em_fnv1a64(EM_FNV1A64_INIT, rgb, 3 * pixels);
    } else if (!v->changes) { /* the first difference settles it */
        v->changes = em_fnv1a64(EM_FNV1A64_INIT, rgb, 3 * pixels) != v->first_hash;
    }
    for (size_t i = 0; i < pixels && !v->varies; i++)
        v->varies = memcmp(rgb + 3 * i, v->colour, sizeof v->colour) != 0;
}

em_status em_verdict_check(const em_verdict *v, em_err *err)
{
    if (v->broken)
        return em_fail(err, EM_VERDICT,
                       "the %s hold a NaN or an infinity; check the checkpoint, or try "
                       "--weight_dtype float32",
                       v->broken);
    if (v->frames == 0) return em_fail(err, EM_VERDICT, "the video has no frame");
    if (!v->varies)
        return em_fail(err, EM_VERDICT,
                       "every pixel of the video has the colour (%d, %d, %d); check the checkpoint",
                       v->colour[0], v->colour[1], v->colour[2]);
    if (v->frames > 1 && !v->changes)
        return em_fail(err, EM_VERDICT,
                       "all %llu frames of the video are equal; check the checkpoint",
                       (unsigned long long)v->frames);
    return EM_OK;
}
