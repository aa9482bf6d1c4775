/* The judge itself: every reference kernel against numbers that a pencil gives. */
#include "on_ref.h"

#include <string.h>

static const em_tensor none;

static void linear(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 3), 1, 2, 3, -1, 0, 1), w = T(EM_SHAPE(2, 3), 1, 1, 1, 2, 0, -1);
    EXPECT(em_linear(r, x, w, none, EM_ACT_NONE), 6, -1, 0, -3);
    em_tensor y =
        em_linear(r, em_view(x, EM_SHAPE(1, 2, 3)), w, T(EM_SHAPE(2), 10, 20), EM_ACT_RELU);
    EXPECT(y, 16, 19, 10, 17);
    EXPECT_SHAPE(y, EM_SHAPE(1, 2, 2));
    em_tensor half = em_cast(r, w, EM_F16), wide = em_linear(r, x, half, none, EM_ACT_RELU);
    EXPECT(wide, 6, 0, 0, 0);
    assert_int_equal(wide.dtype, EM_F32); /* the type of x */
}

/* One query, two keys: scores 0 and ln 3 give weights 1/4 and 3/4. */
static void attention(void **state)
{
    em_run *r = *state;
    em_attn a = {.heads = 1, .scale = 1};
    em_tensor q = T(EM_SHAPE(1, 2), 1, 0), k = T(EM_SHAPE(2, 2), 0, 5, logf(3), -5),
              v = T(EM_SHAPE(2, 2), 4, 8, 8, 0);
    EXPECT(em_attention(r, q, k, v, &a), 7, 2);
    a.scale = 0;
    EXPECT(em_attention(r, q, k, v, &a), 6, 4);
}

/* Two heads of one channel, two batch entries: nothing leaks from one to another. */
static void attention_keeps_heads_and_batches_apart(void **state)
{
    em_run *r = *state;
    em_attn a = {.heads = 2, .scale = 1};
    em_tensor q = T(EM_SHAPE(2, 1, 2), 1, 0, 0, 1),
              k = T(EM_SHAPE(2, 2, 2), 0, 9, logf(3), 9, 9, logf(3), 9, 0),
              v = T(EM_SHAPE(2, 2, 2), 4, 10, 8, 20, 30, 4, 50, 8);
    em_tensor y = em_attention(r, q, k, v, &a);
    EXPECT(y, 7, 15, 40, 5);
    EXPECT_SHAPE(y, EM_SHAPE(2, 1, 2));
}

/* Entry [h][j - i + Nq - 1]. Equal keys, so that the bias alone decides. */
static void attention_adds_the_bias_of_a_distance(void **state)
{
    em_run *r = *state;
    em_attn a = {.heads = 1, .scale = 1};
    em_tensor q = T(EM_SHAPE(2, 1), 1, 1), k = T(EM_SHAPE(2, 1), 0, 0), v = T(EM_SHAPE(2, 1), 0, 4);
    a.rel_bias = T(EM_SHAPE(1, 3), logf(7), 0, logf(3)); /* distances -1, 0, 1 */
    EXPECT(em_attention(r, q, k, v, &a), 3, 0.5f);       /* 1:3, then 7:1 */
    a.heads = 2;
    a.rel_bias = T(EM_SHAPE(2, 3), logf(7), 0, logf(3), 0, 0, 0);
    q = T(EM_SHAPE(2, 2), 1, 1, 1, 1);
    k = ZERO(EM_SHAPE(2, 2));
    v = T(EM_SHAPE(2, 2), 0, 0, 4, 4);
    EXPECT(em_attention(r, q, k, v, &a), 3, 2, 0.5f, 2);
}

/* Scores of hundreds: softmax must not overflow. */
static void attention_survives_large_scores(void **state)
{
    em_run *r = *state;
    em_attn a = {.heads = 1, .scale = 1000};
    EXPECT(em_attention(r, T(EM_SHAPE(1, 1), 1), T(EM_SHAPE(2, 1), 1, -1), T(EM_SHAPE(2, 1), 5, 7),
                        &a),
           5);
}

/* ---- convolution ----------------------------------------------------------------------------- */

static void conv_in_time(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(5, 1), 1, 2, 3, 4, 5), w = T(EM_SHAPE(1, 1, 3), 1, 10, 100);
    EXPECT(em_conv(r, x, none, w, none, &(em_conv_spec){0}), 321, 432, 543);
    em_conv_spec padded = {.pad_before = {0, 0, 1}, .pad_after = {0, 0, 1}, .stride = {1, 1, 2}};
    em_tensor y = em_conv(r, x, none, w, T(EM_SHAPE(1), 1000), &padded);
    EXPECT(y, 1210, 1432, 1054);
    EXPECT_SHAPE(y, EM_SHAPE(3, 1));
}

static void conv_in_groups(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 4), 1, 2, 3, 4, 5, 6, 7, 8);
    em_tensor w = T(EM_SHAPE(2, 2, 2), 1, 10, 100, 1000, 1, 0, 0, 0);
    EXPECT(em_conv(r, x, none, w, none, &(em_conv_spec){.groups = 2}), 6251, 3);
}

/* A 2 x 2 picture, one channel in, two out; taps in the order (ky, kx). */
static void conv_in_space(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 2, 2, 1), 1, 2, 3, 4);
    em_tensor w = T(EM_SHAPE(2, 1, 2, 2), 1, 10, 100, 1000, 0, 0, 0, 1);
    em_tensor y = em_conv(r, x, none, w, none, &(em_conv_spec){0});
    EXPECT(y, 4321, 4);
    EXPECT_SHAPE(y, EM_SHAPE(1, 1, 1, 2));
    em_conv_spec after = {.pad_after = {0, 1, 1}, .stride = {1, 2, 2}};
    EXPECT(em_conv(r, x, none, w, none, &after), 4321, 4);
    em_conv_spec before = {.pad_before = {0, 1, 1}, .stride = {1, 2, 2}};
    EXPECT(em_conv(r, x, none, w, none, &before), 1000, 1);
}

static void conv_reads_several_channels(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 1, 2, 2), 1, 2, 3, 4); /* two pixels of two channels */
    em_tensor w = T(EM_SHAPE(1, 2, 1, 1, 2), 1, 10, 100, 1000);
    EXPECT(em_conv(r, x, none, w, none, &(em_conv_spec){0}), 1 + 30 + 200 + 4000);
}

/* Nearest x2, then three taps in a row: 1 1 2 2 between zeros. */
static void conv_doubles_the_picture_first(void **state)
{
    em_run *r = *state;
    em_conv_spec s = {.upsample_2x = true, .pad_before = {0, 0, 1}, .pad_after = {0, 0, 1}};
    em_tensor y = em_conv(r, T(EM_SHAPE(1, 1, 2, 1), 1, 2), none,
                          T(EM_SHAPE(1, 1, 1, 3), 1, 10, 100), none, &s);
    EXPECT(y, 110, 211, 221, 22, 110, 211, 221, 22);
    EXPECT_SHAPE(y, EM_SHAPE(1, 2, 4, 1));
}

/* Frames of `past` come first, zeros before those. */
static void conv_continues_the_past(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 1, 1, 1), 3, 4), w = T(EM_SHAPE(1, 1, 3, 1, 1), 1, 10, 100);
    em_tensor two = T(EM_SHAPE(2, 1, 1, 1), 1, 2), one = T(EM_SHAPE(1, 1, 1, 1), 2);
    EXPECT(em_conv(r, x, two, w, none, &(em_conv_spec){0}), 321, 432);
    EXPECT(em_conv(r, x, one, w, none, &(em_conv_spec){.pad_before = {1, 0, 0}}), 320, 432);
    EXPECT(em_conv(r, x, none, w, none, &(em_conv_spec){.pad_before = {2, 0, 0}}), 300, 430);
    EXPECT(em_conv(r, x, two, w, none, &(em_conv_spec){.stride = {2, 1, 1}}), 321);
}

/* Each tap's slice over (O, I) has the length that g says. */
static void weight_norm(void **state)
{
    em_run *r = *state;
    em_tensor v = T(EM_SHAPE(2, 1, 2), 3, 0, 4, 2), g = T(EM_SHAPE(1, 1, 2), 10, -1);
    EXPECT(em_weight_norm(r, g, v), 6, 0, 8, -1);
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* 1 and 3: mean 2, variance 1. */
static void norms(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 2), 1, 3, 30, 10), w = T(EM_SHAPE(2), 2, 4),
              b = T(EM_SHAPE(2), 100, 200);
    EXPECT(em_layer_norm(r, x, none, none, 0), -1, 1, 1, -1);
    EXPECT(em_layer_norm(r, x, w, b, 0), 98, 204, 102, 196);
    EXPECT(em_layer_norm(r, em_slice(x, 0, 1), none, none, 3), -0.5f, 0.5f); /* sqrt(1 + 3) */
    EXPECT(em_norm_modulate(r, x, w, b, 0), 97, 205, 103, 195);
    em_tensor seven = T(EM_SHAPE(1, 2), 1, 7); /* mean of squares 25 */
    EXPECT(em_rms_norm(r, seven, w, 0), 0.4f, 5.6f);
    EXPECT(em_rms_norm(r, seven, none, 75), 0.1f, 0.7f);
}

/* Length 1 times sqrt(C) times gamma: (3, 4) has length 5. A row of zeros stays zero. */
static void l2_norm(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 2), 3, -4, 0, 0), gamma = T(EM_SHAPE(2), 1, 10);
    float s = sqrtf(2);
    EXPECT(em_l2_norm(r, x, gamma, EM_ACT_NONE), 0.6f * s, -8 * s, 0, 0);
    EXPECT(em_l2_norm(r, x, gamma, EM_ACT_RELU), 0.6f * s, 0, 0, 0);
}

/* Down the columns: (1, 3) and (5, 5). */
static void time_norm(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 2), 1, 5, 3, 5), w = T(EM_SHAPE(2), 2, 7),
              b = T(EM_SHAPE(2), 10, 20);
    EXPECT(em_time_norm(r, x, w, b, 3), 9, 20, 11, 20);
}

static void norms_give_the_runs_type(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 2), 1, 3);
    r->dtype = EM_BF16;
    em_tensor y = em_layer_norm(r, x, none, none, 0), z = em_time_norm(r, x, none, none, 1);
    r->dtype = EM_F32;
    assert_int_equal(y.dtype, EM_BF16);
    assert_int_equal(z.dtype, EM_BF16);
    EXPECT(y, -1, 1);
    EXPECT(z, 0, 0);
}

/* ---- elementwise ----------------------------------------------------------------------------- */

static void activations(void **state)
{
    em_run *r = *state;
    static const struct {
        em_act act;
        float want[3]; /* at -2, 0.5, 3 */
    } row[] = {
        {EM_ACT_NONE, {-2, 0.5f, 3}},
        {EM_ACT_RELU, {0, 0.5f, 3}},
        {EM_ACT_SILU, {-0.238405844f, 0.311229666f, 2.85772238f}},
        {EM_ACT_GELU_ERF, {-0.0455002639f, 0.345731231f, 2.99595031f}},
        {EM_ACT_GELU_TANH, {-0.0454023059f, 0.345714010f, 2.99636269f}},
        {EM_ACT_HARD_TANH, {-1, 0.5f, 1}},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_tensor x = T(EM_SHAPE(3), -2, 0.5f, 3);
        em_act_inplace(r, x, row[i].act);
        expect_values(r, x, row[i].want, 3);
        em_tensor nan = T(EM_SHAPE(1), NAN);
        em_act_inplace(r, nan, row[i].act);
        assert_true(row[i].act == EM_ACT_RELU || isnan(*(float *)nan.data));
    }
}

static void arithmetic_in_place(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 2), 1, 2, 3, 4), y = T(EM_SHAPE(2, 2), 5, 6, 7, 8),
              gate = T(EM_SHAPE(2), 10, -1);
    em_add(r, x, y);
    EXPECT(x, 6, 8, 10, 12);
    em_mul(r, x, y);
    EXPECT(x, 30, 48, 70, 96);
    em_gated_add(r, x, y, gate);
    EXPECT(x, 80, 42, 140, 88);
    em_scale_shift(r, x, gate, T(EM_SHAPE(2), 1, 2));
    EXPECT(x, 801, -40, 1401, -86);
    em_fill(r, x, 0.25f);
    EXPECT(x, 0.25f, 0.25f, 0.25f, 0.25f);
    EXPECT(y, 5, 6, 7, 8);
}

/* Two heads of two pairs, one token: a quarter turn for pair 0, nothing for pair 1. */
static void rope(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 8), 1, 2, 3, 4, 5, 6, 7, 8);
    em_rope(r, x, T(EM_SHAPE(1, 2, 2), 0, 1, 1, 0), 2);
    EXPECT(x, -2, 1, 3, 4, -6, 5, 7, 8);
    em_tensor two = T(EM_SHAPE(2, 2), 1, 0, 1, 0); /* each token has an angle of its own */
    em_rope(r, two, T(EM_SHAPE(2, 1, 2), 0, 1, 0.6f, 0.8f), 1);
    EXPECT(two, 0, 1, 0.6f, 0.8f);
}

static void linear_combination(void **state)
{
    em_run *r = *state;
    const em_tensor x[] = {T(EM_SHAPE(2), 1, 2), T(EM_SHAPE(2), 10, 20), T(EM_SHAPE(2), 100, 200)};
    EXPECT(em_lincomb(r, 3, x, (const float[]){1, -2, 0.5f}), 31, 62);
    EXPECT(em_lincomb(r, 1, x, (const float[]){3}), 3, 6);
}

/* ---- movement -------------------------------------------------------------------------------- */

static void columns(void **state)
{
    em_run *r = *state;
    em_tensor src = T(EM_SHAPE(2, 3), 1, 2, 3, 4, 5, 6), dst = ZERO(EM_SHAPE(2, 4));
    em_copy_cols(r, dst, 2, src, 1, 2);
    EXPECT(dst, 0, 0, 2, 3, 0, 0, 5, 6);
    em_tensor narrow = em_cast(r, src, EM_BF16);
    assert_int_equal(narrow.dtype, EM_BF16);
    em_copy_cols(r, dst, 0, narrow, 2, 1);
    EXPECT(dst, 3, 0, 2, 3, 6, 0, 5, 6);
    em_tensor line = ZERO(EM_SHAPE(6));
    em_copy(r, line, src);
    EXPECT(line, 1, 2, 3, 4, 5, 6);
    assert_ptr_equal(em_cast(r, src, EM_F32).data, src.data);
}

static void channels_go_last_and_first(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(2, 1, 3), 1, 2, 3, 4, 5, 6), last = em_channels_last(r, x);
    EXPECT(last, 1, 4, 2, 5, 3, 6);
    EXPECT_SHAPE(last, EM_SHAPE(1, 3, 2));
    em_tensor first = em_channels_first(r, last);
    EXPECT(first, 1, 2, 3, 4, 5, 6);
    EXPECT_SHAPE(first, EM_SHAPE(2, 1, 3));
}

static void gather(void **state)
{
    em_run *r = *state;
    em_tensor table = em_cast(r, T(EM_SHAPE(3, 2), 1, 2, 3, 4, 5, 6), EM_BF16);
    em_tensor y = em_gather(r, table, (const int32_t[]){2, 0, 2, 1}, 4);
    EXPECT(y, 5, 6, 1, 2, 5, 6, 3, 4);
    assert_int_equal(y.dtype, EM_BF16);
    EXPECT_SHAPE(em_gather(r, table, NULL, 0), EM_SHAPE(0, 2));
}

/* Two channels, one patch of 1 x 2: in as (C, ph, pw), out as (ph, pw, C). */
static void patches(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 1, 4, 2), 1, 10, 2, 20, 3, 30, 4, 40);
    em_tensor tokens = em_patchify(r, x, 1, 2);
    EXPECT(tokens, 1, 2, 10, 20, 3, 4, 30, 40);
    EXPECT_SHAPE(tokens, EM_SHAPE(2, 4));
    em_tensor y = em_unpatchify(r, T(EM_SHAPE(2, 4), 1, 10, 2, 20, 3, 30, 4, 40), 1, 1, 2, 1, 2);
    EXPECT(y, 1, 10, 2, 20, 3, 30, 4, 40);
    EXPECT_SHAPE(y, EM_SHAPE(1, 1, 4, 2));
}

/* With one channel both orders are the same, and one undoes the other. */
static void unpatchify_undoes_patchify(void **state)
{
    em_run *r = *state;
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(3, 4, 6, 1));
    for (int i = 0; i < 72; i++) ((float *)x.data)[i] = (float)i;
    em_tensor tokens = em_patchify(r, x, 2, 3), back = em_unpatchify(r, tokens, 3, 2, 2, 2, 3);
    EXPECT_SHAPE(tokens, EM_SHAPE(12, 6));
    EXPECT_SHAPE(back, EM_SHAPE(3, 4, 6, 1));
    expect_values(r, back, x.data, 72);
    const float first[] = {0, 1, 2, 6, 7, 8};
    expect_values(r, em_slice(tokens, 0, 1), first, 6);
}

static void host_and_back(void **state)
{
    em_run *r = *state;
    const uint8_t in[] = {1, 2, 3};
    uint8_t out[3] = {0};
    em_download(r, em_upload(r, in, EM_U8, EM_SHAPE(3)), out);
    assert_int_equal(r->err.code, EM_OK);
    assert_memory_equal(in, out, 3);
}

/* ---- resampling ------------------------------------------------------------------------------ */

/* Both ends are kept: positions 0, 2/3, 4/3, 2. */
static void interpolation_in_time(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(3, 2), 0, 0, 3, 30, 6, 60);
    EXPECT(em_lerp_time(r, x, 4), 0, 0, 2, 20, 4, 40, 6, 60);
    EXPECT(em_lerp_time(r, x, 2), 0, 0, 6, 60);
    EXPECT(em_lerp_time(r, x, 1), 0, 0);
    EXPECT(em_lerp_time(r, em_slice(x, 1, 1), 3), 3, 30, 3, 30, 3, 30);
    EXPECT(em_lerp_time(r, x, 3), 0, 0, 3, 30, 6, 60);
}

/* Twice as wide: positions -1/4, 1/4, 3/4, 5/4 of (0, 1), edges repeated. The four taps with
 * a = -3/4 are (-27, 225, 67, -9) / 256 at a fraction of 1/4, and mirrored at 3/4. */
static void bicubic(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(1, 2, 1), 0, 1);
    em_tensor y = em_resize_bicubic(r, x, 1, 4);
    EXPECT(y, -27 / 256.f, 58 / 256.f, 198 / 256.f, 283 / 256.f);
    EXPECT_SHAPE(y, EM_SHAPE(1, 4, 1));
    EXPECT(em_resize_bicubic(r, em_view(x, EM_SHAPE(2, 1, 1)), 4, 1), -27 / 256.f, 58 / 256.f,
           198 / 256.f, 283 / 256.f);
    EXPECT(em_resize_bicubic(r, x, 1, 2), 0, 1);
    em_tensor flat = em_resize_bicubic(r, T(EM_SHAPE(2, 2, 2), 5, 7, 5, 7, 5, 7, 5, 7), 1, 3);
    EXPECT(flat, 5, 7, 5, 7, 5, 7);
}

static void bytes_of_a_picture(void **state)
{
    em_run *r = *state;
    em_tensor x = T(EM_SHAPE(10), -1, 1, 0, NAN, INFINITY, -INFINITY, -1.5f, 1.5f, 0.99f, -0.9999f);
    const uint8_t want[] = {0, 255, 127, 0, 255, 0, 0, 255, 253, 0};
    em_tensor y = em_to_u8(r, x);
    assert_int_equal(r->err.code, EM_OK);
    assert_int_equal(y.dtype, EM_U8);
    assert_memory_equal(y.data, want, sizeof want);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, ref_setup, ref_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(linear),
        ROW(attention),
        ROW(attention_keeps_heads_and_batches_apart),
        ROW(attention_adds_the_bias_of_a_distance),
        ROW(attention_survives_large_scores),
        ROW(conv_in_time),
        ROW(conv_in_groups),
        ROW(conv_in_space),
        ROW(conv_reads_several_channels),
        ROW(conv_doubles_the_picture_first),
        ROW(conv_continues_the_past),
        ROW(weight_norm),
        ROW(norms),
        ROW(l2_norm),
        ROW(time_norm),
        ROW(norms_give_the_runs_type),
        ROW(activations),
        ROW(arithmetic_in_place),
        ROW(rope),
        ROW(linear_combination),
        ROW(columns),
        ROW(channels_go_last_and_first),
        ROW(gather),
        ROW(patches),
        ROW(unpatchify_undoes_patchify),
        ROW(host_and_back),
        ROW(interpolation_in_time),
        ROW(bicubic),
        ROW(bytes_of_a_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
