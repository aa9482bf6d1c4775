/* A film encodes behind a queue what would be encoded on the spot, byte for byte; its file is
 * whole and known before it has its name; nothing is left of one that fails. */
#include "pipeline/film.h"

#include "base/alloc.h"
#include "io/file.h"
#include "pipeline/media.h"

#include "../tiny_engine.h"
#include "../tmpdir.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#define SHARE EM_TEST_DATA "/../share"

enum { SIDE = 64, FRAMES = 37, FPS = 25 };

static em_media *media;
static em_err err;

static int load(void **state)
{
    (void)state;
    assert_ok(em_media_begin(&media, SHARE "/portraits/cleo.png", SHARE "/voices/pablo.wav", &err),
              err);
    assert_ok(em_media_wait(media, &err), err);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    em_media_close(&media);
    return 0;
}

/* Frame i of something that moves and has texture. */
static const uint8_t *picture(int i)
{
    static uint8_t rgb[SIDE * SIDE * 3];
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            uint8_t *p = rgb + (y * SIDE + x) * 3;
            p[0] = (uint8_t)((x + 3 * i) * 4);
            p[1] = (uint8_t)((y * y + i) * 5);
            p[2] = (uint8_t)(x * y + 7 * i);
        }
    return rgb;
}

static em_film_params params(const char *path)
{
    return (em_film_params){.output_path = path, .media = media, .fps = FPS, .crf = 18};
}

/* As em_generate does it. */
static em_status play(em_film *f, int promised, int frames)
{
    const em_sink sink = em_film_sink(f);
    em_status st = sink.begin(sink.user, SIDE, SIDE, promised, &err);
    for (int i = 0; !st && i < frames; i++) st = sink.frame(sink.user, picture(i), i, &err);
    return st;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void encode_on_the_spot(const char *path)
{
    em_video_out *v = NULL;
    const em_audio *s = em_media_audio(media);
    const em_video_params p = {.width = SIDE,
                               .height = SIDE,
                               .fps = FPS,
                               .frames = FRAMES,
                               .crf = 18,
                               .audio = s->samples,
                               .audio_n = s->n,
                               .audio_rate_hz = s->rate_hz,
                               .audio_channels = s->channels};
    assert_ok(em_video_out_open(&v, path, &p, NULL, &err), err);
    for (int i = 0; i < FRAMES; i++) assert_ok(em_video_out_push(v, picture(i), &err), err);
    assert_ok(em_video_out_finish(v, &err), err);
    assert_ok(em_video_out_commit(&v, &err), err);
}

static void same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    assert_ok(em_file_read(&x, &n, a, 16 << 20, &err), err);
    assert_ok(em_file_read(&y, &m, b, 16 << 20, &err), err);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    em_free(x);
    em_free(y);
}

typedef struct witness {
    const char *final;
    pthread_t thread;
    int calls;
    em_status answer;
    bool mute;
} witness;

static em_status on_whole(void *user, const char *part, const em_video_info *v, em_err *e)
{
    witness *w = user;
    em_video_info again;
    w->calls++;
    w->thread = pthread_self();
    if (access(w->final, F_OK) == 0 || em_video_check(&again, part, e)) abort();
    if (v->frames != FRAMES || again.frames != FRAMES || v->audio_streams != 1) abort();
    if (!w->answer) return EM_OK;
    if (w->mute) return w->answer;
    return em_fail(e, w->answer, "the ledger is full");
}

static void the_bytes_are_the_same(void **state)
{
    const char *direct = tmpdir_path(state, "direct.mp4"), *path = tmpdir_path(state, "film.mp4");
    witness w = {.final = path};
    em_film_params p = params(path);
    em_film *f = NULL;
    p.whole = on_whole;
    p.user = &w;
    encode_on_the_spot(direct);
    assert_ok(em_film_open(&f, &p, &err), err);
    assert_ok(play(f, FRAMES, FRAMES), err);
    assert_false(em_film_settled(f));
    em_film_end(f);
    assert_ok(em_film_wait(f, &err), err);
    assert_ok(em_film_wait(f, &err), err);
    assert_true(em_film_settled(f));
    em_film_close(&f);
    em_film_close(&f);
    same_files(direct, path);
    assert_int_equal(w.calls, 1);
    assert_false(pthread_equal(w.thread, pthread_self()));
    assert_int_equal(tmpdir_count(state), 2);
}

/* Several at once, and none waited for but by close. */
static void films_overlap(void **state)
{
    enum { FILMS = 3 };
    const char *direct = tmpdir_path(state, "direct.mp4"), *path[FILMS];
    em_film *f[FILMS] = {NULL};
    encode_on_the_spot(direct);
    for (int i = 0; i < FILMS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.mp4", i);
        path[i] = tmpdir_path(state, name);
        const em_film_params p = params(path[i]);
        assert_ok(em_film_open(&f[i], &p, &err), err);
        assert_ok(play(f[i], FRAMES, FRAMES), err);
        em_film_end(f[i]);
    }
    for (int i = 0; i < FILMS; i++) {
        em_film_close(&f[i]);
        same_files(direct, path[i]);
    }
}

/* ---- failures -------------------------------------------------------------------------------- */

static void the_record_can_refuse(void **state)
{
    const char *path = tmpdir_path(state, "film.mp4");
    for (int mute = 0; mute < 2; mute++) {
        witness w = {.final = path, .answer = EM_NOSPC, .mute = mute};
        em_film_params p = params(path);
        em_film *f = NULL;
        p.whole = on_whole;
        p.user = &w;
        assert_ok(em_film_open(&f, &p, &err), err);
        assert_ok(play(f, FRAMES, FRAMES), err);
        em_film_end(f);
        assert_int_equal(em_film_wait(f, &err), EM_NOSPC);
        assert_non_null(strstr(err.msg, mute ? "could not be recorded" : "the ledger is full"));
        em_film_close(&f);
        assert_int_equal(tmpdir_count(state), 0);
    }
}

static void what_is_dropped_leaves_nothing(void **state)
{
    const em_film_params p = params(tmpdir_path(state, "film.mp4"));
    for (int frames = -1; frames <= FRAMES; frames += 2) { /* -1: not even begun */
        em_film *f = NULL;
        assert_ok(em_film_open(&f, &p, &err), err);
        if (frames >= 0) assert_ok(play(f, FRAMES, frames), err);
        em_film_close(&f);
        assert_int_equal(tmpdir_count(state), 0);
    }
}

static void too_few_frames_are_no_film(void **state)
{
    const em_film_params p = params(tmpdir_path(state, "film.mp4"));
    em_film *f = NULL;
    assert_ok(em_film_open(&f, &p, &err), err);
    assert_ok(play(f, FRAMES, FRAMES - 1), err);
    em_film_end(f);
    assert_int_equal(em_film_wait(f, &err), EM_INVAL);
    em_film_close(&f);
    assert_int_equal(tmpdir_count(state), 0);
}

/* The encoder fails in its thread: told at a later frame, and at the end. */
static void a_full_disk_comes_through(void **state)
{
    const em_film_params p = params(tmpdir_path(state, "film.mp4"));
    struct rlimit before, small = {.rlim_cur = 4096};
    em_film *f = NULL;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_ok(em_film_open(&f, &p, &err), err);
    em_status st = play(f, 2000, 2000);
    assert_int_equal(st, EM_IO);
    assert_non_null(strstr(err.msg, "film.mp4"));
    em_film_end(f);
    assert_int_equal(em_film_wait(f, &err), EM_IO);
    em_film_close(&f);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(tmpdir_count(state), 0);
}

static void a_missing_folder_is_told_at_once(void **state)
{
    const em_film_params p = params(tmpdir_path(state, "no/such/film.mp4"));
    em_film *f = NULL;
    assert_ok(em_film_open(&f, &p, &err), err);
    assert_int_equal(play(f, FRAMES, 0), EM_IO);
    em_film_close(&f);
}

static void survives_any_failed_allocation(void **state)
{
    const em_film_params p = params(tmpdir_path(state, "film.mp4"));
    em_status st = EM_NOMEM;
    int n = 0;
    while (st) {
        em_film *f = NULL;
        em_alloc_fail_at((uint64_t)++n, false);
        st = em_film_open(&f, &p, &err);
        if (!st) st = play(f, FRAMES, 0);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        em_film_close(&f);
        assert_int_equal(tmpdir_count(state), 0);
        assert_true(n < 100);
    }
    assert_true(n > 3);
}

/* ---- em_render is made of it ----------------------------------------------------------------- */

static void a_request_with_media_ahead(void **state)
{
    const char *dir = tmpdir_path(state, "models");
    em_engine *e = NULL;
    em_media *ahead = NULL;
    em_result r = {0};
    em_request q = em_request_default();
    tiny_models(dir, 1);
    const em_engine_params where = tiny_engine_params(dir);
    assert_ok(em_engine_open(&e, &where, &err), err);
    q.image_path = SHARE "/portraits/cleo.png";
    q.audio_path = SHARE "/voices/pablo.wav";
    q.output_path = tmpdir_path(state, "a.mp4");
    q.params.sample_size[0] = q.params.sample_size[1] = TINY_SIDE;
    q.params.video_length = TINY_FRAMES;
    q.params.num_inference_steps = 1;
    q.params.resume_path = tmpdir_path(state, "a.resume");
    assert_ok(em_render(e, &q, &r, &err), err);
    assert_int_equal(r.frames, TINY_FRAMES);
    assert_int_equal(access(q.params.resume_path, F_OK), -1); /* the result is safe */

    assert_ok(em_media_begin(&ahead, q.image_path, q.audio_path, &err), err);
    q.media = ahead;
    q.output_path = tmpdir_path(state, "b.mp4");
    assert_ok(em_render(e, &q, &r, &err), err);
    em_media_close(&ahead);
    same_files(tmpdir_path(state, "a.mp4"), q.output_path);

    q.media = NULL;
    em_engine_cancel(e);
    q.output_path = tmpdir_path(state, "c.mp4");
    assert_int_equal(em_render(e, &q, &r, &err), EM_CANCELLED);
    em_engine_resume(e);
    q.image_path = "/no/such.png";
    assert_int_equal(em_render(e, &q, &r, &err), EM_IO);
    assert_non_null(strstr(err.msg, "/no/such.png"));
    em_engine_close(&e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_bytes_are_the_same),
        TEST(films_overlap),
        TEST(the_record_can_refuse),
        TEST(what_is_dropped_leaves_nothing),
        TEST(too_few_frames_are_no_film),
        TEST(a_full_disk_comes_through),
        TEST(a_missing_folder_is_told_at_once),
        TEST(survives_any_failed_allocation),
        TEST(a_request_with_media_ahead),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
