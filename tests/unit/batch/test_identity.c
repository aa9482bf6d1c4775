/* The identity of a job: what must make a difference, and what must not. */
#include "batch/identity.h"

#include "base/alloc.h"
#include "pipeline/params.h"

#include "../test.h"
#include "../tmpdir.h"

#include <fcntl.h>
#include <time.h>

static em_err err;
static const char models[] = "result version 1\ndevice here\n";

static em_identity make_of(const em_batch_job *job, const char *common)
{
    em_identity id = {0};
    assert_ok(em_identity_make(&id, job, common, &err), err);
    assert_int_equal(strlen(id.hash), 64);
    return id;
}

static em_batch_job job_of(void **state)
{
    em_params p = em_params_default();
    p.prompt = "she speaks";
    return (em_batch_job){.image = (char *)(uintptr_t)tmpdir_text(state, "a.png", "picture"),
                          .audio = (char *)(uintptr_t) "https://x.org/a.wav?sig=1",
                          .name = (char *)(uintptr_t) "a",
                          .params = p};
}

static bool same(const em_batch_job *a, const em_batch_job *b)
{
    em_identity x = make_of(a, models), y = make_of(b, models);
    bool equal = !strcmp(x.hash, y.hash);
    assert_int_equal(equal, !strcmp(x.about, y.about));
    em_identity_close(&x);
    em_identity_close(&y);
    return equal;
}

/* Every parameter that changes frames, changed alone. */
static void parameters_make_a_difference(void **state)
{
    const em_batch_job a = job_of(state);
#define CHANGED(field, value)                                                                      \
    do {                                                                                           \
        em_batch_job b = a;                                                                        \
        b.params.field = value;                                                                    \
        if (same(&a, &b)) fail_msg("%s makes no difference", #field);                              \
    } while (0)
    CHANGED(prompt, "he speaks");
    CHANGED(sampler, EM_SAMPLER_EULER);
    CHANGED(num_inference_steps, 9);
    CHANGED(guidance_scale, 1);
    CHANGED(audio_guidance_scale, 6.5);
    CHANGED(cfg_skip_ratio, 0.5);
    CHANGED(shift, 3);
    CHANGED(seed, 44);
    CHANGED(rng, EM_RNG_CPU);
    CHANGED(rng_sm_count, 100);
    CHANGED(rng_threads_per_sm, 1024);
    CHANGED(video_length, 301);
    CHANGED(sample_size[0], 480);
    CHANGED(sample_size[1], 480);
    CHANGED(fps, 30);
    CHANGED(teacache, EM_TEACACHE_OFF);
    CHANGED(teacache, EM_TEACACHE_REFERENCE);
    CHANGED(teacache_threshold, 0.2);
    CHANGED(num_skip_start_steps, 4);
    CHANGED(riflex_k, 6);
    CHANGED(color_transfer, !a.params.color_transfer);
    CHANGED(crf, 20);
#undef CHANGED
    em_identity x = make_of(&a, models), y = make_of(&a, "result version 2\ndevice here\n");
    assert_string_not_equal(x.hash, y.hash);
    em_identity_close(&x);
    em_identity_close(&y);
}

static void names_and_signatures_make_none(void **state)
{
    const em_batch_job a = job_of(state);
    em_batch_job b = a;
    b.name = (char *)(uintptr_t) "another";
    b.index = 7;
    b.line = 9;
    b.upload_url = (char *)(uintptr_t) "https://y.org/b.mp4?sig=2";
    b.audio = (char *)(uintptr_t) "https://user:word@x.org/a.wav?sig=3#x";
    b.params.resume_path = "x";
    b.params.guidance_scale = 3; /* above 1 its value has no effect */
    assert_true(same(&a, &b));
    b.audio = (char *)(uintptr_t) "https://x.org/b.wav?sig=1";
    assert_false(same(&a, &b));

    em_batch_job off = a, off_too = a;
    off.params.teacache = off_too.params.teacache = EM_TEACACHE_OFF;
    off_too.params.teacache_threshold = 9;
    assert_true(same(&off, &off_too));
    off.params.guidance_scale = off_too.params.guidance_scale = 1;
    off_too.params.audio_guidance_scale = 9;
    assert_true(same(&off, &off_too));
    off.params.rng = off_too.params.rng = EM_RNG_CPU;
    off_too.params.rng_sm_count = 9;
    assert_true(same(&off, &off_too));
}

static void no_secret_is_in_it(void **state)
{
    em_batch_job a = job_of(state);
    a.audio = (char *)(uintptr_t) "https://user:s3cret@x.org/a.wav?sig=s3cret#s3cret";
    a.upload_url = (char *)(uintptr_t) "https://x.org/s3cret";
    em_identity id = make_of(&a, models);
    assert_null(strstr(id.about, "s3cret"));
    assert_non_null(strstr(id.about, "https://x.org/a.wav\n"));
    em_identity_close(&id);
}

/* A file is its path, its size and its time; the same under a link. */
static void files(void **state)
{
    const em_batch_job a = job_of(state);
    em_identity before = make_of(&a, models), after;
    em_batch_job linked = a;
    linked.image = (char *)(uintptr_t)tmpdir_path(state, "link.png");
    assert_int_equal(symlink(a.image, linked.image), 0);
    assert_true(same(&a, &linked));

    const struct timespec then[2] = {{.tv_sec = 1000}, {.tv_sec = 1000, .tv_nsec = 7}};
    assert_int_equal(utimensat(AT_FDCWD, a.image, then, 0), 0);
    after = make_of(&a, models);
    assert_string_not_equal(before.hash, after.hash);
    assert_true(em_identity_same_but_inputs(before.about, after.about));
    em_identity_close(&after);
    unlink(a.image);
    after = make_of(&a, models);
    assert_non_null(strstr(after.about, "a.png', missing"));
    em_identity_close(&after);
    em_identity_close(&before);
}

static void differences_are_said(void **state)
{
    const em_batch_job a = job_of(state);
    em_batch_job b = a;
    char said[200];
    b.params.seed = 44;
    em_identity x = make_of(&a, models), y = make_of(&b, models);
    assert_string_equal(em_identity_difference(said, sizeof said, x.about, y.about),
                        "seed 43, now seed 44");
    assert_string_equal(em_identity_difference(said, sizeof said, x.about, x.about), "");
    assert_false(em_identity_same_but_inputs(x.about, y.about));
    assert_true(em_identity_same_but_inputs(x.about, x.about));
    assert_false(em_identity_same_but_inputs("", ""));
    em_identity_close(&x);
    em_identity_close(&y);
}

static void hashes_of_files(void **state)
{
    em_ledger_file f = {0}, g = {0};
    assert_ok(em_identity_of_file(&f, tmpdir_text(state, "abc", "abc"), &err), err);
    assert_int_equal(f.size_bytes, 3);
    assert_string_equal(f.sha256,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(em_identity_stat(&g, tmpdir_path(state, "abc")));
    assert_true(g.mtime_ns == f.mtime_ns && g.size_bytes == 3);
    assert_string_equal(g.sha256, "");
    assert_int_equal(em_identity_of_file(&f, tmpdir_path(state, "none"), &err), EM_IO);
    assert_false(em_identity_stat(&g, tmpdir_path(state, "none")));
    assert_false(em_identity_stat(&g, ((tmpdir *)*state)->path));
}

static void every_allocation_may_fail(void **state)
{
    const em_batch_job a = job_of(state);
    em_identity id = {0};
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_alloc_fail_at(n, false);
        st = em_identity_make(&id, &a, models, &err);
        em_alloc_fail_at(0, false);
        if (st) {
            assert_int_equal(st, EM_NOMEM);
            assert_null(id.about);
        }
        assert_true(n < 50);
    }
    em_identity_close(&id);
}

#define IN_TMPDIR(test) cmocka_unit_test_setup_teardown(test, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(parameters_make_a_difference), IN_TMPDIR(names_and_signatures_make_none),
        IN_TMPDIR(no_secret_is_in_it),           IN_TMPDIR(files),
        IN_TMPDIR(differences_are_said),         IN_TMPDIR(hashes_of_files),
        IN_TMPDIR(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
