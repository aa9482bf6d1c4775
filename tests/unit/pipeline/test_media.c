/* What a thread decoded ahead is what decoding on the spot gives, failures included. */
#include "pipeline/media.h"

#include "base/alloc.h"
#include "io/audio_in.h"

#include "../test.h"

#include <string.h>

#define SHARE EM_TEST_DATA "/../share"
#define IMAGE SHARE "/portraits/cleo.png"
#define AUDIO SHARE "/voices/pablo.wav"

static em_err err;

static void the_same_as_on_the_spot(void **state)
{
    (void)state;
    em_media *m = NULL;
    em_image image = {0};
    em_audio audio = {0};
    float *mono = NULL;
    char path[] = AUDIO; /* copied: may change afterwards */
    assert_ok(em_media_begin(&m, IMAGE, path, &err), err);
    path[0] = '?';
    assert_ok(em_image_load(&image, IMAGE, EM_IMAGE_UPRIGHT, &err), err);
    assert_ok(em_audio_load(&audio, AUDIO, NULL, &err), err);
    assert_ok(em_audio_mono(&mono, &audio, &err), err);
    assert_ok(em_media_wait(m, &err), err);
    assert_ok(em_media_wait(m, &err), err);
    em_picture p = em_media_picture(m);
    em_sound s = em_media_sound(m);
    assert_int_equal(p.width, image.width);
    assert_int_equal(p.height, image.height);
    assert_memory_equal(p.rgb, image.rgb, (size_t)p.width * (size_t)p.height * 3);
    assert_int_equal(s.n, audio.n);
    assert_int_equal(s.rate_hz, audio.rate_hz);
    assert_memory_equal(s.mono, mono, s.n * sizeof *mono);
    assert_ptr_equal(em_media_image(m)->rgb, p.rgb);
    assert_int_equal(em_media_audio(m)->channels, audio.channels);
    assert_memory_equal(em_media_audio(m)->samples, audio.samples,
                        audio.n * (size_t)audio.channels * sizeof *mono);
    assert_string_equal(em_media_audio_path(m), AUDIO);
    em_media_close(&m);
    assert_null(m);
    em_media_close(&m);
    em_image_free(&image);
    em_audio_free(&audio);
    em_free(mono);
}

static void failures_are_told_every_time(void **state)
{
    (void)state;
    static const struct {
        const char *image, *audio, *named;
        em_status st;
    } bad[] = {{"/no/such.png", AUDIO, "/no/such.png", EM_IO},
               {IMAGE, "/no/such.wav", "/no/such.wav", EM_IO},
               {IMAGE, IMAGE, IMAGE, EM_FORMAT},
               {AUDIO, AUDIO, AUDIO, EM_FORMAT}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_media *m = NULL;
        assert_ok(em_media_begin(&m, bad[i].image, bad[i].audio, &err), err);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(em_media_wait(m, &err), bad[i].st);
            assert_non_null(strstr(err.msg, bad[i].named));
        }
        em_media_close(&m);
    }
}

static void may_be_dropped_at_any_time(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        em_media *m = NULL;
        assert_ok(em_media_begin(&m, IMAGE, AUDIO, &err), err);
        em_media_close(&m);
    }
}

static void decoding_can_be_cancelled(void **state)
{
    (void)state;
    atomic_bool cancel = true;
    em_audio audio = {0};
    const em_audio_limits limits = {.cancel = &cancel};
    assert_int_equal(em_audio_load(&audio, AUDIO, &limits, &err), EM_CANCELLED);
    assert_null(audio.samples);
    atomic_store(&cancel, false);
    assert_ok(em_audio_load(&audio, AUDIO, &limits, &err), err);
    em_audio_free(&audio);
}

static void survives_any_failed_allocation(void **state)
{
    (void)state;
    em_status st = EM_NOMEM;
    for (uint64_t k = 1; st; k++) {
        em_media *m = NULL;
        em_alloc_fail_at(k, false);
        st = em_media_begin(&m, IMAGE, AUDIO, &err);
        if (!st) st = em_media_wait(m, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true(k < 200 && (st || k > 5));
        em_media_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_as_on_the_spot),
        cmocka_unit_test(failures_are_told_every_time),
        cmocka_unit_test(may_be_dropped_at_any_time),
        cmocka_unit_test(decoding_can_be_cancelled),
        cmocka_unit_test(survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
