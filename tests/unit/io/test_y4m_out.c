#include "base/alloc.h"
#include "io/audio_in.h"
#include "io/file.h"
#include "io/video_out.h"

#include "../test.h"
#include "../tmpdir.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { W = 4, H = 2, FRAMES = 3, RATE_HZ = 8000, FRAME_BYTES = 6 + W * H * 3 / 2 };

static const em_video_params small = {.width = W, .height = H, .fps = 25, .frames = FRAMES};

static void make(const char *path, const em_video_params *p, const uint8_t *rgb)
{
    em_video_out *v = NULL;
    em_err err = {0};
    em_video_info info;
    assert_ok(em_video_out_open(&v, path, p, NULL, &err), err);
    for (int i = 0; i < p->frames; i++) assert_ok(em_video_out_push(v, rgb, &err), err);
    assert_ok(em_video_out_finish(v, &err), err);
    assert_ok(em_video_check(&info, em_video_out_part(v), &err), err);
    assert_int_equal(info.frames, p->frames);
    assert_int_equal(info.audio_streams, p->audio != NULL);
    assert_ok(em_video_out_commit(&v, &err), err);
    assert_null(v);
}

static void names(void **state)
{
    (void)state;
    static const char *const name[][2] = {{"a/b.mp4", "a/b.y4m"},
                                          {"b.MP4", "b.y4m"},
                                          {"b.y4m", "b.y4m"},
                                          {"b.mov", "b.mov.y4m"},
                                          {"b", "b.y4m"}};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        char *got = em_video_out_name(name[i][0]);
        assert_string_equal(got, name[i][1]);
        em_free(got);
    }
}

/* Black, white and grey have no colour; red, green and blue have BT.601's, limited range. Chroma is
 * the mean of four pixels. */
static void follows_the_rule(void **state)
{
    static const struct {
        uint8_t rgb[3], y, cb, cr;
    } colours[] = {{{0, 0, 0}, 16, 128, 128},        {{255, 255, 255}, 235, 128, 128},
                   {{128, 128, 128}, 126, 128, 128}, {{255, 0, 0}, 81, 90, 240},
                   {{0, 255, 0}, 145, 54, 34},       {{0, 0, 255}, 41, 240, 110}};
    em_err err = {0};
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++) {
        uint8_t rgb[W * H * 3];
        char *file;
        size_t n;
        for (int k = 0; k < W * H * 3; k++) rgb[k] = colours[i].rgb[k % 3];
        make(tmpdir_path(state, "v.mp4"), &small, rgb);
        assert_ok(em_file_read(&file, &n, tmpdir_path(state, "v.y4m"), 1 << 20, &err), err);
        const uint8_t *frame = (const uint8_t *)file + n - FRAME_BYTES;
        assert_memory_equal(frame, "FRAME\n", 6);
        for (int k = 0; k < W * H; k++) assert_int_equal(frame[6 + k], colours[i].y);
        for (int k = 0; k < W * H / 4; k++) {
            assert_int_equal(frame[6 + W * H + k], colours[i].cb);
            assert_int_equal(frame[6 + W * H * 5 / 4 + k], colours[i].cr);
        }
        em_free(file);
    }
}

/* The sound beside it is the source's, up to the end of the last frame. */
static void carries_the_sound(void **state)
{
    static float sound[2 * RATE_HZ];
    uint8_t rgb[W * H * 3] = {0};
    em_err err = {0};
    em_audio a = {0};
    em_video_info info;
    em_video_params p = small;
    for (int i = 0; i < 2 * RATE_HZ; i++) sound[i] = (float)(i % 200 - 100) / 128;
    p.audio = sound;
    p.audio_n = RATE_HZ;
    p.audio_rate_hz = RATE_HZ;
    p.audio_channels = 2;
    const char *path = tmpdir_path(state, "s.y4m");
    make(path, &p, rgb);
    assert_ok(em_video_check(&info, path, &err), err);
    assert_int_equal(info.width, W);
    assert_int_equal(info.height, H);
    assert_int_equal(info.frames, FRAMES);
    assert_true(info.fps == 25 && info.audio_seconds == 0.12);
    assert_ok(em_audio_load(&a, tmpdir_path(state, "s.wav"), NULL, &err), err);
    assert_int_equal(a.n, FRAMES * RATE_HZ / 25);
    assert_int_equal(a.channels, 2);
    assert_memory_equal(a.samples, sound, a.n * 2 * sizeof *sound);
    em_audio_free(&a);
}

static void all_or_nothing(void **state)
{
    uint8_t rgb[W * H * 3] = {0};
    em_video_out *v = NULL;
    em_err err = {0};
    float one[RATE_HZ] = {0};
    em_video_params p = small;
    p.audio = one;
    p.audio_n = p.audio_rate_hz = RATE_HZ;
    p.audio_channels = 1;
    const char *path = tmpdir_path(state, "n.y4m");
    assert_ok(em_video_out_open(&v, path, &p, NULL, &err), err);
    assert_ok(em_video_out_push(v, rgb, &err), err);
    assert_int_equal(em_video_out_finish(v, &err), EM_INVAL); /* one of three */
    assert_int_equal(em_video_out_commit(&v, &err), EM_INVAL);
    assert_null(v);
    assert_false(em_path_is_file(path));
    assert_false(em_path_is_file(tmpdir_path(state, "n.wav")));
    em_video_out_close(&v);
    p.width = 3;
    assert_int_equal(em_video_out_open(&v, path, &p, NULL, &err), EM_INVAL);
}

/* A file that is cut, longer or another one altogether is no video. */
static void finds_damage(void **state)
{
    uint8_t rgb[W * H * 3] = {0};
    em_err err = {0};
    em_video_info info;
    const char *path = tmpdir_path(state, "d.y4m");
    make(path, &small, rgb);
    char *file;
    size_t n;
    assert_ok(em_file_read(&file, &n, path, 1 << 20, &err), err);
    assert_ok(em_file_write(path, file, n - 1, &err), err);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    file[n - FRAME_BYTES] = 'f';
    assert_ok(em_file_write(path, file, n, &err), err);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    assert_ok(em_file_write(path, file, n - (size_t)FRAMES * FRAME_BYTES, &err), err);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    assert_ok(em_file_write(path, "YUV4MPEG2 W-4 H2 F25:1 \n", 24, &err), err);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    em_free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test_setup_teardown(follows_the_rule, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(carries_the_sound, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(all_or_nothing, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(finds_damage, tmpdir_setup, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
