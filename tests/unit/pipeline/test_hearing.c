/* Where the voice is heard. `spy` is another table that keeps the features that the transformer is
 * given: over `cpu`, and as `spy:1` over plain loops far away. */
#include "base/hash.h"
#include "far/far.h"
#include "pipeline/engine.h"

#include "../demo_engine.h"
#include "../tmpdir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 32, RATE_HZ = 16000, FRAMES = 5, STEPS = 2 };

static uint8_t portrait[SIDE * SIDE * 3];
static float voice[RATE_HZ];
static const em_picture picture = {portrait, SIDE, SIDE};
static const em_sound sound = {voice, RATE_HZ, RATE_HZ};

/* ---- a table that looks ---------------------------------------------------------------------- */

static struct {
    em_ops ops;
    const em_ops *of;
    uint64_t features; /* hash of what was gathered last from (F, layers, C) */
    float first;
} spy;

static em_status spy_gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    size_t n = em_tensor_bytes(table);
    if (table.ndim == 3) {
        float *copy = malloc(n);
        assert_non_null(copy);
        assert_int_equal(spy.of->download(r, table, copy), EM_OK);
        spy.features = em_fnv1a64(EM_FNV1A64_INIT, copy, n);
        spy.first = copy[0];
        free(copy);
    }
    return spy.of->gather(r, y, table, idx);
}

static em_status open_spy(const em_ops **out, int ordinal, em_err *err)
{
    em_status st = em_ops_open(&spy.of, ordinal ? "far:1" : "cpu", err);
    if (st) return st;
    spy.ops = *spy.of;
    spy.ops.gather = spy_gather;
    *out = &spy.ops;
    return EM_OK;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < SIDE * SIDE * 3; i++) portrait[i] = (uint8_t)(60 + i * 7 % 130);
    for (int i = 0; i < RATE_HZ; i++) voice[i] = (float)(0.3 * sin(0.0012 * i) * sin(0.07 * i));
    far_register();
    em_ops_register((em_ops_entry){"spy", open_spy});
    return 0;
}

static em_engine *engine_of(const char *device, em_audio_device audio, em_memory_mode mode,
                            uint64_t ram_budget)
{
    em_engine_params p = demo_engine_params(device, mode);
    p.audio_device = audio;
    p.ram_budget_bytes = ram_budget;
    p.dtype = EM_WEIGHT_FLOAT32;
    return demo_engine_open(&p);
}

static em_params request(void)
{
    em_params p = em_params_default();
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = FRAMES;
    p.num_inference_steps = STEPS;
    return p;
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    (void)index, (void)err;
    *(uint64_t *)user = em_fnv1a64(*(uint64_t *)user, rgb, SIDE * SIDE * 3);
    return EM_OK;
}

static em_status generate(em_engine *e, uint64_t *frames, em_result *r, em_err *err)
{
    em_params p = request();
    *frames = EM_FNV1A64_INIT;
    const em_sink sink = {.frame = on_frame, .user = frames};
    return em_generate(e, &picture, &sound, &p, &sink, r, err);
}

static uint64_t render(em_engine *e, em_result *r)
{
    em_err err = {0};
    uint64_t frames;
    assert_ok(generate(e, &frames, r, &err), err);
    return frames;
}

static void plan(em_engine *e, em_result *r)
{
    em_err err = {0};
    em_params p = request();
    assert_ok(em_plan(e, &picture, &sound, &p, r, &err), err);
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* With the voice on the CPU the transformer, on another device, gets what it gets on the CPU. */
static void features_are_those_of_the_cpu(void **state)
{
    (void)state;
    const struct {
        const char *device;
        em_audio_device audio;
    } runs[] = {{"spy", EM_AUDIO_DEVICE_AUTO},
                {"spy:1", EM_AUDIO_DEVICE_CPU},
                {"spy:1", EM_AUDIO_DEVICE_AUTO},
                {"spy:1", EM_AUDIO_DEVICE_DEVICE}};
    uint64_t seen[4], frames[4];
    float first[4];
    em_result r;
    for (int i = 0; i < 4; i++) {
        em_engine *e = engine_of(runs[i].device, runs[i].audio, EM_MEMORY_LIGHTWEIGHT, 0);
        spy.features = 0;
        frames[i] = render(e, &r);
        seen[i] = spy.features;
        first[i] = spy.first;
        assert_string_equal(r.voice_device, i == 1 || i == 0 ? "cpu" : "far");
        em_engine_close(&e);
    }
    assert_true(seen[0] != 0 && seen[0] == seen[1]);
    assert_true(seen[2] == seen[3] && frames[2] == frames[3]);
    assert_true(seen[1] != seen[2]);                 /* plain loops round otherwise, */
    assert_true(fabsf(first[1] - first[2]) < 1e-4F); /* and only that */
}

static void assert_voice_as_planned(const em_result *plan, const em_result *real)
{
    assert_string_equal(plan->voice_device, real->voice_device);
    assert_true(plan->voice_block_bytes == real->voice_block_bytes);
    assert_true(plan->voice_scratch_bytes == real->voice_scratch_bytes);
    assert_true(plan->voice_weights_bytes == real->voice_weights_bytes);
    assert_true(plan->voice_mapped_bytes == real->voice_mapped_bytes);
}

/* To the byte, in either memory; the device never sees the encoder's weights. */
static void planned_is_measured_on_both_sides(void **state)
{
    static const em_memory_mode modes[] = {EM_MEMORY_LIGHTWEIGHT, EM_MEMORY_AUTO, EM_MEMORY_BEEFY};
    em_result here, planned, real;
    (void)state;
    em_engine *e = engine_of("cpu", EM_AUDIO_DEVICE_AUTO, EM_MEMORY_LIGHTWEIGHT, 0);
    uint64_t frames = render(e, &here);
    em_engine_close(&e);
    for (int m = 0; m < 3; m++) {
        em_result there;
        e = engine_of("far", EM_AUDIO_DEVICE_DEVICE, modes[m], 0);
        plan(e, &there);
        assert_true(there.voice_block_bytes == 0);
        assert_null(strstr(there.policy, "the voice is heard"));
        em_engine_close(&e);
        e = engine_of("far", EM_AUDIO_DEVICE_CPU, modes[m], 0);
        plan(e, &planned);
        assert_non_null(strstr(planned.policy, "the voice is heard on cpu"));
        assert_true(render(e, &real) == frames); /* far:0 computes as the cpu does */
        assert_voice_as_planned(&planned, &real);
        assert_true(planned.device_bytes == real.device_bytes);
        for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) {
            const em_stage_report *a = &planned.stage[s], *b = &real.stage[s];
            assert_true(a->scratch_bytes == b->scratch_bytes && a->flops == b->flops);
            assert_true(a->weights_bytes == b->weights_bytes);
        }
        assert_true(real.stage[EM_STAGE_AUDIO].flops == here.stage[EM_STAGE_AUDIO].flops);
        /* The scratch is what the encoder took on the device, its weights are not there. */
        assert_true(real.voice_block_bytes >= real.voice_scratch_bytes);
        assert_true(real.voice_scratch_bytes > 0 && real.voice_mapped_bytes > 0);
        assert_true(planned.largest_bytes < there.largest_bytes); /* of a block with all weights */
        /* An image of the encoder's weights in page-locked memory is not needed any more. */
        assert_true(planned.host_bytes - planned.pinned_bytes >=
                    there.host_bytes - there.pinned_bytes + planned.voice_block_bytes);
        assert_true(render(e, &real) == frames); /* and once more, with what was kept */
        assert_voice_as_planned(&planned, &real);
        em_engine_close(&e);
    }
}

/* Dropped after use in lightweight, kept in beefy. */
static void the_encoder_is_dropped_or_kept(void **state)
{
    static const em_memory_mode modes[] = {EM_MEMORY_LIGHTWEIGHT, EM_MEMORY_BEEFY};
    em_result r;
    (void)state;
    for (int m = 0; m < 2; m++) {
        bool kept = modes[m] == EM_MEMORY_BEEFY;
        em_engine *e = engine_of("far", EM_AUDIO_DEVICE_CPU, modes[m], 0);
        render(e, &r);
        assert_int_equal(e->annex.block.base != NULL, kept);
        assert_int_equal(e->annex.residency.mapped_bytes != 0, kept);
        em_engine_close(&e);
    }
}

/* Where everything runs on the CPU there is nothing to choose. */
static void on_the_cpu_both_are_the_same(void **state)
{
    static const em_audio_device where[] = {EM_AUDIO_DEVICE_AUTO, EM_AUDIO_DEVICE_CPU,
                                            EM_AUDIO_DEVICE_DEVICE};
    em_result r[3];
    uint64_t frames[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        em_engine *e = engine_of("cpu", where[i], EM_MEMORY_LIGHTWEIGHT, 0);
        assert_null(e->annex.ops);
        frames[i] = render(e, &r[i]);
        assert_true(frames[i] == frames[0] && r[i].scratch_bytes == r[0].scratch_bytes);
        assert_true(r[i].voice_block_bytes == 0);
        assert_string_equal(r[i].voice_device, "cpu");
        em_engine_close(&e);
    }
}

/* The least --ram_budget that a plan takes. */
static uint64_t least_budget(em_audio_device audio, em_result *at_least)
{
    const em_params p = request();
    uint64_t low = 0, high = (uint64_t)1 << 30;
    em_engine *e = engine_of("far", audio, EM_MEMORY_LIGHTWEIGHT, 0);
    while (high - low > 1) {
        em_err err = {0};
        e->ram_budget_bytes = low + (high - low) / 2;
        if (em_plan(e, &picture, &sound, &p, at_least, &err))
            low = e->ram_budget_bytes;
        else
            high = e->ram_budget_bytes;
    }
    e->ram_budget_bytes = high;
    plan(e, at_least);
    em_engine_close(&e);
    return high;
}

/* What the annex takes counts against the host's budget, to the byte. */
static void the_host_budget_pays_for_it(void **state)
{
    em_result on_device, on_cpu;
    (void)state;
    uint64_t without = least_budget(EM_AUDIO_DEVICE_AUTO, &on_device);
    uint64_t with = least_budget(EM_AUDIO_DEVICE_CPU, &on_cpu);
    assert_true(on_cpu.host_bytes == with && on_device.host_bytes == without);
    assert_true(on_cpu.voice_block_bytes > 0 && on_cpu.voice_mapped_bytes > 0);
    assert_true(with == without + on_cpu.voice_block_bytes + on_cpu.voice_mapped_bytes);
}

static em_status no_room(em_device *d, void **out, size_t n, em_err *err)
{
    (void)d, (void)out;
    return em_fail(err, EM_NOMEM, "no room for %zu bytes here", n);
}

/* Host memory that fails in spite of the plan: the sentence says so, and the engine is as good as
 * before. */
static void memory_may_fail(void **state)
{
    em_err err = {0};
    em_result r;
    uint64_t frames, again;
    (void)state;
    em_engine *e = engine_of("far", EM_AUDIO_DEVICE_CPU, EM_MEMORY_LIGHTWEIGHT, 0);
    frames = render(e, &r);
    em_device host = em_device_host;
    e->annex.residency.device->alloc = no_room;
    em_status st = generate(e, &again, NULL, &err);
    em_device_host = host;
    assert_int_equal(st, EM_NOMEM);
    assert_non_null(strstr(err.msg, "here"));
    assert_true(render(e, &r) == frames);
    em_engine_close(&e);
}

/* A job that was cut short where the voice was heard elsewhere is not gone on with. */
static void another_ear_is_another_request(void **state)
{
    tmpdir *t = *state;
    char path[256];
    em_err err = {0};
    em_params p = request();
    em_result r;
    const em_audio_device where[] = {EM_AUDIO_DEVICE_CPU, EM_AUDIO_DEVICE_CPU,
                                     EM_AUDIO_DEVICE_DEVICE};
    snprintf(path, sizeof path, "%s/steps", t->path);
    p.resume_path = path;
    for (int i = 0; i < 3; i++) {
        em_engine *e = engine_of("far", where[i], EM_MEMORY_LIGHTWEIGHT, 0);
        assert_ok(em_generate(e, &picture, &sound, &p, &(em_sink){0}, &r, &err), err);
        assert_int_equal(r.steps_resumed, i == 1 ? STEPS : 0);
        em_engine_close(&e);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_those_of_the_cpu),
        cmocka_unit_test(planned_is_measured_on_both_sides),
        cmocka_unit_test(the_encoder_is_dropped_or_kept),
        cmocka_unit_test(on_the_cpu_both_are_the_same),
        cmocka_unit_test(the_host_budget_pays_for_it),
        cmocka_unit_test(memory_may_fail),
        cmocka_unit_test_setup_teardown(another_ear_is_another_request, tmpdir_setup,
                                        tmpdir_teardown),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, NULL);
}
