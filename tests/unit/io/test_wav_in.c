#include "io/audio_in.h"
#include "io/wav.h"

#include "../golden.h"

#include <string.h>

/* A WAV of `bits` per sample of format `kind`, mono at 8000 Hz, `declared` bytes of sound. */
static size_t make_wav(uint8_t out[128], int kind, int bits, const void *samples, size_t n,
                       uint32_t declared)
{
    em_wav_header(out, 8000, 1, (uint32_t)n);
    out[20] = (uint8_t)kind;
    out[32] = (uint8_t)(bits / 8);
    out[34] = (uint8_t)bits;
    for (int i = 0; i < 4; i++) out[40 + i] = (uint8_t)(declared >> 8 * i);
    memcpy(out + EM_WAV_HEADER_BYTES, samples, n);
    return EM_WAV_HEADER_BYTES + n;
}

static void expect_samples(int kind, int bits, const void *samples, size_t n, const float *want,
                           size_t count)
{
    uint8_t wav[128];
    em_audio a = {0};
    em_err err = {0};
    size_t size = make_wav(wav, kind, bits, samples, n, (uint32_t)n);
    assert_ok(em_audio_decode(&a, wav, size, "v.wav", NULL, &err), err);
    assert_int_equal(a.n, count);
    assert_int_equal(a.rate_hz, 8000);
    assert_int_equal(a.channels, 1);
    assert_false(a.via_s16);
    for (size_t i = 0; i < count; i++) assert_true(a.samples[i] == want[i]);
    em_audio_free(&a);
}

static void reads_every_kind(void **state)
{
    (void)state;
    const float quarter[] = {0.25f, -1, 0x1p-15f}, f[] = {0.25f, -1, 1.5f};
    const uint8_t s16[] = {0, 0x20, 0, 0x80, 1, 0}, s24[] = {0, 0, 0x20, 0, 0, 0x80, 0, 1, 0};
    const uint8_t s32[] = {0, 0, 0, 0x20, 0, 0, 0, 0x80, 0, 0, 1, 0};
    expect_samples(1, 16, s16, sizeof s16, quarter, 3);
    expect_samples(1, 24, s24, sizeof s24, quarter, 3);
    expect_samples(1, 32, s32, sizeof s32, quarter, 3);
    expect_samples(3, 32, f, sizeof f, f, 3);
    const float odd[] = {NAN, INFINITY, 0.5f}, silent[] = {0, 0, 0.5f};
    expect_samples(3, 32, odd, sizeof odd, silent, 3);
}

static void expect_refusal(const void *data, size_t n, em_status code, const char *sentence)
{
    em_audio a = {0};
    em_err err = {0};
    assert_int_equal(em_audio_decode(&a, data, n, "v.wav", NULL, &err), code);
    assert_non_null(strstr(err.msg, "'v.wav'"));
    if (!strstr(err.msg, sentence)) fail_msg("'%s' does not say '%s'", err.msg, sentence);
    assert_null(a.samples);
}

static void refuses_the_rest(void **state)
{
    (void)state;
    uint8_t wav[128];
    const uint8_t two[4] = {1, 0, 2, 0};
    expect_refusal("", 0, EM_FORMAT, "is empty");
    expect_refusal("{\"a\": 1}", 8, EM_FORMAT, "JSON text");
    expect_refusal("fLaC....", 8, EM_INVAL, "EM_MEDIA=ON");
    expect_refusal(wav, make_wav(wav, 1, 8, two, 4, 4), EM_FORMAT, "8-bit samples of kind 1");
    expect_refusal(wav, make_wav(wav, 3, 16, two, 4, 4), EM_FORMAT, "16-bit samples of kind 3");
    expect_refusal(wav, make_wav(wav, 1, 16, two, 4, 400), EM_FORMAT, "truncated");
    expect_refusal(wav, make_wav(wav, 1, 16, two, 0, 0), EM_FORMAT, "0 samples");
    make_wav(wav, 1, 16, two, 4, 4);
    wav[22] = 7;
    expect_refusal(wav, 48, EM_FORMAT, "7 channels");
    make_wav(wav, 1, 16, two, 4, 4);
    wav[24] = wav[25] = 0;
    expect_refusal(wav, 48, EM_FORMAT, "0 samples a second");
    make_wav(wav, 1, 16, two, 4, 4);
    memcpy(wav + 12, "junk", 4);
    expect_refusal(wav, 48, EM_FORMAT, "no format");
    for (size_t n = 12; n < EM_WAV_HEADER_BYTES; n++) { /* cut anywhere in the header */
        em_audio a = {0};
        em_err err = {0};
        make_wav(wav, 1, 16, two, 4, 4);
        assert_int_equal(em_audio_decode(&a, wav, n, "v.wav", NULL, &err), EM_FORMAT);
    }
    const em_audio_limits brief = {.max_seconds = 1e-4};
    em_audio a = {0};
    em_err err = {0};
    size_t n = make_wav(wav, 1, 16, two, 4, 4);
    assert_int_equal(em_audio_decode(&a, wav, n, "v.wav", &brief, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "longer than"));
}

/* A writer to a pipe does not know the length: all that is there counts, in whole samples. */
static void length_may_be_open(void **state)
{
    (void)state;
    uint8_t wav[128];
    const uint8_t five[5] = {0, 0x20, 0, 0x40, 9};
    em_audio a = {0};
    em_err err = {0};
    size_t n = make_wav(wav, 1, 16, five, sizeof five, UINT32_MAX);
    assert_ok(em_audio_decode(&a, wav, n, "v.wav", NULL, &err), err);
    assert_int_equal(a.n, 2);
    assert_true(a.samples[1] == 0.5f);
    em_audio_free(&a);
}

/* Real files, with the channels and rates that other programs write. */
static void reads_what_others_write(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int rate_hz, channels;
    } files[] = {{"media/audio/mono_8000.wav", 8000, 1},
                 {"media/audio/stereo_44100.wav", 44100, 2},
                 {"media/audio/stereo_48000_24bit.wav", 48000, 2},
                 {"media/audio/mono_16000_float.wav", 16000, 1}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[GOLDEN_PATH_BYTES];
        em_audio a = {0};
        em_err err = {0};
        assert_ok(em_audio_load(&a, golden_path(path, files[i].file), NULL, &err), err);
        assert_int_equal(a.rate_hz, files[i].rate_hz);
        assert_int_equal(a.channels, files[i].channels);
        assert_true(a.n > 1000);
        em_audio_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_kind),
        cmocka_unit_test(refuses_the_rest),
        cmocka_unit_test(length_may_be_open),
        cmocka_unit_test(reads_what_others_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
