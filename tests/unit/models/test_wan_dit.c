#include "models/wan_dit.h"

#include "../tiny_checkpoint.h"

#include <math.h>

static const em_dit_config tiny = {
    .dim = 256,
    .ffn_dim = 512,
    .heads = 2,
    .layers = 3,
    .freq_dim = 64,
    .text_dim = 64,
    .text_len = 512,
    .in_dim = 36,
    .out_dim = 16,
    .patch_h = 2,
    .patch_w = 2,
    .clip_dim = 80,
    .audio_dim = 4 * 64,
    .audio_intermediate = 48,
    .audio_tokens = 8,
    .eps = 1e-6,
};

typedef struct fixture {
    em_ckpt *ckpt;
    em_dit *dit;
    em_ckpt *golden;
    float *rope; /* host room */
    em_dtype dtype;
} fixture;

static em_ckpt *tiny_dit_checkpoint(void)
{
    em_inventory list = {0};
    em_binder *walk = tiny_walk_begin(&list);
    em_dit_visit(walk, &tiny);
    return tiny_walk_end(&walk, &list, "transformer", EM_BF16);
}

static int setup(void **state)
{
    static fixture f;
    em_err err = {0};
    em_dit_config cfg = {.heads = 2, .layers = 3};
    f.ckpt = tiny_dit_checkpoint();
    assert_ok(em_dit_config_read(&cfg, f.ckpt, &err), err);
    assert_memory_equal(&cfg, &tiny, sizeof cfg);
    assert_ok(em_dit_open(&f.dit, &cfg, f.ckpt, NULL, &err), err);
    f.golden = golden_open("tiny/dit.safetensors");
    f.rope = em_alloc_array(em_dit_rope_count(&cfg, (em_dit_grid){8, 16, 16}), sizeof *f.rope);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    em_free(f->rope);
    em_dit_close(&f->dit);
    em_ckpt_close(&f->ckpt);
    em_ckpt_close(&f->golden);
    return 0;
}

/* A golden as a tensor on the device. */
static em_tensor input(em_run *r, const fixture *f, const char *name)
{
    const em_ckpt_tensor *t = golden_get(f->golden, name, EM_F32);
    return em_upload(r, t->data, EM_F32, t->dim, t->ndim);
}

static void expect(em_run *r, const fixture *f, em_tensor got, const char *name, double bound)
{
    if (r->plans || r->err.code) return;
    const em_ckpt_tensor *want = golden_get(f->golden, name, EM_F32);
    assert_int_equal(em_tensor_count(got), golden_count(want));
    em_mark m = em_run_mark(r);
    em_tensor x = em_cast(r, got, EM_F32);
    tiny_see(r, x);
    float *host = tiny_values(r, x);
    double d = golden_distance(host, want->data, golden_count(want));
    free(host);
    print_message("    %-16s %.2e of %.2e\n", name, d, bound);
    if (!(d <= bound)) fail_msg("'%s' is %.3e from the golden, bound %.3e", name, d, bound);
    em_run_release(r, m);
}

/* Every tensor that the golden names, on one path through the model. */
static void whole_forward(em_run *r, void *arg)
{
    const fixture *f = arg;
    const em_dit *m = f->dit;
    double bound = f->dtype == EM_F32 ? 2e-5 : 0.007, loose = f->dtype == EM_F32 ? 2e-5 : 0.01;
    em_mark start = em_run_mark(r);
    em_dit_grid g = {4, 8, 6};
    em_tensor context = input(r, f, "context"), clip = input(r, f, "clip"),
              audio = input(r, f, "audio");

    expect(r, f, em_dit_text_tokens(r, m, context), "text_tokens", loose);
    expect(r, f, em_dit_image_tokens(r, m, clip), "image_tokens", loose);
    expect(r, f, em_dit_audio_tokens(r, m, audio, g.frames), "audio_tokens", loose);

    em_dit_cond cond = {.grid = g};
    cond.text = em_dit_text(r, m, context);
    cond.image = em_dit_image(r, m, clip);
    cond.audio = em_dit_audio(r, m, audio, g.frames);
    em_dit_rope_fill(&tiny, g, 0, f->rope);
    cond.rope = em_dit_rope(r, m, g, f->rope);
    cond.taps = em_run_keep(r, EM_F32, EM_SHAPE(3, 48, 256));
    em_dit_kv silence = em_dit_audio(r, m, (em_tensor){0}, g.frames);
    const float *t = golden_get(f->golden, "t", EM_F32)->data;
    em_dit_time time = em_dit_time_embed(r, m, t[0]);
    expect(r, f, time.e, "time_embedding", loose);
    expect(r, f, time.e0, "time_projection", loose);

    em_tensor x = em_dit_embed(r, m, input(r, f, "x"), input(r, f, "y"));
    em_dit_blocks(r, m, x, &time, &cond);
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "block.%d", i);
        expect(r, f, em_at(cond.taps, i), name, bound);
    }
    expect(r, f, em_dit_head(r, m, x, &time, g), "out.cond", bound);

    cond.audio = silence;
    x = em_dit_embed(r, m, input(r, f, "x"), input(r, f, "y"));
    em_dit_blocks(r, m, x, &time, &cond);
    expect(r, f, em_dit_head(r, m, x, &time, g), "out.uncond", bound);

    cond.audio = em_dit_audio(r, m, audio, g.frames);
    em_dit_rope_fill(&tiny, g, 6, f->rope);
    cond.rope = em_dit_rope(r, m, g, f->rope);
    x = em_dit_embed(r, m, input(r, f, "x"), input(r, f, "y"));
    em_dit_blocks(r, m, x, &time, &cond);
    expect(r, f, em_dit_head(r, m, x, &time, g), "out.cond.riflex", bound);
    em_run_release_all(r, start);
}

static void equals_the_reference(void **state)
{
    fixture *f = *state;
    f->dtype = EM_F32;
    tiny_run_everywhere(f->dtype, whole_forward, f);
}

static void bfloat16_is_no_farther_than_the_references(void **state)
{
    fixture *f = *state;
    f->dtype = EM_BF16;
    tiny_run_everywhere(f->dtype, whole_forward, f);
}

/* Angles of the tables, position by position along each axis; float32 cos and sin keep 1e-6 of
 * them. */
static void rotary_angles(void **state)
{
    fixture *f = *state;
    const float *want = golden_get(f->golden, "rope.freqs_angle", EM_F32)->data; // (8, 64)
    em_dit_grid g = {8, 16, 16};
    em_dit_rope_fill(&tiny, g, 0, f->rope);
    for (int i = 0; i < 8; i++)
        for (int p = 0; p < 64; p++) {
            const float *cs = f->rope + ((size_t)(i * 64 + i * 8 + i) * 64 + (size_t)p) * 2;
            double diff = remainder(atan2(cs[1], cs[0]) - want[i * 64 + p], 2 * M_PI);
            assert_true(fabs(diff) < 2e-6);
        }
}

/* Everything wrong with a file is reported in one go. */
static void reports_all_problems(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_dit_config wrong = tiny;
    em_dit *m = NULL;
    wrong.layers = 4;
    wrong.ffn_dim = 513;
    assert_int_equal(em_dit_open(&m, &wrong, f->ckpt, NULL, &err), EM_MISMATCH);
    assert_null(m);
    print_message("    %s\n", err.msg);
    assert_non_null(strstr(err.msg, "37 tensors are missing and 9 do not fit"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(bfloat16_is_no_farther_than_the_references),
        cmocka_unit_test(rotary_angles),
        cmocka_unit_test(reports_all_problems),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
