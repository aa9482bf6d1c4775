#include "check.h"

#include "io/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- verdicts -------------------------------------------------------------------------------- */

static void line(check *c, const char *name, const char *measure, double bound, bool ok)
{
    char label[128], limit[32] = "-";
    snprintf(label, sizeof label, "%s/%s", c->file, name);
    if (bound >= 0) snprintf(limit, sizeof limit, "%.2e", bound);
    const char *verdict = ok ? (bound == NO_BOUND ? "no bound" : "pass") : "FAIL";
    printf("%-58s %-38s %9s  %s\n", label, measure, limit, verdict);
    if (!ok)
        c->failed++;
    else if (bound == NO_BOUND)
        c->unbounded++;
    else
        c->passed++;
}

void expect_values(check *c, const char *name, const float *got, const float *want, size_t n,
                   double bound)
{
    double num = 0, den = 0, worst = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        finite = finite && isfinite(d);
        num += d * d;
        den += (double)want[i] * (double)want[i];
        if (fabs(d) > worst) worst = fabs(d);
    }
    double rel = den > 0 ? sqrt(num / den) : sqrt(num);
    char measure[64];
    snprintf(measure, sizeof measure, "rel L2 %.2e  max abs %.2e", rel, worst);
    line(c, name, finite ? measure : "not finite", bound,
         finite && (bound == NO_BOUND || rel <= bound));
}

void expect_close(check *c, const em_ckpt *golden, const char *name, const float *got, size_t n,
                  double bound)
{
    size_t want_n;
    const float *want = floats_of(golden, name, &want_n);
    if (!want) return report_skip(c, name, "the folder does not hold it");
    if (want_n != n) return expect_true(c, name, false, "another number of values");
    expect_values(c, name, got, want, n, bound);
}

void expect_measure(check *c, const char *name, const char *what, double value, double bound)
{
    char measure[64];
    snprintf(measure, sizeof measure, "%s %.3g", what, value);
    line(c, name, measure, bound, bound == NO_BOUND || value <= bound);
}

void expect_true(check *c, const char *name, bool ok, const char *what)
{
    line(c, name, what, 0, ok);
}

void expect_equal(check *c, const char *name, const void *got, const void *want, size_t size_bytes)
{
    const unsigned char *a = got, *b = want;
    size_t differ = 0;
    for (size_t i = 0; i < size_bytes; i++) differ += a[i] != b[i];
    char measure[64];
    snprintf(measure, sizeof measure, "%zu of %zu bytes differ", differ, size_bytes);
    line(c, name, measure, 0, differ == 0);
}

void report_failure(check *c, const char *name, const em_err *err)
{
    line(c, name, err->msg, 0, false);
}

void report_skip(check *c, const char *name, const char *why)
{
    printf("%s/%s: skipped: %s\n", c->file, name, why);
    c->skipped++;
}

/* ---- goldens --------------------------------------------------------------------------------- */

bool has_file(const check *c, const char *file)
{
    char *path = em_path_join(c->dir, file);
    bool there = path && em_path_is_file(path);
    em_free(path);
    return there;
}

em_ckpt *open_golden(check *c, const char *file)
{
    em_err err = {0};
    em_ckpt *golden = NULL;
    char *path = em_path_join(c->dir, file);
    if (!path || em_ckpt_open(&golden, path, &err)) report_failure(c, "", &err);
    em_free(path);
    return golden;
}

json_t *load_json(check *c, const char *file)
{
    em_err err = {0};
    json_t *doc = NULL;
    char *path = em_path_join(c->dir, file);
    if (!path || em_json_load(&doc, path, 64 << 20, &err)) report_failure(c, "", &err);
    em_free(path);
    return doc;
}

const em_ckpt_tensor *tensor_of(const em_ckpt *golden, const char *name, em_dtype dtype)
{
    const em_ckpt_tensor *t = em_ckpt_find(golden, name);
    return t && t->dtype == dtype ? t : NULL;
}

const float *floats_of(const em_ckpt *golden, const char *name, size_t *n)
{
    const em_ckpt_tensor *t = tensor_of(golden, name, EM_F32);
    if (!t) return NULL;
    *n = t->size_bytes / sizeof(float);
    return t->data;
}

/* ---- bounds ---------------------------------------------------------------------------------- */

double model_bound(const check *c, const char *report_key)
{
    if (c->dtype == EM_F32) return 2e-5;
    const json_t *v = c->report ? json_object_get(c->report, report_key) : NULL;
    return json_is_number(v) ? json_number_value(v) : NO_BOUND;
}

double step_bound(const check *c, const char *report_key, size_t step)
{
    if (c->dtype == EM_F32) return 1e-4;
    const json_t *list = c->report ? json_object_get(c->report, report_key) : NULL;
    const json_t *v = json_array_get(list, step);
    return json_is_number(v) ? json_number_value(v) : NO_BOUND;
}

/* ---- running models -------------------------------------------------------------------------- */

em_ckpt *open_synthetic(check *c, em_model_kind kind)
{
    em_err err = {0};
    em_ckpt *ckpt = NULL;
    const char *tmp = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/golden-check-%d-%s.safetensors", tmp ? tmp : "/tmp",
             (int)getpid(), em_model_name(kind));
    if (em_synthetic_write(&c->sizes, kind, c->seed, path, c->pool, &err) ||
        em_ckpt_open(&ckpt, path, &err))
        report_failure(c, em_model_name(kind), &err);
    unlink(path);
    return ckpt;
}

static em_run new_run(const check *c, const em_ops *ops, em_residency *weights)
{
    return (em_run){.ops = ops, .pool = c->pool, .dtype = c->dtype, .residency = weights};
}

bool run_forward(check *c, const char *name, forward_fn *forward, void *arg)
{
    em_err err = {0};
    em_ops planner;
    em_ops_plan(&planner, c->ops);
    em_residency forecast = {.drop_unpinned = true, .counts_only = true},
                 real = {.drop_unpinned = true};
    em_run plan = new_run(c, &planner, &forecast), run = new_run(c, c->ops, &real);
    plan.plans = true;
    em_arena_open_virtual(&plan.arena);
    forward(&plan, arg);
    if (plan.err.code) return report_failure(c, name, &plan.err), false;
    /* over-sized, so that a wrong plan shows as a difference and not as a failure */
    if (em_arena_open(&run.arena, c->ops->device, plan.arena.peak_bytes + (1u << 20), false, &err))
        return report_failure(c, name, &err), false;
    forward(&run, arg);
    size_t peak = run.arena.peak_bytes;
    em_arena_close(&run.arena);
    if (run.err.code) return report_failure(c, name, &run.err), false;
    char what[96];
    snprintf(what, sizeof what, "%s: planned scratch %zu, measured %zu", name,
             plan.arena.peak_bytes, peak);
    if (peak != plan.arena.peak_bytes) return expect_true(c, name, false, what), false;
    return true;
}
