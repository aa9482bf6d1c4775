/* Ops in portions: the bits of a row must not depend on which others are computed with it. Only ops
 * that round are here, and those that move patches; every other move is compared with the reference
 * value by value, in every shape. */
#include "checkops.h"

#include <math.h>

#define NONE ((em_tensor){0})
#define ALL (1u << EM_F32 | 1u << EM_F16 | 1u << EM_BF16)
#define F32_ONLY (1u << EM_F32)

/* Rows of a matrix of the case's type. */
static em_tensor rows_of(maker *m, inputs *in, int64_t rows, int64_t cols)
{
    in->n[4] = rows;
    return maker_tensor(m, m->dtype, 1, EM_SHAPE(rows, cols));
}

/* A portion to work on in place. */
static em_tensor portion(em_run *r, em_tensor x, int64_t begin, int64_t n)
{
    em_tensor from = em_slice(x, begin, n);
    em_tensor y = em_run_tensor(r, x.dtype, from.dim, from.ndim);
    em_copy(r, y, from);
    return y;
}

/* ---- linear ---------------------------------------------------------------------------------- */

static void make_linear(maker *m, inputs *in, int index)
{
    static const int64_t shape[][3] = {{300, 1, 1},      {300, 17, 130},  {300, 100, 64},
                                       {300, 256, 1536}, {300, 70, 1600}, {300, 130, 4000},
                                       {1100, 64, 96},   {20, 300, 256}};
    const int64_t *s = shape[index];
    in->t[0] = rows_of(m, in, s[0], s[2]);
    in->t[1] = maker_tensor(m, maker_float_type(m), 1 / sqrtf((float)s[2]), EM_SHAPE(s[1], s[2]));
    in->t[2] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(s[1]));
    in->act = (em_act)(index % (EM_ACT_HARD_TANH + 1));
}

static em_tensor part_linear(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    return em_linear(r, em_slice(in->t[0], begin, n), in->t[1], in->t[2], in->act);
}

static void make_linears(maker *m, inputs *in, int index)
{
    int64_t n = index % 2 ? 96 : 256, k = index % 2 ? 72 : 1536;
    in->n[0] = index % 3;
    in->t[0] = rows_of(m, in, index % 2 ? 1100 : 300, k);
    in->t[1] = maker_tensor(m, m->dtype, 1 / sqrtf((float)k), EM_SHAPE(3, n, k));
    in->t[2] = maker_tensor(m, m->dtype, 1, EM_SHAPE(3, n));
}

/* One of the three. */
static em_tensor part_linears(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor y[3], w[3], b[3];
    for (int i = 0; i < 3; i++) {
        w[i] = em_at(in->t[1], i);
        b[i] = em_at(in->t[2], i);
    }
    em_linears(r, 3, y, em_slice(in->t[0], begin, n), w, b);
    return y[in->n[0]];
}

/* ---- attention: portions of the queries ------------------------------------------------------ */

static void make_attention(maker *m, inputs *in, int index)
{
    static const int64_t shape[][4] = {/* heads, d, queries, keys */
                                       {2, 64, 130, 300},   {1, 128, 300, 70},  {3, 6, 77, 33},
                                       {1, 384, 40, 50},    {2, 80, 131, 1100}, {2, 128, 520, 520},
                                       {3, 128, 1300, 1100}};
    const int64_t *s = shape[index];
    in->t[0] = rows_of(m, in, s[2], s[0] * s[1]);
    in->t[1] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s[3], s[0] * s[1]));
    in->t[2] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s[3], s[0] * s[1]));
    in->attn = (em_attn){.heads = (int)s[0], .scale = 1 / sqrtf((float)s[1])};
    if (index % 2) in->attn.rel_bias = maker_tensor(m, EM_F32, 2, EM_SHAPE(s[0], s[2] + s[3] - 1));
}

/* Query `begin` has its own zero in the bias: the portion's is a range of columns of the whole. */
static em_tensor part_attention(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_attn a = in->attn;
    em_tensor q = em_slice(in->t[0], begin, n), y = em_run_tensor(r, q.dtype, q.dim, q.ndim);
    em_mark m = em_run_mark(r);
    if (!em_tensor_is_empty(a.rel_bias)) {
        int64_t keys = in->t[1].dim[0], cols = n + keys - 1;
        a.rel_bias = em_run_tensor(r, EM_F32, EM_SHAPE(a.heads, cols));
        em_copy_cols(r, a.rel_bias, 0, in->attn.rel_bias, in->n[4] - n - begin, cols);
    }
    em_copy(r, y, em_attention(r, q, in->t[1], in->t[2], &a));
    em_run_release(r, m);
    return y;
}

/* ---- convolution: portions of the frames ----------------------------------------------------- */

/* t[0]: the frames before and all others, one after the other. n[0]: how many come before. */
static void make_conv(maker *m, inputs *in, int index)
{
    static const struct {
        int64_t t, h, w, c, o, past, kernel[3];
        em_conv_spec s;
    } shapes[] = {
        {9, 5, 7, 3, 8, 2, {3, 3, 3}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}},
        {8, 20, 30, 5, 130, 1, {2, 3, 3}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}},
        {11, 4, 5, 16, 17, 0, {1, 1, 1}, {.groups = 1}},
        {7, 9, 11, 6, 5, 0, {1, 3, 3}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}},
        {10,
         5,
         3,
         8,
         4,
         0,
         {1, 3, 3},
         {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample_2x = true}},
        {13, 3, 2, 4, 6, 2, {3, 1, 1}, {.groups = 1}},
        {8, 16, 16, 96, 96, 2, {3, 3, 3}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}},
    };
    const int64_t *k = shapes[index].kernel;
    int64_t past = shapes[index].past, c = shapes[index].c, o = shapes[index].o;
    in->n[0] = past;
    in->n[4] = shapes[index].t;
    in->t[0] = maker_tensor(m, m->dtype, 1,
                            EM_SHAPE(past + in->n[4], shapes[index].h, shapes[index].w, c));
    in->t[1] = maker_tensor(m, maker_float_type(m), 1 / sqrtf((float)(c * k[0] * k[1] * k[2])),
                            EM_SHAPE(o, c, k[0], k[1], k[2]));
    in->t[2] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(o));
    in->conv = shapes[index].s;
}

static em_tensor part_conv(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    int64_t past = in->n[0];
    return em_conv(r, em_slice(in->t[0], begin + past, n),
                   past ? em_slice(in->t[0], begin, past) : NONE, in->t[1], in->t[2], &in->conv);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void make_rows(maker *m, inputs *in, int index)
{
    static const int64_t cols[] = {1, 17, 130, 513, 1536, 5120};
    int64_t n = cols[index % 6];
    in->t[0] = rows_of(m, in, 100, n);
    in->t[1] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(100, n));
    in->t[2] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(n));
    in->t[3] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(n));
    in->n[0] = index % 4;
    in->act = (em_act)(1 + index % EM_ACT_HARD_TANH);
}

static em_tensor part_norm(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = em_slice(in->t[0], begin, n);
    switch (in->n[0]) {
    case 0: return em_layer_norm(r, x, in->t[2], in->t[3], 1e-5f);
    case 1: return em_norm_modulate(r, x, in->t[2], in->t[3], 1e-5f);
    case 2: return em_rms_norm(r, x, in->t[2], 1e-5f);
    default: return em_l2_norm(r, x, in->t[2], EM_ACT_SILU);
    }
}

static em_tensor part_act(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = portion(r, in->t[0], begin, n);
    em_act_inplace(r, x, in->act);
    return x;
}

static em_tensor part_binary(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = portion(r, in->t[0], begin, n), y = em_slice(in->t[1], begin, n);
    switch (in->n[0]) {
    case 0: em_add(r, x, y); break;
    case 1: em_mul(r, x, y); break;
    case 2: em_gated_add(r, x, y, in->t[2]); break;
    default: em_scale_shift(r, x, in->t[2], in->t[3]); break;
    }
    return x;
}

static void make_rope(maker *m, inputs *in, int index)
{
    static const int64_t pairs[] = {1, 3, 64, 300};
    in->n[0] = 1 + index % 3;
    in->t[0] = rows_of(m, in, 70, in->n[0] * pairs[index] * 2);
    in->t[1] = maker_tensor(m, EM_F32, 1, EM_SHAPE(70, pairs[index], 2));
}

static em_tensor part_rope(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = portion(r, in->t[0], begin, n);
    em_rope(r, x, em_slice(in->t[1], begin, n), (int)in->n[0]);
    return x;
}

static em_tensor part_lincomb(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = em_slice(in->t[0], begin, n);
    return em_lincomb(r, 2, (em_tensor[]){x, x}, (float[]){0.3f, -1.7f});
}

static em_tensor part_to_u8(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    return em_to_u8(r, em_slice(in->t[0], begin, n));
}

/* ---- patches: portions of the frames --------------------------------------------------------- */

static void make_patchify(maker *m, inputs *in, int index)
{
    in->n[4] = 9;
    in->t[0] = maker_tensor(m, m->dtype, 1, EM_SHAPE(9, 6, 15, index ? 16 : 3));
}

static em_tensor part_patchify(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    return em_patchify(r, em_slice(in->t[0], begin, n), 2, 3);
}

static void make_unpatchify(maker *m, inputs *in, int index)
{
    in->n[4] = 9;
    in->t[0] = maker_tensor(m, m->dtype, 1, EM_SHAPE(9, 15, index ? 96 : 18));
}

static em_tensor part_unpatchify(em_run *r, const inputs *in, int64_t begin, int64_t n)
{
    em_tensor x = em_slice(in->t[0], begin, n);
    return em_unpatchify(r, em_view(x, EM_SHAPE(n * 15, x.dim[2])), n, 3, 5, 2, 3);
}

const piece_check piece_checks[] = {
    {"linear", 8, ALL, make_linear, part_linear},
    {"linears", 6, ALL, make_linears, part_linears},
    {"attention", 7, ALL, make_attention, part_attention},
    {"conv", 7, ALL, make_conv, part_conv},
    {"norm", 12, ALL, make_rows, part_norm},
    {"act", 10, ALL, make_rows, part_act},
    {"binary", 12, ALL, make_rows, part_binary},
    {"rope", 4, ALL, make_rope, part_rope},
    {"lincomb", 6, F32_ONLY, make_rows, part_lincomb},
    {"to_u8", 6, ALL, make_rows, part_to_u8},
    {"patchify", 2, ALL, make_patchify, part_patchify},
    {"unpatchify", 2, ALL, make_unpatchify, part_unpatchify},
};
const int piece_check_count = (int)(sizeof piece_checks / sizeof *piece_checks);
