/* The transformer's forwards as a request runs them, on the small trained model: a recorded one
 * makes the same frames as a computed one, whatever fails of it. */
#include "base/hash.h"
#include "echomimic.h"
#include "far/far.h"
#include "pipeline/engine.h"

#include "../demo_engine.h"
#include "../tmpdir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 32, LARGE_SIDE = 128, RATE_HZ = 16000, FRAMES = 9, STEPS = 9 };

static uint8_t portrait[LARGE_SIDE * LARGE_SIDE * 3];
static float voice[RATE_HZ];

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof portrait; i++) portrait[i] = (uint8_t)(60 + i * 7 % 130);
    for (int i = 0; i < RATE_HZ; i++) voice[i] = (float)(0.3 * sin(0.00118 * i) * sin(0.0707 * i));
    far_register();
    return 0;
}

typedef struct watch {
    uint64_t hash;
    size_t frame_bytes;
    em_engine *cancel; /* once `cancel_at` steps are done; NULL: never */
    int cancel_at;
    em_engine *loses; /* all weights once `loses_at` steps are done; NULL: none */
    int loses_at;
} watch;

static void lose_weights(em_engine *e)
{
    em_err err = {0};
    em_residency *w = &e->residency;
    size_t room = w->capacity_bytes;
    assert_ok(em_residency_set_store(w, w->base, 0, &err), err);
    assert_ok(em_residency_set_store(w, w->base, room, &err), err);
}

static void on_progress(void *user, const em_progress *p)
{
    watch *w = user;
    if (w->cancel && p->stage == EM_STAGE_DENOISE && p->done == w->cancel_at)
        em_engine_cancel(w->cancel);
    if (w->loses && p->stage == EM_STAGE_DENOISE && p->done == w->loses_at) lose_weights(w->loses);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    (void)index, (void)err;
    watch *w = user;
    w->hash = em_fnv1a64(w->hash, rgb, w->frame_bytes);
    return EM_OK;
}

static int told; /* how often it was said that nothing is replayed */

static void on_log(void *user, em_level level, const char *msg)
{
    (void)user;
    if (!strstr(msg, "not replayed")) return;
    assert_int_equal(level, EM_LOG_DEBUG);
    told++;
}

static em_engine *open_engine(const char *device, em_memory_mode mode, uint64_t budget)
{
    em_engine_params p = demo_engine_params(device, mode);
    p.vram_budget_bytes = budget;
    p.dtype = EM_WEIGHT_FLOAT32;
    p.log.fn = on_log;
    return demo_engine_open(&p);
}

static em_params request(em_teacache_mode teacache, double guidance)
{
    em_params p = em_params_default();
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = FRAMES;
    p.num_inference_steps = STEPS;
    p.num_skip_start_steps = 4;
    p.teacache = teacache;
    p.guidance_scale = guidance;
    return p;
}

static em_status generate(em_engine *e, const em_params *p, watch *w, em_result *r, em_err *err)
{
    const em_picture picture = {portrait, p->sample_size[1], p->sample_size[0]};
    const em_sound sound = {voice, RATE_HZ, RATE_HZ};
    const em_sink sink = {.progress = on_progress, .frame = on_frame, .user = w};
    for (int s = 0; s < FAR_STEPS; s++) assert_int_equal(far_watched((far_step)s), 0);
    w->hash = EM_FNV1A64_INIT;
    w->frame_bytes = (size_t)p->sample_size[0] * (size_t)p->sample_size[1] * 3;
    return em_generate(e, &picture, &sound, p, &sink, r, err);
}

static void watch_anew(void)
{
    for (int s = 0; s < FAR_STEPS; s++) far_watch((far_step)s, 0);
}

/* The frames' hash. */
static uint64_t render(em_engine *e, const em_params *p, em_result *r)
{
    em_err err = {0};
    watch w = {0};
    assert_ok(generate(e, p, &w, r, &err), err);
    return w.hash;
}

static uint64_t render_once(const char *device, em_memory_mode mode, const em_params *p,
                            em_result *r)
{
    em_engine *e = open_engine(device, mode, 0);
    uint64_t hash = render(e, p, r);
    em_engine_close(&e);
    return hash;
}

/* A graph has addresses of weights: those that are not there are fetched by a forward that is
 * computed, and then the others go on. */
static void lost_weights_end_no_replay(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = request(EM_TEACACHE_OFF, 6);
    em_result calm, r;
    em_engine *e = open_engine("far", EM_MEMORY_BEEFY, 0);
    uint64_t hash = render(e, &p, &calm);
    watch w = {.loses = e, .loses_at = 4};
    watch_anew();
    assert_ok(generate(e, &p, &w, &r, &err), err);
    em_engine_close(&e);
    assert_true(w.hash == hash);
    assert_int_equal(calm.forwards_replayed, 2 * (STEPS - 1));
    assert_int_equal(r.forwards_replayed, 2 * (STEPS - 1) - 1);
    assert_true(r.stage[EM_STAGE_DENOISE].copied_bytes > 0);
}

/* ---- the same frames ------------------------------------------------------------------------- */

/* The first forward of a branch is computed, the others are replayed; what TeaCache reuses is
 * neither. */
static void a_replay_makes_the_same_frames(void **state)
{
    (void)state;
    static const struct {
        em_teacache_mode teacache;
        double guidance, threshold;
        int branches, computed; /* forwards of each */
    } cases[] = {
        {EM_TEACACHE_OFF, 1, 0, 1, STEPS}, {EM_TEACACHE_OFF, 6, 0, 2, STEPS},
        {EM_TEACACHE_BRANCH, 1, 10, 1, 4}, {EM_TEACACHE_BRANCH, 6, 10, 2, 4},
        {EM_TEACACHE_BRANCH, 6, 0, 2, 7},  {EM_TEACACHE_REFERENCE, 6, 10, 2, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_params p = request(cases[i].teacache, cases[i].guidance);
        em_result plain, r;
        p.teacache_threshold = cases[i].threshold;
        watch_anew();
        uint64_t hash = render_once("far", EM_MEMORY_LIGHTWEIGHT, &p, &plain);
        assert_int_equal(far_watched(FAR_CAPTURE_BEGIN), 0);
        assert_int_equal(plain.forwards_replayed, 0);

        int replayed = cases[i].branches * (cases[i].computed - 1);
        em_engine *e = open_engine("far", EM_MEMORY_BEEFY, 0);
        for (int again = 0; again < 2; again++) { /* the second job finds all weights */
            watch_anew();
            assert_true(render(e, &p, &r) == hash);
            assert_int_equal(r.forwards, cases[i].branches * STEPS);
            assert_int_equal(r.forwards_replayed, replayed);
            assert_int_equal(far_watched(FAR_LAUNCH), replayed);
            assert_int_equal(far_watched(FAR_CAPTURE_BEGIN), cases[i].branches);
            assert_true(r.stage[EM_STAGE_DENOISE].flops == plain.stage[EM_STAGE_DENOISE].flops);
            assert_true(r.stage[EM_STAGE_DENOISE].scratch_bytes ==
                        plain.stage[EM_STAGE_DENOISE].scratch_bytes);
        }
        em_engine_close(&e);
    }
    assert_int_equal(told, 0);
}

/* Weights that move cannot be recorded, and a device may have no graphs. */
static void only_what_stays_is_replayed(void **state)
{
    (void)state;
    em_params p = request(EM_TEACACHE_OFF, 6);
    em_result all, r;
    enum { BUDGETS = 6 };
    int on = 0;
    watch_anew();
    uint64_t hash = render_once("cpu", EM_MEMORY_BEEFY, &p, &r);
    assert_int_equal(r.forwards_replayed, 0);
    watch_anew();
    assert_true(render_once("far", EM_MEMORY_BEEFY, &p, &all) == hash);
    for (uint64_t i = 0; i <= BUDGETS; i++) {
        uint64_t span = all.largest_bytes - all.smallest_bytes;
        em_engine *e = open_engine("far", EM_MEMORY_AUTO, all.smallest_bytes + span * i / BUDGETS);
        watch_anew();
        assert_true(render(e, &p, &r) == hash);
        em_engine_close(&e);
        const char *list = strstr(r.policy, "streamed while it computes:");
        const char *mention = list ? strstr(list, "transformer") : NULL;
        bool streams = mention && mention < strchr(list, '(');
        assert_int_equal(r.forwards_replayed, streams ? 0 : 2 * (STEPS - 1));
        assert_int_equal(far_watched(FAR_CAPTURE_BEGIN), streams ? 0 : 2);
        assert_int_equal(strstr(r.policy, "steps are replayed") != NULL, !streams);
        on += !streams;
    }
    assert_in_range(on, 1, BUDGETS);
}

/* Where the decoder needs a larger block than all of the transformer, nothing of that is streamed
 * in lightweight either. */
static void lightweight_records_nothing(void **state)
{
    (void)state;
    em_params p = request(EM_TEACACHE_OFF, 6);
    em_result r;
    p.sample_size[0] = p.sample_size[1] = LARGE_SIDE;
    p.video_length = 5;
    p.num_inference_steps = 2;
    watch_anew();
    uint64_t hash = render_once("far", EM_MEMORY_LIGHTWEIGHT, &p, &r);
    assert_null(strstr(r.policy, "transformer"));
    assert_int_equal(r.forwards_replayed, 0);
    assert_int_equal(far_watched(FAR_CAPTURE_BEGIN), 0);
    watch_anew();
    assert_true(render_once("far", EM_MEMORY_BEEFY, &p, &r) == hash);
    assert_int_equal(r.forwards_replayed, 2);
}

/* ---- what fails ------------------------------------------------------------------------------ */

static void a_graph_that_fails_costs_no_frame(void **state)
{
    (void)state;
    static const struct {
        far_step step;
        int nth, replayed;
    } fails[] = {{FAR_CAPTURE_BEGIN, 1, 0}, {FAR_CAPTURE_BEGIN, 2, 1}, {FAR_CAPTURED_OP, 1, 0},
                 {FAR_CAPTURED_OP, 40, 0},  {FAR_CAPTURE_END, 1, 0},   {FAR_CAPTURE_END, 2, 1},
                 {FAR_LAUNCH, 1, 0},        {FAR_LAUNCH, 2, 1},        {FAR_LAUNCH, 7, 6}};
    em_params p = request(EM_TEACACHE_OFF, 6);
    em_result plain, r;
    watch_anew();
    uint64_t hash = render_once("far", EM_MEMORY_LIGHTWEIGHT, &p, &plain);
    for (size_t i = 0; i < sizeof fails / sizeof *fails; i++) {
        em_engine *e = open_engine("far", EM_MEMORY_BEEFY, 0);
        told = 0;
        watch_anew();
        far_watch(fails[i].step, fails[i].nth);
        assert_true(render(e, &p, &r) == hash);
        assert_int_equal(r.forwards_replayed, fails[i].replayed);
        assert_int_equal(far_watched(fails[i].step), fails[i].nth); /* nobody insisted */
        assert_true(r.stage[EM_STAGE_DENOISE].flops == plain.stage[EM_STAGE_DENOISE].flops);
        assert_int_equal(told, 1);
        watch_anew();
        assert_true(render(e, &p, &r) == hash); /* the next job tries again */
        assert_int_equal(r.forwards_replayed, 2 * (STEPS - 1));
        em_engine_close(&e);
    }
}

/* A cancel between replays is heeded, and what goes on from there replays, too. */
static void a_cancel_ends_replays(void **state)
{
    const tmpdir *t = *state;
    static const struct {
        em_teacache_mode teacache;
        bool offload;
        int cancel_at, launched, replayed; /* before and after */
    } cases[] = {{EM_TEACACHE_OFF, false, 5, 2 * 4, 2 * 3},
                 {EM_TEACACHE_BRANCH, false, 3, 2 * 2, 0},
                 {EM_TEACACHE_BRANCH, false, 5, 2 * 3, 0}, /* residuals are made again */
                 {EM_TEACACHE_BRANCH, true, 5, 2 * 3, 0}};
    char path[256];
    snprintf(path, sizeof path, "%s/job.resume", t->path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_params p = request(cases[i].teacache, 6);
        em_err err = {0};
        em_result r;
        p.teacache_threshold = 10;
        watch_anew();
        uint64_t hash = render_once("far", EM_MEMORY_LIGHTWEIGHT, &p, &r);
        em_engine *e = open_engine("far", EM_MEMORY_BEEFY, 0);
        watch w = {.cancel = e, .cancel_at = cases[i].cancel_at};
        p.resume_path = path;
        p.teacache_offload = cases[i].offload;
        assert_int_equal(generate(e, &p, &w, NULL, &err), EM_CANCELLED);
        assert_int_equal(far_graphs(), 0);
        assert_int_equal(far_watched(FAR_LAUNCH), cases[i].launched);
        em_engine_resume(e);
        watch_anew();
        assert_true(render(e, &p, &r) == hash);
        assert_int_equal(r.steps_resumed, w.cancel_at);
        assert_int_equal(r.forwards_replayed, cases[i].replayed);
        em_engine_close(&e);
        em_resume_discard(path);
    }
}

/* ---- residuals ------------------------------------------------------------------------------- */

/* Bytes of a residual: latents of 3 frames, 4 x 4, in patches of 2 x 2; the demo model is DIM
 * wide. */
enum { DIM = 256, RESIDUAL_BYTES = 3 * 2 * 2 * DIM * 4 };

static void plan(em_engine *e, const em_params *p, em_result *r)
{
    em_err err = {0};
    const em_picture picture = {NULL, p->sample_size[1], p->sample_size[0]};
    const em_sound sound = {NULL, RATE_HZ, RATE_HZ};
    assert_ok(em_plan(e, &picture, &sound, p, r, &err), err);
}

/* What TeaCache keeps moves from one side of the plan to the other, and no frame notices. */
static void offloaded_residuals_are_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *device;
        em_memory_mode mode;
        em_teacache_mode teacache;
        int branches;
    } cases[] = {{"cpu", EM_MEMORY_LIGHTWEIGHT, EM_TEACACHE_BRANCH, 2},
                 {"cpu", EM_MEMORY_BEEFY, EM_TEACACHE_REFERENCE, 2},
                 {"far", EM_MEMORY_LIGHTWEIGHT, EM_TEACACHE_BRANCH, 2},
                 {"far", EM_MEMORY_BEEFY, EM_TEACACHE_BRANCH, 1},
                 {"far", EM_MEMORY_BEEFY, EM_TEACACHE_REFERENCE, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_params p = request(cases[i].teacache, cases[i].branches > 1 ? 6 : 1);
        em_result here, there, real;
        uint64_t bytes = (uint64_t)cases[i].branches * RESIDUAL_BYTES;
        bool host = !strcmp(cases[i].device, "cpu");
        em_engine *e = open_engine(cases[i].device, cases[i].mode, 0);
        p.teacache_threshold = 10;
        plan(e, &p, &here);
        p.teacache_offload = true;
        plan(e, &p, &there);
        p.teacache_offload = false;
        watch_anew();
        uint64_t hash = render(e, &p, &real);
        uint64_t scratch = real.stage[EM_STAGE_DENOISE].scratch_bytes;
        p.teacache_offload = true;
        watch_anew();
        assert_true(render(e, &p, &real) == hash);
        em_engine_close(&e);
        assert_int_equal(real.stage[EM_STAGE_DENOISE].scratch_bytes, scratch - bytes);
        assert_int_equal(there.stage[EM_STAGE_DENOISE].scratch_bytes, scratch - bytes);
        assert_true(there.scratch_bytes == real.scratch_bytes);
        assert_true(there.device_bytes <= here.device_bytes);
        assert_int_equal(there.pinned_bytes - here.pinned_bytes, host ? 0 : bytes);
        assert_int_equal(there.host_bytes - (host ? there.device_bytes : 0),
                         here.host_bytes - (host ? here.device_bytes : 0) + bytes);
        assert_int_equal(real.forwards_replayed != 0, !host && cases[i].mode == EM_MEMORY_BEEFY);
    }
}

/* Without TeaCache nothing is kept anywhere. */
static void nothing_is_offloaded_without_need(void **state)
{
    (void)state;
    em_params p = request(EM_TEACACHE_OFF, 6);
    em_result here, there;
    em_engine *e = open_engine("far", EM_MEMORY_BEEFY, 0);
    plan(e, &p, &here);
    p.teacache_offload = true;
    plan(e, &p, &there);
    em_engine_close(&e);
    assert_int_equal(there.scratch_bytes, here.scratch_bytes);
    assert_int_equal(there.pinned_bytes, here.pinned_bytes);
    assert_int_equal(there.host_bytes, here.host_bytes);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_weights_end_no_replay),
        cmocka_unit_test(a_replay_makes_the_same_frames),
        cmocka_unit_test(only_what_stays_is_replayed),
        cmocka_unit_test(lightweight_records_nothing),
        cmocka_unit_test(a_graph_that_fails_costs_no_frame),
        cmocka_unit_test_setup_teardown(a_cancel_ends_replays, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(offloaded_residuals_are_the_same),
        cmocka_unit_test(nothing_is_offloaded_without_need),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, NULL);
}
