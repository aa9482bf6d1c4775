#include "io/audio_in.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../golden.h"

static const char *const samples[] = {
    "aac_44100.m4a",   "flac_32000.flac",  "mono_16000.wav",         "mono_16000_float.wav",
    "mono_22050.wav",  "mono_8000.wav",    "mp3_44100.mp3",          "opus_48000.ogg",
    "quiet_16000.wav", "stereo_44100.wav", "stereo_48000_24bit.wav",
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static char *read_sample(const char *name, size_t *n)
{
    char local[128], path[GOLDEN_PATH_BYTES], *data = NULL;
    em_err err = {0};
    snprintf(local, sizeof local, "media/audio/%s", name);
    assert_ok(em_file_read(&data, n, golden_path(path, local), EM_AUDIO_MAX_BYTES, &err), err);
    return data;
}

static em_audio load_sample(const char *name)
{
    char local[128], path[GOLDEN_PATH_BYTES];
    em_audio audio = {0};
    em_err err = {0};
    snprintf(local, sizeof local, "media/audio/%s", name);
    assert_ok(em_audio_load(&audio, golden_path(path, local), NULL, &err), err);
    return audio;
}

/* The lossless samples, averaged and resampled, are librosa's bits. Counts are those of
 * notes.json. */
static void lossless_exact(void **state)
{
    (void)state;
    em_safetensors *golden = golden_tensors("media/audio.safetensors");
    json_t *notes = golden_json("media/notes.json");
    int seen = 0;
    for (int i = 0; i < SAMPLES; i++) {
        const em_safetensors_entry *want = golden_find(golden, samples[i], ".mono16k");
        if (!want) continue;
        char key[128];
        snprintf(key, sizeof key, "audio.%s", samples[i]);
        const json_t *note = json_object_get(notes, key);
        em_audio audio = load_sample(samples[i]);
        assert_int_equal(audio.rate_hz, json_integer_value(json_object_get(note, "rate")));
        assert_int_equal(audio.channels, json_integer_value(json_object_get(note, "channels")));
        assert_int_equal(audio.n, json_integer_value(json_object_get(note, "samples")));
        float *mono = NULL, *got = NULL;
        size_t n = 0;
        em_err err = {0};
        assert_ok(em_audio_mono(&mono, &audio, &err), err);
        assert_ok(em_audio_resample(&got, &n, mono, audio.n, 1, audio.rate_hz, EM_AUDIO_MODEL_HZ,
                                    &err),
                  err);
        assert_int_equal(n, want->dim[0]);
        if (memcmp(got, want->data, want->size_bytes) != 0) {
            fail_msg("%s: distance %.2e", samples[i], golden_distance(got, want->data, n));
        }
        em_free(mono);
        em_free(got);
        em_audio_free(&audio);
        seen++;
    }
    assert_int_equal(seen, 8);
    json_decref(notes);
    em_safetensors_close(&golden);
}

/* The lossy ones: the sample count of ffmpeg 5.1, and the root mean square of all channels
 * within 0.1 %. */
static void lossy_counts(void **state)
{
    (void)state;
    json_t *notes = golden_json("media/notes.json");
    int seen = 0;
    for (int i = 0; i < SAMPLES; i++) {
        char key[128];
        snprintf(key, sizeof key, "audio.%s", samples[i]);
        const json_t *note = json_object_get(notes, key);
        const json_t *count = json_object_get(note, "decoded samples per channel by ffmpeg 5.1");
        if (!count) continue;
        em_audio audio = load_sample(samples[i]);
        assert_int_equal(audio.n, json_integer_value(count));
        assert_int_equal(audio.via_s16, strstr(samples[i], ".m4a") != NULL);
        double sum = 0.0, want = json_real_value(json_object_get(note, "rms"));
        size_t floats = audio.n * (size_t)audio.channels;
        for (size_t j = 0; j < floats; j++) sum += (double)audio.samples[j] * audio.samples[j];
        double rms = sqrt(sum / (double)floats);
        print_message("%s: rms off by %.1e\n", samples[i], rms / want - 1.0);
        assert_true(fabs(rms / want - 1.0) <= 1e-3);
        em_audio_free(&audio);
        seen++;
    }
    assert_int_equal(seen, 3);
    json_decref(notes);
}

static em_status decode_copy(const void *data, size_t n, em_err *err)
{
    em_audio audio = {0};
    void *copy = em_alloc(n ? n : 1); /* exact size: AddressSanitizer sees the first byte too far */
    memcpy(copy, data, n);
    em_status st = em_audio_decode(&audio, copy, n, "cut", NULL, err);
    if (st == EM_OK) assert_true(audio.n > 0 && audio.samples);
    em_audio_free(&audio);
    em_free(copy);
    return st;
}

/* Cut anywhere: sound or a sentence, never a crash; with half of it gone, a sentence (an Ogg
 * stream does not declare its length: it may pass as a shorter one). */
static void truncated(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (size_t cut = 0; cut < n; cut += cut < 4000 || n < 40000 ? 100 : n / 100) {
            em_err err = {0};
            em_status st = decode_copy(data, cut, &err);
            assert_true(st == EM_OK || (st == EM_FORMAT && err.msg[0]));
            if (cut < n / 2 && st == EM_OK && !strstr(samples[i], ".ogg")) {
                fail_msg("%s cut at %zu of %zu passes", samples[i], cut, n);
            }
        }
        em_free(data);
    }
}

static void damaged(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (size_t at = 0; at < n; at += at < 256 ? 1 : n / 61 + 1) {
            em_err err = {0};
            data[at] ^= 0x55;
            em_status st = decode_copy(data, n, &err);
            if (st != EM_OK && st != EM_FORMAT && st != EM_NOMEM)
                fail_msg("%s at %zu: %s", samples[i], at, err.msg);
            data[at] ^= 0x55;
        }
        em_free(data);
    }
}

/* A WAV of `samples` silent samples; declares `declared`. */
static size_t make_wav(uint8_t out[1100], int channels, uint32_t rate, unsigned samples_n,
                       unsigned declared)
{
    static const uint8_t head[44] =
        "RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0data";
    unsigned bytes = declared * 2u * (unsigned)channels;
    memset(out, 0, 1100);
    memcpy(out, head, 40);
    out[22] = (uint8_t)channels;
    out[32] = (uint8_t)(2 * channels);
    for (int i = 0; i < 4; i++) {
        out[4 + i] = (uint8_t)((bytes + 36) >> (8 * i));
        out[24 + i] = (uint8_t)(rate >> (8 * i));
        out[28 + i] = (uint8_t)(rate * 2u * (unsigned)channels >> (8 * i));
        out[40 + i] = (uint8_t)(bytes >> (8 * i));
    }
    return 44 + (size_t)samples_n * 2 * (size_t)channels;
}

static void expect_refusal(const void *data, size_t n, const em_audio_limits *limits,
                           const char *says)
{
    em_err err = {0};
    em_audio audio = {.n = 7};
    assert_int_equal(em_audio_decode(&audio, data, n, "voice.wav", limits, &err), EM_FORMAT);
    assert_int_equal(audio.n, 7);
    if (!strstr(err.msg, says) || !strstr(err.msg, "'voice.wav'")) {
        fail_msg("lacks \"%s\": %s", says, err.msg);
    }
}

static void bad_files(void **state)
{
    (void)state;
    uint8_t wav[1100];
    expect_refusal("", 0, NULL, "0 bytes");
    expect_refusal("hello, I am a recording", 23, NULL, "found text");
    expect_refusal("<html><body>denied</body></html>", 32, NULL, "found an HTML page");
    expect_refusal("\x89PNG\r\n\x1a\n", 8, NULL, "found a PNG picture");
    expect_refusal("ffconcat version 1.0\nfile other.wav\n", 36, NULL, "found text");
    expect_refusal("\x1a\x45\xdf\xa3....", 8, NULL, "WebM");
    expect_refusal("OggS rubbish that goes on for a little while", 44, NULL, "damaged");
    expect_refusal(wav, make_wav(wav, 1, 16000, 0, 0), NULL, "0 samples");
    expect_refusal(wav, make_wav(wav, 12, 16000, 20, 20), NULL, "12 channels");
    expect_refusal(wav, make_wav(wav, 7, 16000, 20, 20), NULL, "7 channels");
    expect_refusal(wav, make_wav(wav, 1, 100, 20, 20), NULL, "100 samples a second");
    expect_refusal(wav, make_wav(wav, 1, 16000, 400, 160000), NULL, "truncated");
    expect_refusal(wav, make_wav(wav, 1, 16000, 400, 400), &(em_audio_limits){.max_seconds = 0.02},
                   "longer than");
    em_err err = {0};
    em_audio audio = {0};
    assert_int_equal(em_audio_load(&audio, "/nonexistent/v.wav", NULL, &err), EM_IO);
    assert_non_null(strstr(err.msg, "does not exist"));
    size_t n = make_wav(wav, 1, 16000, 400, 400);
    assert_ok(em_audio_decode(&audio, wav, n, "voice.wav", NULL, &err), err);
    assert_int_equal(audio.n, 400);
    em_audio_free(&audio);
    memset(wav + 40, 0xff, 4); /* what a program that writes to a pipe declares */
    assert_ok(em_audio_decode(&audio, wav, n, "voice.wav", NULL, &err), err);
    assert_int_equal(audio.n, 400);
    em_audio_free(&audio);
}

static void deadline(void **state)
{
    (void)state;
    size_t n;
    char *data = read_sample("stereo_44100.wav", &n);
    expect_refusal(data, n, &(em_audio_limits){.timeout_s = 1e-9}, "takes more than");
    em_free(data);
}

static void out_of_memory(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (uint64_t k = 1;; k++) {
            em_err err = {0};
            em_audio audio = {0};
            uint64_t before = em_alloc_calls();
            em_alloc_fail_at(k, true);
            em_status st = em_audio_decode(&audio, data, n, "x", NULL, &err);
            em_alloc_fail_at(0, false);
            bool reached = em_alloc_calls() - before >= k;
            em_audio_free(&audio);
            if (!reached) break;
            assert_int_equal(st, EM_NOMEM);
        }
        em_free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lossless_exact), cmocka_unit_test(lossy_counts),
        cmocka_unit_test(truncated),      cmocka_unit_test(damaged),
        cmocka_unit_test(bad_files),      cmocka_unit_test(deadline),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
