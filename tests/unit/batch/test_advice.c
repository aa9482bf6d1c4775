/* How many jobs at once. */
#include "batch/state.h"

#include "../test.h"

#include <string.h>

enum { MOST = 8 };

/* Advice for `jobs` jobs of one size on so many lanes; NULL: there is none. */
static const char *advice_in(em_memory_mode mode, int jobs, int side, int frames, int lanes)
{
    static char text[200];
    em_batch_job job[MOST] = {0};
    em_batch_item item[MOST] = {0};
    em_batch b = {.item = item, .count = MOST};
    for (int i = 0; i < MOST; i++) {
        job[i].params.sample_size[0] = job[i].params.sample_size[1] = side;
        job[i].params.video_length = frames;
        item[i].job = &job[i];
        item[i].state = i < MOST - jobs ? EM_JOB_KEPT : EM_JOB_WAITING;
    }
    return em_batch_advice(&b, mode, lanes, text, sizeof text) ? text : NULL;
}

static const char *advice(int jobs, int side, int frames, int lanes)
{
    return advice_in(EM_MEMORY_BEEFY, jobs, side, frames, lanes);
}

static void says(const char *text, const char *part)
{
    assert_non_null(text);
    if (!strstr(text, part)) fail_msg("'%s' does not say '%s'", text, part);
}

static void several_at_once_are_better(void **state)
{
    (void)state;
    says(advice(8, 256, 25, 1), "--parallel_jobs 3 took 27 % less time a clip than 1");
    says(advice(8, 256, 25, 1), "(256 x 256 x 25, beefy, one H200)");
    says(advice(2, 256, 25, 1), "--parallel_jobs 2 took 22 % less time a clip than 1");
    says(advice(2, 512, 81, 1), "--parallel_jobs 2 took 8 % less time a clip than 1");
    says(advice(2, 768, 81, 1), "(512 x 512 x 81,");
    says(advice(2, 320, 25, 1), "(256 x 256 x 25,");
    says(advice_in(EM_MEMORY_AUTO, 2, 320, 25, 1), "beefy"); /* as near to it as memory allows */
}

static void too_many_are_not(void **state)
{
    (void)state;
    says(advice(8, 512, 81, 3), "--parallel_jobs 2 was as fast and takes less memory than 3");
    says(advice(8, 512, 81, 8), "than 3");
    assert_null(advice(2, 512, 81, 8)); /* there are never more lanes than jobs */
    says(advice_in(EM_MEMORY_LIGHTWEIGHT, 8, 256, 25, 2),
         "--parallel_jobs 1 took 4 % less time a clip than 2");
    says(advice_in(EM_MEMORY_LIGHTWEIGHT, 8, 256, 25, 2), "lightweight, one H100)");
}

static void nothing_to_say(void **state)
{
    (void)state;
    assert_null(advice(8, 512, 81, 2));
    assert_null(advice_in(EM_MEMORY_LIGHTWEIGHT, 8, 512, 81, 1)); /* 2 gained too little */
    assert_null(advice(1, 512, 81, 1)); /* one job has nobody to share with */
    assert_null(advice(0, 512, 81, 1));
    assert_null(advice(8, 128, 5, 1)); /* nobody measured anything like that */
    assert_null(advice(8, 1024, 321, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_at_once_are_better),
        cmocka_unit_test(too_many_are_not),
        cmocka_unit_test(nothing_to_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
