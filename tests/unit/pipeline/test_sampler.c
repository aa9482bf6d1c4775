#include "pipeline/sampler.h"

#include "../golden.h"
#include "base/alloc.h"
#include "base/synthetic.h"
#include "device/device.h"
#include "ops/table.h"

#include <string.h>

/* The trajectories are float32 in the reference, its coefficients too: rounding, and no more. */
#define TRAJECTORY_REL_L2 2e-6

enum { C = 4, T = 2, H = 3, W = 3, COUNT = C * T * H * W };

/* Input "input.sched.<what>" of the synthetic checkpoints, seed 1. */
static void synthetic_input(float out[COUNT], const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "input.sched.%s", what);
    em_synth_values(out, EM_F32, em_synth_key("", name, 1), (em_synth_rule){.scale = 1}, 0, COUNT);
}

/* A run on the plain reference ops with a poisoned arena: a state read before it was written is
 * NaN. */
static void open_run(em_run *r)
{
    em_err err = {0};
    *r = (em_run){.ops = em_ops_ref(), .dtype = EM_F32};
    assert_ok(em_arena_open(&r->arena, &em_device_host, 64 << 10, true, &err), err);
}

static void set_state(em_run *r, em_tensor dst, const float *values)
{
    em_mark m = em_run_mark(r);
    em_copy(r, dst, em_upload(r, values, EM_F32, dst.dim, dst.ndim));
    em_run_release(r, m);
}

/* One step with the goldens' model, v = 0.3 x + n_i. */
static void model_step(em_sampler *s, em_run *r, em_tensor x)
{
    char what[16];
    float noise[COUNT];
    em_mark m = em_run_mark(r);
    snprintf(what, sizeof what, "v%d", s->step);
    synthetic_input(noise, what);
    em_tensor n = em_upload(r, noise, EM_F32, x.dim, x.ndim);
    em_tensor v = em_lincomb(r, 2, (em_tensor[]){x, n}, (float[]){0.3f, 1});
    em_sampler_step(s, r, x, v);
    em_run_release(r, m);
}

static em_tensor begin(em_sampler *s, em_run *r)
{
    float start[COUNT];
    em_tensor x = em_run_keep(r, EM_F32, EM_SHAPE(C, T, H, W));
    em_sampler_begin(s, r, x);
    synthetic_input(start, "x");
    set_state(r, x, start);
    return x;
}

/* Runs a whole trajectory (steps + 1, COUNT) and returns its distance from the golden's. */
static double trajectory_error(em_sampler *s, const float *want)
{
    em_run r;
    open_run(&r);
    em_tensor x = begin(s, &r);
    double worst = 0;
    const uint64_t allocations = em_alloc_calls();
    for (int k = 0; k <= s->steps; k++) {
        double d = golden_distance(x.data, want + k * COUNT, COUNT);
        assert_false(isnan(d));
        if (d > worst) worst = d;
        if (k < s->steps) model_step(s, &r, x);
    }
    assert_ok(r.err.code, r.err);
    assert_int_equal(em_alloc_calls(), allocations);
    assert_int_equal(r.arena.low_bytes, 0);
    em_arena_close(&r.arena);
    return worst;
}

static const em_ckpt_tensor *field(const em_ckpt *g, const char *config, const char *what)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", config, what);
    return golden_get(g, name, EM_F32);
}

static const em_solver *solver_named(const char *name)
{
    for (em_sampler_kind kind = EM_SAMPLER_UNIPC; kind <= EM_SAMPLER_EULER; kind++)
        if (strcmp(em_solver_get(kind)->name, name) == 0) return em_solver_get(kind);
    fail_msg("no solver '%s'", name);
    return NULL;
}

/* Every "<solver>.shift<s>.steps<n>" of a golden file. */
static void check_file(const char *file)
{
    em_ckpt *g = golden_open(file);
    em_err err = {0};
    for (size_t i = 0; i < em_ckpt_count(g); i++) {
        char config[64], solver[32];
        const char *name = em_ckpt_at(g, i)->name, *end = strstr(name, ".trajectory");
        if (!end) continue;
        snprintf(config, sizeof config, "%.*s", (int)(end - name), name);
        int shift, steps;
        assert_int_equal(sscanf(config, "%31[^.].shift%d.steps%d", solver, &shift, &steps), 3);

        em_sampler *s = NULL;
        assert_ok(em_sampler_open(&s, solver_named(solver), steps, shift, &err), err);
        size_t n = (size_t)steps;
        assert_memory_equal(s->sigma, field(g, config, "sigmas")->data, (n + 1) * sizeof(float));
        assert_memory_equal(s->timestep, field(g, config, "timesteps")->data, n * sizeof(float));
        double d = trajectory_error(s, field(g, config, "trajectory")->data);
        print_message("%-28s %.2e\n", config, d);
        if (!(d <= TRAJECTORY_REL_L2)) fail_msg("%s: trajectory off by %g", config, d);
        em_sampler_close(&s);
    }
    em_ckpt_close(&g);
}

static void goldens(void **state)
{
    (void)state;
    check_file("tiny/schedulers.safetensors");
    check_file("tiny/schedulers_more.safetensors");
}

/* Cut after every step in turn: another sampler on another run, which finds NaN wherever nothing
 * was restored, ends at the same place to the bit. */
static void resumes(void **state)
{
    (void)state;
    enum { STEPS = 6 };
    static float x[COUNT], kept[EM_SAMPLER_STATES][COUNT];
    for (em_sampler_kind kind = EM_SAMPLER_UNIPC; kind <= EM_SAMPLER_EULER; kind++) {
        for (int cut = 0; cut <= STEPS; cut++) {
            em_err err = {0};
            em_sampler *a = NULL, *b = NULL;
            em_run ra, rb;
            em_sampler_saved saved = {.state = {kept[0], kept[1], kept[2]}};
            assert_ok(em_sampler_open(&a, em_solver_get(kind), STEPS, 5, &err), err);
            assert_ok(em_sampler_open(&b, em_solver_get(kind), STEPS, 5, &err), err);
            open_run(&ra);
            open_run(&rb);
            em_tensor xa = begin(a, &ra), xb = begin(b, &rb);
            while (a->step < cut) model_step(a, &ra, xa);
            em_sampler_save(a, &ra, &saved);
            em_download(&ra, xa, x);
            set_state(&rb, xb, x);
            assert_int_equal(saved.step, cut);
            assert_true(em_sampler_restore(b, &rb, &saved));
            assert_int_equal(rb.arena.low_bytes, 0);
            while (a->step < STEPS) model_step(a, &ra, xa);
            while (b->step < STEPS) model_step(b, &rb, xb);
            assert_ok(rb.err.code, rb.err);
            assert_memory_equal(xa.data, xb.data, COUNT * sizeof(float));
            em_arena_close(&ra.arena);
            em_arena_close(&rb.arena);
            em_sampler_close(&a);
            em_sampler_close(&b);
        }
    }
}

static void resumes_at_its_own_places_only(void **state)
{
    (void)state;
    static float kept[EM_SAMPLER_STATES][COUNT];
    static const struct {
        em_sampler_kind kind;
        int step;
        unsigned live;
        bool fits;
    } places[] = {
        {EM_SAMPLER_EULER, 2, 0, true},   {EM_SAMPLER_EULER, 2, 1, false},
        {EM_SAMPLER_EULER, -1, 0, false}, {EM_SAMPLER_EULER, 6, 0, true},
        {EM_SAMPLER_EULER, 7, 0, false},  {EM_SAMPLER_DPMPP, 1, 0, true},
        {EM_SAMPLER_DPMPP, 2, 1, true},   {EM_SAMPLER_DPMPP, 2, 0, false},
        {EM_SAMPLER_DPMPP, 5, 0, true},   {EM_SAMPLER_UNIPC, 1, 5, true},
        {EM_SAMPLER_UNIPC, 2, 7, true},   {EM_SAMPLER_UNIPC, 3, 7, true},
        {EM_SAMPLER_UNIPC, 3, 3, false},  {EM_SAMPLER_UNIPC, 6, 0, true},
        {EM_SAMPLER_UNIPC, 6, 7, false},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        em_err err = {0};
        em_sampler *s = NULL;
        em_run r;
        const em_sampler_saved from = {.step = places[i].step,
                                       .live = places[i].live,
                                       .state = {kept[0], kept[1], kept[2]}};
        assert_ok(em_sampler_open(&s, em_solver_get(places[i].kind), 6, 5, &err), err);
        open_run(&r);
        begin(s, &r);
        if (em_sampler_restore(s, &r, &from) != places[i].fits) fail_msg("place %zu", i);
        assert_int_equal(s->step, places[i].fits ? places[i].step : 0);
        em_arena_close(&r.arena);
        em_sampler_close(&s);
    }
}

/* The same steps on the table that computes nothing need the same scratch, to the byte. */
static void plan_equals_run(void **state)
{
    (void)state;
    for (em_sampler_kind kind = EM_SAMPLER_UNIPC; kind <= EM_SAMPLER_EULER; kind++) {
        em_err err = {0};
        em_sampler *s = NULL;
        em_ops ops;
        em_run real, plan = {.ops = &ops, .dtype = EM_F32, .plans = true};
        assert_ok(em_sampler_open(&s, em_solver_get(kind), 4, 5, &err), err);
        open_run(&real);
        em_ops_plan(&ops, em_ops_ref());
        em_arena_open_virtual(&plan.arena);
        em_tensor x = begin(s, &real);
        while (s->step < s->steps) model_step(s, &real, x);
        x = begin(s, &plan);
        while (s->step < s->steps) model_step(s, &plan, x);
        assert_ok(real.err.code, real.err);
        assert_ok(plan.err.code, plan.err);
        assert_int_equal(plan.arena.peak_bytes, real.arena.peak_bytes);
        em_arena_close(&real.arena);
        em_arena_close(&plan.arena);
        em_sampler_close(&s);
    }
}

static void refuses(void **state)
{
    (void)state;
    em_err err = {0};
    em_sampler *s = NULL;
    assert_int_equal(em_sampler_open(&s, &em_solver_unipc, 0, 5, &err), EM_INVAL);
    assert_int_equal(em_sampler_open(&s, &em_solver_unipc, 8, 0, &err), EM_INVAL);
    assert_int_equal(em_sampler_open(&s, &em_solver_unipc, 8, NAN, &err), EM_INVAL);
    for (uint64_t n = 1; n <= 2; n++) {
        em_alloc_fail_at(n, false);
        assert_int_equal(em_sampler_open(&s, &em_solver_unipc, 8, 5, &err), EM_NOMEM);
    }
    em_alloc_fail_at(0, false);
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),
        cmocka_unit_test(resumes),
        cmocka_unit_test(resumes_at_its_own_places_only),
        cmocka_unit_test(plan_equals_run),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
