/* The whole method on the small trained model: same frames whatever the threads and the memory
 * mode, a plan that is the measurement, nothing allocated on the way, clean ends. */
#include "base/alloc.h"
#include "base/hash.h"
#include "echomimic.h"

#include "../demo_engine.h"
#include "far/far.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 64, RATE_HZ = 16000 };

static uint8_t portrait[SIDE * SIDE * 3];
static float voice[RATE_HZ];

/* A face-coloured gradient and a buzz that swells: any picture and sound will do here. */
static int make_inputs(void **state)
{
    (void)state;
    far_register();
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            uint8_t *p = portrait + (y * SIDE + x) * 3;
            p[0] = (uint8_t)(120 + x);
            p[1] = (uint8_t)(90 + y);
            p[2] = (uint8_t)(70 + (x + y) / 2);
        }
    for (int i = 0; i < RATE_HZ; i++) {
        double t = (double)i / RATE_HZ;
        voice[i] = (float)(0.3 * sin(6.2831853 * 3 * t) * sin(6.2831853 * 180 * t * (1 + 0.1 * t)));
    }
    return 0;
}

static em_engine *open_engine_on(const char *device, int threads, em_memory_mode mode)
{
    em_engine_params p = demo_engine_params(device, mode);
    p.threads = threads;
    return demo_engine_open(&p);
}

static em_engine *open_engine(int threads, em_memory_mode mode)
{
    return open_engine_on("cpu", threads, mode);
}

/* Nine frames of 64 x 64 in three steps with both branches. */
static em_params small(void)
{
    em_params p = em_params_default();
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = 9;
    p.num_inference_steps = 3;
    p.num_skip_start_steps = 1;
    p.color_transfer = false;
    return p;
}

typedef struct watch {
    uint64_t frames_hash, allocations, allocations_at_start;
    int frames;
    em_engine *cancel; /* when denoising begins */
    em_status refuse;  /* what the sink answers to frame 3 */
    bool mute;         /* and without a sentence */
} watch;

static void on_progress(void *user, const em_progress *p)
{
    watch *w = user;
    if (p->stage == EM_STAGE_ENCODE && p->done == 0) w->allocations_at_start = em_alloc_calls();
    if (w->cancel && p->stage == EM_STAGE_DENOISE) em_engine_cancel(w->cancel);
    w->allocations = em_alloc_calls() - w->allocations_at_start;
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    watch *w = user;
    assert_int_equal(index, w->frames++);
    w->frames_hash = em_fnv1a64(w->frames_hash, rgb, SIDE * SIDE * 3);
    if (w->refuse && index == 3 && !w->mute) {
        err->code = w->refuse;
        snprintf(err->msg, sizeof err->msg, "the disk is full");
    }
    return index == 3 ? w->refuse : EM_OK;
}

static em_status generate(em_engine *e, const em_params *p, watch *w, em_result *r, em_err *err)
{
    const em_picture image = {portrait, SIDE, SIDE};
    const em_sound sound = {voice, RATE_HZ, RATE_HZ};
    const em_sink sink = {.progress = on_progress, .frame = on_frame, .user = w};
    w->frames_hash = EM_FNV1A64_INIT;
    return em_generate(e, &image, &sound, p, &sink, r, err);
}

static void the_same_frames_everywhere(void **state)
{
    (void)state;
    static const struct {
        const char *device;
        int threads;
        em_memory_mode mode;
    } runs[] = {{"cpu", 1, EM_MEMORY_LIGHTWEIGHT}, {"cpu", 2, EM_MEMORY_LIGHTWEIGHT},
                {"cpu", 3, EM_MEMORY_BEEFY},       {"far", 2, EM_MEMORY_LIGHTWEIGHT},
                {"far", 2, EM_MEMORY_BEEFY},       {"far", 2, EM_MEMORY_AUTO}};
    uint64_t first = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        em_err err = {0};
        em_params p = small();
        em_engine *e = open_engine_on(runs[i].device, runs[i].threads, runs[i].mode);
        for (int again = 0; again < 2; again++) { /* the second time the prompt is in the cache */
            watch w = {0};
            assert_ok(generate(e, &p, &w, NULL, &err), err);
            assert_int_equal(w.frames, 9);
            if (!first) first = w.frames_hash;
            assert_true(w.frames_hash == first);
        }
        em_engine_close(&e);
    }
}

static void compare_with_plan(const char *device, em_memory_mode mode, bool travels)
{
    em_err err = {0};
    em_params p = small();
    if (travels) p.teacache = EM_TEACACHE_OFF;
    em_engine *e = open_engine_on(device, 2, mode);
    const em_picture image = {NULL, SIDE, SIDE};
    const em_sound sound = {NULL, RATE_HZ, RATE_HZ};
    em_result plan, real;
    watch w = {0};
    assert_ok(em_plan(e, &image, &sound, &p, &plan, &err), err);
    assert_ok(generate(e, &p, &w, &real, &err), err);
    assert_true(plan.scratch_bytes == real.scratch_bytes);
    assert_true(plan.weight_bytes == real.weight_bytes);
    assert_int_equal(real.frames, plan.frames);
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
        assert_true(plan.stage[s].scratch_bytes == real.stage[s].scratch_bytes);
        assert_true(plan.stage[s].flops >= real.stage[s].flops); /* a plan reuses nothing */
    }
    assert_true(plan.device_bytes == real.device_bytes);
    if (!travels) assert_int_equal(w.allocations, 0);
    em_engine_close(&e);
}

/* Where weights travel, the residency's lists grow while the first request runs; and a forward that
 * TeaCache skips, which no plan knows, leaves room to what comes next sooner. */
static void the_plan_is_the_measurement(void **state)
{
    (void)state;
    compare_with_plan("cpu", EM_MEMORY_LIGHTWEIGHT, false);
    compare_with_plan("far", EM_MEMORY_LIGHTWEIGHT, true);
    compare_with_plan("far", EM_MEMORY_BEEFY, true);
}

static void what_changes_the_frames(void **state)
{
    (void)state;
    em_err err = {0};
    em_engine *e = open_engine(2, EM_MEMORY_LIGHTWEIGHT);
    em_params base = small(), seed = small(), steps = small(), off = small();
    seed.seed = 44;
    steps.num_inference_steps = 4;
    off.guidance_scale = 1;
    const em_params *const p[] = {&base, &seed, &steps, &off};
    uint64_t hash[4];
    int forwards[4];
    for (int i = 0; i < 4; i++) {
        watch w = {0};
        em_result r;
        assert_ok(generate(e, p[i], &w, &r, &err), err);
        hash[i] = w.frames_hash;
        forwards[i] = r.forwards;
        for (int k = 0; k < i; k++) assert_true(hash[i] != hash[k]);
    }
    assert_int_equal(forwards[0], 6);
    assert_int_equal(forwards[2], 8);
    assert_int_equal(forwards[3], 3);
    em_engine_close(&e);
}

static void ends_cleanly(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = small();
    em_engine *e = open_engine(2, EM_MEMORY_LIGHTWEIGHT);
    watch cancelled = {.cancel = e}, refused = {.refuse = EM_NOSPC},
          mute = {.refuse = EM_IO, .mute = true}, fine = {0};
    assert_int_equal(generate(e, &p, &cancelled, NULL, &err), EM_CANCELLED);
    assert_int_equal(cancelled.frames, 0);
    em_engine_resume(e);
    assert_int_equal(generate(e, &p, &refused, NULL, &err), EM_NOSPC);
    assert_string_equal(err.msg, "the disk is full");
    assert_int_equal(refused.frames, 4);
    assert_int_equal(generate(e, &p, &mute, NULL, &err), EM_IO);
    assert_non_null(strstr(err.msg, "refused"));
    assert_int_equal(mute.frames, 4);
    assert_ok(generate(e, &p, &fine, NULL, &err), err);
    em_engine_close(&e);
}

/* Whatever was planned or run before, and whether weights are kept or dropped. */
static void forecasts_repeat(void **state)
{
    (void)state;
    static const em_memory_mode mode[] = {EM_MEMORY_LIGHTWEIGHT, EM_MEMORY_BEEFY};
    const em_picture image = {portrait, SIDE, SIDE};
    const em_sound sound = {voice, RATE_HZ, RATE_HZ};
    uint64_t kept[2];
    for (int m = 0; m < 2; m++) {
        em_err err = {0};
        em_params p = small();
        em_engine *e = open_engine(2, mode[m]);
        em_result plan[3];
        watch w = {0};
        assert_ok(em_plan(e, &image, &sound, &p, &plan[0], &err), err);
        assert_ok(em_plan(e, &image, &sound, &p, &plan[1], &err), err);
        assert_ok(generate(e, &p, &w, &plan[2], &err), err);
        for (int i = 0; i < 3; i++) {
            assert_true(plan[i].weight_bytes == plan[0].weight_bytes);
            assert_true(plan[i].scratch_bytes == plan[0].scratch_bytes);
        }
        kept[m] = plan[0].weight_bytes;
        em_engine_close(&e);
    }
    assert_true(kept[0] > 0 && kept[1] > kept[0]); /* a block at a time; the five models */
}

static void bad_input_is_told(void **state)
{
    (void)state;
    em_err err = {0};
    em_engine *e = open_engine(1, EM_MEMORY_LIGHTWEIGHT);
    em_params p = small();
    em_result r;
    const em_picture image = {portrait, SIDE, SIDE}, tiny = {portrait, 15, SIDE};
    const em_sound sound = {voice, RATE_HZ, RATE_HZ}, blip = {voice, 639, RATE_HZ};
    assert_int_equal(em_plan(e, &tiny, &sound, &p, &r, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "16"));
    assert_int_equal(em_plan(e, &image, &blip, &p, &r, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "one frame"));
    p.num_inference_steps = 0;
    assert_int_equal(em_plan(e, &image, &sound, &p, &r, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "num_inference_steps"));
    em_engine_close(&e);
}

/* Every host allocation of a request may fail: a sentence, no leak, and the next request
 * succeeds. */
static void survives_any_failed_allocation(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = small();
    em_engine *e = open_engine(1, EM_MEMORY_LIGHTWEIGHT);
    const em_picture image = {portrait, SIDE, SIDE};
    const em_sound sound = {voice, RATE_HZ, RATE_HZ};
    em_result r;
    em_status st = EM_NOMEM;
    int n = 0;
    while (st) {
        em_alloc_fail_at((uint64_t)++n, false);
        p.prompt = n % 2 ? "one" : "two"; /* not cached yet at first */
        st = em_plan(e, &image, &sound, &p, &r, &err);
        em_alloc_fail_at(0, false);
        if (st) assert_int_equal(st, EM_NOMEM);
        assert_true(n < 1000);
    }
    assert_true(n > 10);
    em_engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_frames_everywhere),
        cmocka_unit_test(the_plan_is_the_measurement),
        cmocka_unit_test(what_changes_the_frames),
        cmocka_unit_test(ends_cleanly),
        cmocka_unit_test(forecasts_repeat),
        cmocka_unit_test(bad_input_is_told),
        cmocka_unit_test(survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, make_inputs, NULL);
}
