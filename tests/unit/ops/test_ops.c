/* The wrappers: what does not fit is refused with a sentence, and nothing runs after a failure. */
#include "on_ref.h"

#include <string.h>

static const em_tensor none;
static float floats[4096];

/* Shapes alone matter here: every tensor lies at the same place. */
static em_tensor of(const int64_t *dim, int ndim)
{
    return em_tensor_of(floats, EM_F32, dim, ndim);
}

static em_tensor typed(em_dtype dtype, const int64_t *dim, int ndim)
{
    return em_tensor_of(floats, dtype, dim, ndim);
}

/* ---- what does not fit ----------------------------------------------------------------------- */

/* Must be EM_INVAL, with a sentence that begins with `op`; the scratch stays as it was. */
#define REFUSED(op, call)                                                                          \
    do {                                                                                           \
        size_t low = r->arena.low_bytes, high = r->arena.high_bytes;                               \
        call;                                                                                      \
        assert_int_equal(r->err.code, EM_INVAL);                                                   \
        if (strncmp(r->err.msg, op ": ", sizeof op + 1)) fail_msg("%s: %s", #call, r->err.msg);    \
        assert_int_equal(r->arena.low_bytes, low);                                                 \
        assert_int_equal(r->arena.high_bytes, high);                                               \
        r->err = (em_err){0};                                                                      \
    } while (0)

/* The same for ops with a result, which must be empty. */
#define NO_RESULT(op, call) REFUSED(op, assert_true(em_tensor_is_empty(call)))

static void linear(void **state)
{
    em_run *r = *state;
    em_tensor x = of(EM_SHAPE(2, 3)), w = of(EM_SHAPE(4, 3));
    NO_RESULT("linear", em_linear(r, x, of(EM_SHAPE(4, 2)), none, EM_ACT_NONE));
    NO_RESULT("linear", em_linear(r, x, of(EM_SHAPE(4, 3, 1)), none, EM_ACT_NONE));
    NO_RESULT("linear", em_linear(r, x, none, none, EM_ACT_NONE));
    NO_RESULT("linear", em_linear(r, none, w, none, EM_ACT_NONE));
    NO_RESULT("linear", em_linear(r, x, w, of(EM_SHAPE(3)), EM_ACT_NONE));
    NO_RESULT("linear", em_linear(r, x, w, typed(EM_I32, EM_SHAPE(4)), EM_ACT_NONE));
    em_linear(r, x, of(EM_SHAPE(5, 2)), none, EM_ACT_NONE);
    assert_string_equal(r->err.msg, "linear: shapes (2, 3) and (5, 2) do not fit");
}

static void attention(void **state)
{
    em_run *r = *state;
    em_attn a = {.heads = 2, .scale = 1};
    em_tensor q = of(EM_SHAPE(3, 4)), k = of(EM_SHAPE(5, 4)), v = k;
    NO_RESULT("attention", em_attention(r, q, k, of(EM_SHAPE(6, 4)), &a));
    NO_RESULT("attention", em_attention(r, q, of(EM_SHAPE(5, 6)), of(EM_SHAPE(5, 6)), &a));
    NO_RESULT("attention", em_attention(r, of(EM_SHAPE(2, 3, 4)), k, v, &a)); /* batches */
    NO_RESULT("attention", em_attention(r, of(EM_SHAPE(4)), k, v, &a));
    NO_RESULT("attention", em_attention(r, q, none, none, &a));
    NO_RESULT("attention", em_attention(r, q, of(EM_SHAPE(0, 4)), of(EM_SHAPE(0, 4)), &a));
    NO_RESULT("attention", em_attention(r, typed(EM_BF16, EM_SHAPE(3, 4)), k, v, &a));
    NO_RESULT("attention", em_attention(r, q, k, typed(EM_BF16, EM_SHAPE(5, 4)), &a));
    a.heads = 0;
    NO_RESULT("attention", em_attention(r, q, k, v, &a));
    a.heads = 3;
    NO_RESULT("attention", em_attention(r, q, k, v, &a));
    a.heads = 2;
    a.rel_bias = of(EM_SHAPE(2, 8)); /* 3 + 5 - 1 = 7 distances */
    NO_RESULT("attention", em_attention(r, q, k, v, &a));
    a.rel_bias = typed(EM_BF16, EM_SHAPE(2, 7));
    NO_RESULT("attention", em_attention(r, q, k, v, &a));
}

static void conv(void **state)
{
    em_run *r = *state;
    em_conv_spec s = {0};
    em_tensor x = of(EM_SHAPE(2, 4, 4, 6)), w = of(EM_SHAPE(8, 6, 1, 3, 3));
    NO_RESULT("conv", em_conv(r, of(EM_SHAPE(4, 4, 6)), none, w, none, &s));
    NO_RESULT("conv", em_conv(r, x, none, of(EM_SHAPE(8, 6)), none, &s));
    NO_RESULT("conv", em_conv(r, x, none, of(EM_SHAPE(8, 5, 3, 3)), none, &s));
    NO_RESULT("conv", em_conv(r, x, none, of(EM_SHAPE(8, 6, 1, 5, 3)), none, &s));
    NO_RESULT("conv", em_conv(r, x, none, of(EM_SHAPE(8, 6, 3, 1, 1)), none, &s));
    NO_RESULT("conv", em_conv(r, x, none, w, of(EM_SHAPE(6)), &s));
    NO_RESULT("conv", em_conv(r, x, of(EM_SHAPE(1, 4, 4)), w, none, &s));
    NO_RESULT("conv", em_conv(r, x, of(EM_SHAPE(1, 4, 5, 6)), w, none, &s));
    NO_RESULT("conv", em_conv(r, x, typed(EM_BF16, EM_SHAPE(1, 4, 4, 6)), w, none, &s));
    s.groups = 3; /* 8 outputs do not divide */
    NO_RESULT("conv", em_conv(r, x, none, of(EM_SHAPE(8, 2, 1, 1, 1)), none, &s));
    s.groups = -1;
    NO_RESULT("conv", em_conv(r, x, none, w, none, &s));
}

static void norms(void **state)
{
    em_run *r = *state;
    em_tensor x = of(EM_SHAPE(2, 3)), v = of(EM_SHAPE(3)), off = of(EM_SHAPE(4)),
              ints = typed(EM_I32, EM_SHAPE(3));
    NO_RESULT("norm", em_layer_norm(r, x, off, v, 1));
    NO_RESULT("norm", em_layer_norm(r, x, v, off, 1));
    NO_RESULT("norm", em_norm_modulate(r, x, off, v, 1));
    NO_RESULT("norm", em_norm_modulate(r, x, v, ints, 1));
    NO_RESULT("norm", em_rms_norm(r, x, off, 1));
    NO_RESULT("norm", em_l2_norm(r, x, off, EM_ACT_NONE));
    NO_RESULT("time norm", em_time_norm(r, x, off, v, 1));
    NO_RESULT("time norm", em_time_norm(r, x, v, off, 1));
    NO_RESULT("time norm", em_time_norm(r, of(EM_SHAPE(2, 2, 3)), v, v, 1));
    NO_RESULT("weight norm", em_weight_norm(r, of(EM_SHAPE(1, 1, 3)), of(EM_SHAPE(2, 2, 4))));
    NO_RESULT("weight norm", em_weight_norm(r, of(EM_SHAPE(2)), of(EM_SHAPE(2, 2))));
}

static void elementwise(void **state)
{
    em_run *r = *state;
    em_tensor x = of(EM_SHAPE(2, 3)), v = of(EM_SHAPE(3)), off = of(EM_SHAPE(4));
    REFUSED("elementwise", em_add(r, x, of(EM_SHAPE(2, 4))));
    REFUSED("elementwise", em_mul(r, x, v));
    REFUSED("elementwise", em_gated_add(r, x, off, v));
    REFUSED("elementwise", em_gated_add(r, x, x, off));
    REFUSED("elementwise", em_scale_shift(r, x, off, v));
    REFUSED("elementwise", em_scale_shift(r, x, v, off));

    em_tensor h = of(EM_SHAPE(2, 8)), table = of(EM_SHAPE(2, 2, 2));
    REFUSED("rope", em_rope(r, h, table, 0));
    REFUSED("rope", em_rope(r, h, table, 3));
    REFUSED("rope", em_rope(r, h, table, 8)); /* a head of one value has no pair */
    REFUSED("rope", em_rope(r, h, of(EM_SHAPE(1, 2, 2)), 2));
    REFUSED("rope", em_rope(r, h, typed(EM_BF16, EM_SHAPE(2, 2, 2)), 2));

    const float c[EM_LINCOMB_MAX + 1] = {0};
    const em_tensor two[] = {x, v}, narrow[] = {x, typed(EM_BF16, EM_SHAPE(2, 3))},
                    many[EM_LINCOMB_MAX + 1] = {x, x, x, x, x, x, x, x, x};
    NO_RESULT("linear combination", em_lincomb(r, 2, two, c));
    NO_RESULT("linear combination", em_lincomb(r, 2, narrow, c));
    NO_RESULT("linear combination", em_lincomb(r, EM_LINCOMB_MAX + 1, many, c));
    NO_RESULT("linear combination", em_lincomb(r, 0, NULL, NULL));
}

static void movement(void **state)
{
    em_run *r = *state;
    em_tensor x = of(EM_SHAPE(2, 3)), y = of(EM_SHAPE(2, 4));
    REFUSED("copy", em_copy(r, x, y));
    REFUSED("copy of columns", em_copy_cols(r, x, 0, of(EM_SHAPE(3, 3)), 0, 1));
    REFUSED("copy of columns", em_copy_cols(r, x, 1, y, 0, 3));
    REFUSED("copy of columns", em_copy_cols(r, y, 0, x, 1, 3));
    REFUSED("copy of columns", em_copy_cols(r, x, -1, y, 0, 1));
    REFUSED("copy of columns", em_copy_cols(r, x, 0, y, -1, 1));
    REFUSED("copy of columns", em_copy_cols(r, x, 0, y, 0, -1));
    NO_RESULT("gather", em_gather(r, x, (const int32_t[]){0, 2}, 2));
    NO_RESULT("gather", em_gather(r, x, (const int32_t[]){-1}, 1));
    em_tensor picture = of(EM_SHAPE(1, 4, 6, 2)), tokens = of(EM_SHAPE(6, 8));
    NO_RESULT("patchify", em_patchify(r, of(EM_SHAPE(4, 6, 2)), 2, 2));
    NO_RESULT("patchify", em_patchify(r, picture, 3, 2));
    NO_RESULT("patchify", em_patchify(r, picture, 2, 4));
    NO_RESULT("patchify", em_patchify(r, picture, 0, 2));
    NO_RESULT("unpatchify", em_unpatchify(r, tokens, 1, 2, 4, 2, 2));
    NO_RESULT("unpatchify", em_unpatchify(r, tokens, 1, 2, 3, 3, 1));
    NO_RESULT("unpatchify", em_unpatchify(r, tokens, 1, 2, 3, 2, 0));
}

static void pictures(void **state)
{
    em_run *r = *state;
    NO_RESULT("interpolation", em_lerp_time(r, of(EM_SHAPE(2, 3)), 0));
    NO_RESULT("interpolation", em_lerp_time(r, of(EM_SHAPE(0, 3)), 2));
    NO_RESULT("interpolation", em_lerp_time(r, of(EM_SHAPE(2, 3, 4)), 2));
    NO_RESULT("bicubic", em_resize_bicubic(r, of(EM_SHAPE(2, 3)), 2, 2));
    NO_RESULT("bicubic", em_resize_bicubic(r, of(EM_SHAPE(2, 3, 4)), 0, 2));
    NO_RESULT("bicubic", em_resize_bicubic(r, of(EM_SHAPE(2, 3, 4)), 2, -1));
    NO_RESULT("bicubic", em_resize_bicubic(r, typed(EM_BF16, EM_SHAPE(2, 3, 4)), 2, 2));
}

/* ---- after a failure ------------------------------------------------------------------------- */

/* Every op with arguments that fit: those that make a tensor, then those in place. */
enum { FRESH = 18, OPS = 25 };

static em_tensor make(em_run *r, int op)
{
    em_tensor x = of(EM_SHAPE(2, 4)), v = of(EM_SHAPE(4)), taps = of(EM_SHAPE(1, 4, 2)),
              cube = of(EM_SHAPE(2, 2, 4));
    switch (op) {
    case 0: return em_linear(r, x, of(EM_SHAPE(4, 4)), v, EM_ACT_NONE);
    case 1: return em_attention(r, x, x, x, &(em_attn){.heads = 2});
    case 2: return em_conv(r, x, none, taps, none, &(em_conv_spec){0});
    case 3: return em_weight_norm(r, of(EM_SHAPE(1, 1, 2)), taps);
    case 4: return em_layer_norm(r, x, v, v, 1);
    case 5: return em_norm_modulate(r, x, v, v, 1);
    case 6: return em_rms_norm(r, x, v, 1);
    case 7: return em_l2_norm(r, x, v, EM_ACT_NONE);
    case 8: return em_time_norm(r, x, v, v, 1);
    case 9: return em_lincomb(r, 1, &x, floats);
    case 10: return em_channels_last(r, cube);
    case 11: return em_channels_first(r, cube);
    case 12: return em_gather(r, x, (const int32_t[]){0}, 1);
    case 13: return em_patchify(r, of(EM_SHAPE(1, 2, 2, 4)), 2, 2);
    case 14: return em_unpatchify(r, x, 1, 1, 2, 2, 2);
    case 15: return em_upload(r, floats, EM_F32, EM_SHAPE(2, 4));
    case 16: return em_lerp_time(r, x, 3);
    default: return em_to_u8(r, x);
    }
}

static void change(em_run *r, int op)
{
    em_tensor x = of(EM_SHAPE(2, 4)), v = of(EM_SHAPE(4));
    float host[8];
    switch (op) {
    case 18: em_act_inplace(r, x, EM_ACT_RELU); break;
    case 19: em_add(r, x, x); break;
    case 20: em_scale_shift(r, x, v, v); break;
    case 21: em_fill(r, x, 0); break;
    case 22: em_rope(r, x, of(EM_SHAPE(2, 1, 2)), 2); break;
    case 23: em_copy_cols(r, x, 0, x, 2, 2); break;
    default: em_download(r, x, host); break;
    }
}

static em_tensor call_op(em_run *r, int op)
{
    if (op < FRESH) return make(r, op);
    change(r, op);
    return none;
}

/* A table without functions: whatever calls one does not survive. */
static void nothing_runs_after_a_failure(void **state)
{
    em_run *r = *state;
    static const em_ops deadly = {.device = &em_device_host};
    r->ops = &deadly;
    em_run_fail(r, EM_FORMAT, "the first");
    for (int op = 0; op < OPS; op++) {
        assert_true(em_tensor_is_empty(call_op(r, op)));
        assert_true(em_tensor_is_empty(em_resize_bicubic(r, of(EM_SHAPE(2, 2, 2)), 1, 1)));
        assert_true(em_tensor_is_empty(em_cast(r, none, EM_BF16)));
    }
    assert_string_equal(r->err.msg, "the first");
    assert_int_equal(r->arena.peak_bytes, 0);
    assert_true(r->flops == 0);
}

static void nothing_runs_without_room_for_the_result(void **state)
{
    em_run *r = *state;
    static const em_ops deadly = {.device = &em_device_host};
    r->ops = &deadly;
    r->arena.low_bytes = r->arena.size_bytes;
    for (int op = 0; op < FRESH; op++) {
        assert_true(em_tensor_is_empty(call_op(r, op)));
        assert_int_equal(r->err.code, EM_NOMEM);
        r->err = (em_err){0};
    }
    r->arena.low_bytes = 0;
}

static void nothing_runs_after_a_cancel(void **state)
{
    em_run *r = *state;
    static const em_ops deadly = {.device = &em_device_host};
    static atomic_bool cancel = true;
    r->ops = &deadly;
    r->cancel = &cancel;
    for (int op = 0; op < OPS; op++) {
        assert_true(em_tensor_is_empty(call_op(r, op)));
        assert_int_equal(r->err.code, EM_CANCELLED);
        r->err = (em_err){0};
    }
}

/* All of them run on ref: the list above holds arguments that do fit. */
static void the_list_of_ops_is_sound(void **state)
{
    em_run *r = *state;
    memset(floats, 0, sizeof floats);
    for (int op = 0; op < OPS; op++) {
        assert_int_equal(em_tensor_is_empty(call_op(r, op)), op >= FRESH);
        if (r->err.code) fail_msg("op %d: %s", op, r->err.msg);
    }
}

/* ---- kernels that fail ----------------------------------------------------------------------- */

static em_status silent(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    return (void)r, (void)y, (void)x, (void)w, (void)b, (void)act, (void)ws, EM_DEVICE;
}

static em_status says_why(em_run *r, em_tensor y, em_tensor x)
{
    (void)y, (void)x;
    em_run_fail(r, EM_DEVICE, "the card fell off the bus");
    return EM_DEVICE;
}

static size_t needs_640(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    return (void)r, (void)y, (void)x, (void)w, 640;
}

static void a_kernels_failure_gets_a_sentence(void **state)
{
    em_run *r = *state;
    static em_ops bad;
    bad = *em_ops_ref();
    bad.linear = silent;
    bad.to_u8 = says_why;
    r->ops = &bad;
    assert_true(em_tensor_is_empty(call_op(r, 0)));
    assert_int_equal(r->err.code, EM_DEVICE);
    assert_string_equal(r->err.msg, "linear (2, 4): device error");
    r->err = (em_err){0};
    assert_true(em_tensor_is_empty(em_to_u8(r, of(EM_SHAPE(2)))));
    assert_string_equal(r->err.msg, "the card fell off the bus");
}

/* Workspace is scratch that is given back; the result stays. */
static void workspace_is_given_back(void **state)
{
    em_run *r = *state;
    static em_ops roomy;
    roomy = *em_ops_ref();
    roomy.linear_workspace = needs_640;
    r->ops = &roomy;
    assert_false(em_tensor_is_empty(call_op(r, 0)));
    assert_int_equal(r->arena.low_bytes, EM_ARENA_ALIGN);
    assert_int_equal(r->arena.peak_bytes, EM_ARENA_ALIGN + 640 + 128); /* 640, rounded up */
}

static void arithmetic_is_counted(void **state)
{
    em_run *r = *state;
    call_op(r, 0); /* 2 x 4 values of 4 products */
    assert_true(r->flops == 2 * 8 * 4);
    r->flops = 0;
    call_op(r, 1); /* q k^T and p v: 2 x 2 x 4 each */
    assert_true(r->flops == 2 * 2 * 16);
    r->flops = 0;
    call_op(r, 2); /* one value of 4 x 2 products */
    assert_true(r->flops == 2 * 8);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, ref_setup, ref_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(linear),
        ROW(attention),
        ROW(conv),
        ROW(norms),
        ROW(elementwise),
        ROW(movement),
        ROW(pictures),
        ROW(nothing_runs_after_a_failure),
        ROW(nothing_runs_without_room_for_the_result),
        ROW(nothing_runs_after_a_cancel),
        ROW(the_list_of_ops_is_sound),
        ROW(a_kernels_failure_gets_a_sentence),
        ROW(workspace_is_given_back),
        ROW(arithmetic_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
