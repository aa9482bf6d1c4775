/* How many jobs at once. */
#include "batch/state.h"

#include "../test.h"

#include <string.h>

enum { MOST = 8 };

/* Advice for `jobs` jobs of one size on so many lanes; NULL: there is none. */
static const char *advice(int jobs, int side, int frames, int lanes)
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
    return em_batch_advice(&b, lanes, text, sizeof text) ? text : NULL;
}

static void says(const char *text, const char *part)
{
    assert_non_null(text);
    if (!strstr(text, part)) fail_msg("'%s' does not say '%s'", text, part);
}

static void two_at_once_are_better(void **state)
{
    (void)state;
    says(advice(8, 256, 25, 1), "--parallel_jobs 2 took 20 % less time a clip than 1");
    says(advice(8, 256, 25, 1), "(256 x 256 x 25,");
    says(advice(2, 512, 81, 1), "--parallel_jobs 2 took 6 % less time a clip than 1");
    says(advice(2, 768, 81, 1), "(512 x 512 x 81,");
    says(advice(2, 320, 25, 1), "(256 x 256 x 25,");
}

static void more_than_two_are_not(void **state)
{
    (void)state;
    says(advice(8, 512, 81, 3), "--parallel_jobs 2 took 1 % less time a clip than 3");
    says(advice(8, 256, 25, 3), "--parallel_jobs 2 was as fast and takes less memory than 3");
    says(advice(8, 512, 81, 8), "than 3");
}

static void nothing_to_say(void **state)
{
    (void)state;
    assert_null(advice(8, 512, 81, 2));
    assert_null(advice(1, 512, 81, 1)); /* one job has nobody to share with */
    assert_null(advice(0, 512, 81, 1));
    assert_null(advice(8, 128, 5, 1)); /* nobody measured anything like that */
    assert_null(advice(8, 1024, 321, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_at_once_are_better),
        cmocka_unit_test(more_than_two_are_not),
        cmocka_unit_test(nothing_to_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
