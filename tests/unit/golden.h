/* Golden files for tests: tensors by name, JSON documents, paths. */
#ifndef EM_TEST_GOLDEN_H
#define EM_TEST_GOLDEN_H

#include "io/ckpt.h"
#include "io/json.h"
#include "io/safetensors.h"

#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN_PATH_BYTES 512

/* tests/golden/NAME */
static inline const char *golden_path(char out[GOLDEN_PATH_BYTES], const char *name)
{
    snprintf(out, GOLDEN_PATH_BYTES, "%s/golden/%s", EM_TEST_DATA, name);
    return out;
}

static inline em_safetensors *golden_tensors(const char *name)
{
    char path[GOLDEN_PATH_BYTES];
    em_err err = {0};
    em_safetensors *file = NULL;
    assert_ok(em_safetensors_open(&file, golden_path(path, name), 0, &err), err);
    return file;
}

static inline json_t *golden_json(const char *name)
{
    char path[GOLDEN_PATH_BYTES];
    em_err err = {0};
    json_t *doc = NULL;
    assert_ok(em_json_load(&doc, golden_path(path, name), 1 << 20, &err), err);
    return doc;
}

/* The tensor BASE + SUFFIX; NULL when the file has none. */
static inline const em_safetensors_entry *golden_find(const em_safetensors *file, const char *base,
                                                      const char *suffix)
{
    char name[EM_TENSOR_NAME_BYTES + 1];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    for (size_t i = 0; i < em_safetensors_count(file); i++) {
        const em_safetensors_entry *e = em_safetensors_at(file, i);
        if (strcmp(e->name, name) == 0) return e;
    }
    return NULL;
}

/* Opens tests/golden/<file>; the caller closes it with em_ckpt_close. */
static inline em_ckpt *golden_open(const char *file)
{
    char path[GOLDEN_PATH_BYTES];
    em_ckpt *g = NULL;
    em_err err = {0};
    assert_ok(em_ckpt_open(&g, golden_path(path, file), &err), err);
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
        if (isnan(d)) return d; /* fails every bound */
        if (d > worst) worst = d;
    }
    return worst;
}

/* ||x - want|| / ||want|| */
static inline double golden_distance(const float *x, const float *want, size_t n)
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
