#include "io/audio.h"

#include "base/alloc.h"

#include <math.h>
#include <soxr.h>
#include <string.h>

void em_audio_free(em_audio *audio)
{
    if (!audio) return;
    em_free(audio->samples);
    *audio = (em_audio){0};
}

/* What a 16-bit decoder hands over: round to nearest even, clip, scale back. */
static float through_s16(float x)
{
    float v = rintf(x * 32768.0f);
    if (v > 32767.0f) v = 32767.0f;
    if (v < -32768.0f) v = -32768.0f;
    return v / 32768.0f;
}

em_status em_audio_mono(float **out, const em_audio *audio, em_err *err)
{
    float *mono = em_alloc_array(audio->n, sizeof *mono);
    if (!mono) return em_fail(err, EM_NOMEM, "out of memory mixing %zu samples", audio->n);
    for (size_t i = 0; i < audio->n; i++) {
        const float *x = audio->samples + i * (size_t)audio->channels;
        float sum = 0.0f;
        for (int c = 0; c < audio->channels; c++) sum += audio->via_s16 ? through_s16(x[c]) : x[c];
        mono[i] = sum / (float)audio->channels;
    }
    *out = mono;
    return EM_OK;
}

/* ceil(n * to / from); false on overflow. */
static bool resampled_length(size_t *out, size_t n, int from_hz, int to_hz)
{
    size_t product;
    if (!em_size_mul(&product, n, (size_t)to_hz)) return false;
    *out = product / (size_t)from_hz + (product % (size_t)from_hz != 0);
    return true;
}

em_status em_audio_resample(float **out, size_t *n_out, const float *in, size_t n, int channels,
                            int from_hz, int to_hz, em_err *err)
{
    size_t length = 0, row = (size_t)channels * sizeof(float), done = 0;
    if (n == 0) return em_fail(err, EM_INVAL, "no samples to resample");
    if (!resampled_length(&length, n, from_hz, to_hz)) {
        return em_fail(err, EM_INVAL, "%zu samples are too many to resample", n);
    }
    float *samples = em_alloc_array(length, row);
    if (!samples) return em_fail(err, EM_NOMEM, "out of memory resampling %zu samples", n);
    if (from_hz == to_hz) {
        memcpy(samples, in, n * row);
    } else {
        soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
        soxr_quality_spec_t quality =
            soxr_quality_spec(SOXR_HQ, 0); /* the default is another: LQ */
        soxr_error_t why = soxr_oneshot(from_hz, to_hz, (unsigned)channels, in, n, NULL, samples,
                                        length, &done, &io, &quality, NULL);
        if (why) {
            em_free(samples);
            return em_fail(err, EM_NOMEM, "cannot resample from %d to %d Hz: %s", from_hz, to_hz,
                           soxr_strerror(why));
        }
    }
    *out = samples;
    *n_out = length;
    return EM_OK;
}

int em_audio_frames(uint64_t n, int rate_hz, int fps, int video_length)
{
    uint64_t rate = (uint64_t)rate_hz, whole_s = n / rate,
             rest = n % rate; /* n * fps could overflow */
    uint64_t frames = (uint64_t)video_length;
    if (whole_s < frames) {
        uint64_t covered = whole_s * (uint64_t)fps + rest * (uint64_t)fps / rate;
        if (covered < frames) frames = covered;
    }
    return frames ? (int)((frames - 1) / 4 * 4 + 1)
                  : 0; /* the VAE holds 1 frame, then 4 at a time */
}

size_t em_audio_cut_samples(int frames)
{
    return (size_t)((double)frames / (double)EM_AUDIO_MODEL_FPS * (double)EM_AUDIO_MODEL_HZ);
}

void em_audio_standardise(float *x, size_t n)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double scale = 1.0 / sqrt(squares / (double)n + 1e-7);
    for (size_t i = 0; i < n; i++) x[i] = (float)((x[i] - mean) * scale);
}
