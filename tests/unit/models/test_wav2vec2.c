#include "models/wav2vec2.h"

#include "../tiny_checkpoint.h"

static em_wav2vec2_config tiny(void)
{
    em_wav2vec2_config c = em_wav2vec2_config_default();
    c.heads = 4;
    for (int i = 0; i < c.convs; i++) c.conv_dim[i] = 32;
    c.hidden = 64;
    c.ffn = 128;
    c.layers = 4;
    c.pos_kernel = 16;
    c.pos_groups = 4;
    return c;
}

typedef void edit_names(em_inventory *list);

/* edit may be NULL */
static em_ckpt *tiny_ckpt(const em_wav2vec2_config *cfg, edit_names *edit)
{
    em_inventory list = {0};
    em_binder *walk = tiny_walk_begin(&list);
    em_wav2vec2_visit(walk, cfg);
    if (edit) edit(&list);
    return tiny_walk_end(&walk, &list, "wav2vec2", EM_BF16);
}

typedef struct fixture {
    em_ckpt *ckpt;
    em_wav2vec2 *model;
    em_safetensors *goldens;
    float *wave; /* normalised */
    size_t samples;
    int64_t frames;
} fixture;

/* (x - mean) / sqrt(var + 1e-7), as the feature extractor of the reference does it. */
static void normalise(float *x, size_t n)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++) x[i] = (float)((x[i] - mean) / sqrt(var + 1e-7));
}

static int setup(void **state)
{
    em_err err = {0};
    fixture *f = calloc(1, sizeof *f);
    em_wav2vec2_config full = tiny(), cfg = em_wav2vec2_config_default();
    f->ckpt = tiny_ckpt(&full, NULL);
    cfg.heads = full.heads; /* the rest comes from the shapes */
    assert_ok(em_wav2vec2_config_read(&cfg, f->ckpt, &err), err);
    assert_ok(em_wav2vec2_open(&f->model, &cfg, f->ckpt, NULL, &err), err);
    f->goldens = golden_tensors("tiny/wav2vec2.safetensors");
    f->wave = tiny_floats(golden_find(f->goldens, "wave", ""), &f->samples);
    f->frames = golden_find(f->goldens, "features", "")->dim[0];
    normalise(f->wave, f->samples);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    em_wav2vec2_close(&f->model);
    em_ckpt_close(&f->ckpt);
    em_safetensors_close(&f->goldens);
    free(f->wave);
    free(f);
    return 0;
}

static void sizes_come_from_the_shapes(void **state)
{
    fixture *f = *state;
    const em_wav2vec2_config *got = em_wav2vec2_sizes(f->model);
    em_wav2vec2_config want = tiny();
    assert_memory_equal(got->conv_dim, want.conv_dim, sizeof want.conv_dim);
    assert_memory_equal(got->conv_kernel, want.conv_kernel, sizeof want.conv_kernel);
    assert_int_equal(got->hidden, want.hidden);
    assert_int_equal(got->ffn, want.ffn);
    assert_int_equal(got->layers, want.layers);
    assert_int_equal(got->pos_kernel, want.pos_kernel);
    assert_int_equal(got->pos_groups, want.pos_groups);
}

static void compare_with_goldens(em_run *r, void *arg)
{
    fixture *f = arg;
    const em_wav2vec2_config *c = em_wav2vec2_sizes(f->model);
    em_wav2vec2_taps taps = {0};
    em_tensor wave = em_upload(r, f->wave, EM_F32, EM_SHAPE((int64_t)f->samples));
    em_tensor y = em_wav2vec2_forward(r, f->model, wave, f->frames, &taps);
    em_tensor columns = em_view(y, EM_SHAPE(f->frames, c->layers * c->hidden));
    em_tensor state = em_run_tensor(r, EM_F32, EM_SHAPE(f->frames, c->hidden));
    if (r->plans) return;
    tiny_expect(r, taps.features, f->goldens, "features", 2e-5);
    tiny_expect(r, taps.hidden0, f->goldens, "hidden.0", 2e-5);
    for (int i = 0; i < c->layers; i++) {
        char name[24];
        snprintf(name, sizeof name, "hidden.%d", i + 1);
        em_copy_cols(r, state, 0, columns, i * c->hidden, c->hidden);
        tiny_expect(r, state, f->goldens, name, 2e-5);
    }
}

static void equals_the_reference(void **state)
{
    tiny_run_everywhere(EM_F32, compare_with_goldens, *state);
}

/* The encoder works in float32 whatever the run's type is. */
static void stays_in_float32(void **state)
{
    tiny_run_everywhere(EM_BF16, compare_with_goldens, *state);
}

static void refuses_too_little_audio(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_run r = {.ops = em_ops_ref(), .dtype = EM_BF16};
    assert_ok(em_arena_open(&r.arena, &em_device_host, 1 << 20, true, &err), err);
    em_tensor wave = em_tensor_of(f->wave, EM_F32, EM_SHAPE(399)); /* a feature sees 400 samples */
    assert_true(em_tensor_is_empty(em_wav2vec2_forward(&r, f->model, wave, 1, NULL)));
    assert_int_equal(r.err.code, EM_INVAL);
    assert_non_null(strstr(r.err.msg, "too short"));
    assert_int_equal(r.dtype, EM_BF16);
    em_arena_close(&r.arena);
}

static void expect_refused(em_wav2vec2_config cfg, const em_ckpt *ckpt)
{
    em_err err = {0};
    em_wav2vec2_config before = cfg;
    assert_int_equal(em_wav2vec2_config_read(&cfg, ckpt, &err), EM_MISMATCH);
    assert_true(err.msg[0]);
    assert_memory_equal(&cfg, &before, sizeof cfg);
}

static void refuses_numbers_that_do_not_fit(void **state)
{
    fixture *f = *state;
    em_wav2vec2_config cfg = tiny();
    cfg.heads = 3;
    expect_refused(cfg, f->ckpt);
    cfg = tiny();
    cfg.heads = 0;
    expect_refused(cfg, f->ckpt);
    cfg = tiny();
    cfg.convs = 17;
    expect_refused(cfg, f->ckpt);
    cfg.convs = 8; /* the file has seven */
    expect_refused(cfg, f->ckpt);
    cfg = tiny();
    cfg.conv_stride[3] = 0;
    expect_refused(cfg, f->ckpt);
}

static void rename_tensor(em_inventory *list, const char *from, const char *to)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->spec[i].name, from)) continue;
        em_free((void *)(uintptr_t)list->spec[i].name);
        list->spec[i].name = em_strdup(to);
        return;
    }
    fail_msg("no tensor '%s'", from);
}

static void use_older_names(em_inventory *list)
{
    const char *conv = "encoder.pos_conv_embed.conv.";
    for (int i = 0; i < 2; i++) {
        char from[80], to[80];
        snprintf(from, sizeof from, "%sparametrizations.weight.original%d", conv, i);
        snprintf(to, sizeof to, "%sweight_%c", conv, "gv"[i]);
        rename_tensor(list, from, to);
    }
}

static void lose_a_layer_norm(em_inventory *list)
{
    rename_tensor(list, "encoder.layers.1.final_layer_norm.bias", "encoder.layers.1.bias");
    rename_tensor(list, "encoder.layers.3.layer_norm.bias", "encoder.layers.3.bias");
}

static void reads_the_older_names(void **state)
{
    (void)state;
    em_err err = {0};
    em_wav2vec2 *m = NULL;
    em_wav2vec2_config cfg = tiny();
    em_ckpt *ckpt = tiny_ckpt(&cfg, use_older_names);
    cfg.pos_kernel = cfg.pos_groups = 0;
    assert_ok(em_wav2vec2_config_read(&cfg, ckpt, &err), err);
    assert_int_equal(cfg.pos_kernel, 16);
    assert_ok(em_wav2vec2_open(&m, &cfg, ckpt, NULL, &err), err);
    em_wav2vec2_close(&m);
    em_ckpt_close(&ckpt);
}

static void counts_missing_tensors(void **state)
{
    (void)state;
    em_err err = {0};
    em_wav2vec2 *m = NULL;
    em_wav2vec2_config cfg = tiny();
    em_ckpt *ckpt = tiny_ckpt(&cfg, lose_a_layer_norm);
    assert_ok(em_wav2vec2_config_read(&cfg, ckpt, &err), err);
    assert_int_equal(em_wav2vec2_open(&m, &cfg, ckpt, NULL, &err), EM_MISMATCH);
    assert_null(m);
    assert_non_null(strstr(err.msg, "2 tensors are missing"));
    assert_non_null(strstr(err.msg, "'encoder.layers.1.final_layer_norm.bias' (64)"));
    em_ckpt_close(&ckpt);
}

/* Every failing allocation is a status, and nothing leaks (under ASan). */
static void survives_failing_allocations(void **state)
{
    fixture *f = *state;
    const em_wav2vec2_config *cfg = em_wav2vec2_sizes(f->model);
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_wav2vec2 *m = NULL;
        em_err err = {0};
        em_alloc_fail_at(n, false);
        st = em_wav2vec2_open(&m, cfg, f->ckpt, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true((st == EM_OK) == (m != NULL));
        em_wav2vec2_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_come_from_the_shapes),
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(stays_in_float32),
        cmocka_unit_test(refuses_too_little_audio),
        cmocka_unit_test(refuses_numbers_that_do_not_fit),
        cmocka_unit_test(reads_the_older_names),
        cmocka_unit_test(counts_missing_tensors),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
