/* A run on the reference table in a small poisoned arena, and tensors of float32 literals. */
#ifndef EM_TEST_ON_REF_H
#define EM_TEST_ON_REF_H

#include "ops/table.h"

#include "../test.h"

#include <math.h>

static inline int ref_setup(void **state)
{
    static em_run run;
    em_err err = {0};
    run = (em_run){.ops = em_ops_ref(), .dtype = EM_F32};
    *state = &run;
    return em_arena_open(&run.arena, &em_device_host, 1 << 20, true, &err) ? -1 : 0;
}

static inline int ref_teardown(void **state)
{
    em_run *r = *state;
    em_arena_close(&r->arena);
    return 0;
}

/* T(EM_SHAPE(2, 2), 1, 2, 3, 4) copies the values into scratch; ZERO(EM_SHAPE(2, 2)) is zeros. */
#define T(shape, ...) em_upload(r, (const float[]){__VA_ARGS__}, EM_F32, shape)
#define ZERO(shape) zeros(r, shape)

static inline em_tensor zeros(em_run *r, const int64_t *dim, int ndim)
{
    em_tensor t = em_run_tensor(r, EM_F32, dim, ndim);
    em_fill(r, t, 0);
    return t;
}

/* Values and count; a run that failed fails the test with its sentence. */
#define EXPECT(t, ...)                                                                             \
    expect_values(r, t, (const float[]){__VA_ARGS__},                                              \
                  sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static inline void expect_values(em_run *r, em_tensor t, const float *want, size_t n)
{
    if (r->err.code) fail_msg("%s", r->err.msg);
    assert_int_equal(em_tensor_count(t), n);
    for (size_t i = 0; i < n; i++) {
        float got = em_load_f32(t.data, t.dtype, i);
        if (!(fabsf(got - want[i]) <= 1e-6f * fmaxf(1, fabsf(want[i]))))
            fail_msg("value %zu is %.9g, not %.9g", i, (double)got, (double)want[i]);
    }
}

#define EXPECT_SHAPE(t, shape) expect_shape(t, shape)
static inline void expect_shape(em_tensor t, const int64_t *dim, int ndim)
{
    assert_int_equal(t.ndim, ndim);
    for (int i = 0; i < ndim; i++) assert_int_equal(t.dim[i], dim[i]);
}

#endif
