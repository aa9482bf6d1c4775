#include "pipeline/frames.h"

#include "../test.h"

#include <math.h>
#include <string.h>

static void latents(void **state)
{
    (void)state;
    assert_int_equal(em_latent_frames(1), 1);
    assert_int_equal(em_latent_frames(5), 2);
    assert_int_equal(em_latent_frames(81), 21);
    assert_int_equal(em_latent_frames(4093), 1024);
}

static void windows(void **state)
{
    (void)state;
    static const int32_t five[5][5] = {
        {0, 0, 0, 1, 2}, {0, 0, 1, 2, 3}, {0, 1, 2, 3, 4}, {1, 2, 3, 4, 4}, {2, 3, 4, 4, 4}};
    static const int32_t one[5] = {0, 0, 0, 0, 0};
    int32_t index[25];
    em_audio_windows(index, 5);
    assert_memory_equal(index, five, sizeof five);
    em_audio_windows(index, 1);
    assert_memory_equal(index, one, sizeof one);
}

static void pixels(void **state)
{
    (void)state;
    const uint8_t bytes[4] = {0, 1, 128, 255};
    float x[4];
    em_pixels_from_u8(x, bytes, 4);
    assert_true(x[0] == -1.0f && x[3] == 1.0f);
    assert_true(x[1] == -0x1.fbfbfcp-1f && x[2] == 0x1.0102p-8f); /* numpy's float32 */
}

enum { PIXELS = 3 };
static const uint8_t grey[3 * PIXELS] = {9, 9, 9, 9, 9, 9, 9, 9, 9};
static const uint8_t black[3 * PIXELS] = {0};
static const uint8_t speck[3 * PIXELS] = {9, 9, 9, 9, 9, 9, 9, 9, 8};

/* The verdict on a few frames; the sentence is in *err. */
static em_status judge(em_err *err, int frames, const uint8_t *const *frame)
{
    em_verdict v = {0};
    for (int i = 0; i < frames; i++) em_verdict_frame(&v, frame[i], PIXELS);
    return em_verdict_check(&v, err);
}

static void verdict_on_frames(void **state)
{
    (void)state;
    em_err err = {0};
    assert_int_equal(judge(&err, 0, NULL), EM_VERDICT);
    assert_int_equal(judge(&err, 1, (const uint8_t *const[]){grey}), EM_VERDICT);
    assert_string_equal(err.msg, "every pixel of the video has the colour (9, 9, 9); check the "
                                 "checkpoint");
    assert_int_equal(judge(&err, 2, (const uint8_t *const[]){grey, grey}), EM_VERDICT);
    assert_int_equal(judge(&err, 3, (const uint8_t *const[]){speck, speck, speck}), EM_VERDICT);
    assert_string_equal(err.msg, "all 3 frames of the video are equal; check the checkpoint");
    assert_ok(judge(&err, 1, (const uint8_t *const[]){speck}), err); /* a still is legal */
    assert_ok(judge(&err, 2, (const uint8_t *const[]){grey, black}), err);
    assert_ok(judge(&err, 3, (const uint8_t *const[]){speck, speck, grey}), err);
    assert_ok(judge(&err, 3, (const uint8_t *const[]){speck, grey, speck}), err);
}

static void verdict_on_values(void **state)
{
    (void)state;
    const float bad[2][3] = {{0, 1, NAN}, {-INFINITY, 0, 0}};
    for (int i = 0; i < 2; i++) {
        em_verdict v = {0};
        em_err err = {0};
        em_verdict_frame(&v, speck, PIXELS);
        em_verdict_values(&v, "frames", bad[0], 2); /* the finite part */
        assert_ok(em_verdict_check(&v, &err), err);
        em_verdict_values(&v, "latents", bad[i], 3);
        em_verdict_values(&v, "frames", bad[i], 3); /* the first cause is named */
        assert_int_equal(em_verdict_check(&v, &err), EM_VERDICT);
        assert_non_null(strstr(err.msg, "the latents hold a NaN"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latents),
        cmocka_unit_test(windows),
        cmocka_unit_test(pixels),
        cmocka_unit_test(verdict_on_frames),
        cmocka_unit_test(verdict_on_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
