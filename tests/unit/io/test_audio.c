#include "io/audio.h"

#include "base/alloc.h"

#include "../golden.h"

static int64_t field(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

/* sizes.json "frames" and "audio_cut". */
static void frames_and_cut(void **state)
{
    (void)state;
    json_t *doc = golden_json("media/sizes.json"), *row;
    size_t i;
    json_array_foreach(json_object_get(doc, "frames"), i, row)
    {
        int got = em_audio_frames((uint64_t)field(row, "samples"), (int)field(row, "rate"),
                                  (int)field(row, "fps"), (int)field(row, "video_length"));
        assert_int_equal(got, field(row, "frames"));
    }
    assert_int_equal(i, 9);
    json_array_foreach(json_object_get(doc, "audio_cut"), i, row)
    {
        assert_int_equal(em_audio_cut_samples((int)field(row, "frames")), field(row, "samples"));
    }
    assert_int_equal(i, 12);
    json_decref(doc);
}

static void frames_at_the_edges(void **state)
{
    (void)state;
    assert_int_equal(em_audio_frames(0, 16000, 25, 81), 0);
    assert_int_equal(em_audio_frames(639, 16000, 25, 81), 0);
    assert_int_equal(em_audio_frames(640, 16000, 25, 81), 1);
    assert_int_equal(em_audio_frames(4 * 640, 16000, 25, 81), 1);
    assert_int_equal(em_audio_frames(5 * 640, 16000, 25, 81), 5);
    assert_int_equal(em_audio_frames(UINT64_MAX, 4000, 120, 4093), 4093);
}

static void mono_averages(void **state)
{
    (void)state;
    float stereo[] = {0.5f, 0.25f, -1.0f, 1.0f}, *mono = NULL;
    em_audio audio = {.samples = stereo, .n = 2, .rate_hz = 8000, .channels = 2};
    em_err err = {0};
    assert_ok(em_audio_mono(&mono, &audio, &err), err);
    assert_true(mono[0] == 0.375f && mono[1] == 0.0f);
    em_free(mono);
}

/* via_s16: rounded to 1/32768, clipped at the ends. */
static void mono_via_s16(void **state)
{
    (void)state;
    float in[] = {0.6f / 32768, 1.5f, -1.5f}, *mono = NULL;
    em_audio audio = {.samples = in, .n = 3, .rate_hz = 8000, .channels = 1, .via_s16 = true};
    em_err err = {0};
    assert_ok(em_audio_mono(&mono, &audio, &err), err);
    assert_true(mono[0] == 1.0f / 32768 && mono[1] == 32767.0f / 32768 && mono[2] == -1.0f);
    em_free(mono);
}

static void resample_lengths(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        int from, to;
        size_t want;
    } cases[] = {{57330, 44100, 16000, 20800}, {1, 44100, 16000, 1},  {1, 8000, 16000, 2},
                 {3, 16000, 16000, 3},         {10, 16000, 11025, 7}, {0, 44100, 16000, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *in = em_alloc_array(cases[i].n + 1, 2 * sizeof *in), *out = NULL;
        size_t n = 99;
        em_err err = {0};
        em_status st =
            em_audio_resample(&out, &n, in, cases[i].n, 2, cases[i].from, cases[i].to, &err);
        assert_int_equal(st, cases[i].n ? EM_OK : EM_INVAL);
        assert_int_equal(n, cases[i].n ? cases[i].want : 99);
        em_free(in);
        em_free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_and_cut),   cmocka_unit_test(frames_at_the_edges),
        cmocka_unit_test(mono_averages),    cmocka_unit_test(mono_via_s16),
        cmocka_unit_test(resample_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
