/* The order of jobs, and the parts of a list. */
#include "batch/state.h"

#include "../test.h"

#include <stdio.h>
#include <string.h>

static void neighbours_are_alike(void **state)
{
    static const struct {
        const char *prompt;
        int side;
    } list[] = {{"b", 512}, {"a", 512}, {"b", 256}, {NULL, 512}, {"a", 512}, {"b", 512}};
    static const size_t want[] = {4, 2, 5, 3, 1, 6};
    enum { N = 6 };
    em_batch_job job[N] = {0};
    em_batch_item item[N] = {0}, *order[N];
    em_batch b = {.item = item, .order = order, .count = N};
    (void)state;
    for (size_t i = 0; i < N; i++) {
        job[i].index = i + 1;
        job[i].params.prompt = list[i].prompt;
        job[i].params.sample_size[0] = job[i].params.sample_size[1] = list[i].side;
        item[i].job = &job[i];
    }
    em_batch_sort(&b);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(order[i]->job->index, want[i]);
        assert_int_equal(order[i]->position, i + 1);
    }
}

/* Each job is in one part of n, for every n; the parts are of like size; where it is depends on
 * nothing but its name. */
static void parts_are_disjoint_and_complete(void **state)
{
    enum { JOBS = 1000, MOST = 12 };
    (void)state;
    for (int n = 1; n <= MOST; n++) {
        int count[MOST + 1] = {0};
        for (int i = 0; i < JOBS; i++) {
            char name[32], capitals[32];
            snprintf(name, sizeof name, "video_%04d", i);
            snprintf(capitals, sizeof capitals, "VIDEO_%04d", i);
            const em_batch_job job = {.name = name, .index = (size_t)i},
                               moved = {.name = capitals, .index = 7};
            int in = 0;
            for (int s = 1; s <= n; s++) {
                if (!em_job_in_shard(&job, s, n)) continue;
                in++;
                count[s]++;
                assert_true(em_job_in_shard(&moved, s, n));
            }
            assert_int_equal(in, 1);
        }
        for (int s = 1; s <= n; s++)
            if (count[s] * n < JOBS * 7 / 10 || count[s] * n > JOBS * 13 / 10)
                fail_msg("part %d of %d has %d jobs of %d", s, n, count[s], (int)JOBS);
    }
    const em_batch_job nameless = {.index = 3};
    assert_true(em_job_in_shard(&nameless, 1, 1));
    assert_true(em_job_in_shard(&nameless, 0, 0)); /* no parts: everything */
    assert_int_equal(em_job_in_shard(&nameless, 1, 2) + em_job_in_shard(&nameless, 2, 2), 1);
}

/* Array jobs of different versions share a folder: the parts of a list are for ever. */
static void parts_never_change(void **state)
{
    static const int want[] = {1, 3, 1, 2, 2, 3, 1, 1};
    (void)state;
    for (int i = 0; i < 8; i++) {
        char name[16];
        int part = 0;
        snprintf(name, sizeof name, "job %d", i);
        const em_batch_job job = {.name = name};
        for (int s = 1; s <= 3; s++)
            if (em_job_in_shard(&job, s, 3)) part = s;
        if (part != want[i]) fail_msg("'%s' is in part %d of 3, it was in %d", name, part, want[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_are_alike),
        cmocka_unit_test(parts_are_disjoint_and_complete),
        cmocka_unit_test(parts_never_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
