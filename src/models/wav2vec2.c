/* wav2vec 2.0 (arXiv 2006.11477), the encoder alone, as EchoMimicV3 uses it.
 *
 * Upstream: src/wav2vec2.py, class Wav2Vec2Model, over the transformers library's class of that
 * name.
 *
 *     wave (n) -> 7 convolutions, 320 samples a step     features (T, 512), 50 a second
 *              -> resampled to one row a video frame              (frames, 512)
 *              -> layer norm, linear                              (frames, 768)
 *              -> + GELU(positional convolution), layer norm      hidden state 0
 *              -> 12 transformer layers, norms behind the sums    hidden states 1 … 12
 *
 * Activations are (time, channels); convolution weights (out, in / groups, kernel) as in the file.
 *
 * What differs from the paper: the features are resampled to the video's frame rate *before* the
 * transformer, so its positions are frames.
 *
 * Quirks we reproduce
 *   - the first convolution alone has a norm, each channel over the whole recording: what is heard
 *     at the end changes the features of the beginning
 *   - an even positional kernel padded by half of it on both sides yields one row too many, and the
 *     last one is dropped: the same as one zero less behind
 *   - hidden state 0 is left out of the result */
#include "models/wav2vec2.h"

#include "base/alloc.h"
#include "models/nn.h"
#include "models/sizes.h"

#include <math.h>
#include <stdio.h>

/* The norm in the feature extractor has torch's default; config.json's value is for the others. */
static const float time_norm_eps = 1e-5f;

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct conv_weights {
    em_tensor w; /* (out, in, kernel) */
} conv_weights;

typedef struct stem_weights {
    em_nn_norm conv_norm; /* of convolution 0 */
    em_nn_norm proj_norm;
    em_nn_dense proj;
    em_tensor pos_g, pos_v, pos_b; /* weight norm: (1, 1, K), (hidden, hidden / groups, K) */
    em_nn_norm norm;
} stem_weights;

typedef struct layer_weights {
    em_nn_attn attn;
    em_nn_norm attn_norm;
    em_nn_dense ffn_in, ffn_out;
    em_nn_norm ffn_norm;
} layer_weights;

struct em_wav2vec2 {
    em_wav2vec2_config cfg;
    conv_weights conv[EM_WAV2VEC2_CONVS];
    stem_weights stem;
    layer_weights *layer; /* owned, cfg.layers */
    em_group *group;      /* owned: one a layer, and a last one for everything in front of them */
};

enum { /* of a convolution */ OUT = EM_SYM(0), IN = EM_SYM(1), KERNEL = EM_SYM(2) };
enum {
    HIDDEN = EM_SYM(0),
    FFN = EM_SYM(1),
    FEATURES = EM_SYM(2),
    POS_IN = EM_SYM(3),
    POS_KERNEL = EM_SYM(4)
};

#define POS_CONV "encoder.pos_conv_embed.conv."

static const em_bind conv_rows[] = {
    EM_BIND(conv_weights, w, "conv.weight", OUT, IN, KERNEL),
};
static const em_bind conv_norm_rows[] = {
    EM_BIND(stem_weights, conv_norm.w, "layer_norm.weight", OUT),
    EM_BIND(stem_weights, conv_norm.b, "layer_norm.bias", OUT),
};
static const em_bind stem_rows[] = {
    EM_BIND_SPARE("masked_spec_embed", HIDDEN), /* training replaces masked frames by it */
    EM_BIND(stem_weights, proj_norm.w, "feature_projection.layer_norm.weight", FEATURES),
    EM_BIND(stem_weights, proj_norm.b, "feature_projection.layer_norm.bias", FEATURES),
    EM_BIND(stem_weights, proj.w, "feature_projection.projection.weight", HIDDEN, FEATURES),
    EM_BIND(stem_weights, proj.b, "feature_projection.projection.bias", HIDDEN),
    EM_BIND(stem_weights, pos_b, POS_CONV "bias", HIDDEN),
    {.offset = offsetof(stem_weights, pos_g),
     .name = POS_CONV "parametrizations.weight.original0",
     .alias = POS_CONV "weight_g",
     .dim = {1, 1, POS_KERNEL}},
    {.offset = offsetof(stem_weights, pos_v),
     .name = POS_CONV "parametrizations.weight.original1",
     .alias = POS_CONV "weight_v",
     .dim = {HIDDEN, POS_IN, POS_KERNEL}},
    EM_BIND(stem_weights, norm.w, "encoder.layer_norm.weight", HIDDEN),
    EM_BIND(stem_weights, norm.b, "encoder.layer_norm.bias", HIDDEN),
};
static const em_bind layer_rows[] = {
    EM_BIND(layer_weights, attn.q.w, "attention.q_proj.weight", HIDDEN, HIDDEN),
    EM_BIND(layer_weights, attn.q.b, "attention.q_proj.bias", HIDDEN),
    EM_BIND(layer_weights, attn.k.w, "attention.k_proj.weight", HIDDEN, HIDDEN),
    EM_BIND(layer_weights, attn.k.b, "attention.k_proj.bias", HIDDEN),
    EM_BIND(layer_weights, attn.v.w, "attention.v_proj.weight", HIDDEN, HIDDEN),
    EM_BIND(layer_weights, attn.v.b, "attention.v_proj.bias", HIDDEN),
    EM_BIND(layer_weights, attn.o.w, "attention.out_proj.weight", HIDDEN, HIDDEN),
    EM_BIND(layer_weights, attn.o.b, "attention.out_proj.bias", HIDDEN),
    EM_BIND(layer_weights, attn_norm.w, "layer_norm.weight", HIDDEN),
    EM_BIND(layer_weights, attn_norm.b, "layer_norm.bias", HIDDEN),
    EM_BIND(layer_weights, ffn_in.w, "feed_forward.intermediate_dense.weight", FFN, HIDDEN),
    EM_BIND(layer_weights, ffn_in.b, "feed_forward.intermediate_dense.bias", FFN),
    EM_BIND(layer_weights, ffn_out.w, "feed_forward.output_dense.weight", HIDDEN, FFN),
    EM_BIND(layer_weights, ffn_out.b, "feed_forward.output_dense.bias", HIDDEN),
    EM_BIND(layer_weights, ffn_norm.w, "final_layer_norm.weight", HIDDEN),
    EM_BIND(layer_weights, ffn_norm.b, "final_layer_norm.bias", HIDDEN),
};

/* The whole checkpoint; m is NULL in a visit. */
static void walk(em_binder *b, const em_wav2vec2_config *c, em_wav2vec2 *m)
{
    stem_weights *stem = m ? &m->stem : NULL;
    for (int64_t i = 0; m && i <= c->layers; i++) m->group[i].rule = EM_WEIGHTS_STORED;
    em_binder_group(b, m ? &m->group[c->layers] : NULL);
    for (int i = 0; i < c->convs; i++) {
        const int64_t sizes[] = {c->conv_dim[i], i ? c->conv_dim[i - 1] : 1, c->conv_kernel[i]};
        em_binder_sizes(b, sizes, EM_COUNT(sizes));
        em_binder_rows(b, conv_rows, EM_COUNT(conv_rows), m ? &m->conv[i] : NULL,
                       "feature_extractor.conv_layers.%d.", i);
        if (i == 0)
            em_binder_rows(b, conv_norm_rows, EM_COUNT(conv_norm_rows), stem,
                           "feature_extractor.conv_layers.0.");
    }
    const int64_t sizes[] = {c->hidden, c->ffn, c->conv_dim[c->convs - 1],
                             c->hidden / c->pos_groups, c->pos_kernel};
    em_binder_sizes(b, sizes, EM_COUNT(sizes));
    em_binder_rows(b, stem_rows, EM_COUNT(stem_rows), stem, "%s", "");
    for (int i = 0; i < c->layers; i++) {
        em_binder_group(b, m ? &m->group[i] : NULL);
        em_binder_rows(b, layer_rows, EM_COUNT(layer_rows), m ? &m->layer[i] : NULL,
                       "encoder.layers.%d.", i);
    }
    em_binder_sizes(b, NULL, 0);
    em_binder_ignore(b, "lm_head.*"); /* heads of files saved after fine-tuning or pre-training */
    em_binder_ignore(b, "quantizer.*");
    em_binder_ignore(b, "project_*");
}

void em_wav2vec2_visit(em_binder *b, const em_wav2vec2_config *cfg)
{
    walk(b, cfg, NULL);
}

/* ---- config ---------------------------------------------------------------------------------- */

em_wav2vec2_config em_wav2vec2_config_default(void)
{
    return (em_wav2vec2_config){
        .heads = 12,
        .convs = 7,
        .conv_stride = {5, 2, 2, 2, 2, 2, 2},
        .eps = 1e-5f,
        .conv_dim = {512, 512, 512, 512, 512, 512, 512},
        .conv_kernel = {10, 3, 3, 3, 3, 2, 2},
        .hidden = 768,
        .ffn = 3072,
        .layers = 12,
        .pos_kernel = 128,
        .pos_groups = 16,
    };
}

static void check_config(em_sizes *s, const em_wav2vec2_config *c)
{
    em_sizes_require(s, c->convs >= 1 && c->convs <= EM_WAV2VEC2_CONVS,
                     "config.json gives %lld convolutions, expected 1 to %d", (long long)c->convs,
                     EM_WAV2VEC2_CONVS);
    for (int i = 0; !s->err.code && i < c->convs; i++)
        em_sizes_require(s, c->conv_stride[i] >= 1 && c->conv_stride[i] <= INT32_MAX,
                         "config.json gives convolution %d the stride %lld", i,
                         (long long)c->conv_stride[i]);
}

static void check_sizes(em_sizes *s, const em_wav2vec2_config *c)
{
    em_sizes_require(s, c->heads >= 1 && c->hidden % c->heads == 0,
                     "config.json gives %lld heads, which do not divide the width %lld",
                     (long long)c->heads, (long long)c->hidden);
    em_sizes_require(s, c->pos_groups >= 1 && c->hidden % c->pos_groups == 0,
                     "the positional convolution's groups do not divide the width %lld",
                     (long long)c->hidden);
}

em_status em_wav2vec2_config_read(em_wav2vec2_config *cfg, const em_ckpt *ckpt, em_err *err)
{
    em_wav2vec2_config c = *cfg;
    em_sizes s = {.ckpt = ckpt, .model = "wav2vec2"};
    check_config(&s, &c);
    for (int i = 0; !s.err.code && i < c.convs; i++) {
        char name[80];
        snprintf(name, sizeof name, "feature_extractor.conv_layers.%d.conv.weight", i);
        c.conv_dim[i] = em_sizes_dim(&s, name, 3, 0);
        c.conv_kernel[i] = em_sizes_dim(&s, name, 3, 2);
    }
    const char *v = POS_CONV "parametrizations.weight.original1";
    if (!em_ckpt_find(ckpt, v)) v = POS_CONV "weight_v";
    c.hidden = em_sizes_dim(&s, v, 3, 0);
    int64_t pos_in = em_sizes_dim(&s, v, 3, 1);
    c.pos_kernel = em_sizes_dim(&s, v, 3, 2);
    c.pos_groups = pos_in ? c.hidden / pos_in : 0;
    c.layers = em_sizes_blocks(&s, "encoder.layers.");
    c.ffn = em_sizes_dim(&s, "encoder.layers.0.feed_forward.intermediate_dense.weight", 2, 0);
    check_sizes(&s, &c);
    em_status st = em_sizes_finish(&s, err);
    if (!st) *cfg = c;
    return st;
}

em_status em_wav2vec2_open(em_wav2vec2 **out, const em_wav2vec2_config *cfg, const em_ckpt *ckpt,
                           const em_log *log, em_err *err)
{
    em_binder *b = NULL;
    em_status st = EM_NOMEM;
    em_wav2vec2 *m = em_alloc(sizeof *m);
    if (m) {
        m->cfg = *cfg;
        m->layer = em_alloc_array((size_t)cfg->layers, sizeof *m->layer);
        m->group = em_alloc_array((size_t)cfg->layers + 1, sizeof *m->group);
    }
    if (!m || !m->layer || !m->group) {
        em_fail(err, EM_NOMEM, "no memory to open wav2vec2");
        goto fail;
    }
    st = em_binder_open(&b, ckpt, "wav2vec2", log, err);
    if (st) goto fail;
    walk(b, cfg, m);
    st = em_binder_finish(&b, err);
    if (st) goto fail;
    *out = m;
    return EM_OK;

fail:
    em_wav2vec2_close(&m);
    return st;
}

void em_wav2vec2_close(em_wav2vec2 **model)
{
    if (!model || !*model) return;
    em_wav2vec2 *m = *model;
    for (int64_t i = 0; m->group && i <= m->cfg.layers; i++) em_group_close(&m->group[i]);
    em_free(m->group);
    em_free(m->layer);
    em_free(m);
    *model = NULL;
}

const em_wav2vec2_config *em_wav2vec2_sizes(const em_wav2vec2 *m)
{
    return &m->cfg;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Feature rows of n samples; 0 when they are too few for one. */
static int64_t feature_rows(const em_wav2vec2_config *c, int64_t n)
{
    for (int i = 0; i < c->convs; i++) {
        if (n < c->conv_kernel[i]) return 0;
        n = (n - c->conv_kernel[i]) / c->conv_stride[i] + 1;
    }
    return n;
}

static em_tensor layer_norm(em_run *r, const em_wav2vec2 *m, em_tensor x, const em_nn_norm *n)
{
    return em_layer_norm(r, x, n->w, n->b, m->cfg.eps);
}

/* wave (n) -> (frames, C) */
static em_tensor features(em_run *r, const em_wav2vec2 *m, em_tensor wave, int64_t frames)
{
    const em_wav2vec2_config *c = &m->cfg;
    em_tensor out = em_run_tensor(r, EM_F32, EM_SHAPE(frames, c->conv_dim[c->convs - 1]));
    em_mark mark = em_run_mark(r);
    em_tensor x = em_view(wave, EM_SHAPE(em_tensor_count(wave), 1));
    for (int i = 0; i < c->convs; i++) {
        em_conv_spec spec = {.stride = {1, 1, (int)c->conv_stride[i]}};
        x = em_conv(r, x, (em_tensor){0}, m->conv[i].w, (em_tensor){0}, &spec); // (T_i, C_i)
        if (i == 0) x = em_time_norm(r, x, m->stem.conv_norm.w, m->stem.conv_norm.b, time_norm_eps);
        em_act_inplace(r, x, EM_ACT_GELU_ERF);
    }
    em_copy(r, out, em_lerp_time(r, x, frames)); // (frames, C)
    em_run_release(r, mark);
    return out;
}

/* x += GELU(conv(x)): where in the recording a frame is, told by its neighbours.
 * x (frames, hidden) */
static void add_positions(em_run *r, const em_wav2vec2 *m, em_tensor x)
{
    const em_wav2vec2_config *c = &m->cfg;
    const stem_weights *s = &m->stem;
    em_mark mark = em_run_mark(r);
    int half = (int)(c->pos_kernel / 2);
    em_conv_spec spec = {.groups = (int)c->pos_groups,
                         .pad_before = {0, 0, half},
                         .pad_after = {0, 0, (int)c->pos_kernel - 1 - half}};
    em_tensor w = em_weight_norm(r, s->pos_g, s->pos_v);             // (hidden, hidden/groups, K)
    em_tensor h = em_conv(r, x, (em_tensor){0}, w, s->pos_b, &spec); // (frames, hidden)
    em_act_inplace(r, h, EM_ACT_GELU_ERF);
    em_add(r, x, h);
    em_run_release(r, mark);
}

/* Features to hidden state 0, in x (frames, hidden). */
static void embed(em_run *r, const em_wav2vec2 *m, em_tensor x, em_tensor f)
{
    em_mark mark = em_run_mark(r);
    em_tensor h = layer_norm(r, m, f, &m->stem.proj_norm); // (frames, C)
    h = em_nn_linear(r, h, &m->stem.proj, EM_ACT_NONE);    // (frames, hidden)
    add_positions(r, m, h);
    em_copy(r, x, layer_norm(r, m, h, &m->stem.norm));
    em_run_release(r, mark);
}

/* x = LN(x + attention(x)), x = LN(x + mlp(x))   x (frames, hidden), in place */
static void layer(em_run *r, const em_wav2vec2 *m, const layer_weights *l, em_tensor x)
{
    em_mark mark = em_run_mark(r);
    float head_dim = (float)(m->cfg.hidden / m->cfg.heads);
    em_attn a = {.heads = (int)m->cfg.heads, .scale = 1 / sqrtf(head_dim)};

    em_add(r, x, em_nn_self_attention(r, x, &l->attn, &a));
    em_copy(r, x, layer_norm(r, m, x, &l->attn_norm));
    em_add(r, x, em_nn_mlp(r, x, &l->ffn_in, &l->ffn_out, EM_ACT_GELU_ERF));
    em_copy(r, x, layer_norm(r, m, x, &l->ffn_norm));
    em_run_release(r, mark);
}

/* ---- entry ----------------------------------------------------------------------------------- */

/* The run works in float32 here. */
static em_tensor forward(em_run *r, const em_wav2vec2 *m, em_tensor wave, int64_t frames,
                         em_wav2vec2_taps *taps)
{
    int64_t layers = m->cfg.layers, hidden = m->cfg.hidden;
    em_tensor states = em_run_tensor(r, EM_F32, EM_SHAPE(frames, layers, hidden));
    em_tensor columns = em_view(states, EM_SHAPE(frames, layers * hidden));
    em_mark mark = em_run_mark(r);
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(frames, hidden));

    em_run_pin(r, &m->group[layers]);
    em_tensor f = features(r, m, wave, frames); // (frames, C)
    embed(r, m, x, f);                          // (frames, hidden)
    em_run_unpin(r, &m->group[layers]);
    if (taps) {
        em_nn_tap(r, &taps->features, f);
        em_nn_tap(r, &taps->hidden0, x);
    }
    for (int64_t i = 0; i < layers; i++) {
        em_run_pin(r, &m->group[i]);
        layer(r, m, &m->layer[i], x);
        em_copy_cols(r, columns, i * hidden, x, 0, hidden);
        em_run_unpin(r, &m->group[i]);
    }
    em_run_release(r, mark);
    return em_run_stopped(r) ? (em_tensor){0} : states;
}

em_tensor em_wav2vec2_forward(em_run *r, const em_wav2vec2 *m, em_tensor wave, int64_t frames,
                              em_wav2vec2_taps *taps)
{
    if (em_run_stopped(r)) return (em_tensor){0};
    if (wave.dtype != EM_F32 || frames < 1 || !feature_rows(&m->cfg, em_tensor_count(wave)))
        return em_run_fail(r, EM_INVAL,
                           "wav2vec2: %lld samples for %lld frames: the audio is too short",
                           (long long)em_tensor_count(wave), (long long)frames);
    em_dtype working = r->dtype;
    r->dtype = EM_F32;
    em_tensor states = forward(r, m, wave, frames, taps);
    r->dtype = working;
    return states;
}
