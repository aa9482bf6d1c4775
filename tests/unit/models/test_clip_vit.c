#include "models/clip_vit.h"

#include "../tiny_checkpoint.h"

static const em_clip_vit_config tiny = {
    .heads = 5,
    .dim = 80,
    .ffn = 320,
    .layers = 4,
    .patch = 14,
    .grid = 16,
    .embed_dim = 32,
    .text_dim = 32,
    .text_layers = 1,
    .text_vocab = 64,
    .text_positions = 16,
};

static em_ckpt *tiny_ckpt(const em_clip_vit_config *cfg)
{
    em_inventory list = {0};
    em_binder *walk = tiny_walk_begin(&list);
    em_clip_vit_visit(walk, cfg);
    return tiny_walk_end(&walk, &list, "clip", EM_BF16);
}

typedef struct fixture {
    em_ckpt *ckpt;
    em_clip_vit *model;
    em_safetensors *goldens;
    float *image; /* (H, W, 3) in [-1, 1] */
    double bound;
} fixture;

/* Counts what the binder says, to see that nothing of a released file is called surplus. */
static void count_message(void *user, em_level level, const char *msg)
{
    (void)level;
    print_message("%s\n", msg);
    ++*(int *)user;
}

static int setup(void **state)
{
    em_err err = {0};
    int messages = 0;
    em_log log = {count_message, &messages};
    fixture *f = calloc(1, sizeof *f);
    em_clip_vit_config cfg = {.heads = tiny.heads};
    f->ckpt = tiny_ckpt(&tiny);
    assert_ok(em_clip_vit_config_read(&cfg, f->ckpt, &err), err);
    assert_int_equal(cfg.dim, tiny.dim);
    assert_int_equal(cfg.ffn, tiny.ffn);
    assert_int_equal(cfg.layers, tiny.layers);
    assert_int_equal(cfg.patch, tiny.patch);
    assert_int_equal(cfg.grid, tiny.grid);
    assert_ok(em_clip_vit_open(&f->model, &cfg, f->ckpt, &log, &err), err);
    assert_int_equal(messages, 0);
    f->goldens = golden_tensors("tiny/clip.safetensors");
    size_t n;
    f->image = tiny_floats(golden_find(f->goldens, "image", ""), &n);
    for (size_t i = 0; i < n; i++) f->image[i] = f->image[i] / 127.5f - 1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    em_clip_vit_close(&f->model);
    em_ckpt_close(&f->ckpt);
    em_safetensors_close(&f->goldens);
    free(f->image);
    free(f);
    return 0;
}

static void compare_with_goldens(em_run *r, void *arg)
{
    fixture *f = arg;
    const em_safetensors_entry *picture = golden_find(f->goldens, "image", "");
    em_clip_vit_taps taps = {0};
    em_tensor image = em_upload(r, f->image, EM_F32, picture->dim, 3);
    em_tensor y = em_clip_vit_forward(r, f->model, image, &taps);
    em_tensor first = em_channels_first(r, taps.resized);
    if (r->plans) return;
    tiny_expect(r, first, f->goldens, "resized", 2e-5); /* float32 in every run */
    tiny_expect(r, y, f->goldens, "out", f->bound);
}

static void compare(void **state, em_dtype dtype, double bound)
{
    fixture *f = *state;
    f->bound = bound;
    tiny_run_everywhere(dtype, compare_with_goldens, f);
}

static void equals_the_reference(void **state)
{
    compare(state, EM_F32, 2e-5);
}

/* No farther than the reference's own bfloat16 run (tiny/report.json). */
static const double reference_bf16 = 0.009267035445413092;

static void is_as_good_in_bfloat16(void **state)
{
    compare(state, EM_BF16, reference_bf16);
}

static void is_as_good_in_float16(void **state)
{
    compare(state, EM_F16, reference_bf16);
}

static void refuses_what_is_no_picture(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_run r = {.ops = em_ops_ref(), .dtype = EM_F32};
    assert_ok(em_arena_open(&r.arena, &em_device_host, 1 << 20, true, &err), err);
    em_tensor gray = em_tensor_of(f->image, EM_F32, EM_SHAPE(16, 16, 1));
    assert_true(em_tensor_is_empty(em_clip_vit_forward(&r, f->model, gray, NULL)));
    assert_int_equal(r.err.code, EM_INVAL);
    em_arena_close(&r.arena);
}

static void refuses_numbers_that_do_not_fit(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_clip_vit_config cfg = {.heads = 3};
    assert_int_equal(em_clip_vit_config_read(&cfg, f->ckpt, &err), EM_MISMATCH);
    assert_int_equal(cfg.dim, 0);

    em_clip_vit_config single = tiny;
    single.layers = 1;
    em_ckpt *ckpt = tiny_ckpt(&single);
    assert_int_equal(em_clip_vit_config_read(&single, ckpt, &err), EM_MISMATCH);
    em_ckpt_close(&ckpt);
}

static void survives_failing_allocations(void **state)
{
    fixture *f = *state;
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_clip_vit *m = NULL;
        em_err err = {0};
        em_alloc_fail_at(n, false);
        st = em_clip_vit_open(&m, em_clip_vit_sizes(f->model), f->ckpt, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true((st == EM_OK) == (m != NULL));
        em_clip_vit_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(is_as_good_in_bfloat16),
        cmocka_unit_test(is_as_good_in_float16),
        cmocka_unit_test(refuses_what_is_no_picture),
        cmocka_unit_test(refuses_numbers_that_do_not_fit),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
