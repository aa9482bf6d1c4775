#include "models/sizes.h"

#include "../test.h"
#include "../tmpdir.h"

static const em_safetensors_spec tensors[] = {
    {"h.0.w", EM_F32, 2, {3, 4}}, {"h.2.w", EM_F32, 2, {3, 4}},
    {"deep.9.w", EM_F32, 1, {1}}, {"h.x", EM_F32, 1, {2}},
    {"empty", EM_F32, 2, {0, 4}}, {"high.18446744073709551616.w", EM_F32, 1, {1}},
    {"high.0.w", EM_F32, 1, {1}},
};
enum { COUNT = sizeof tensors / sizeof *tensors };

static em_ckpt *ckpt;

static int setup(void **state)
{
    static const float zeros[12];
    em_err err = {0};
    em_safetensors_writer *w = NULL;
    if (tmpdir_setup(state)) return -1;
    const char *path = tmpdir_path(state, "sizes.safetensors");
    assert_ok(em_safetensors_create(&w, path, tensors, COUNT, &err), err);
    for (size_t i = 0; i < COUNT; i++) {
        size_t bytes = sizeof(float);
        for (int d = 0; d < tensors[i].ndim; d++) bytes *= (size_t)tensors[i].dim[d];
        assert_ok(em_safetensors_write(w, i, 0, zeros, bytes, &err), err);
    }
    assert_ok(em_safetensors_commit(&w, &err), err);
    assert_ok(em_ckpt_open(&ckpt, path, &err), err);
    return 0;
}

static int teardown(void **state)
{
    em_ckpt_close(&ckpt);
    return tmpdir_teardown(state);
}

static void dimensions(void **state)
{
    (void)state;
    em_err err = {0};
    em_sizes s = {.ckpt = ckpt, .model = "toy"};
    assert_int_equal(em_sizes_dim(&s, "h.0.w", 2, 0), 3);
    assert_int_equal(em_sizes_dim(&s, "h.0.w", 2, 1), 4);
    assert_int_equal(em_sizes_finish(&s, &err), EM_OK);

    /* The first failure stays, whatever follows. */
    assert_int_equal(em_sizes_dim(&s, "h.0.w", 3, 0), 0);
    assert_int_equal(em_sizes_dim(&s, "nowhere", 1, 0), 0);
    assert_int_equal(em_sizes_finish(&s, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "toy: tensor 'h.0.w' has shape (3, 4), expected 3 dimensions"));

    s = (em_sizes){.ckpt = ckpt, .model = "toy"};
    assert_int_equal(em_sizes_dim(&s, "nowhere", 1, 0), 0);
    assert_int_equal(em_sizes_finish(&s, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "'nowhere' is missing"));

    s = (em_sizes){.ckpt = ckpt, .model = "toy"};
    assert_int_equal(em_sizes_dim(&s, "empty", 2, 0), 0);
    assert_int_equal(em_sizes_finish(&s, &err), EM_MISMATCH);
}

static void expect_blocks(const char *prefix, int64_t want)
{
    em_err err = {0};
    em_sizes s = {.ckpt = ckpt, .model = "toy"};
    assert_int_equal(em_sizes_blocks(&s, prefix), want);
    assert_int_equal(em_sizes_finish(&s, &err), want ? EM_OK : EM_MISMATCH);
}

static void blocks(void **state)
{
    (void)state;
    expect_blocks("h.", 3);    /* block 1 is missing, which is not the end */
    expect_blocks("deep.", 0); /* ten blocks in seven tensors cannot be */
    expect_blocks("high.", 0); /* nor 2^64, which must not wrap to none */
    expect_blocks("none.", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dimensions), cmocka_unit_test(blocks)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
