/* The causal video autoencoder of Wan 2.1 (arXiv 2503.20314).
 * Upstream: antgroup/echomimic_v3 src/wan_vae.py, classes AutoencoderKLWan_, Encoder3d, Decoder3d,
 * Resample and CausalConv3d.
 *
 * 8 x 8 pixels become one position; the first frame becomes a latent of its own, and every four
 * further ones become one: 1 + 4k frames, 1 + k latents of 16 channels. A chunk after the first:
 *
 *     encoder                                          decoder
 *     (4, H, W, 3)      conv                           (1, h, w, 16)     1x1x1, conv
 *     (4, H, W, d)      stage 0, half the size         (1, h, w, 4d)     middle
 *     (4, H/2, W/2, d)  stage 1, half the size         (1, h, w, 4d)     stage 0, double the rate
 *     (4, H/4, W/4, 2d) half the rate                  (2, h, w, 4d)     double the size
 *     (2, H/4, W/4, 2d) stage 2, half the size         (2, 2h, 2w, 2d)   stage 1, double the rate
 *     (2, h, w, 4d)     half the rate                  (4, 2h, 2w, 4d)   double the size
 *     (1, h, w, 4d)     stage 3                        (4, 4h, 4w, 2d)   stage 2, double the size
 *     (1, h, w, 4d)     middle                         (4, H, W, d)      stage 3
 *     (1, h, w, 4d)     norm, SiLU, conv, 1x1x1        (4, H, W, d)      norm, SiLU, conv, clamp
 *     (1, h, w, 16)     the posterior's mean           (4, H, W, 3)
 *
 *     stage    2 residual blocks in the encoder, 3 in the decoder; the first one sets the width
 *     middle   residual block, attention within a frame, residual block
 *
 * Causal: a convolution in time sees its own frame and the two before. So a clip goes through in
 * chunks, and each convolution remembers the last two frames that it was given (zeros in front of
 * the first). Memory does not grow with the clip, and chunks meet without a seam:
 *
 *     frames   0 | 1 2 3 4 | 5 6 7 8 | …         past    x              past of the next chunk
 *     latents  0 |    1    |    2    | …         [- -] + [0]        ->  [- 0]
 *                                                [- 0] + [1 2 3 4]  ->  [3 4]
 *                                                [3 4] + [5 6 7 8]  ->  [7 8]
 *
 * At the full rate (four frames a latent) frames go through one by one, or a few at a time as the
 * run's cut says, in chunks of their own: the same sums, less scratch, and that is where it peaks.
 *
 * Layouts: activations (time, height, width, channel) in the run's working type, the residual sums
 * too; pictures and latents float32, channel last.
 *
 * Quirks we reproduce
 *   - before it halves the size the encoder pads on the right and below only
 *   - halving the rate looks back at one frame, already of the smaller size; the first chunk, a
 *     single frame, passes unchanged and only becomes that past
 *   - doubling the rate leaves the first latent alone and does not remember it: the second one sees
 *     zeros in its place
 *   - half of conv1's outputs is a log-variance that nobody uses: the latent is the mode
 */
#include "models/wan_vae.h"

#include "base/alloc.h"
#include "models/sizes.h"
#include "ops/ops.h"

#include <assert.h>
#include <math.h>

/* The latents' mean and deviation over the training set: constants of upstream's class. */
static const float latent_mean[EM_VAE_CHANNELS] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,
                                                   -0.1745f, 0.9653f,  -0.1517f, 1.5508f,
                                                   0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                                   -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float latent_deviation[EM_VAE_CHANNELS] = {2.8184f, 1.4541f, 2.3275f, 2.6558f,
                                                        1.2196f, 1.7708f, 2.6052f, 2.0743f,
                                                        3.2687f, 2.1526f, 2.8652f, 1.5579f,
                                                        1.6382f, 1.1253f, 2.8251f, 1.9160f};

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct conv_weights {
    em_tensor w, b; /* (out, in, time, height, width) or (out, in, height, width); (out) */
    int slot;       /* of its past in the stream */
} conv_weights;

typedef struct residual_weights {
    em_tensor norm1, norm2;
    conv_weights conv1, conv2;
    conv_weights shortcut; /* where the width changes, else empty */
} residual_weights;

typedef struct attention_weights {
    em_tensor norm;
    conv_weights qkv; /* rows: queries, keys, values */
    conv_weights proj;
} attention_weights;

enum { STAGES = 4, BLOCKS = 3 /* at most */ };

typedef struct stage_weights {
    residual_weights block[BLOCKS];
    int blocks;
    conv_weights space, time; /* the change of size and of rate behind the blocks; or empty */
} stage_weights;

/* Encoder and decoder are made of the same parts. */
typedef struct half_weights {
    conv_weights stem;
    stage_weights stage[STAGES];
    residual_weights middle_in, middle_out;
    attention_weights attn;
    em_tensor head_norm;
    conv_weights head;
    int slots;       /* handed out */
    em_group *group; /* owned: one a stage; the last, MIDDLE, is the middle's. The outermost stage
                      * holds the pixels' convolution, the middle the latents'. */
} half_weights;

enum { MIDDLE = STAGES, GROUPS };

struct em_vae {
    em_vae_config cfg;
    half_weights encoder, decoder;
    conv_weights to_moments;  /* conv1: rows are means, then log-variances */
    conv_weights from_latent; /* conv2 */
};

enum { IN = EM_SYM(0), OUT = EM_SYM(1) };

#define CONV(type, field, text, ...)                                                               \
    EM_BIND(type, field.w, text ".weight", OUT, IN, __VA_ARGS__),                                  \
        EM_BIND(type, field.b, text ".bias", OUT)

static const em_bind conv3_rows[] = {
    EM_BIND(conv_weights, w, "weight", OUT, IN, 3, 3, 3),
    EM_BIND(conv_weights, b, "bias", OUT),
};
static const em_bind conv1_rows[] = {
    EM_BIND(conv_weights, w, "weight", OUT, IN, 1, 1, 1),
    EM_BIND(conv_weights, b, "bias", OUT),
};
static const em_bind residual_rows[] = {
    EM_BIND(residual_weights, norm1, "residual.0.gamma", IN, 1, 1, 1),
    CONV(residual_weights, conv1, "residual.2", 3, 3, 3),
    EM_BIND(residual_weights, norm2, "residual.3.gamma", OUT, 1, 1, 1),
    EM_BIND(residual_weights, conv2.w, "residual.6.weight", OUT, OUT, 3, 3, 3),
    EM_BIND(residual_weights, conv2.b, "residual.6.bias", OUT),
};
static const em_bind shortcut_rows[] = {
    CONV(residual_weights, shortcut, "shortcut", 1, 1, 1),
};
static const em_bind attention_rows[] = {
    EM_BIND(attention_weights, norm, "norm.gamma", IN, 1, 1),
    CONV(attention_weights, qkv, "to_qkv", 1, 1),
    EM_BIND(attention_weights, proj.w, "proj.weight", IN, IN, 1, 1),
    EM_BIND(attention_weights, proj.b, "proj.bias", IN),
};
static const em_bind space_rows[] = {
    CONV(stage_weights, space, "resample.1", 3, 3),
};
static const em_bind time_rows[] = {
    CONV(stage_weights, time, "time_conv", 3, 1, 1),
};
static const em_bind head_norm_rows[] = {
    EM_BIND(half_weights, head_norm, "0.gamma", IN, 1, 1, 1),
};
static const em_bind head_rows[] = {
    CONV(half_weights, head, "2", 3, 3, 3),
};

/* ROWS of `in` and `out` channels, into the struct at BASE, under PREFIX, a format. */
#define BIND(b, rows, base, in, out, ...)                                                          \
    do {                                                                                           \
        em_binder_sizes(b, (const int64_t[]){in, out}, 2);                                         \
        em_binder_rows(b, rows, EM_COUNT(rows), base, __VA_ARGS__);                                \
    } while (0)

/* The width of each stage, in dims. */
static const int encoder_width[STAGES] = {1, 2, 4, 4};
static const int decoder_width[STAGES] = {4, 4, 2, 1};

static void walk_residual(em_binder *b, half_weights *h, residual_weights *w, int64_t in,
                          int64_t out, const char *prefix, int n)
{
    BIND(b, residual_rows, w, in, out, "%s%d.", prefix, n);
    if (in != out) BIND(b, shortcut_rows, w, in, out, "%s%d.", prefix, n);
    w->conv1.slot = h->slots++;
    w->conv2.slot = h->slots++;
}

static void walk_resample(em_binder *b, half_weights *h, stage_weights *w, int64_t in,
                          int64_t space_out, int64_t time_out, const char *prefix, int n)
{
    BIND(b, space_rows, w, in, space_out, "%s%d.", prefix, n);
    if (!time_out) return;
    BIND(b, time_rows, w, in, time_out, "%s%d.", prefix, n);
    w->time.slot = h->slots++;
}

static void walk_stem(em_binder *b, half_weights *h, int64_t in, int64_t out, const char *prefix)
{
    BIND(b, conv3_rows, &h->stem, in, out, "%sconv1.", prefix);
    h->stem.slot = h->slots++;
}

static void walk_middle(em_binder *b, half_weights *h, int64_t c, const char *prefix)
{
    walk_residual(b, h, &h->middle_in, c, c, prefix, 0);
    BIND(b, attention_rows, &h->attn, c, 3 * c, "%s1.", prefix);
    walk_residual(b, h, &h->middle_out, c, c, prefix, 2);
}

static void walk_head(em_binder *b, half_weights *h, int64_t in, int64_t out, const char *prefix)
{
    BIND(b, head_norm_rows, h, in, in, "%s", prefix);
    BIND(b, head_rows, h, in, out, "%s", prefix);
    h->head.slot = h->slots++;
    assert(h->slots <= EM_VAE_PASTS);
}

static void walk_encoder(em_binder *b, half_weights *h, int64_t dim)
{
    const char *prefix = "encoder.downsamples.";
    int64_t c = dim;
    em_binder_group(b, &h->group[0]);
    walk_stem(b, h, 3, c, "encoder.");
    for (int i = 0, n = 0; i < STAGES; i++) {
        stage_weights *st = &h->stage[i];
        int64_t out = encoder_width[i] * dim;
        em_binder_group(b, &h->group[i]);
        for (st->blocks = 0; st->blocks < 2; c = out)
            walk_residual(b, h, &st->block[st->blocks++], c, out, prefix, n++);
        if (i < STAGES - 1) walk_resample(b, h, st, c, c, i > 0 ? c : 0, prefix, n++);
    }
    em_binder_group(b, &h->group[MIDDLE]);
    walk_middle(b, h, c, "encoder.middle.");
    walk_head(b, h, c, (int64_t)2 * EM_VAE_CHANNELS, "encoder.head.");
}

static void walk_decoder(em_binder *b, half_weights *h, int64_t dim)
{
    const char *prefix = "decoder.upsamples.";
    int64_t c = decoder_width[0] * dim;
    em_binder_group(b, &h->group[MIDDLE]);
    walk_stem(b, h, EM_VAE_CHANNELS, c, "decoder.");
    walk_middle(b, h, c, "decoder.middle.");
    for (int i = 0, n = 0; i < STAGES; i++) {
        stage_weights *st = &h->stage[i];
        int64_t out = decoder_width[i] * dim;
        em_binder_group(b, &h->group[i]);
        for (st->blocks = 0; st->blocks < 3; c = out)
            walk_residual(b, h, &st->block[st->blocks++], c, out, prefix, n++);
        if (i == STAGES - 1) break;
        walk_resample(b, h, st, c, c / 2, i < STAGES - 2 ? 2 * c : 0, prefix, n++);
        c /= 2;
    }
    walk_head(b, h, c, 3, "decoder.head.");
}

static void walk(em_binder *b, em_vae *m)
{
    const int64_t z = EM_VAE_CHANNELS;
    walk_encoder(b, &m->encoder, m->cfg.dim);
    BIND(b, conv1_rows, &m->to_moments, 2 * z, 2 * z, "conv1.");
    em_binder_group(b, &m->decoder.group[MIDDLE]);
    BIND(b, conv1_rows, &m->from_latent, z, z, "conv2.");
    walk_decoder(b, &m->decoder, m->cfg.dim);
    em_binder_sizes(b, NULL, 0);
}

void em_vae_visit(em_binder *b, const em_vae_config *cfg)
{
    em_group group[2][GROUPS] = {0};
    em_vae nobody = {.cfg = *cfg, .encoder = {.group = group[0]}, .decoder = {.group = group[1]}};
    walk(b, &nobody);
}

/* ---- open and close -------------------------------------------------------------------------- */

em_status em_vae_config_read(em_vae_config *cfg, const em_ckpt *ckpt, em_err *err)
{
    em_sizes s = {.ckpt = ckpt, .model = "vae"};
    em_vae_config c = {.dim = em_sizes_dim(&s, "encoder.conv1.weight", 5, 0)};
    em_status st = em_sizes_finish(&s, err);
    if (!st) *cfg = c;
    return st;
}

em_status em_vae_open(em_vae **out, const em_vae_config *cfg, const em_ckpt *ckpt,
                      const em_log *log, em_err *err)
{
    em_binder *b = NULL;
    em_status st = EM_NOMEM;
    em_vae *m = em_alloc(sizeof *m);
    if (m) {
        m->cfg = *cfg;
        m->encoder.group = em_alloc_array(GROUPS, sizeof(em_group));
        m->decoder.group = em_alloc_array(GROUPS, sizeof(em_group));
    }
    if (!m || !m->encoder.group || !m->decoder.group) {
        em_fail(err, EM_NOMEM, "no memory to open the VAE");
        goto fail;
    }
    st = em_binder_open(&b, ckpt, "vae", log, err);
    if (st) goto fail;
    walk(b, m);
    st = em_binder_finish(&b, err);
    if (st) goto fail;
    *out = m;
    return EM_OK;

fail:
    em_vae_close(&m);
    return st;
}

static void close_groups(half_weights *h)
{
    for (int i = 0; h->group && i < GROUPS; i++) em_group_close(&h->group[i]);
    em_free(h->group);
}

void em_vae_close(em_vae **m)
{
    if (!m || !*m) return;
    close_groups(&(*m)->encoder);
    close_groups(&(*m)->decoder);
    em_free(*m);
    *m = NULL;
}

/* Pins the groups of stages first … last (MIDDLE: the middle's). */
static void pin(em_run *r, const half_weights *h, int first, int last)
{
    for (int i = first; i <= last; i++) em_run_pin(r, &h->group[i]);
}

static void unpin(em_run *r, const half_weights *h, int first, int last)
{
    for (int i = first; i <= last; i++) em_run_unpin(r, &h->group[i]);
}

/* ---- convolutions ---------------------------------------------------------------------------- */

/* Shifts x's frames into the past from behind: its frame i becomes frame i + T of (past, x). */
static void remember(em_run *r, em_tensor past, em_tensor x)
{
    int64_t kept = past.dim[0], t = x.dim[0];
    for (int64_t i = 0; i < kept; i++)
        em_copy(r, em_slice(past, i, 1),
                i + t < kept ? em_slice(past, i + t, 1) : em_slice(x, i + t - kept, 1));
}

/* Room for the past of a convolution over x: `frames` frames, kept until the stream ends. */
static em_tensor new_past(em_run *r, em_tensor x, int64_t frames)
{
    return em_run_keep(r, x.dtype, EM_SHAPE(frames, x.dim[1], x.dim[2], x.dim[3]));
}

/* Same size, looking back two frames: kernel 3 x 3 x 3 or 3 x 1 x 1.
 * x (T, H, W, C) into y (T, H, W, O) */
static void causal_to(em_run *r, em_vae_stream *s, const conv_weights *c, em_tensor y, em_tensor x)
{
    int half = (int)c->w.dim[3] / 2;
    em_conv_spec spec = {.pad_before = {0, half, half}, .pad_after = {0, half, half}};
    em_tensor *past = &s->past[c->slot];
    if (em_tensor_is_empty(*past)) {
        *past = new_past(r, x, c->w.dim[2] - 1);
        em_fill(r, *past, 0);
    }
    em_conv_to(r, y, x, *past, c->w, c->b, &spec);
    remember(r, *past, x);
}

/* Room for what `causal_to` makes of x. */
static em_tensor causal_room(em_run *r, const conv_weights *c, em_tensor x)
{
    return em_run_tensor(r, x.dtype, EM_SHAPE(x.dim[0], x.dim[1], x.dim[2], c->w.dim[0]));
}

static em_tensor causal(em_run *r, em_vae_stream *s, const conv_weights *c, em_tensor x)
{
    em_tensor y = causal_room(r, c, x);
    causal_to(r, s, c, y, x);
    return y;
}

/* A 1 x 1 x 1 convolution: outputs [first, first + count) of it.   x (…, C) -> (…, count) */
static em_tensor pointwise(em_run *r, const conv_weights *c, em_tensor x, int64_t first,
                           int64_t count)
{
    em_tensor w = em_view(c->w, EM_SHAPE(c->w.dim[0], c->w.dim[1]));
    return em_linear(r, x, em_slice(w, first, count), em_slice(c->b, first, count), EM_ACT_NONE);
}

/* ---- changes of size and rate ---------------------------------------------------------------- */

/* (T, H, W, C) -> (T, H/2, W/2, C) */
static em_tensor halve_space(em_run *r, const stage_weights *st, em_tensor x)
{
    static const em_conv_spec spec = {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}};
    return em_conv(r, x, (em_tensor){0}, st->space.w, st->space.b, &spec);
}

/* (T, H, W, C) -> (T/2, H, W, C); the first chunk as it is */
static em_tensor halve_time(em_run *r, em_vae_stream *s, const stage_weights *st, em_tensor x)
{
    static const em_conv_spec spec = {.stride = {2, 1, 1}};
    em_tensor *past = &s->past[st->time.slot];
    em_tensor y = x;
    if (em_tensor_is_empty(*past))
        *past = new_past(r, x, 1);
    else
        y = em_conv(r, x, *past, st->time.w, st->time.b, &spec);
    remember(r, *past, x);
    return y;
}

/* (T, H, W, C) -> (T, 2H, 2W, C/2) */
static em_tensor double_space(em_run *r, const stage_weights *st, em_tensor x)
{
    static const em_conv_spec spec = {.upsample_2x = true,
                                      .pad_before = {0, 1, 1},
                                      .pad_after = {0, 1, 1}};
    return em_conv(r, x, (em_tensor){0}, st->space.w, st->space.b, &spec);
}

/* (T, H, W, C) -> (2T, H, W, C); the first chunk as it is. A position's 2C outputs are its even
 * frame, then its odd one. */
static em_tensor double_time(em_run *r, em_vae_stream *s, const stage_weights *st, em_tensor x)
{
    if (s->chunks == 0) return x;
    int64_t t = x.dim[0], c = x.dim[3];
    em_tensor y = em_run_tensor(r, x.dtype, EM_SHAPE(2 * t, x.dim[1], x.dim[2], c));
    em_mark mark = em_run_mark(r);
    em_tensor pairs = causal(r, s, &st->time, x); // (T, H, W, 2C)
    for (int64_t i = 0; i < 2 * t; i++)
        em_copy_cols(r, em_slice(y, i, 1), 0, em_slice(pairs, i / 2, 1), i % 2 * c, c);
    em_run_release(r, mark);
    return y;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* shortcut(x) + conv(SiLU(norm(conv(SiLU(norm(x))))))   in place where the width stays. Two tensors
 * beside it at a time: at the full rate this is where scratch peaks. */
static em_tensor residual(em_run *r, em_vae_stream *s, const residual_weights *w, em_tensor x)
{
    em_tensor y = x;
    if (!em_tensor_is_empty(w->shortcut.w))
        y = pointwise(r, &w->shortcut, x, 0, w->shortcut.w.dim[0]);
    em_mark mark = em_run_mark(r);
    em_tensor h = causal_room(r, &w->conv1, x); // (T, H, W, O)
    em_mark inner = em_run_mark(r);
    causal_to(r, s, &w->conv1, h, em_l2_norm(r, x, w->norm1, EM_ACT_SILU));
    em_run_release(r, inner);
    em_l2_norm_inplace(r, h, w->norm2, EM_ACT_SILU);
    em_add(r, y, causal(r, s, &w->conv2, h));
    em_run_release(r, mark);
    return y;
}

static em_tensor residuals(em_run *r, em_vae_stream *s, const stage_weights *st, em_tensor x)
{
    for (int i = 0; i < st->blocks; i++) x = residual(r, s, &st->block[i], x);
    return x;
}

/* x + proj(softmax(q k^T / sqrt C) v), one head, the positions of each frame among themselves. */
static void attention(em_run *r, const attention_weights *w, em_tensor x)
{
    int64_t c = w->proj.w.dim[0];
    em_mark mark = em_run_mark(r);
    em_tensor h = em_l2_norm(r, x, w->norm, EM_ACT_NONE); // (T, h, w, C)
    h = em_view(h, EM_SHAPE(x.dim[0], x.dim[1] * x.dim[2], c));
    em_tensor q = pointwise(r, &w->qkv, h, 0, c);     // (T, h w, C)
    em_tensor k = pointwise(r, &w->qkv, h, c, c);     // (T, h w, C)
    em_tensor v = pointwise(r, &w->qkv, h, 2 * c, c); // (T, h w, C)
    em_attn a = {.heads = 1, .scale = 1 / sqrtf((float)c)};
    h = em_attention(r, q, k, v, &a); // (T, h w, C)
    em_add(r, x, pointwise(r, &w->proj, h, 0, c));
    em_run_release(r, mark);
}

static em_tensor middle(em_run *r, em_vae_stream *s, const half_weights *h, em_tensor x)
{
    x = residual(r, s, &h->middle_in, x);
    attention(r, &h->attn, x);
    return residual(r, s, &h->middle_out, x);
}

static em_tensor head(em_run *r, em_vae_stream *s, const half_weights *h, em_tensor x)
{
    return causal(r, s, &h->head, em_l2_norm(r, x, h->head_norm, EM_ACT_SILU));
}

/* ---- encoder --------------------------------------------------------------------------------- */

/* How many frames go through at once at the full rate, of `left`. */
static int64_t pass(const em_run *r, int64_t left)
{
    int64_t most = r->cut.vae_frames > 1 ? r->cut.vae_frames : 1;
    return left < most ? left : most;
}

/* At the full rate: n is what `pass` says.   frames (n, H, W, 3) -> (n, H/4, W/4, 2d) */
static em_tensor encode_pass(em_run *r, const half_weights *e, em_vae_stream *s, em_tensor frames)
{
    em_tensor x = em_cast(r, frames, r->dtype);
    x = causal(r, s, &e->stem, x);          // (n, H, W, d)
    x = residuals(r, s, &e->stage[0], x);   // (n, H, W, d)
    x = halve_space(r, &e->stage[0], x);    // (n, H/2, W/2, d)
    x = residuals(r, s, &e->stage[1], x);   // (n, H/2, W/2, 2d)
    return halve_space(r, &e->stage[1], x); // (n, H/4, W/4, 2d)
}

/* frames (T, H, W, 3) -> (T, H/4, W/4, 2d) */
static em_tensor encode_frames(em_run *r, const half_weights *e, em_vae_stream *s, em_tensor frames)
{
    const int64_t *in = frames.dim;
    int64_t c = e->stage[1].space.w.dim[0];
    em_tensor x = em_run_tensor(r, r->dtype, EM_SHAPE(in[0], in[1] / 4, in[2] / 4, c));
    for (int64_t i = 0, n; i < in[0]; i += n) {
        em_mark mark = em_run_mark(r);
        n = pass(r, in[0] - i);
        em_copy(r, em_slice(x, i, n), encode_pass(r, e, s, em_slice(frames, i, n)));
        em_run_release(r, mark);
    }
    return x;
}

/* frames (T, H, W, 3) -> mean (T/4, h, w, 16) */
static em_tensor encode(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor frames)
{
    const half_weights *e = &m->encoder;
    pin(r, e, 0, 1);
    em_tensor x = encode_frames(r, e, s, frames); // (T, H/4, W/4, 2d)
    x = halve_time(r, s, &e->stage[1], x);        // (T/2, H/4, W/4, 2d)
    unpin(r, e, 0, 1);

    pin(r, e, 2, MIDDLE);
    x = residuals(r, s, &e->stage[2], x);  // (T/2, H/4, W/4, 4d)
    x = halve_space(r, &e->stage[2], x);   // (T/2, h, w, 4d)
    x = halve_time(r, s, &e->stage[2], x); // (T/4, h, w, 4d)
    x = residuals(r, s, &e->stage[3], x);  // (T/4, h, w, 4d)
    x = middle(r, s, e, x);                // (T/4, h, w, 4d)
    x = head(r, s, e, x);                  // (T/4, h, w, 32)
    x = pointwise(r, &m->to_moments, x, 0, EM_VAE_CHANNELS);
    unpin(r, e, 2, MIDDLE);
    return x;
}

/* (mean - m) / s, in place */
static void normalize(em_run *r, em_tensor mean)
{
    float scale[EM_VAE_CHANNELS], shift[EM_VAE_CHANNELS];
    for (int i = 0; i < EM_VAE_CHANNELS; i++) {
        scale[i] = 1 / latent_deviation[i];
        shift[i] = -latent_mean[i] / latent_deviation[i];
    }
    em_scale_shift(r, mean, em_upload(r, scale, EM_F32, EM_SHAPE(EM_VAE_CHANNELS)),
                   em_upload(r, shift, EM_F32, EM_SHAPE(EM_VAE_CHANNELS)));
}

static bool frames_fit(const em_vae_stream *s, em_tensor x)
{
    if (x.ndim != 4 || x.dtype != EM_F32 || x.dim[3] != 3) return false;
    bool whole = x.dim[1] >= 1 && x.dim[1] % EM_VAE_SPACE == 0 && x.dim[2] >= 1 &&
                 x.dim[2] % EM_VAE_SPACE == 0;
    bool first = s->chunks == 0;
    return whole && (first ? x.dim[0] == 1 : x.dim[0] >= 1 && x.dim[0] % EM_VAE_TIME == 0);
}

em_tensor em_vae_encode_chunk(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor frames)
{
    char shape[80];
    if (em_run_stopped(r)) return (em_tensor){0};
    if (!frames_fit(s, frames))
        return em_run_fail(
            r, EM_INVAL,
            "VAE: cannot encode a chunk of shape %s: expected (1, H, W, 3) at first, "
            "then (4, H, W, 3), H and W multiples of %d",
            em_shape_text(shape, frames.dim, frames.ndim), EM_VAE_SPACE);
    int64_t t = (frames.dim[0] + EM_VAE_TIME - 1) / EM_VAE_TIME;
    em_tensor z = em_run_tensor(r, EM_F32,
                                EM_SHAPE(t, frames.dim[1] / EM_VAE_SPACE,
                                         frames.dim[2] / EM_VAE_SPACE, EM_VAE_CHANNELS));
    em_mark mark = em_run_mark(r);
    em_copy(r, z, encode(r, m, s, frames));
    normalize(r, z);
    em_run_release(r, mark);
    s->chunks++;
    return em_run_stopped(r) ? (em_tensor){0} : z;
}

/* ---- decoder --------------------------------------------------------------------------------- */

/* At the full rate: n is what `pass` says.   x (n, 2h, 2w, 4d) -> frames (n, H, W, 3) */
static em_tensor decode_pass(em_run *r, const half_weights *d, em_vae_stream *s, em_tensor x)
{
    x = double_space(r, &d->stage[1], x); // (n, H/2, W/2, 2d)
    x = residuals(r, s, &d->stage[2], x); // (n, H/2, W/2, 2d)
    x = double_space(r, &d->stage[2], x); // (n, H, W, d)
    x = residuals(r, s, &d->stage[3], x); // (n, H, W, d)
    return head(r, s, d, x);              // (n, H, W, 3)
}

/* z s + m in the run's type.   z F32 (T, h, w, 16) */
static em_tensor denormalize(em_run *r, em_tensor z)
{
    em_tensor x = em_run_tensor(r, EM_F32, z.dim, z.ndim);
    em_copy(r, x, z);
    em_scale_shift(r, x, em_upload(r, latent_deviation, EM_F32, EM_SHAPE(EM_VAE_CHANNELS)),
                   em_upload(r, latent_mean, EM_F32, EM_SHAPE(EM_VAE_CHANNELS)));
    return em_cast(r, x, r->dtype);
}

/* z (T, h, w, 16) into frames F32 (4T, H, W, 3), (1, H, W, 3) in the first chunk */
static void decode(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor frames, em_tensor z)
{
    const half_weights *d = &m->decoder;
    pin(r, d, MIDDLE, MIDDLE);
    em_tensor x = denormalize(r, z);                          // (T, h, w, 16)
    x = pointwise(r, &m->from_latent, x, 0, EM_VAE_CHANNELS); // (T, h, w, 16)
    x = causal(r, s, &d->stem, x);                            // (T, h, w, 4d)
    x = middle(r, s, d, x);                                   // (T, h, w, 4d)
    unpin(r, d, MIDDLE, MIDDLE);

    pin(r, d, 0, STAGES - 1);
    x = residuals(r, s, &d->stage[0], x);   // (T, h, w, 4d)
    x = double_time(r, s, &d->stage[0], x); // (2T, h, w, 4d)
    x = double_space(r, &d->stage[0], x);   // (2T, 2h, 2w, 2d)
    x = residuals(r, s, &d->stage[1], x);   // (2T, 2h, 2w, 4d)
    x = double_time(r, s, &d->stage[1], x); // (4T, 2h, 2w, 4d)
    for (int64_t i = 0, n; i < frames.dim[0]; i += n) {
        em_mark mark = em_run_mark(r);
        n = pass(r, frames.dim[0] - i);
        em_copy(r, em_slice(frames, i, n), decode_pass(r, d, s, em_slice(x, i, n)));
        em_run_release(r, mark);
    }
    unpin(r, d, 0, STAGES - 1);
}

em_tensor em_vae_decode_chunk(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor latents)
{
    const int64_t *in = latents.dim;
    char shape[80];
    if (em_run_stopped(r)) return (em_tensor){0};
    if (latents.ndim != 4 || latents.dtype != EM_F32 || in[0] < 1 ||
        (s->chunks == 0 && in[0] > 1) || in[3] != EM_VAE_CHANNELS)
        return em_run_fail(r, EM_INVAL,
                           "VAE: cannot decode a chunk of shape %s: expected (1, h, w, %d)",
                           em_shape_text(shape, in, latents.ndim), EM_VAE_CHANNELS);
    int64_t t = s->chunks == 0 ? 1 : in[0] * EM_VAE_TIME;
    em_tensor frames =
        em_run_tensor(r, EM_F32, EM_SHAPE(t, in[1] * EM_VAE_SPACE, in[2] * EM_VAE_SPACE, 3));
    em_mark mark = em_run_mark(r);
    decode(r, m, s, frames, latents);
    em_act_inplace(r, frames, EM_ACT_HARD_TANH);
    em_run_release(r, mark);
    s->chunks++;
    return em_run_stopped(r) ? (em_tensor){0} : frames;
}
