/* Golden files for tests: tensors by name, JSON documents, paths. */
#ifndef EM_TEST_GOLDEN_H
#define EM_TEST_GOLDEN_H

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

/* |got - want| / |want| over n values. */
static inline double golden_distance(const float *got, const float *want, size_t n)
{
    double num = 0.0, den = 0.0;
    for (size_t i = 0; i < n; i++) {
        num += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        den += (double)want[i] * want[i];
    }
    return sqrt(num / (den > 0.0 ? den : 1.0));
}

#endif
