#include "pipeline/params.h"

#include "../test.h"

#include <math.h>
#include <string.h>

static void defaults_are_in_range(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = em_params_default();
    assert_ok(em_params_check(&p, &err), err);
}

/* The two ends of a number's range, what lies just beyond them, and its field. */
typedef struct edge {
    const char *flag;
    double least, most, step;
    int *whole;
    double *real;
} edge;

static void set(const edge *e, double v)
{
    if (e->whole)
        *e->whole = (int)v;
    else
        *e->real = v;
}

static void check(em_params *p, const edge *e, double v, em_status want)
{
    em_err err = {0};
    em_params before = *p;
    set(e, v);
    em_status st = em_params_check(p, &err);
    if (st != want) fail_msg("%s = %g: %s", e->flag, v, st ? err.msg : "accepted");
    if (st && (strncmp(err.msg, e->flag, strlen(e->flag)) || !strstr(err.msg, "between")))
        fail_msg("%s = %g: \"%s\" names neither flag nor range", e->flag, v, err.msg);
    *p = before;
}

static void every_number_has_two_ends(void **state)
{
    (void)state;
    em_params p = em_params_default();
    const edge edges[] = {
        {"video_length", 1, 4093, 1, &p.video_length, NULL},
        {"num_inference_steps", 1, 1000, 1, &p.num_inference_steps, NULL},
        {"guidance_scale", 0, 100, 0.01, NULL, &p.guidance_scale},
        {"audio_guidance_scale", 0, 100, 0.01, NULL, &p.audio_guidance_scale},
        {"teacache_threshold", 0, 10, 0.01, NULL, &p.teacache_threshold},
        {"num_skip_start_steps", 0, 1000, 1, &p.num_skip_start_steps, NULL},
        {"sample_size", 16, 4096, 1, &p.sample_size[0], NULL},
        {"sample_size", 16, 4096, 1, &p.sample_size[1], NULL},
        {"fps", 1, 120, 1, &p.fps, NULL},
        {"shift", 0.01, 100, 0.001, NULL, &p.shift},
        {"riflex_k", 1, 1024, 2, &p.riflex_k, NULL},
        {"cfg_skip_ratio", 0, 1, 0.01, NULL, &p.cfg_skip_ratio},
        {"crf", 0, 51, 1, &p.crf, NULL},
        {"rng_sm_count", 1, 4096, 1, &p.rng_sm_count, NULL},
        {"rng_threads_per_sm", 256, 4096, 1, &p.rng_threads_per_sm, NULL},
    };
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        const edge *e = &edges[i];
        check(&p, e, e->least, EM_OK);
        check(&p, e, e->most, EM_OK);
        check(&p, e, e->least - e->step, EM_INVAL);
        check(&p, e, e->most + e->step, EM_INVAL);
        if (e->real) {
            check(&p, e, NAN, EM_INVAL);
            check(&p, e, INFINITY, EM_INVAL);
        }
        double least = -1, most = -1;
        assert_true(em_params_range(e->flag, &least, &most));
        assert_true(least == e->least && most == e->most);
    }
}

static void zero_means_not_given_for_two(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = em_params_default();
    p.shift = 0;
    p.riflex_k = 0;
    assert_ok(em_params_check(&p, &err), err);
    p.riflex_k = -1;
    assert_int_equal(em_params_check(&p, &err), EM_INVAL);
}

static void seeds_are_not_negative(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = em_params_default();
    p.seed = INT64_MAX;
    assert_ok(em_params_check(&p, &err), err);
    p.seed = 0;
    assert_ok(em_params_check(&p, &err), err);
    p.seed = -1;
    assert_int_equal(em_params_check(&p, &err), EM_INVAL);
    p.seed = INT64_MIN;
    assert_int_equal(em_params_check(&p, &err), EM_INVAL);
}

static void a_prompt_may_be_empty_but_not_missing(void **state)
{
    (void)state;
    em_err err = {0};
    em_params p = em_params_default();
    p.prompt = "";
    assert_ok(em_params_check(&p, &err), err);
    p.prompt = NULL;
    assert_int_equal(em_params_check(&p, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "prompt"));
}

static void other_flags_have_no_range(void **state)
{
    (void)state;
    double least = 7, most = 8;
    assert_false(em_params_range("prompt", &least, &most));
    assert_false(em_params_range("", &least, &most));
    assert_true(least == 7 && most == 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_in_range),
        cmocka_unit_test(every_number_has_two_ends),
        cmocka_unit_test(zero_means_not_given_for_two),
        cmocka_unit_test(seeds_are_not_negative),
        cmocka_unit_test(a_prompt_may_be_empty_but_not_missing),
        cmocka_unit_test(other_flags_have_no_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
