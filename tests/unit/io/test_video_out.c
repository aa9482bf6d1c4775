#include "io/video_out.h"

#include "base/alloc.h"
#include "io/audio_in.h"
#include "io/file.h"

#include "../golden.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, MAX_BYTES = 64 << 20 };

/* Frame i of a moving gradient. */
static void draw(uint8_t rgb[WIDTH * HEIGHT * 3], int i)
{
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            uint8_t *p = rgb + (y * WIDTH + x) * 3;
            p[0] = (uint8_t)(4 * x + 3 * i);
            p[1] = (uint8_t)(5 * y + i);
            p[2] = (uint8_t)(x + y + 7 * i);
        }
    }
}

/* n samples of silence with a smooth pulse of 2 ms that begins at `click_s`; owned. */
static float *click_track(size_t n, int channels, int rate_hz, double click_s)
{
    float *x = em_alloc_array(n * (size_t)channels, sizeof *x);
    size_t from = (size_t)(click_s * rate_hz), len = (size_t)rate_hz / 500;
    for (size_t i = from; i < from + len && i < n; i++) {
        float v = 0.4f - 0.4f * cosf(6.2831853f * (float)(i - from) / (float)len);
        for (int c = 0; c < channels; c++) x[i * (size_t)channels + (size_t)c] = v;
    }
    return x;
}

static em_video_params params(int frames, int fps)
{
    return (
        em_video_params){.width = WIDTH, .height = HEIGHT, .fps = fps, .frames = frames, .crf = 18};
}

static em_status push_all(em_video_out *v, int frames, em_err *err)
{
    static uint8_t rgb[WIDTH * HEIGHT * 3];
    em_status st = EM_OK;
    for (int i = 0; i < frames && !st; i++) {
        draw(rgb, i);
        st = em_video_out_push(v, rgb, err);
    }
    return st;
}

static void write_video(const char *path, const em_video_params *p)
{
    em_err err = {0};
    em_video_out *v = NULL;
    unlink(path); /* of a run that failed */
    assert_ok(em_video_out_open(&v, path, p, NULL, &err), err);
    assert_ok(push_all(v, p->frames, &err), err);
    assert_ok(em_video_out_finish(v, &err), err);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_ok(em_video_out_commit(&v, &err), err);
    assert_null(v);
}

/* Frames, duration, streams, size; at 25 and 30 frames a second, with and without sound, one
 * frame too. */
static void what_went_in(void **state)
{
    (void)state;
    static const struct {
        int frames, fps, channels, rate_hz;
    } cases[] = {{13, 25, 1, 16000}, {81, 25, 2, 44100}, {29, 30, 2, 48000}, {1, 25, 1, 22050},
                 {13, 24, 0, 0},     {13, 25, 6, 48000}, {13, 25, 1, 50000}, {25, 25, 1, 8000}};
    const char *path = "test_video_out_a.mp4";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_video_params p = params(cases[i].frames, cases[i].fps);
        size_t n = (size_t)cases[i].rate_hz * 4; /* longer than the video: it must be cut */
        float *sound =
            cases[i].channels ? click_track(n, cases[i].channels, cases[i].rate_hz, 0) : NULL;
        p.audio = sound;
        p.audio_n = n;
        p.audio_rate_hz = cases[i].rate_hz;
        p.audio_channels = cases[i].channels;
        write_video(path, &p);

        em_video_info info = {0};
        em_err err = {0};
        struct stat file;
        double want_s = (double)p.frames / p.fps;
        assert_ok(em_video_check(&info, path, &err), err);
        assert_int_equal(stat(path, &file), 0);
        assert_int_equal(info.width, WIDTH);
        assert_int_equal(info.height, HEIGHT);
        assert_int_equal(info.frames, p.frames);
        assert_int_equal(info.video_streams, 1);
        assert_int_equal(info.audio_streams, sound != NULL);
        assert_int_equal(info.size_bytes, file.st_size);
        assert_true(fabs(info.fps - p.fps) < 1e-6);
        assert_true(fabs(info.video_seconds - want_s) < 1e-3);
        if (sound && fabs(info.audio_seconds - want_s) > 1e-3) {
            fail_msg("case %zu: %.6f s of sound for %.6f s", i, info.audio_seconds, want_s);
        }
        em_free(sound);
        unlink(path);
    }
}

/* The shift, in samples, at which `heard` fits `put` best. */
static int lag_of(const em_audio *heard, const float *put, size_t n)
{
    enum { REACH = 1200 }; /* more than the encoder's delay of 1024 */
    int best = -REACH;
    double best_fit = -1e30;
    for (int lag = -REACH; lag <= REACH; lag++) {
        double fit = 0.0;
        for (size_t i = REACH; i + REACH < n && i + REACH < heard->n; i++) {
            fit += (double)put[i] * heard->samples[(size_t)((int64_t)i + lag)];
        }
        if (fit > best_fit) best_fit = fit, best = lag;
    }
    return best;
}

/* The click is where it was put, to the sample: the encoder's delay is in the edit list. A rate
 * that AAC lacks becomes the nearest. */
static void in_sync(void **state)
{
    (void)state;
    static const int rates[][2] = {{16000, 16000}, {44100, 44100}, {48000, 48000}, {50000, 48000}};
    const char *path = "test_video_out_sync.mp4";
    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
        em_video_params p = params(25, 25);
        p.audio_n = (size_t)rates[r][0];
        p.audio_rate_hz = rates[r][0];
        p.audio_channels = 1;
        float *sound = click_track(p.audio_n, 1, rates[r][0], 0.32), *put = NULL;
        p.audio = sound;
        write_video(path, &p);

        em_audio heard = {0};
        em_err err = {0};
        size_t n = 0;
        assert_ok(em_audio_resample(&put, &n, sound, p.audio_n, 1, rates[r][0], rates[r][1], &err),
                  err);
        assert_ok(em_audio_load(&heard, path, NULL, &err), err);
        assert_int_equal(heard.rate_hz, rates[r][1]);
        assert_int_equal(lag_of(&heard, put, n), 0);
        assert_true(heard.n >= n &&
                    heard.n < n + 1024); /* FFmpeg 5.1 keeps the last block's padding */
        em_audio_free(&heard);
        em_free(sound);
        em_free(put);
        unlink(path);
    }
}

/* In one process, where the second encoder gets the first one's heap. */
static void same_twice(void **state)
{
    (void)state;
    const char *paths[] = {"test_video_out_1.mp4", "test_video_out_2.mp4"};
    char *data[2];
    size_t n[2];
    float *sound = click_track(44100, 2, 44100, 0.1);
    em_video_params p = params(25, 25);
    p.audio = sound, p.audio_n = 44100, p.audio_rate_hz = 44100, p.audio_channels = 2;
    for (int i = 0; i < 2; i++) {
        em_err err = {0};
        write_video(paths[i], &p);
        assert_ok(em_file_read(&data[i], &n[i], paths[i], MAX_BYTES, &err), err);
        unlink(paths[i]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(data[0], data[1], n[0]);
    em_free(data[0]);
    em_free(data[1]);
    em_free(sound);
}

/* The index comes before the media data: a browser can play while it loads. */
static void index_first(void **state)
{
    (void)state;
    em_video_params p = params(5, 25);
    char *data;
    size_t n;
    em_err err = {0};
    write_video("test_video_out_f.mp4", &p);
    assert_ok(em_file_read(&data, &n, "test_video_out_f.mp4", MAX_BYTES, &err), err);
    const char *moov = memmem(data, n, "moov", 4), *mdat = memmem(data, n, "mdat", 4);
    assert_non_null(moov);
    assert_non_null(mdat);
    assert_true(moov < mdat);
    em_free(data);
    unlink("test_video_out_f.mp4");
}

/* Nothing is left by an unfinished video; what has the name already stays until commit. */
static void abandoned(void **state)
{
    (void)state;
    const char *path = "test_video_out_x.mp4";
    em_video_params p = params(5, 25);
    em_err err = {0};
    em_video_out *v = NULL;
    assert_ok(em_video_out_open(&v, path, &p, NULL, &err), err);
    char part[256];
    snprintf(part, sizeof part, "%s", em_video_out_part(v));
    assert_int_equal(access(part, F_OK), 0);
    assert_ok(push_all(v, 3, &err), err);
    assert_int_equal(em_video_out_finish(v, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "5 frames and got 3"));
    assert_int_equal(em_video_out_commit(&v, &err), EM_INVAL);
    assert_null(v);
    assert_int_not_equal(access(part, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    em_video_out_close(&v);

    assert_int_equal(em_video_out_open(&v, "/nonexistent/x.mp4", &p, NULL, &err), EM_IO);
    assert_non_null(strstr(err.msg, "/nonexistent/x.mp4"));
    p.width = 63;
    assert_int_equal(em_video_out_open(&v, path, &p, NULL, &err), EM_INVAL);
}

/* A write that fails, be it of the header, of media or while the index moves to the front. */
static void write_fails(void **state)
{
    (void)state;
    const char *path = "test_video_out_full.mp4";
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 16; limit <= 4096; limit *= 4) {
        em_video_params p = params(60, 25);
        em_err err = {0};
        em_video_out *v = NULL;
        struct rlimit small = {.rlim_cur = limit, .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        em_status st = em_video_out_open(&v, path, &p, NULL, &err);
        if (!st) st = push_all(v, p.frames, &err);
        if (!st) st = em_video_out_finish(v, &err);
        em_video_out_close(&v);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(st, EM_IO);
        assert_non_null(strstr(err.msg, "File too large"));
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

/* Each of our allocations fails, once: a clean error, nothing left. */
static void out_of_memory(void **state)
{
    (void)state;
    const char *path = "test_video_out_oom.mp4";
    float *sound = click_track(8000, 1, 8000, 0);
    for (uint64_t k = 1;; k++) {
        em_video_params p = params(1, 25);
        p.audio = sound, p.audio_n = 8000, p.audio_rate_hz = 8000, p.audio_channels = 1;
        em_err err = {0};
        em_video_out *v = NULL;
        uint64_t before = em_alloc_calls();
        em_alloc_fail_at(k, false);
        em_status st = em_video_out_open(&v, path, &p, NULL, &err);
        if (!st) st = push_all(v, 1, &err);
        if (!st) st = em_video_out_finish(v, &err);
        em_alloc_fail_at(0, false);
        bool reached = em_alloc_calls() - before >= k;
        em_video_out_close(&v);
        if (!reached) {
            assert_ok(st, err);
            break;
        }
        if (st == EM_OK) fail_msg("allocation %d: no error", (int)k);
    }
    em_free(sound);
}

/* What is no whole MP4 is no success. */
static void check_refuses(void **state)
{
    (void)state;
    const char *path = "test_video_out_c.mp4";
    em_video_params p = params(13, 25);
    em_video_info info = {.frames = 7};
    em_err err = {0};
    write_video(path, &p);
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(truncate(path, file.st_size - 40), 0);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(em_video_check(&info, path, &err), EM_FORMAT);
    unlink(path);
    assert_int_equal(em_video_check(&info, path, &err), EM_IO);
    assert_int_equal(info.frames, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_in),  cmocka_unit_test(in_sync),
        cmocka_unit_test(same_twice),    cmocka_unit_test(index_first),
        cmocka_unit_test(abandoned),     cmocka_unit_test(write_fails),
        cmocka_unit_test(out_of_memory), cmocka_unit_test(check_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
