/* Rates: what a request teaches the next forecast, in this engine and through the file. */
#include "pipeline/rates.h"

#include "../test.h"
#include "../tmpdir.h"
#include "far/far.h"

#include <stdio.h>

static em_rates open_rates(const char *device, const char *path)
{
    em_rates r;
    const em_rates_params p = {.ops = em_ops_find(device), .dtype = EM_BF16, .path = path};
    em_rates_open(&r, &p);
    return r;
}

/* A request whose stages took so long for 1e12 operations each. */
static em_result request(double ms, int replayed)
{
    em_result r = {.forwards = 16, .forwards_replayed = replayed};
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        r.stage[s] = (em_stage_report){.ms = ms, .flops = 1e12};
    return r;
}

static double forecast(const em_rates *r, em_stage s, bool replayed)
{
    const em_stage_work w = {.stage = s, .replayed = replayed, .flops = 1e12, .products = 100};
    return em_rates_stage_ms(r, &w);
}

static int set_up(void **state)
{
    far_register();
    return tmpdir_setup(state);
}

static void replayed_steps_have_their_own(void **state)
{
    const tmpdir *t = *state;
    char path[300];
    snprintf(path, sizeof path, "%s/folder/rates.json", t->path);
    em_rates r = open_rates("far", path);
    double assumed = forecast(&r, EM_STAGE_DENOISE, false);
    assert_false(em_rates_measured(&r));
    assert_true(assumed > 0 && assumed == forecast(&r, EM_STAGE_DENOISE, true));
    em_result first = request(300, 14), second = request(400, 0);
    em_rates_learn(&r, &first);
    assert_true(em_rates_measured(&r));
    for (int replayed = 0; replayed < 2; replayed++) /* one speaks for the other */
        assert_float_equal(forecast(&r, EM_STAGE_DENOISE, replayed), 300, 1e-6);
    em_rates_learn(&r, &second);
    em_rates_close(&r);
    r = open_rates("far", path);
    assert_float_equal(forecast(&r, EM_STAGE_DENOISE, true), 300, 1e-6);
    assert_float_equal(forecast(&r, EM_STAGE_DENOISE, false), 400, 1e-6);
    for (int replayed = 0; replayed < 2; replayed++) /* of the others there is one, the last */
        assert_float_equal(forecast(&r, EM_STAGE_DECODE, replayed), 400, 1e-6);
    em_rates_close(&r);
    r = open_rates("cpu", path);
    assert_false(em_rates_measured(&r)); /* another device's are not its own */
    em_rates_close(&r);
}

/* A device that waits for weights is no slower for that; one without a clock does not say. */
static void waiting_is_no_work(void **state)
{
    (void)state;
    em_rates r = open_rates("far", NULL);
    em_result q = request(300, 0);
    q.stage[EM_STAGE_DENOISE].copy_waited_ms = 100;
    q.stage[EM_STAGE_DECODE].copy_waited_ms = -1;
    em_rates_learn(&r, &q);
    assert_float_equal(forecast(&r, EM_STAGE_DENOISE, false), 200, 1e-6);
    assert_float_equal(forecast(&r, EM_STAGE_DECODE, false), 300, 1e-6);
    em_rates_close(&r);
}

/* Copies beside the computation count where they take longer; on the host everything is a sum. */
static void the_longer_counts(void **state)
{
    (void)state;
    em_stage_work w = {.stage = EM_STAGE_TEXT, .flops = 1e12};
    em_rates r = open_rates("far", NULL);
    double compute = em_rates_stage_ms(&r, &w);
    w.copied_bytes = 0.5 * compute * r.copy_bytes_per_ms;
    assert_float_equal(em_rates_stage_ms(&r, &w), compute, 1e-6);
    w.copied_bytes *= 4;
    assert_float_equal(em_rates_stage_ms(&r, &w), 2 * compute, 1e-6);
    w.packed_bytes = 3 * compute * r.pack_bytes_per_ms;
    assert_float_equal(em_rates_stage_ms(&r, &w), 3 * compute, 1e-6);
    em_rates_close(&r);
    r = open_rates("cpu", NULL);
    w.packed_bytes = 0;
    compute = em_rates_stage_ms(&r, &w);
    w.packed_bytes = compute * r.pack_bytes_per_ms;
    assert_float_equal(em_rates_stage_ms(&r, &w), 2 * compute, 1e-6);
    em_rates_close(&r);
}

/* What took no time to speak of, or did nothing, teaches nothing; what is no rate in a file is
 * passed over. */
static void nonsense_teaches_nothing(void **state)
{
    const tmpdir *t = *state;
    char path[300];
    snprintf(path, sizeof path, "%s/rates.json", t->path);
    em_rates r = open_rates("far", path);
    double assumed = forecast(&r, EM_STAGE_DENOISE, false);
    em_result quick = request(1, 0), idle = request(100, 0);
    for (int s = 0; s < EM_STAGE_COUNT; s++) idle.stage[s].flops = 0;
    em_rates_learn(&r, &quick);
    em_rates_learn(&r, &idle);
    assert_false(em_rates_measured(&r));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"%s\": {\"denoise\": -3, \"replay\": \"fast\", \"copy\": 1e99}}", r.key);
    fclose(f);
    em_rates_close(&r);
    r = open_rates("far", path);
    assert_false(em_rates_measured(&r));
    assert_true(forecast(&r, EM_STAGE_DENOISE, true) == assumed);
    em_rates_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(replayed_steps_have_their_own, set_up, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(waiting_is_no_work, set_up, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(the_longer_counts, set_up, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(nonsense_teaches_nothing, set_up, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
