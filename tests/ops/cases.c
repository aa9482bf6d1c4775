/* One row an op: how to make its inputs and how to call it. Ops that work in place get a copy. */
#include "checkops.h"

#include "base/alloc.h"

#include <math.h>

#define NONE ((em_tensor){0})
#define ALL (1u << EM_F32 | 1u << EM_F16 | 1u << EM_BF16)
#define F32_ONLY (1u << EM_F32)

static bool coin(maker *m)
{
    return maker_next(m) & 1;
}

static em_tensor vector(maker *m, float scale, int64_t n)
{
    return maker_tensor(m, maker_float_type(m), scale, EM_SHAPE(n));
}

static em_tensor maybe_vector(maker *m, int64_t n)
{
    return coin(m) ? vector(m, 1, n) : NONE;
}

static em_tensor matrix(maker *m, int64_t rows, int64_t cols)
{
    return maker_tensor(m, m->dtype, 1, EM_SHAPE(rows, cols));
}

/* A fresh copy of an input, for ops that change it. By way of the host: no op is to depend on
 * another one. */
static em_tensor copy_of(em_run *r, em_tensor x)
{
    em_tensor y = em_run_tensor(r, x.dtype, x.dim, x.ndim);
    if (r->plans || em_run_stopped(r)) return y;
    void *host = em_alloc(em_tensor_bytes(x));
    if (!host) return em_run_fail(r, EM_NOMEM, "no memory for a copy");
    em_download(r, x, host);
    if (!em_run_stopped(r)) r->ops->upload(r, y, host);
    em_free(host);
    return y;
}

/* ---- linear ---------------------------------------------------------------------------------- */

/* The first cases are the corners: a single value, more than one tile of rows, columns and
 * depth. */
static void make_linear(maker *m, inputs *in, int index)
{
    static const int64_t corner[][3] = {{1, 1, 1},     {130, 300, 17}, {33, 17, 1700},
                                        {257, 70, 64}, {3, 130, 3300}, {161, 31, 130}};
    int64_t rows = PICK(m, 1, 2, 3, 7, 16, 17, 33, 64, 100), n = PICK(m, 1, 3, 8, 17, 64, 130);
    int64_t k = PICK(m, 1, 2, 6, 17, 48, 64, 130);
    if (index < (int)(sizeof corner / sizeof *corner)) {
        rows = corner[index][0];
        n = corner[index][1];
        k = corner[index][2];
    }
    in->t[0] = coin(m) ? maker_tensor(m, m->dtype, 1, EM_SHAPE(1, rows, k)) : matrix(m, rows, k);
    in->t[1] = maker_tensor(m, maker_float_type(m), 1 / sqrtf((float)k), EM_SHAPE(n, k));
    in->t[2] = maybe_vector(m, n);
    in->act = (em_act)(index % (EM_ACT_HARD_TANH + 1));
}

static em_tensor call_linear(em_run *r, const inputs *in)
{
    return em_linear(r, in->t[0], in->t[1], in->t[2], in->act);
}

/* Weights lie in equal steps, as those of one group do; most of the time they have x's type. */
static void make_linears(maker *m, inputs *in, int index)
{
    int64_t n = PICK(m, 8, 17, 64, 130), k = PICK(m, 8, 17, 64, 130), rows = PICK(m, 1, 7, 64, 161);
    em_dtype w = index % 3 ? m->dtype : maker_float_type(m);
    in->n[0] = 1 + index % 3;
    in->t[0] = matrix(m, rows, k);
    in->t[1] = maker_tensor(m, w, 1 / sqrtf((float)k), EM_SHAPE(in->n[0], n, k));
    in->t[2] = index % 5 ? maker_tensor(m, w, 1, EM_SHAPE(in->n[0], n)) : NONE;
}

static em_tensor call_linears(em_run *r, const inputs *in)
{
    em_tensor y[3], w[3], b[3] = {NONE, NONE, NONE};
    int n = (int)in->n[0];
    for (int i = 0; i < n; i++) {
        w[i] = em_at(in->t[1], i);
        if (!em_tensor_is_empty(in->t[2])) b[i] = em_at(in->t[2], i);
    }
    em_linears(r, n, y, in->t[0], w, b);
    if (em_run_stopped(r)) return NONE;
    return em_tensor_of(y[0].data, y[0].dtype, EM_SHAPE(n, y[0].dim[0], y[0].dim[1]));
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct attention_shape {
    int64_t batch, heads, d, nq, nk;
    bool bias;
} attention_shape;

static void make_attention(maker *m, inputs *in, int index)
{
    static const attention_shape shapes[] = {
        {1, 1, 1, 1, 1, false},      {1, 2, 64, 17, 130, true}, {2, 3, 6, 33, 3, false},
        {1, 2, 128, 130, 65, false}, {3, 1, 80, 3, 17, false},  {1, 1, 384, 20, 40, false},
        {1, 2, 8, 20, 1100, true},   {1, 1, 5, 300, 7, true},   {2, 2, 16, 129, 513, false},
        {1, 4, 64, 1, 600, false},   {1, 1, 3, 128, 512, true}, {2, 2, 32, 70, 1100, false},
        {2, 2, 16, 1, 1030, false},
    };
    attention_shape s = shapes[index % (int)(sizeof shapes / sizeof *shapes)];
    int64_t width = s.heads * s.d;
    in->t[0] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s.batch, s.nq, width));
    in->t[1] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s.batch, s.nk, width));
    in->t[2] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s.batch, s.nk, width));
    in->attn = (em_attn){.heads = (int)s.heads, .scale = 1 / sqrtf((float)s.d)};
    if (s.bias) in->attn.rel_bias = maker_tensor(m, EM_F32, 2, EM_SHAPE(s.heads, s.nq + s.nk - 1));
}

static em_tensor call_attention(em_run *r, const inputs *in)
{
    return em_attention(r, in->t[0], in->t[1], in->t[2], &in->attn);
}

/* ---- convolution ----------------------------------------------------------------------------- */

typedef struct conv_shape {
    int64_t t, h, w, c, o, past, kernel[3];
    em_conv_spec s;
} conv_shape;

#define PAD_2D .pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}

static const conv_shape conv_shapes[] = {
    {1, 1, 1, 1, 1, 0, {1, 1, 1}, {.groups = 1}},
    {2, 5, 7, 3, 8, 2, {3, 3, 3}, {PAD_2D}}, /* causal, with its cache */
    {1, 9, 6, 8, 3, 0, {3, 3, 3}, {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}}},
    {2, 4, 5, 16, 17, 0, {1, 1, 1}, {.groups = 1}},
    {1, 9, 11, 6, 5, 0, {1, 3, 3}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}},
    {2, 5, 3, 8, 4, 0, {1, 3, 3}, {PAD_2D, .upsample_2x = true}},
    {5, 3, 2, 4, 6, 1, {3, 1, 1}, {.stride = {2, 1, 1}}},
    {1, 14, 28, 3, 10, 0, {1, 14, 14}, {.stride = {1, 14, 14}}},
    {3, 20, 30, 5, 130, 1, {2, 3, 3}, {PAD_2D}}, /* several bands and slices */
    {1, 6, 5, 6, 9, 0, {1, 3, 2}, {.groups = 3, .pad_before = {0, 1, 0}}},
    {2, 3, 4, 1, 2, 0, {1, 5, 5}, {.pad_before = {0, 4, 4}, .pad_after = {0, 3, 2}}},
    /* One-dimensional: kernel[2], stride[2], pads[2]. t = h = 0 says so. */
    {0, 0, 1300, 1, 7, 0, {1, 1, 10}, {.stride = {0, 0, 5}}},
    {0, 0, 700, 2, 3, 0, {1, 1, 3}, {.stride = {0, 0, 1}}},
    {0,
     0,
     40,
     12,
     12,
     0,
     {1, 1, 16},
     {.groups = 4, .pad_before = {0, 0, 8}, .pad_after = {0, 0, 8}}},
    {0, 0, 17, 130, 5, 0, {1, 1, 2}, {.stride = {0, 0, 2}}},
};
enum { CONV_SHAPES = sizeof conv_shapes / sizeof *conv_shapes };

static void make_conv(maker *m, inputs *in, int index)
{
    const conv_shape *s = &conv_shapes[index % CONV_SHAPES];
    const int64_t *k = s->kernel;
    int64_t group_channels = s->c / (s->s.groups ? s->s.groups : 1);
    float scale = 1 / sqrtf((float)(group_channels * k[0] * k[1] * k[2]));
    em_dtype type = maker_float_type(m);
    if (s->t == 0) {
        in->t[0] = matrix(m, s->w, s->c);
        in->t[2] = maker_tensor(m, type, scale, EM_SHAPE(s->o, group_channels, k[2]));
    } else {
        in->t[0] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s->t, s->h, s->w, s->c));
        if (s->past) in->t[1] = maker_tensor(m, m->dtype, 1, EM_SHAPE(s->past, s->h, s->w, s->c));
        in->t[2] = maker_tensor(m, type, scale, EM_SHAPE(s->o, group_channels, k[0], k[1], k[2]));
        if (k[0] == 1 && coin(m))
            in->t[2] = em_view(in->t[2], EM_SHAPE(s->o, group_channels, k[1], k[2]));
    }
    in->t[3] = maybe_vector(m, s->o);
    in->conv = s->s;
}

static em_tensor call_conv(em_run *r, const inputs *in)
{
    return em_conv(r, in->t[0], in->t[1], in->t[2], in->t[3], &in->conv);
}

static void make_weight_norm(maker *m, inputs *in, int index)
{
    (void)index;
    int64_t k = PICK(m, 1, 3, 16);
    in->t[0] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(1, 1, k));
    in->t[1] = maker_tensor(m, m->dtype, 1, EM_SHAPE(PICK(m, 1, 6, 17), PICK(m, 1, 5), k));
}

static em_tensor call_weight_norm(em_run *r, const inputs *in)
{
    return em_weight_norm(r, in->t[0], in->t[1]);
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* x far from zero: what a one-pass variance would not survive. */
static void make_norm(maker *m, inputs *in, int index)
{
    int64_t rows = PICK(m, 1, 3, 17, 40), cols = PICK(m, 1, 2, 3, 17, 130, 513, 1100);
    in->t[0] = matrix(m, rows, cols);
    if (index % 3 == 0)
        for (int64_t i = 0; i < rows * cols; i++)
            em_store_f32(in->t[0].data, m->dtype, (size_t)i,
                         em_load_f32(in->t[0].data, m->dtype, (size_t)i) + 20);
    in->n[0] = index % 4; /* 1: modulation, whose vectors are no option */
    in->t[1] = in->n[0] == 1 ? vector(m, 1, cols) : maybe_vector(m, cols);
    in->t[2] = in->n[0] == 1 ? vector(m, 1, cols) : maybe_vector(m, cols);
    in->act = index % 8 < 4 ? EM_ACT_SILU : EM_ACT_NONE;
}

static em_tensor call_norm(em_run *r, const inputs *in)
{
    const float eps = 1e-5f;
    switch (in->n[0]) {
    case 0: return em_layer_norm(r, in->t[0], in->t[1], in->t[2], eps);
    case 1: return em_norm_modulate(r, in->t[0], in->t[1], in->t[2], eps);
    case 2: return em_rms_norm(r, in->t[0], in->t[1], eps);
    default: return em_l2_norm(r, in->t[0], in->t[1], in->act);
    }
}

static em_tensor call_time_norm(em_run *r, const inputs *in)
{
    return em_time_norm(r, in->t[0], in->t[1], in->t[2], 1e-5f);
}

/* ---- elementwise ----------------------------------------------------------------------------- */

static void make_act(maker *m, inputs *in, int index)
{
    in->t[0] = maker_tensor(m, m->dtype, 4, EM_SHAPE(PICK(m, 1, 3, 17, 130), PICK(m, 1, 7, 600)));
    in->act = (em_act)(1 + index % EM_ACT_HARD_TANH);
}

static em_tensor call_act(em_run *r, const inputs *in)
{
    em_tensor x = copy_of(r, in->t[0]);
    em_act_inplace(r, x, in->act);
    return x;
}

static void make_binary(maker *m, inputs *in, int index)
{
    int64_t rows = PICK(m, 1, 3, 17, 130), cols = PICK(m, 1, 3, 17, 600);
    em_dtype other = maker_float_type(m);
    in->t[0] = matrix(m, rows, cols);
    in->t[1] = maker_tensor(m, other, 1, EM_SHAPE(rows, cols));
    in->t[2] = vector(m, 1, cols);
    in->t[3] = vector(m, 1, cols);
    in->n[0] = index % 4;
}

static em_tensor call_binary(em_run *r, const inputs *in)
{
    em_tensor x = copy_of(r, in->t[0]);
    switch (in->n[0]) {
    case 0: em_add(r, x, in->t[1]); break;
    case 1: em_mul(r, x, in->t[1]); break;
    case 2: em_gated_add(r, x, in->t[1], in->t[2]); break;
    default: em_scale_shift(r, x, in->t[2], in->t[3]); break;
    }
    return x;
}

static em_tensor call_fill(em_run *r, const inputs *in)
{
    em_tensor x = copy_of(r, in->t[0]);
    em_fill(r, x, 0.625f);
    return x;
}

static void make_rope(maker *m, inputs *in, int index)
{
    (void)index;
    int64_t rows = PICK(m, 1, 3, 70), pairs = PICK(m, 1, 3, 64, 300);
    in->n[0] = PICK(m, 1, 3);
    in->t[0] = matrix(m, rows, in->n[0] * pairs * 2);
    in->t[1] = maker_tensor(m, EM_F32, 1, EM_SHAPE(rows, pairs, 2));
}

static em_tensor call_rope(em_run *r, const inputs *in)
{
    em_tensor x = copy_of(r, in->t[0]);
    em_rope(r, x, in->t[1], (int)in->n[0]);
    return x;
}

static void make_lincomb(maker *m, inputs *in, int index)
{
    int64_t rows = PICK(m, 1, 3, 130), cols = PICK(m, 1, 17, 600);
    in->n[0] = 1 + index % EM_LINCOMB_MAX;
    for (int64_t i = 0; i < in->n[0]; i++) {
        in->t[i] = matrix(m, rows, cols);
        in->f[i] = (float)(maker_next(m) % 400) / 100 - 2;
    }
}

static em_tensor call_lincomb(em_run *r, const inputs *in)
{
    return em_lincomb(r, (int)in->n[0], in->t, in->f);
}

/* ---- movement -------------------------------------------------------------------------------- */

/* t[1] is what the destination held: columns that are not copied must keep it. */
static void make_copy_cols(maker *m, inputs *in, int index)
{
    (void)index;
    int64_t rows = PICK(m, 1, 3, 130), cols = PICK(m, 1, 3, 17, 600);
    in->n[0] = PICK(m, 0, 1, 5);
    in->n[1] = PICK(m, 0, 2, 3);
    in->n[2] = cols;
    in->t[0] = matrix(m, rows, cols + in->n[0] + 2);
    in->t[1] = maker_tensor(m, maker_float_type(m), 1, EM_SHAPE(rows, cols + in->n[1] + 1));
}

static em_tensor call_copy_cols(em_run *r, const inputs *in)
{
    em_tensor dst = copy_of(r, in->t[1]);
    em_copy_cols(r, dst, in->n[1], in->t[0], in->n[0], in->n[2]);
    return dst;
}

static void make_video(maker *m, inputs *in, int index)
{
    in->t[0] = maker_tensor(m, m->dtype, 1,
                            EM_SHAPE(PICK(m, 1, 2, 5), 2 * PICK(m, 1, 3, 17), 3 * PICK(m, 1, 6, 11),
                                     PICK(m, 1, 3, 16, 70)));
    in->n[0] = index % 2;
}

static em_tensor call_transpose(em_run *r, const inputs *in)
{
    return in->n[0] ? em_channels_last(r, in->t[0]) : em_channels_first(r, in->t[0]);
}

static em_tensor call_patchify(em_run *r, const inputs *in)
{
    return em_patchify(r, in->t[0], 2, 3);
}

static void make_unpatchify(maker *m, inputs *in, int index)
{
    (void)index;
    in->n[0] = PICK(m, 1, 3);
    in->n[1] = PICK(m, 1, 5);
    in->n[2] = PICK(m, 1, 7);
    in->t[0] = matrix(m, in->n[0] * in->n[1] * in->n[2], 2 * 3 * PICK(m, 1, 16));
}

static em_tensor call_unpatchify(em_run *r, const inputs *in)
{
    return em_unpatchify(r, in->t[0], in->n[0], in->n[1], in->n[2], 2, 3);
}

static void make_gather(maker *m, inputs *in, int index)
{
    (void)index;
    int64_t rows = PICK(m, 1, 3, 130);
    in->t[0] = matrix(m, rows, PICK(m, 1, 17, 70));
    in->n[0] = PICK(m, 1, 17, MAX_INDICES);
    for (int64_t i = 0; i < in->n[0]; i++) in->index[i] = (int32_t)(maker_next(m) % (uint64_t)rows);
}

static em_tensor call_gather(em_run *r, const inputs *in)
{
    return em_gather(r, in->t[0], in->index, in->n[0]);
}

static em_tensor call_upload(em_run *r, const inputs *in)
{
    return em_upload(r, in->host, in->t[0].dtype, in->t[0].dim, in->t[0].ndim);
}

/* What was downloaded, uploaded again: copy_of is that. */
static em_tensor call_download(em_run *r, const inputs *in)
{
    return copy_of(r, in->t[0]);
}

/* ---- resampling and pictures ----------------------------------------------------------------- */

static void make_lerp(maker *m, inputs *in, int index)
{
    (void)index;
    in->t[0] = matrix(m, PICK(m, 1, 2, 17, 130), PICK(m, 1, 17, 70));
    in->n[0] = PICK(m, 1, 3, 40);
}

static em_tensor call_lerp(em_run *r, const inputs *in)
{
    return em_lerp_time(r, in->t[0], in->n[0]);
}

static void make_bicubic(maker *m, inputs *in, int index)
{
    (void)index;
    in->t[0] = maker_tensor(m, m->dtype, 1, EM_SHAPE(PICK(m, 1, 5, 40), PICK(m, 1, 17, 30), 3));
    in->n[0] = PICK(m, 1, 7, 20);
    in->n[1] = PICK(m, 2, 5, 33);
}

static em_tensor call_bicubic(em_run *r, const inputs *in)
{
    return em_resize_bicubic(r, in->t[0], in->n[0], in->n[1]);
}

static em_tensor call_to_u8(em_run *r, const inputs *in)
{
    return em_to_u8(r, in->t[0]);
}

#define SLOT(kernel) offsetof(em_ops, kernel)

const op_check checks[] = {
    {"linear", SLOT(linear), BOUND_PRODUCT, 28, ALL, false, make_linear, call_linear},
    {"linears", SLOT(linears), BOUND_PRODUCT, 15, ALL, true, make_linears, call_linears},
    {"attention", SLOT(attention), BOUND_PRODUCT, 13, ALL, false, make_attention, call_attention},
    {"conv", SLOT(conv), BOUND_PRODUCT, 2 * CONV_SHAPES, ALL, false, make_conv, call_conv},
    {"weight_norm", SLOT(weight_norm), BOUND_SUM, 6, ALL, true, make_weight_norm, call_weight_norm},
    {"norm", SLOT(norm), BOUND_SUM, 40, ALL, false, make_norm, call_norm},
    {"time_norm", SLOT(time_norm), BOUND_SUM, 12, ALL, false, make_norm, call_time_norm},
    {"act", SLOT(act), BOUND_POINTWISE, 20, ALL, true, make_act, call_act},
    {"binary", SLOT(binary), BOUND_POINTWISE, 24, ALL, true, make_binary, call_binary},
    {"fill", SLOT(fill), BOUND_EXACT, 4, ALL, true, make_act, call_fill},
    {"rope", SLOT(rope), BOUND_POINTWISE, 12, ALL, true, make_rope, call_rope},
    {"lincomb", SLOT(lincomb), BOUND_POINTWISE, 16, F32_ONLY, true, make_lincomb, call_lincomb},
    {"copy_cols", SLOT(copy_cols), BOUND_EXACT, 16, ALL, true, make_copy_cols, call_copy_cols},
    {"transpose", SLOT(transpose), BOUND_EXACT, 12, ALL, true, make_video, call_transpose},
    {"gather", SLOT(gather), BOUND_EXACT, 6, ALL, true, make_gather, call_gather},
    {"patchify", SLOT(patchify), BOUND_EXACT, 6, ALL, true, make_video, call_patchify},
    {"unpatchify", SLOT(unpatchify), BOUND_EXACT, 6, ALL, true, make_unpatchify, call_unpatchify},
    {"upload", SLOT(upload), BOUND_EXACT, 4, ALL, true, make_act, call_upload},
    {"download", SLOT(download), BOUND_EXACT, 4, ALL, true, make_act, call_download},
    {"lerp_time", SLOT(lerp_time), BOUND_POINTWISE, 8, ALL, true, make_lerp, call_lerp},
    {"resize_bicubic", SLOT(resize_bicubic), BOUND_POINTWISE, 8, F32_ONLY, true, make_bicubic,
     call_bicubic},
    {"to_u8", SLOT(to_u8), BOUND_EXACT, 10, ALL, true, make_act, call_to_u8},
};
const int check_count = (int)(sizeof checks / sizeof *checks);
