#include "models/bind.h"

#include "base/alloc.h"
#include "base/str.h"

#include "../test.h"
#include "../tmpdir.h"

/* Two layers of a model that exists nowhere else. */
typedef struct layer {
    em_tensor w, b, scale;
} layer;

enum { DIM = EM_SYM(0), LAYERS = 2 };

static const em_bind layer_rows[] = {
    EM_BIND(layer, w, "weight", DIM, 3),
    {.offset = offsetof(layer, b), .name = "bias", .alias = "b", .dim = {DIM}},
    {.offset = offsetof(layer, scale), .name = "scale", .use = EM_BIND_OPTIONAL, .dim = {1}},
    EM_BIND_SPARE("cache", 2, DIM),
};

static const int64_t sizes[] = {4};

typedef struct heard {
    int errors, warnings;
    em_str text; /* every line */
} heard;

static void listen(void *user, em_level level, const char *msg)
{
    heard *h = user;
    h->errors += level == EM_LOG_ERROR;
    h->warnings += level == EM_LOG_WARN;
    em_str_printf(&h->text, "%s\n", msg);
}

/* ---- files ----------------------------------------------------------------------------------- */

static em_ckpt *make(void **state, const em_safetensors_spec *specs, size_t n)
{
    em_err err = {0};
    em_ckpt *c = NULL;
    em_safetensors_writer *w = NULL;
    const char *path = tmpdir_path(state, "m.safetensors");
    static const char zeros[1024];
    assert_ok(em_safetensors_create(&w, path, specs, n, &err), err);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = em_dtype_bytes(specs[i].dtype);
        for (int d = 0; d < specs[i].ndim; d++) bytes *= (size_t)specs[i].dim[d];
        assert_true(bytes <= sizeof zeros);
        assert_ok(em_safetensors_write(w, i, 0, zeros, bytes, &err), err);
    }
    assert_ok(em_safetensors_commit(&w, &err), err);
    assert_ok(em_ckpt_open(&c, path, &err), err);
    return c;
}

#define W(i)                                                                                       \
    {                                                                                              \
        .name = "layers." #i ".weight", .dtype = EM_BF16, .ndim = 2, .dim = { 4, 3 }               \
    }
#define B(i)                                                                                       \
    {                                                                                              \
        .name = "layers." #i ".bias", .dtype = EM_F32, .ndim = 1, .dim = { 4 }                     \
    }

#define MAKE(...)                                                                                  \
    make(state, (const em_safetensors_spec[]){__VA_ARGS__},                                        \
         sizeof((const em_safetensors_spec[]){__VA_ARGS__}) / sizeof(em_safetensors_spec))

/* ---- the walk -------------------------------------------------------------------------------- */

typedef struct model {
    layer layer[LAYERS];
    em_group group[LAYERS];
} model;

static em_status bind(model *m, const em_ckpt *ckpt, heard *h, em_err *err)
{
    em_binder *b = NULL;
    const em_log log = {listen, h};
    *m = (model){0};
    em_status st = em_binder_open(&b, ckpt, "toy", h ? &log : NULL, err);
    if (st) return st;
    em_binder_sizes(b, sizes, 1);
    em_binder_ignore(b, "head.*");
    em_binder_ignore(b, "*.num_batches");
    for (int i = 0; i < LAYERS; i++) {
        em_binder_group(b, &m->group[i]);
        em_binder_rows(b, layer_rows, EM_COUNT(layer_rows), &m->layer[i], "layers.%d.", i);
    }
    st = em_binder_finish(&b, err);
    assert_null(b);
    return st;
}

static void drop(model *m)
{
    for (int i = 0; i < LAYERS; i++) em_group_close(&m->group[i]);
}

/* Binds, and closes everything but the log. */
static em_status outcome(em_ckpt *ckpt, heard *h, em_err *err)
{
    model m;
    em_status st = bind(&m, ckpt, h, err);
    drop(&m);
    em_ckpt_close(&ckpt);
    return st;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_whole_file_binds(void **state)
{
    em_err err = {0};
    heard h = {0};
    model m;
    em_ckpt *c =
        MAKE(W(0), B(0), W(1), {.name = "layers.1.b", .dtype = EM_F16, .ndim = 1, .dim = {4}},
             {.name = "layers.1.scale", .dtype = EM_F32, .ndim = 1, .dim = {1}});
    assert_ok(bind(&m, c, &h, &err), err);
    assert_int_equal(m.layer[0].w.dtype, EM_BF16);
    assert_int_equal(m.layer[0].w.dim[0], 4);
    assert_ptr_equal(m.layer[0].w.data, em_ckpt_find(c, "layers.0.weight")->data);
    assert_ptr_equal(m.layer[1].b.data, em_ckpt_find(c, "layers.1.b")->data); /* the old spelling */
    assert_int_equal(m.layer[1].b.dtype, EM_F16);
    assert_true(em_tensor_is_empty(m.layer[0].scale)); /* optional, absent */
    assert_int_equal(em_tensor_count(m.layer[1].scale), 1);
    assert_int_equal(m.group[0].size_bytes, 24 + 16);
    assert_int_equal(m.group[1].size_bytes, 24 + 8 + 4);
    assert_ptr_equal(m.group[0].weight[0].slot, &m.layer[0].w);
    assert_int_equal(h.errors + h.warnings, 0);
    drop(&m);
    em_ckpt_close(&c);
    em_str_free(&h.text);
}

/* The new spelling wins where a file has both; the old one is surplus then. */
static void the_name_beats_the_alias(void **state)
{
    em_err err = {0};
    heard h = {0};
    model m;
    em_ckpt *c = MAKE(W(0), B(0), {.name = "layers.0.b", .dtype = EM_F16, .ndim = 1, .dim = {4}},
                      W(1), B(1));
    assert_ok(bind(&m, c, &h, &err), err);
    assert_int_equal(m.layer[0].b.dtype, EM_F32);
    assert_int_equal(h.warnings, 1);
    assert_non_null(strstr(em_str_text(&h.text), "'layers.0.b' (4)"));
    drop(&m);
    em_ckpt_close(&c);
    em_str_free(&h.text);
}

static void one_problem_is_told_in_full(void **state)
{
    em_err err = {0};
    heard h = {0};
    assert_int_equal(outcome(MAKE(W(0), B(0), W(1)), &h, &err), EM_MISMATCH);
    assert_string_equal(err.msg, "toy: tensor 'layers.1.bias' (4) is missing");
    assert_int_equal(h.errors, 1);
    assert_string_equal(em_str_text(&h.text), "toy: tensor 'layers.1.bias' (4) is missing\n");
    em_str_free(&h.text);
}

static void a_wrong_shape_is_told_with_both(void **state)
{
    em_err err = {0};
    em_ckpt *c = MAKE({.name = "layers.0.weight", .dtype = EM_F32, .ndim = 2, .dim = {3, 4}}, B(0),
                      W(1), B(1));
    assert_int_equal(outcome(c, NULL, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "'layers.0.weight' has shape (3, 4), expected (4, 3) (file '"));
    assert_non_null(strstr(err.msg, "m.safetensors')"));
    c = MAKE(W(0), B(0), W(1),
             {.name = "layers.1.bias", .dtype = EM_F32, .ndim = 2, .dim = {4, 1}});
    assert_int_equal(outcome(c, NULL, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "'layers.1.bias' has shape (4, 1), expected (4)"));
    c = MAKE(W(0), B(0), W(1), {.name = "layers.1.bias", .dtype = EM_F32});
    assert_int_equal(outcome(c, NULL, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "has shape (), expected (4)"));
}

static void only_floats_are_weights(void **state)
{
    em_err err = {0};
    const em_dtype not_float[] = {EM_F64, EM_I64, EM_I32, EM_U8, EM_BOOL};
    for (size_t i = 0; i < EM_COUNT(not_float); i++) {
        em_safetensors_spec odd = B(1);
        odd.dtype = not_float[i];
        assert_int_equal(outcome(MAKE(W(0), B(0), W(1), odd), NULL, &err), EM_MISMATCH);
        assert_non_null(strstr(err.msg, em_dtype_name(not_float[i])));
        assert_non_null(strstr(err.msg, "expected F32, F16 or BF16"));
    }
}

/* What is absent, misshapen and of a wrong type: all in one go, each on a line of its own. */
static void every_problem_is_reported(void **state)
{
    em_err err = {0};
    heard h = {0};
    em_ckpt *c = MAKE({.name = "layers.0.weight", .dtype = EM_F32, .ndim = 1, .dim = {12}},
                      {.name = "layers.1.weight", .dtype = EM_I8, .ndim = 2, .dim = {4, 3}},
                      {.name = "layers.1.scale", .dtype = EM_F32, .ndim = 1, .dim = {2}});
    assert_int_equal(outcome(c, &h, &err), EM_MISMATCH);
    assert_int_equal(h.errors, 5);
    assert_non_null(strstr(err.msg, "toy: 2 tensors are missing and 3 do not fit; the first: toy: "
                                    "tensor 'layers.0.weight' has shape (12), expected (4, 3)"));
    const char *const lines[] = {"'layers.0.weight' has shape", "'layers.0.bias' (4) is missing",
                                 "'layers.1.weight' is I8", "'layers.1.bias' (4) is missing",
                                 "'layers.1.scale' has shape (2), expected (1)"};
    for (size_t i = 0; i < EM_COUNT(lines); i++)
        assert_non_null(strstr(em_str_text(&h.text), lines[i]));
    em_str_free(&h.text);
}

/* Known extras are silent; unknown ones are one warning, and no failure. */
static void surplus_is_a_warning(void **state)
{
    em_err err = {0};
    heard h = {0};
    em_ckpt *c =
        MAKE(W(0), B(0), W(1), B(1),
             {.name = "layers.0.cache", .dtype = EM_I64, .ndim = 1, .dim = {7}}, /* spare */
             {.name = "head.weight", .dtype = EM_F32, .ndim = 1, .dim = {2}},
             {.name = "norm.num_batches", .dtype = EM_I64},
             {.name = "layers.2.bias", .dtype = EM_F32, .ndim = 1, .dim = {4}},
             {.name = "headless", .dtype = EM_F32, .ndim = 1, .dim = {1}});
    assert_ok(outcome(c, &h, &err), err);
    assert_int_equal(h.errors, 0);
    assert_int_equal(h.warnings, 1);
    assert_string_equal(em_str_text(&h.text), "toy: 2 tensors of the file are not part of the "
                                              "model: 'headless' (1), 'layers.2.bias' (4)\n");
    em_str_free(&h.text);
}

static void a_long_surplus_is_cut(void **state)
{
    em_err err = {0};
    heard h = {0};
    em_safetensors_spec spec[4 + 25] = {W(0), B(0), W(1), B(1)};
    char name[25][8];
    for (int i = 0; i < 25; i++) {
        snprintf(name[i], sizeof name[i], "x%02d", i);
        spec[4 + i] = (em_safetensors_spec){.name = name[i], .dtype = EM_F32};
    }
    assert_ok(outcome(make(state, spec, 29), &h, &err), err);
    assert_non_null(strstr(em_str_text(&h.text), "toy: 25 tensors"));
    assert_non_null(strstr(em_str_text(&h.text), "'x19' (), …\n"));
    assert_null(strstr(em_str_text(&h.text), "x20"));
    em_str_free(&h.text);
}

static void nobody_needs_to_listen(void **state)
{
    em_err err = {0};
    assert_int_equal(outcome(MAKE(W(0), {.name = "odd", .dtype = EM_F32}), NULL, &err),
                     EM_MISMATCH);
    assert_non_null(strstr(err.msg, "3 tensors are missing and 0 do not fit"));
}

/* Which allocation fails must not matter: no memory, or everything bound. */
static void survives_failing_allocations(void **state)
{
    em_ckpt *c = MAKE(W(0), B(0), W(1), B(1), {.name = "odd", .dtype = EM_F32});
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_err err = {0};
        model m;
        em_alloc_fail_at(n, false);
        st = bind(&m, c, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true(st || (m.group[0].count == 2 && m.group[1].count == 2));
        drop(&m);
    }
    em_ckpt_close(&c);
}

/* ---- visits ---------------------------------------------------------------------------------- */

typedef struct tour {
    int items, stop_at;
    em_str text;
} tour;

static em_status note(void *user, const em_bind_item *it, em_err *err)
{
    tour *t = user;
    char shape[80];
    if (++t->items == t->stop_at) return em_fail(err, EM_NOSPC, "enough");
    em_str_printf(&t->text, "%s %s %d\n", it->name, em_shape_text(shape, it->dim, it->ndim),
                  it->use);
    return EM_OK;
}

static em_status visit(tour *t, em_err *err)
{
    em_binder *b = NULL;
    assert_ok(em_binder_open_visit(&b, note, t, err), *err);
    em_binder_sizes(b, sizes, 1);
    for (int i = 0; i < LAYERS; i++)
        em_binder_rows(b, layer_rows, EM_COUNT(layer_rows), NULL, "layers.%d.", i);
    return em_binder_finish(&b, err);
}

static void a_visit_sees_every_row(void **state)
{
    (void)state;
    em_err err = {0};
    tour t = {0};
    assert_ok(visit(&t, &err), err);
    assert_string_equal(em_str_text(&t.text),
                        "layers.0.weight (4, 3) 0\nlayers.0.bias (4) 0\nlayers.0.scale (1) 1\n"
                        "layers.0.cache (2, 4) 2\nlayers.1.weight (4, 3) 0\nlayers.1.bias (4) 0\n"
                        "layers.1.scale (1) 1\nlayers.1.cache (2, 4) 2\n");
    em_str_free(&t.text);
}

static void a_visitor_may_stop(void **state)
{
    (void)state;
    em_err err = {0};
    tour t = {.stop_at = 3};
    assert_int_equal(visit(&t, &err), EM_NOSPC);
    assert_string_equal(err.msg, "enough");
    assert_int_equal(t.items, 3);
    em_str_free(&t.text);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(a_whole_file_binds),
        ROW(the_name_beats_the_alias),
        ROW(one_problem_is_told_in_full),
        ROW(a_wrong_shape_is_told_with_both),
        ROW(only_floats_are_weights),
        ROW(every_problem_is_reported),
        ROW(surplus_is_a_warning),
        ROW(a_long_surplus_is_cut),
        ROW(nobody_needs_to_listen),
        ROW(survives_failing_allocations),
        cmocka_unit_test(a_visit_sees_every_row),
        cmocka_unit_test(a_visitor_may_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
