/* Goldens for tests: tests/golden/<set>/<file>, and the distances that their bounds are stated
 * in. */
#ifndef EM_TEST_GOLDEN_H
#define EM_TEST_GOLDEN_H

#include "io/ckpt.h"
#include "test.h"

#include <math.h>
#include <stdio.h>

/* Opens tests/golden/<file>; the caller closes it with em_ckpt_close. */
static inline em_ckpt *golden_open(const char *file)
{
    char path[1024];
    em_ckpt *g = NULL;
    em_err err = {0};
    snprintf(path, sizeof path, EM_TEST_DATA "/golden/%s", file);
    assert_ok(em_ckpt_open(&g, path, &err), err);
    return g;
}

/* The tensor `name`; a missing one, or one of another type, fails the test. */
static inline const em_ckpt_tensor *golden_get(const em_ckpt *g, const char *name, em_dtype dtype)
{
    const em_ckpt_tensor *t = em_ckpt_find(g, name);
    if (!t || t->dtype != dtype) fail_msg("no %s tensor '%s'", em_dtype_name(dtype), name);
    return t;
}

static inline size_t golden_count(const em_ckpt_tensor *t)
{
    return t->size_bytes / em_dtype_bytes(t->dtype);
}

static inline double golden_max_abs(const float *x, const float *want, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - (double)want[i]);
        if (!(d <= worst)) worst = d; /* a NaN stays */
    }
    return worst;
}

/* ||x - want|| / ||want|| */
static inline double golden_rel_l2(const float *x, const float *want, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)want[i];
        num += d * d;
        den += (double)want[i] * (double)want[i];
    }
    return sqrt(num / den);
}

#endif
