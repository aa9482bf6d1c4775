#include "io/audio_in.h"
#include "io/video_out.h"

#include "../test.h"

#include <string.h>

/* A build without FFmpeg says what it lacks and what to do. */
static void says_so(void **state)
{
    (void)state;
    em_err err = {0};
    em_audio audio = {0};
    em_video_out *video = NULL;
    em_video_info info = {0};
    em_video_params params = {0};
    assert_int_equal(em_audio_load(&audio, "v.wav", NULL, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "'v.wav'"));
    assert_non_null(strstr(err.msg, "EM_MEDIA=ON"));
    assert_int_equal(em_audio_decode(&audio, "RIFF", 4, "v.wav", NULL, &err), EM_INVAL);
    assert_int_equal(em_video_out_open(&video, "v.mp4", &params, NULL, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "'v.mp4'"));
    assert_int_equal(em_video_check(&info, "v.mp4", &err), EM_INVAL);
    em_video_out_close(&video);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(says_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
