/* Memory modes on the small trained model: what was planned is what is used, whatever the device,
 * the mode and the budget, and the frames do not depend on any of it. Memory that fails in spite of
 * the plan costs a rung, never a frame. */
#include "base/alloc.h"
#include "base/hash.h"
#include "base/process.h"
#include "echomimic.h"
#include "far/far.h"
#include "io/file.h"
#include "io/json.h"
#include "memory/staging.h"
#include "models/bind.h"
#include "ops/table.h"
#include "pipeline/engine.h"

#include "../demo_engine.h"
#include "../tmpdir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 32, RATE_HZ = 16000, FRAMES = 9, STEPS = 3 };

static uint8_t portrait[SIDE * SIDE * 3];
static float voice[RATE_HZ];

/* ---- a device that counts and fails ---------------------------------------------------------- */

/* Another device with a hand on its allocations. Blocks of page-locked memory count as well. */
static struct {
    em_device device;
    em_ops ops;
    const em_device *of;
    int calls;            /* allocations so far */
    int fail_at;          /* 1: the next one; 0: none */
    bool and_all;         /* that follow */
    size_t taken, others; /* of the card: by blocks of ours, by somebody else */
} wrapped;

static const uint64_t CARD_BYTES = (uint64_t)8 << 30;

static em_status may_fail(em_err *err)
{
    wrapped.calls++;
    if (!wrapped.fail_at) return EM_OK;
    if (--wrapped.fail_at) return EM_OK;
    if (wrapped.and_all) wrapped.fail_at = 1;
    return em_fail(err, EM_NOVRAM, "somebody else took the memory");
}

static em_status wrapped_alloc(em_device *d, void **out, size_t n, em_err *err)
{
    (void)d;
    em_status st = may_fail(err);
    if (!st) st = wrapped.of->alloc((em_device *)(uintptr_t)wrapped.of, out, n, err);
    if (!st) wrapped.taken += n;
    return st;
}

static void wrapped_free(em_device *d, void *p, size_t n)
{
    (void)d;
    if (p) wrapped.taken -= n;
    wrapped.of->free((em_device *)(uintptr_t)wrapped.of, p, n);
}

static void card_info(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes)
{
    (void)d;
    *total_bytes = CARD_BYTES;
    *free_bytes = CARD_BYTES - wrapped.taken - wrapped.others;
}

static em_status wrapped_host_alloc(em_device *d, void **out, size_t n, em_err *err)
{
    (void)d;
    em_status st = may_fail(err);
    return st ? st : wrapped.of->host_alloc((em_device *)(uintptr_t)wrapped.of, out, n, err);
}

static em_status open_wrapped(const em_ops **out, int ordinal, em_err *err)
{
    const em_ops *of = NULL;
    em_status st = em_ops_open(&of, ordinal ? "far" : "cpu", err);
    if (st) return st;
    wrapped.ops = *of;
    wrapped.of = of->device;
    wrapped.device = *of->device;
    wrapped.device.name = "wrapped";
    wrapped.device.alloc = wrapped_alloc;
    wrapped.device.free = wrapped_free;
    if (ordinal) wrapped.device.memory_info = card_info;
    wrapped.device.context_bytes = ordinal ? 3 << 20 : 0;
    wrapped.device.host_alloc = wrapped_host_alloc;
    wrapped.ops.device = &wrapped.device;
    *out = &wrapped.ops;
    return EM_OK;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < SIDE * SIDE * 3; i++) portrait[i] = (uint8_t)(60 + i * 7 % 130);
    for (int i = 0; i < RATE_HZ; i++) {
        double t = (double)i / RATE_HZ;
        voice[i] = (float)(0.3 * sin(6.2831853 * 3 * t) * sin(6.2831853 * 180 * t));
    }
    far_register();
    em_ops_register((em_ops_entry){"wrapped", open_wrapped});
    return 0;
}

static em_engine_params where(const char *device, em_memory_mode mode)
{
    em_engine_params p = demo_engine_params(device, mode);
    p.dtype = EM_WEIGHT_FLOAT32;
    return p;
}

static em_params request(em_teacache_mode teacache)
{
    em_params p = em_params_default();
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = FRAMES;
    p.num_inference_steps = STEPS;
    p.num_skip_start_steps = 1;
    p.teacache = teacache;
    return p;
}

static em_picture picture = {portrait, SIDE, SIDE};
static const em_sound sound = {voice, RATE_HZ, RATE_HZ};

typedef struct watch {
    uint64_t hash, host_calls, host_calls_at_start;
    int device_calls, device_calls_at_start;
    size_t frame_bytes;
} watch;

static void on_progress(void *user, const em_progress *p)
{
    watch *w = user;
    if (p->stage == EM_STAGE_ENCODE && !p->done) {
        w->host_calls_at_start = em_alloc_calls();
        w->device_calls_at_start = wrapped.calls;
    }
    w->host_calls = em_alloc_calls() - w->host_calls_at_start;
    w->device_calls = wrapped.calls - w->device_calls_at_start;
}

static em_status on_begin(void *user, int width, int height, int frames, em_err *err)
{
    (void)frames, (void)err;
    watch *w = user;
    w->frame_bytes = (size_t)width * (size_t)height * 3;
    return EM_OK;
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    (void)index, (void)err;
    watch *w = user;
    w->hash = em_fnv1a64(w->hash, rgb, w->frame_bytes);
    return EM_OK;
}

/* Renders and returns a hash of the frames. */
static uint64_t render(em_engine *e, const em_params *p, em_result *r)
{
    em_err err = {0};
    watch w = {.hash = EM_FNV1A64_INIT};
    const em_sink sink = {.progress = on_progress,
                          .begin = on_begin,
                          .frame = on_frame,
                          .user = &w};
    assert_ok(em_generate(e, &picture, &sound, p, &sink, r, &err), err);
    assert_int_equal(w.host_calls, 0);
    assert_int_equal(w.device_calls, 0);
    return w.hash;
}

static void plan(em_engine *e, const em_params *p, em_result *r)
{
    em_err err = {0};
    assert_ok(em_plan(e, &picture, &sound, p, r, &err), err);
}

/* ---- the plan -------------------------------------------------------------------------------- */

/* Everything that is counted, stage by stage. Forwards that TeaCache spares load less. */
static void assert_as_planned(const em_result *plan, const em_result *real, bool teacache)
{
    assert_true(plan->device_bytes == real->device_bytes);
    assert_true(plan->scratch_bytes == real->scratch_bytes);
    if (!teacache) assert_true(plan->weight_bytes == real->weight_bytes);
    assert_true(plan->mapped_bytes == real->mapped_bytes);
    assert_true(plan->pinned_bytes == real->pinned_bytes);
    assert_true(real->copied_bytes <= plan->copied_bytes);
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
        const em_stage_report *a = &plan->stage[s], *b = &real->stage[s];
        assert_true(a->scratch_bytes == b->scratch_bytes);
        assert_true(a->scratch_bytes + a->weights_bytes <= plan->device_bytes);
        assert_true(a->mapped_bytes == b->mapped_bytes);
        if (teacache) {
            assert_true(b->weights_bytes <= a->store_bytes);
        } else {
            assert_true(a->weights_bytes == b->weights_bytes);
            assert_true(a->copied_bytes == b->copied_bytes);
            assert_true(a->packed_bytes == b->packed_bytes);
            assert_true(a->flops == b->flops);
        }
    }
}

/* One job on a fresh engine, in a block of the given size; returns the frames' hash. */
static uint64_t check_one(const char *device, em_memory_mode mode, uint64_t budget,
                          em_teacache_mode teacache, em_result *planned)
{
    em_engine_params at = where(device, mode);
    em_params p = request(teacache);
    em_result real;
    at.vram_budget_bytes = budget;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, planned);
    uint64_t hash = render(e, &p, &real);
    assert_as_planned(planned, &real, teacache != EM_TEACACHE_OFF);
    if (budget) assert_true(real.device_bytes <= budget);
    em_engine_close(&e);
    return hash;
}

static void check_device(const char *device, int steps)
{
    static const em_memory_mode modes[] = {EM_MEMORY_LIGHTWEIGHT, EM_MEMORY_AUTO, EM_MEMORY_BEEFY};
    for (int t = 0; t < 2; t++) {
        em_teacache_mode teacache = t ? EM_TEACACHE_BRANCH : EM_TEACACHE_OFF;
        em_result all, least, r;
        uint64_t first = check_one(device, EM_MEMORY_BEEFY, 0, teacache, &all);
        assert_true(check_one(device, EM_MEMORY_LIGHTWEIGHT, 0, teacache, &least) == first);
        assert_true(least.smallest_bytes == all.smallest_bytes);
        assert_true(least.device_bytes <= all.device_bytes);
        uint64_t span = all.largest_bytes - all.smallest_bytes;
        for (int i = 0; i <= steps; i++)
            for (int m = 0; m < (i == steps ? 3 : 2); m++) {
                uint64_t budget = all.smallest_bytes + span * (uint64_t)i / (uint64_t)steps;
                assert_true(check_one(device, modes[m], budget, teacache, &r) == first);
            }
    }
}

static void planned_is_measured_on_the_cpu(void **state)
{
    (void)state;
    check_device("cpu", 2);
}

static void planned_is_measured_far_away(void **state)
{
    (void)state;
    check_device("far", 3);
}

static void planned_is_measured_by_plain_loops(void **state)
{
    (void)state;
    em_engine_params at = where("ref", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result planned, real;
    p.video_length = p.num_inference_steps = 1; /* they are slow */
    p.sample_size[0] = p.sample_size[1] = 16;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &planned);
    render(e, &p, &real);
    assert_as_planned(&planned, &real, false);
    em_engine_close(&e);
}

/* Requests one after another, each planned when it is its turn: larger and smaller ones, with texts
 * that are known by then and others. */
static void check_later_jobs(const char *device, em_memory_mode mode, uint64_t budget)
{
    const struct {
        int side, frames;
        const char *prompt;
    } job[] = {{32, 5, "one"}, {32, 5, "one"},   {32, 5, "two"},  {48, 9, "two"},
               {16, 5, "two"}, {32, 5, "three"}, {32, 5, "three"}};
    em_engine_params at = where(device, mode);
    em_params p = request(EM_TEACACHE_OFF);
    em_result planned, real;
    at.vram_budget_bytes = budget;
    em_engine *e = demo_engine_open(&at);
    for (size_t i = 0; i < EM_COUNT(job); i++) {
        p.sample_size[0] = p.sample_size[1] = job[i].side;
        p.video_length = job[i].frames;
        p.prompt = job[i].prompt;
        plan(e, &p, &planned);
        render(e, &p, &real);
        assert_true(planned.weight_bytes == real.weight_bytes);
        assert_true(planned.copied_bytes == real.copied_bytes);
        for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
            const em_stage_report *a = &planned.stage[s], *b = &real.stage[s];
            assert_true(a->weights_bytes == b->weights_bytes);
            assert_true(a->mapped_bytes == b->mapped_bytes);
            assert_true(a->copied_bytes == b->copied_bytes);
            assert_true(a->packed_bytes == b->packed_bytes);
        }
    }
    em_engine_close(&e);
}

static void later_jobs_are_as_planned(void **state)
{
    (void)state;
    static const em_memory_mode modes[] = {EM_MEMORY_LIGHTWEIGHT, EM_MEMORY_AUTO, EM_MEMORY_BEEFY};
    em_params p = request(EM_TEACACHE_OFF);
    em_engine_params at = where("far", EM_MEMORY_BEEFY);
    em_result all;
    p.sample_size[0] = p.sample_size[1] = 48;
    p.video_length = 9;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &all);
    em_engine_close(&e);
    for (size_t m = 0; m < EM_COUNT(modes); m++) {
        check_later_jobs("cpu", modes[m], 0);
        check_later_jobs("far", modes[m], 0);
    }
    uint64_t span = all.largest_bytes - all.smallest_bytes;
    for (int i = 0; i < 4; i++)
        check_later_jobs("far", EM_MEMORY_AUTO, all.smallest_bytes + span * (uint64_t)i / 4);
}

/* What the engine holds page-locked is within what the job was said to take. */
static void take_in_turn(em_engine *e, int side, int frames, em_result *planned)
{
    const em_residency *w = &e->residency;
    em_params p = request(EM_TEACACHE_OFF);
    em_result real;
    p.sample_size[0] = p.sample_size[1] = side;
    p.video_length = frames;
    plan(e, &p, planned);
    render(e, &p, &real);
    for (int k = EM_STAGE_ENCODE; k < EM_STAGE_COUNT; k++)
        assert_true(planned->stage[k].packed_bytes == real.stage[k].packed_bytes);
    size_t ring = EM_STAGING_BUFFERS * em_staging_buffer_bytes(w->staging);
    assert_true(w->images_bytes + ring <= planned->pinned_bytes);
}

/* Images for a job that streams much stay for one that streams less, and count; where there is no
 * room for them beside that, they go, and so does the larger ring. */
static void images_of_earlier_jobs_count(void **state)
{
    (void)state;
    enum { LARGE = 80, SMALL = 16 };
    static uint8_t large_portrait[LARGE * LARGE * 3];
    const em_picture before = picture;
    em_engine_params at = where("far", EM_MEMORY_AUTO);
    em_params p = request(EM_TEACACHE_OFF);
    em_result large, small, later;
    picture = (em_picture){large_portrait, LARGE, LARGE};
    p.sample_size[0] = p.sample_size[1] = LARGE;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &large);
    em_engine_close(&e);
    at.vram_budget_bytes = large.smallest_bytes;
    e = demo_engine_open(&at);
    take_in_turn(e, SMALL, 5, &small);
    size_t alone = e->residency.images_bytes;
    em_engine_close(&e);
    for (int tight = 0; tight < 3; tight++) {
        e = demo_engine_open(&at);
        take_in_turn(e, LARGE, 5, &large);
        size_t images = e->residency.images_bytes;
        assert_true(alone > 0 && images > alone);
        if (tight) e->ram_budget_bytes = small.host_bytes;
        if (tight == 2) e->ram_budget_bytes -= EM_STAGING_BUFFERS * EM_STAGING_BYTES / 2;
        take_in_turn(e, SMALL, 5, &later);
        if (tight < 2) /* a smaller ring leaves room for them */
            assert_true(tight ? e->residency.images_bytes <= alone
                              : e->residency.images_bytes == images);
        assert_true(!tight || later.host_bytes <= e->ram_budget_bytes);
        em_engine_close(&e);
    }
    picture = before;
}

/* Where scratch is most of it, the least memory is that of narrow cuts; the arithmetic stays. */
static void narrower_is_smaller(void **state)
{
    (void)state;
    em_result wide, narrow;
    em_engine_params at = where("far", EM_MEMORY_BEEFY);
    em_params p = request(EM_TEACACHE_OFF);
    const em_picture large = {NULL, 256, 256};
    em_err err = {0};
    p.sample_size[0] = p.sample_size[1] = 256;
    em_engine *e = demo_engine_open(&at);
    assert_ok(em_plan(e, &large, &sound, &p, &wide, &err), err);
    em_engine_close(&e);
    at.memory_mode = EM_MEMORY_AUTO;
    at.vram_budget_bytes = wide.smallest_bytes;
    e = demo_engine_open(&at);
    assert_ok(em_plan(e, &large, &sound, &p, &narrow, &err), err);
    em_engine_close(&e);
    assert_int_equal(wide.width_rung, 0);
    assert_true(narrow.width_rung > 0);
    assert_true(narrow.scratch_bytes < wide.scratch_bytes);
    assert_true(narrow.device_bytes < wide.device_bytes);
    assert_true(narrow.copied_bytes >= wide.copied_bytes);
    assert_true(narrow.stage[EM_STAGE_DENOISE].flops == wide.stage[EM_STAGE_DENOISE].flops);
}

/* ---- the modes ------------------------------------------------------------------------------- */

static void modes_explain_themselves(void **state)
{
    (void)state;
    em_result r;
    check_one("far", EM_MEMORY_LIGHTWEIGHT, 0, EM_TEACACHE_OFF, &r);
    assert_non_null(strstr(r.policy, "lightweight on far"));
    assert_non_null(strstr(r.policy, "beefy would fit"));
    check_one("far", EM_MEMORY_AUTO, r.smallest_bytes, EM_TEACACHE_OFF, &r);
    assert_non_null(strstr(r.policy, "streamed while it computes"));
    assert_non_null(strstr(r.policy, "the fastest that fits"));
    check_one("far", EM_MEMORY_BEEFY, 0, EM_TEACACHE_OFF, &r);
    assert_non_null(strstr(r.policy, "every weight is copied once"));
    assert_true(r.copied_bytes > 0 && r.step_down[0] == 0);
    check_one("cpu", EM_MEMORY_LIGHTWEIGHT, 0, EM_TEACACHE_OFF, &r);
    assert_non_null(strstr(r.policy, "let go after use"));
    check_one("cpu", EM_MEMORY_BEEFY, 0, EM_TEACACHE_OFF, &r);
    assert_non_null(strstr(r.policy, "stay in memory"));
    assert_int_equal(em_engine_params_default().memory_mode, EM_MEMORY_LIGHTWEIGHT);
}

static em_status refused(const em_engine_params *at, em_err *err)
{
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    em_engine *e = demo_engine_open(at);
    em_status st = em_plan(e, &picture, &sound, &p, &r, err);
    watch w = {0};
    const em_sink sink = {.progress = on_progress, .user = &w};
    em_err again = {0};
    assert_int_equal(em_generate(e, &picture, &sound, &p, &sink, NULL, &again), st);
    assert_string_equal(again.msg, err->msg);
    assert_int_equal(w.host_calls_at_start, 0); /* nothing had begun */
    em_engine_close(&e);
    return st;
}

/* The budget that a refusal names does. */
static uint64_t named(const em_err *err, const char *flag)
{
    const char *at = strstr(err->msg, flag);
    assert_non_null(at);
    return strtoull(at + strlen(flag), NULL, 10) << 20;
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    em_err err = {0};
    em_result r;
    em_engine_params at = where("far", EM_MEMORY_LIGHTWEIGHT);
    at.vram_budget_bytes = 1 << 20;
    assert_int_equal(refused(&at, &err), EM_NOVRAM);
    check_one("far", EM_MEMORY_LIGHTWEIGHT, named(&err, "--vram_budget "), EM_TEACACHE_OFF, &r);

    at.memory_mode = EM_MEMORY_BEEFY;
    at.vram_budget_bytes = r.smallest_bytes + (1 << 20);
    assert_int_equal(refused(&at, &err), EM_NOVRAM);
    assert_non_null(strstr(err.msg, "--memory_mode auto"));
    check_one("far", EM_MEMORY_AUTO, at.vram_budget_bytes, EM_TEACACHE_OFF, &r);
    check_one("far", EM_MEMORY_BEEFY, named(&err, "--vram_budget "), EM_TEACACHE_OFF, &r);

    at = where("cpu", EM_MEMORY_LIGHTWEIGHT);
    at.ram_budget_bytes = 20 << 20;
    assert_int_equal(refused(&at, &err), EM_NOMEM);
    assert_true(named(&err, "--ram_budget ") > at.ram_budget_bytes);
}

/* On the CPU the host's budget is the one that counts: less of it, less is kept. */
static void a_host_budget_is_kept(void **state)
{
    (void)state;
    em_engine_params at = where("cpu", EM_MEMORY_AUTO);
    em_params p = request(EM_TEACACHE_OFF);
    em_result free, tight;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &free);
    em_engine_close(&e);
    at.ram_budget_bytes = free.smallest_ram_budget + (2 << 20);
    e = demo_engine_open(&at);
    plan(e, &p, &tight);
    assert_true(tight.host_bytes <= at.ram_budget_bytes);
    assert_true(tight.mapped_bytes < free.mapped_bytes);
    render(e, &p, &tight);
    em_engine_close(&e);
}

/* Less page-locked memory than images and a large ring want: read again, in small pieces. */
static void a_host_budget_shrinks_the_ring(void **state)
{
    (void)state;
    em_engine_params at = where("far", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result free, tight;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &free);
    uint64_t first = render(e, &p, NULL);
    em_engine_close(&e);
    assert_true(free.pinned_bytes > 96 << 20);
    at.ram_budget_bytes = free.host_bytes - (80 << 20);
    e = demo_engine_open(&at);
    plan(e, &p, &tight);
    assert_true(tight.host_bytes <= at.ram_budget_bytes);
    assert_true(render(e, &p, NULL) == first);
    em_engine_close(&e);
}

/* ---- memory that fails ----------------------------------------------------------------------- */

/* Every allocation of a run in turn, and everything from it on. */
static void every_allocation_may_fail(void **state)
{
    const char *device = *state;
    em_engine_params at = where(device, EM_MEMORY_AUTO);
    em_params p = request(EM_TEACACHE_BRANCH);
    em_result r;
    p.teacache_offload = true;
    em_engine *e = demo_engine_open(&at);
    wrapped.calls = 0;
    uint64_t first = render(e, &p, &r);
    int points = wrapped.calls;
    assert_true(points >= 1 && r.step_down[0] == 0);
    em_engine_close(&e);
    for (int n = 1; n <= points; n++) {
        e = demo_engine_open(&at);
        wrapped.fail_at = n;
        assert_true(render(e, &p, &r) == first);
        assert_int_equal(wrapped.fail_at, 0);
        assert_non_null(strstr(r.step_down, "somebody else took the memory"));
        assert_true(render(e, &p, &r) == first); /* the next job begins on that rung */
        assert_non_null(strstr(r.step_down, "somebody else"));
        em_engine_close(&e);
    }
}

/* Rungs end: then the request fails with a sentence, and the engine is as good as before. */
static void rungs_end(void **state)
{
    (void)state;
    em_engine_params at = where("wrapped:1", EM_MEMORY_BEEFY);
    em_params p = request(EM_TEACACHE_OFF);
    em_err err = {0};
    em_result r;
    watch w = {0};
    const em_sink sink = {.frame = on_frame, .user = &w};
    em_engine *e = demo_engine_open(&at);
    wrapped.fail_at = 1;
    wrapped.and_all = true;
    assert_int_equal(em_generate(e, &picture, &sound, &p, &sink, NULL, &err), EM_NOVRAM);
    assert_non_null(strstr(err.msg, "somebody else"));
    wrapped.fail_at = 0;
    wrapped.and_all = false;
    render(e, &p, &r);
    assert_true(r.width_rung > 0 && r.device_bytes == r.smallest_bytes);
    em_engine_close(&e);
}

/* The rungs in order: streamed at first, then narrower. */
static void rungs_are_taken_one_by_one(void **state)
{
    (void)state;
    enum { THE_BLOCK = 3 }; /* after room for frames, twice */
    em_engine_params at = where("wrapped:1", EM_MEMORY_BEEFY);
    em_params p = request(EM_TEACACHE_OFF);
    em_result all, streamed, narrow;
    em_engine *e = demo_engine_open(&at);
    render(e, &p, &all);
    em_engine_close(&e);
    e = demo_engine_open(&at);
    wrapped.fail_at = THE_BLOCK;
    render(e, &p, &streamed);
    assert_true(streamed.device_bytes < all.device_bytes);
    assert_non_null(strstr(streamed.step_down, "weights are streamed"));
    em_engine_close(&e);
    at.memory_mode = EM_MEMORY_LIGHTWEIGHT; /* a block of its own for every job */
    e = demo_engine_open(&at);
    for (int i = 0; i < 2; i++) {
        wrapped.fail_at = THE_BLOCK;
        render(e, &p, &narrow);
    }
    assert_true(narrow.device_bytes == narrow.smallest_bytes);
    assert_non_null(strstr(narrow.step_down, "less goes through"));
    em_engine_close(&e);
}

/* ---- the report ------------------------------------------------------------------------------ */

static const json_t *at_path(const json_t *o, const char *a, const char *b, const char *c)
{
    const json_t *v = json_object_get(o, a);
    if (b) v = json_object_get(v, b);
    if (c) v = json_object_get(v, c);
    assert_non_null(v);
    return v;
}

static void a_report_is_written(void **state)
{
    const tmpdir *t = *state;
    static const char *const device[] = {"cpu", "far"};
    for (int d = 0; d < 2; d++) {
        char path[256], drawing[256];
        em_err err = {0};
        em_engine_params at = where(device[d], EM_MEMORY_LIGHTWEIGHT);
        em_params p = request(EM_TEACACHE_OFF);
        em_result r;
        json_t *doc = NULL;
        snprintf(path, sizeof path, "%s/%s.json", t->path, device[d]);
        snprintf(drawing, sizeof drawing, "%s/%s.svg", t->path, device[d]);
        at.memory_report_path = path;
        em_engine *e = demo_engine_open(&at);
        uint64_t process = e->base_bytes;
        render(e, &p, &r);
        render(e, &p, &r);
        em_engine_close(&e);
        assert_ok(em_json_load(&doc, path, 1 << 20, &err), err);
        assert_int_equal(json_integer_value(at_path(doc, "process_bytes", NULL, NULL)), process);
        assert_int_equal(json_integer_value(at_path(doc, "jobs_at_once", NULL, NULL)), 1);
        const json_t *jobs = at_path(doc, "jobs", NULL, NULL);
        assert_int_equal(json_array_size(jobs), 2);
        const json_t *job = json_array_get(jobs, 0);
        const json_t *driver = at_path(job, "driver_used_peak_bytes", NULL, NULL);
        assert_true(d ? (uint64_t)json_integer_value(driver) > r.device_bytes
                      : json_is_null(driver));
        assert_true(json_is_null(at_path(job, "context_bytes", NULL, NULL)) == !d);
        for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
            const json_t *stage = at_path(job, "stages", em_stage_name((em_stage)s), NULL);
            assert_int_equal(json_integer_value(at_path(stage, "planned", "scratch_bytes", NULL)),
                             json_integer_value(at_path(stage, "measured", "scratch_bytes", NULL)));
            assert_true(json_integer_value(at_path(stage, "measured", "host_rss_bytes", NULL)) > 0);
            const json_t *hidden = at_path(stage, "measured", "copy_hidden_seconds", NULL);
            const json_t *open = at_path(stage, "measured", "copy_not_hidden_seconds", NULL);
            assert_true(json_is_real(hidden) && json_is_real(open));
            if (!d) assert_true(json_real_value(hidden) == 0);
        }
        assert_int_equal(json_integer_value(at_path(job, "fragmentation_bytes", NULL, NULL)), 0);
        assert_true(json_integer_value(at_path(job, "block_bytes", NULL, NULL)) ==
                    (json_int_t)r.device_bytes);
        json_decref(doc);
        char *svg = NULL;
        size_t n;
        assert_ok(em_file_read(&svg, &n, drawing, 1 << 22, &err), err);
        assert_non_null(strstr(svg, "denoise"));
        assert_non_null(strstr(svg, "</svg>"));
        em_free(svg);
    }
}

/* By the far device's clock a byte takes a nanosecond and an operand a microsecond: every byte is
 * on it once, and some of them are hidden behind operands. What was resident waits for nothing. */
static void copies_are_on_the_clock(void **state)
{
    (void)state;
    em_engine_params at = where("far", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    em_engine *e = demo_engine_open(&at);
    double copy_ms = 0, waited_ms = 0;
    render(e, &p, &r);
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
        copy_ms += r.stage[s].copy_ms;
        waited_ms += r.stage[s].copy_waited_ms;
    }
    assert_float_equal(copy_ms, (double)r.copied_bytes / 1e6, 1e-6);
    assert_true(waited_ms > 0 && waited_ms < 0.9 * copy_ms);
    em_engine_close(&e);

    at.memory_mode = EM_MEMORY_BEEFY;
    e = demo_engine_open(&at);
    render(e, &p, NULL);
    render(e, &p, &r); /* it does without the text encoder, which may stay all the same */
    assert_true(r.copied_bytes == 0);
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++)
        assert_true(r.stage[s].copy_ms == 0 && r.stage[s].copy_waited_ms == 0);
    em_engine_close(&e);
}

/* A device without a clock says so instead of zero. */
static void without_a_clock_nobody_knows(void **state)
{
    (void)state;
    em_engine_params at = where("wrapped:1", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    em_engine *e = demo_engine_open(&at);
    wrapped.device.event_elapsed = NULL;
    render(e, &p, &r);
    assert_true(r.stage[EM_STAGE_DENOISE].copy_ms < 0);
    assert_true(r.stage[EM_STAGE_DENOISE].copy_waited_ms < 0);
    em_engine_close(&e);
}

/* The driver counts everybody: the block, and what somebody else has. */
static void the_driver_is_asked(void **state)
{
    (void)state;
    em_engine_params at = where("wrapped:1", EM_MEMORY_BEEFY);
    em_params p = request(EM_TEACACHE_OFF);
    em_result planned, r;
    em_engine *e = demo_engine_open(&at);
    wrapped.others = 5 << 20;
    plan(e, &p, &planned);
    assert_true(planned.driver_bytes == 0 && planned.context_bytes == 3 << 20);
    render(e, &p, &r);
    assert_true(r.driver_bytes == r.device_bytes + wrapped.others);
    assert_true(r.context_bytes == planned.context_bytes);
    em_engine_close(&e);
    wrapped.others = 0;
    assert_int_equal(wrapped.taken, 0);
    e = demo_engine_open((at = where("cpu", EM_MEMORY_BEEFY), &at));
    render(e, &p, &r);
    assert_true(r.driver_bytes == 0 && r.context_bytes == 0);
    em_engine_close(&e);
}

/* Rates that were measured make the next forecast, of this engine and of later ones. */
static void forecasts_learn(void **state)
{
    const tmpdir *t = *state;
    char path[256];
    em_engine_params at = where("cpu", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    snprintf(path, sizeof path, "%s/cache/rates.json", t->path);
    at.rates_path = path;
    p.num_inference_steps = 8;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &r);
    assert_true(r.forecast_ms > 0 && !r.rates_measured);
    render(e, &p, &r);
    double took = r.stage[EM_STAGE_DENOISE].ms;
    em_engine_close(&e);
    e = demo_engine_open(&at);
    plan(e, &p, &r);
    if (took >= 20) { /* a stage that is shorter tells no rate */
        double again = r.stage[EM_STAGE_DENOISE].forecast_ms;
        assert_true(r.rates_measured);
        assert_true(again > took / 2 && again < 2 * took + 20);
    }
    em_engine_close(&e);
}

/* lightweight does without replayed steps: where those are known to be faster, it says so. */
static void lightweight_says_what_beefy_gains(void **state)
{
    const tmpdir *t = *state;
    char path[256];
    em_engine_params at = where("far", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    snprintf(path, sizeof path, "%s/rates.json", t->path);
    at.rates_path = path;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &r);
    assert_non_null(strstr(r.policy, "and gain nothing."));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"%s\": {\"denoise\": %g, \"replay\": %g}}", e->rates.key,
            r.stage[EM_STAGE_DENOISE].flops / 50e3, r.stage[EM_STAGE_DENOISE].flops / 40e3);
    fclose(f);
    em_engine_close(&e);
    e = demo_engine_open(&at);
    plan(e, &p, &r);
    assert_true(r.stage[EM_STAGE_DENOISE].forecast_ms > 49e3);
    assert_non_null(strstr(r.policy, " and take about 40."));
    assert_non_null(strstr(r.policy, " instead of 50."));
    assert_non_null(strstr(r.policy, " for a later job."));
    em_engine_close(&e);
    at.memory_mode = EM_MEMORY_BEEFY;
    e = demo_engine_open(&at);
    plan(e, &p, &r);
    assert_true(r.stage[EM_STAGE_DENOISE].forecast_ms < 41e3);
    em_engine_close(&e);
}

/* A device's copies too, by its own clock: a nanosecond a byte, far away. */
static void copies_teach_a_rate(void **state)
{
    const tmpdir *t = *state;
    char path[256];
    em_engine_params at = where("far", EM_MEMORY_LIGHTWEIGHT);
    em_params p = request(EM_TEACACHE_OFF);
    em_result r;
    em_err err = {0};
    json_t *doc = NULL;
    snprintf(path, sizeof path, "%s/rates.json", t->path);
    at.rates_path = path;
    p.num_inference_steps = 24;
    em_engine *e = demo_engine_open(&at);
    plan(e, &p, &r);
    render(e, &p, &r);
    em_engine_close(&e);
    assert_true(r.copied_bytes > 20000000); /* less tells no rate */
    assert_ok(em_json_load(&doc, path, 1 << 16, &err), err);
    const json_t *mine = json_object_iter_value(json_object_iter(doc));
    assert_float_equal(json_real_value(json_object_get(mine, "copy")), 1e6, 1);
    json_decref(doc);
}

int main(int argc, char **argv)
{
    static char on_cpu[] = "wrapped", on_far[] = "wrapped:1";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planned_is_measured_on_the_cpu),
        cmocka_unit_test(planned_is_measured_far_away),
        cmocka_unit_test(planned_is_measured_by_plain_loops),
        cmocka_unit_test(later_jobs_are_as_planned),
        cmocka_unit_test(images_of_earlier_jobs_count),
        cmocka_unit_test(narrower_is_smaller),
        cmocka_unit_test(modes_explain_themselves),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_host_budget_is_kept),
        cmocka_unit_test(a_host_budget_shrinks_the_ring),
        cmocka_unit_test_prestate(every_allocation_may_fail, on_cpu),
        cmocka_unit_test_prestate(every_allocation_may_fail, on_far),
        cmocka_unit_test(rungs_end),
        cmocka_unit_test(rungs_are_taken_one_by_one),
        cmocka_unit_test_setup_teardown(a_report_is_written, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(copies_are_on_the_clock),
        cmocka_unit_test(without_a_clock_nobody_knows),
        cmocka_unit_test(the_driver_is_asked),
        cmocka_unit_test_setup_teardown(forecasts_learn, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(lightweight_says_what_beefy_gains, tmpdir_setup,
                                        tmpdir_teardown),
        cmocka_unit_test_setup_teardown(copies_teach_a_rate, tmpdir_setup, tmpdir_teardown),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, NULL);
}
