#include "pipeline/guidance.h"

#include "../test.h"
#include "device/device.h"
#include "ops/table.h"

/* How many of `steps` steps run the silent branch; they must come first. */
static int guided_steps(int steps, double guidance_scale, double cfg_skip_ratio)
{
    em_step_plan plan[100];
    em_guidance_plan(plan, steps, guidance_scale, cfg_skip_ratio);
    int guided = 0;
    for (int i = 0; i < steps; i++) {
        const em_forward *f = plan[i].forward;
        assert_int_equal(f[EM_BRANCH_AUDIO].kind, EM_FORWARD_COMPUTE);
        assert_int_equal(f[EM_BRANCH_AUDIO].slot, EM_NO_SLOT);
        if (f[EM_BRANCH_SILENT].kind == EM_FORWARD_NONE) continue;
        assert_int_equal(guided, i);
        guided++;
    }
    return guided;
}

static void which_steps(void **state)
{
    (void)state;
    assert_int_equal(guided_steps(8, 6, 0), 8);
    assert_int_equal(guided_steps(8, 1, 0), 0); /* the mode is on above 1 */
    assert_int_equal(guided_steps(8, 1.001, 0), 8);
    assert_int_equal(guided_steps(8, 6, 1), 0);
    assert_int_equal(guided_steps(8, 6, 0.25), 6);
    assert_int_equal(guided_steps(8, 6, 0.3), 6);     /* i >= 5.6 */
    assert_int_equal(guided_steps(10, 6, 0.3), 7);    /* 10 (1 - 0.3) is 7.0 in doubles */
    assert_int_equal(guided_steps(10, 6, 0.9), 1);    /* 0.99..98: one step, as in the reference */
    assert_int_equal(guided_steps(100, 6, 0.57), 44); /* 43.00..01 */
}

static void combination(void **state)
{
    (void)state;
    em_err err = {0};
    em_run r = {.ops = em_ops_ref(), .dtype = EM_F32};
    assert_ok(em_arena_open(&r.arena, &em_device_host, 4096, true, &err), err);
    const float c[2] = {1, 0.5f}, u[2] = {0.5f, 2};
    em_tensor v = em_guidance_combine(&r, em_upload(&r, c, EM_F32, EM_SHAPE(2)),
                                      em_upload(&r, u, EM_F32, EM_SHAPE(2)), 3);
    assert_ok(r.err.code, r.err);
    const float *y = v.data;
    assert_true(y[0] == 2.0f && y[1] == -2.5f);
    em_arena_close(&r.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_steps),
        cmocka_unit_test(combination),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
