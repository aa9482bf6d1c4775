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

void expect_tensor(check *c, em_run *r, const em_ckpt *golden, const char *name, em_tensor got,
                   double bound)
{
    if (em_run_stopped(r)) return;
    em_tensor x = em_cast(r, got, EM_F32);
    size_t n = (size_t)em_tensor_count(x);
    if (r->plans || em_run_stopped(r)) return;
    float *host = em_alloc_array(n, sizeof *host);
    if (host) em_download(r, x, host);
    if (!host)
        em_run_fail(r, EM_NOMEM, "no memory to compare '%s'", name);
    else if (!em_run_stopped(r))
        expect_close(c, golden, name, host, n, bound);
    em_free(host);
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

bool run_forward(check *c, const char *name, forward_fn *compute, void *arg)
{
    em_err err = {0};
    em_run r;
    rehearsal f = {.ops = c->ops, .pool = c->pool, .dtype = c->dtype, .spare_bytes = 1 << 20};
    rehearse_plan(&f, &r);
    compute(&r, arg);
    if (r.err.code) return report_failure(c, name, &r.err), false;
    em_status st = rehearse_open(&f, &r, &err);
    if (!st) compute(&r, arg);
    em_err failed = st ? err : r.err;
    rehearse_close(&f, &r, &err);
    if (failed.code) return report_failure(c, name, &failed), false;
    return plan_held(c, name, &f);
}

bool plan_held(check *c, const char *name, const rehearsal *f)
{
    char what[128];
    if (f->scratch_bytes == f->planned_scratch_bytes && f->weight_bytes == f->planned_weight_bytes)
        return true;
    snprintf(what, sizeof what, "%s: planned %zu of scratch and %zu of weights, measured %zu, %zu",
             name, f->planned_scratch_bytes, f->planned_weight_bytes, f->scratch_bytes,
             f->weight_bytes);
    expect_true(c, name, false, what);
    return false;
}
