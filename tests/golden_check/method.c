/* The method's arithmetic: noise, schedules, solvers, TeaCache's decisions. No models. */
#include "check.h"

#include "base/synthetic.h"
#include "pipeline/noise.h"
#include "pipeline/sampler.h"
#include "pipeline/teacache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- noise ----------------------------------------------------------------------------------- */

/* cuda.bf16.seed43.n1376256.every4099 */
typedef struct noise_name {
    char rng[8], type[8];
    unsigned long long seed, n, every;
} noise_name;

static bool parse_noise_name(noise_name *out, const char *name)
{
    out->every = 1;
    int got = sscanf(name, "%7[^.].%7[^.].seed%llu.n%llu.every%llu", out->rng, out->type,
                     &out->seed, &out->n, &out->every);
    return got >= 4 && out->n > 0 && out->n <= 1u << 28 && out->every > 0;
}

/* bfloat16 values that differ, as a share; more than one step apart counts as all. */
static double bf16_mismatch(const float *got, const float *want, size_t n)
{
    size_t differ = 0;
    for (size_t i = 0; i < n; i++) {
        if (got[i] == want[i]) continue;
        differ++;
        int step = (int)em_f32_to_bf16(got[i]) - (int)em_f32_to_bf16(want[i]);
        if (abs(step) > 1) return 1;
    }
    return (double)differ / (double)n;
}

static double max_abs(const float *got, const float *want, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    return worst;
}

static void check_noise(check *c, const em_ckpt_tensor *t)
{
    noise_name id;
    if (!parse_noise_name(&id, t->name))
        return report_skip(c, t->name, "not a name of this file's form");
    const em_noise_device card = {EM_NOISE_SM_COUNT, EM_NOISE_THREADS_PER_SM};
    size_t listed = t->size_bytes / sizeof(float);
    float *x = em_alloc_array(id.n, sizeof *x);
    if (!x || (listed - 1) * id.every >= id.n) {
        em_free(x);
        return expect_true(c, t->name, false, "sizes that do not fit");
    }
    bool cuda = !strcmp(id.rng, "cuda"), bf16 = !strcmp(id.type, "bf16");
    em_noise_fill(x, id.n, id.seed, cuda ? EM_RNG_CUDA : EM_RNG_CPU, &card);
    if (bf16) em_noise_round(x, id.n, EM_BF16);
    for (size_t i = 0; i < listed; i++) x[i] = x[i * id.every];
    if (bf16)
        expect_measure(c, t->name, "share one step off", bf16_mismatch(x, t->data, listed), 1e-3);
    else
        expect_measure(c, t->name, "max abs", max_abs(x, t->data, listed), cuda ? 4e-6 : 5e-7);
    em_free(x);
}

void check_rng(check *c)
{
    em_ckpt *golden = open_golden(c, c->file);
    for (size_t i = 0; golden && i < em_ckpt_count(golden); i++)
        check_noise(c, em_ckpt_at(golden, i));
    em_ckpt_close(&golden);
}

/* ---- solvers --------------------------------------------------------------------------------- */

/* "Flow_Unipc.shift5.steps8.trajectory" */
typedef struct schedule_name {
    char solver[32], what[32];
    double shift;
    int steps;
} schedule_name;

static const em_solver *solver_named(const char *name)
{
    static const em_sampler_kind kinds[] = {EM_SAMPLER_UNIPC, EM_SAMPLER_DPMPP, EM_SAMPLER_EULER};
    for (size_t i = 0; i < EM_COUNT(kinds); i++)
        if (!strcmp(em_solver_get(kinds[i])->name, name)) return em_solver_get(kinds[i]);
    return NULL;
}

static bool parse_schedule_name(schedule_name *out, const char *name)
{
    const char *shift = strstr(name, ".shift"), *steps = strstr(name, ".steps");
    if (!shift || !steps || steps < shift || (size_t)(shift - name) >= sizeof out->solver)
        return false;
    snprintf(out->solver, sizeof out->solver, "%.*s", (int)(shift - name), name);
    char number[16]; /* on its own: "5.steps" would be read as 5. and then "steps" */
    snprintf(number, sizeof number, "%.*s", (int)(steps - shift - 6), shift + 6);
    out->shift = strtod(number, NULL);
    return sscanf(steps, ".steps%d.%31s", &out->steps, out->what) == 2 && out->steps >= 1 &&
           out->steps <= 1000 && out->shift > 0;
}

typedef struct trajectory_args {
    check *c;
    const em_ckpt_tensor *golden;
    em_sampler *sampler;
    double bound;
} trajectory_args;

static void synthetic_input(float *out, const char *name, size_t n)
{
    uint16_t bits[4096];
    em_synth_values(bits, EM_BF16, em_synth_key("", name, 1), (em_synth_rule){0, 1}, 0, n);
    em_convert(out, EM_F32, bits, EM_BF16, n);
}

/* The "model" of the trajectories: v = 0.3 x + n_i. */
static void trajectory(em_run *r, void *arg)
{
    const trajectory_args *a = arg;
    const int64_t *dim = a->golden->dim + 1; /* (steps + 1, …) */
    size_t n = a->golden->size_bytes / sizeof(float) / (size_t)a->golden->dim[0];
    float values[4096];
    char name[64];
    em_mark start = em_run_mark(r);
    synthetic_input(values, "input.sched.x", n);
    em_tensor x = em_run_keep(r, EM_F32, dim, a->golden->ndim - 1);
    em_copy(r, x, em_upload(r, values, EM_F32, dim, a->golden->ndim - 1));
    em_sampler_begin(a->sampler, r, x);
    double worst = 0;
    for (int i = 0; i < a->sampler->steps && !em_run_stopped(r); i++) {
        em_mark m = em_run_mark(r);
        snprintf(name, sizeof name, "input.sched.v%d", i);
        synthetic_input(values, name, n);
        em_tensor noise = em_upload(r, values, EM_F32, dim, a->golden->ndim - 1);
        em_tensor v = em_lincomb(r, 2, (em_tensor[]){x, noise}, (float[]){0.3f, 1});
        em_sampler_step(a->sampler, r, x, v);
        em_run_release(r, m);
        if (r->plans) continue;
        const float *want = (const float *)a->golden->data + (size_t)(i + 1) * n;
        em_download(r, x, values);
        double num = 0, den = 0;
        for (size_t k = 0; k < n; k++) {
            num += pow((double)values[k] - want[k], 2);
            den += pow(want[k], 2);
        }
        worst = fmax(worst, sqrt(num / den));
    }
    if (!r->plans) expect_measure(a->c, a->golden->name, "worst rel L2 of a step", worst, a->bound);
    em_run_release_all(r, start);
}

static void check_schedule(check *c, const em_ckpt_tensor *t)
{
    schedule_name id;
    em_err err = {0};
    em_sampler *s = NULL;
    size_t n = t->size_bytes / sizeof(float);
    if (!parse_schedule_name(&id, t->name) || !solver_named(id.solver))
        return report_skip(c, t->name, "not a name of this file's form");
    if (em_sampler_open(&s, solver_named(id.solver), id.steps, id.shift, &err))
        return report_failure(c, t->name, &err);
    trajectory_args a = {c, t, s, 2e-5};
    if (!strcmp(id.what, "sigmas") && n == (size_t)id.steps + 1)
        expect_measure(c, t->name, "max abs", max_abs(s->sigma, t->data, n), 1e-7);
    else if (!strcmp(id.what, "timesteps") && n == (size_t)id.steps)
        expect_measure(c, t->name, "max abs", max_abs(s->timestep, t->data, n), 1e-4);
    else if (!strcmp(id.what, "trajectory") && t->ndim >= 2 && n / (size_t)t->dim[0] <= 4096)
        run_forward(c, t->name, trajectory, &a);
    else
        report_skip(c, t->name, "not a name of this file's form");
    em_sampler_close(&s);
}

void check_schedulers(check *c)
{
    em_ckpt *golden = open_golden(c, c->file);
    for (size_t i = 0; golden && i < em_ckpt_count(golden); i++)
        check_schedule(c, em_ckpt_at(golden, i));
    em_ckpt_close(&golden);
}

/* ---- TeaCache -------------------------------------------------------------------------------- */

/* Row i of a list of lists of numbers, as floats; NULL when it is not one. Owned. */
static float *row_of(const json_t *rows, size_t i, size_t *n)
{
    const json_t *row = json_array_get(rows, i);
    *n = json_array_size(row);
    float *out = *n ? em_alloc_array(*n, sizeof *out) : NULL;
    for (size_t k = 0; out && k < *n; k++)
        out[k] = (float)json_number_value(json_array_get(row, k));
    return out;
}

static void check_decisions(check *c, const json_t *item, size_t index)
{
    int64_t skip = 0, steps = 0, per_step = 2;
    double threshold = 0;
    char name[32], what[64];
    em_err err = {0};
    snprintf(name, sizeof name, "list %zu", index);
    const json_t *rows = json_object_get(item, "e0"), *want = json_object_get(item, "computes");
    if (em_json_get_int(&skip, item, "num_skip_start_steps", 0, 1000, c->file, &err) ||
        em_json_get_int(&steps, item, "num_inference_steps", 1, 1000, c->file, &err) ||
        em_json_get_int(&per_step, item, "forwards_per_step", 1, 2, c->file, &err) ||
        em_json_get_double(&threshold, item, "threshold", 0, 100, c->file, &err))
        return report_failure(c, name, &err);
    em_teacache t = em_teacache_begin(EM_TEACACHE_REFERENCE, threshold, (int)skip, (int)steps);
    size_t forwards = json_array_size(rows), wrong = 0, n;
    float *now = NULL, *before = NULL;
    for (size_t i = 0; i < forwards; i++) {
        now = row_of(rows, i, &n);
        if (!now) return report_skip(c, name, "rows of another form");
        wrong +=
            em_teacache_decide(&t, now, n) != (json_integer_value(json_array_get(want, i)) != 0);
        em_free(before); /* the row of the decision before is still read by this one */
        before = now;
    }
    em_free(before);
    snprintf(what, sizeof what, "%zu of %zu decisions differ", wrong, forwards);
    expect_true(c, name, wrong == 0 && json_array_size(want) == forwards, what);
}

void check_teacache(check *c)
{
    size_t i;
    json_t *item, *doc = load_json(c, c->file);
    if (!doc) return;
    json_array_foreach(doc, i, item) check_decisions(c, item, i);
    json_decref(doc);
}
