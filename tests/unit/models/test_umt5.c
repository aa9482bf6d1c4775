#include "models/umt5.h"

#include "../tiny_checkpoint.h"

static const em_umt5_config tiny = {
    .heads = 4,
    .max_tokens = 512,
    .vocab = 512,
    .dim = 64,
    .dim_attn = 64,
    .dim_ffn = 128,
    .layers = 3,
    .buckets = 32,
};

static em_ckpt *tiny_ckpt(const em_umt5_config *cfg)
{
    em_inventory list = {0};
    em_binder *walk = tiny_walk_begin(&list);
    em_umt5_visit(walk, cfg);
    return tiny_walk_end(&walk, &list, "t5", EM_BF16);
}

typedef struct fixture {
    em_ckpt *ckpt;
    em_umt5 *model;
} fixture;

static int setup(void **state)
{
    em_err err = {0};
    fixture *f = calloc(1, sizeof *f);
    em_umt5_config cfg = {.heads = tiny.heads, .max_tokens = tiny.max_tokens};
    f->ckpt = tiny_ckpt(&tiny);
    assert_ok(em_umt5_config_read(&cfg, f->ckpt, &err), err);
    assert_memory_equal(&cfg, &tiny, sizeof tiny);
    assert_ok(em_umt5_open(&f->model, &cfg, f->ckpt, NULL, &err), err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    em_umt5_close(&f->model);
    em_ckpt_close(&f->ckpt);
    free(f);
    return 0;
}

typedef struct comparison {
    const em_umt5 *model;
    em_safetensors *goldens;
    double bound;
} comparison;

static void compare_with_golden(em_run *r, void *arg)
{
    comparison *c = arg;
    const em_safetensors_entry *ids = golden_find(c->goldens, "ids", "");
    assert_int_equal(ids->dtype, EM_I32);
    em_tensor y = em_umt5_forward(r, c->model, ids->data, ids->dim[0]);
    if (!r->plans) tiny_expect(r, y, c->goldens, "out", c->bound);
}

/* Both goldens: a sentence of 11 tokens, and 200 tokens, which visit every distance bucket. */
static void compare(void **state, em_dtype dtype, double bound)
{
    fixture *f = *state;
    const char *files[] = {"tiny/t5.safetensors", "tiny/t5_long.safetensors"};
    for (int i = 0; i < 2; i++) {
        comparison c = {.model = f->model, .goldens = golden_tensors(files[i]), .bound = bound};
        tiny_run_everywhere(dtype, compare_with_golden, &c);
        em_safetensors_close(&c.goldens);
    }
}

static void equals_the_reference(void **state)
{
    compare(state, EM_F32, 2e-5);
}

/* No farther than the reference's own bfloat16 run (tiny/report.json). */
static const double reference_bf16 = 0.012324463452690422;

static void is_as_good_in_bfloat16(void **state)
{
    compare(state, EM_BF16, reference_bf16);
}

typedef struct copy_out {
    const em_umt5 *model;
    float rows[3 * 64];
} copy_out;

static void keep_rows(em_run *r, void *arg)
{
    static const int32_t ids[] = {7, 300, 1};
    copy_out *c = arg;
    em_download(r, em_umt5_forward(r, c->model, ids, 3), c->rows);
}

/* Half precision would overflow with the released weights: the encoder takes bfloat16 instead. */
static void stays_wider_in_float16(void **state)
{
    fixture *f = *state;
    copy_out half = {.model = f->model}, bfloat = half;
    tiny_run(em_ops_ref(), EM_F16, keep_rows, &half);
    tiny_run(em_ops_ref(), EM_BF16, keep_rows, &bfloat);
    assert_memory_equal(half.rows, bfloat.rows, sizeof half.rows);
}

static em_status forward_status(const em_umt5 *m, const int32_t *ids, int64_t n)
{
    em_err err = {0};
    em_run r = {.ops = em_ops_ref(), .dtype = EM_F16};
    assert_ok(em_arena_open(&r.arena, &em_device_host, 1 << 20, true, &err), err);
    assert_true(em_tensor_is_empty(em_umt5_forward(&r, m, ids, n)));
    assert_int_equal(r.dtype, EM_F16);
    em_arena_close(&r.arena);
    return r.err.code;
}

static void refuses_bad_tokens(void **state)
{
    fixture *f = *state;
    static const int32_t too_many[513], beyond[] = {5, 512}, negative[] = {-1};
    assert_int_equal(forward_status(f->model, too_many, 513), EM_INVAL);
    assert_int_equal(forward_status(f->model, too_many, 0), EM_INVAL);
    assert_int_equal(forward_status(f->model, beyond, 2), EM_INVAL);
    assert_int_equal(forward_status(f->model, negative, 1), EM_INVAL);
}

static void refuses_numbers_that_do_not_fit(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_umt5_config cfg = {.heads = 5, .max_tokens = 512};
    assert_int_equal(em_umt5_config_read(&cfg, f->ckpt, &err), EM_MISMATCH);
    assert_int_equal(cfg.dim, 0);
    cfg = (em_umt5_config){.heads = 4};
    assert_int_equal(em_umt5_config_read(&cfg, f->ckpt, &err), EM_MISMATCH);

    /* Heads that divide the width, but are not the table's. */
    em_umt5 *m = NULL;
    cfg = (em_umt5_config){.heads = 8, .max_tokens = 512};
    assert_ok(em_umt5_config_read(&cfg, f->ckpt, &err), err);
    assert_int_equal(em_umt5_open(&m, &cfg, f->ckpt, NULL, &err), EM_MISMATCH);
    assert_null(m);
    assert_non_null(strstr(err.msg, "pos_embedding"));

    em_umt5_config few = tiny;
    few.buckets = 3;
    em_ckpt *ckpt = tiny_ckpt(&few);
    assert_int_equal(em_umt5_config_read(&few, ckpt, &err), EM_MISMATCH);
    em_ckpt_close(&ckpt);
}

static void survives_failing_allocations(void **state)
{
    fixture *f = *state;
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_umt5 *m = NULL;
        em_err err = {0};
        em_alloc_fail_at(n, false);
        st = em_umt5_open(&m, &tiny, f->ckpt, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true((st == EM_OK) == (m != NULL));
        em_umt5_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(is_as_good_in_bfloat16),
        cmocka_unit_test(stays_wider_in_float16),
        cmocka_unit_test(refuses_bad_tokens),
        cmocka_unit_test(refuses_numbers_that_do_not_fit),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
