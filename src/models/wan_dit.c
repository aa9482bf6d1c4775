/* The audio-driven diffusion transformer.
 *
 * Upstream: antgroup/echomimic_v3 src/wan_transformer3d_audio_2512.py,
 * WanTransformerAudioMask3DModel; base model Wan 2.1 (arXiv 2503.20314) Fun-1.3B-InP; DiT blocks
 * with adaptive norms: arXiv 2212.09748.
 *
 *     latents x, condition y                text        portrait      voice
 *            |                               |             |            |
 *     patches of 1x2x2 -> tokens         em_dit_text  em_dit_image  em_dit_audio      once a job:
 *            |                               |             |            |             keys, values
 *            v                               v             v            v             of all blocks
 *     +--------------------------------------------------------------------------+
 *     | x += gate1 . self_attention(norm1(x) (1 + scale1) + shift1)              |
 *     | x += cross_attention(norm3(x))        text + image + this frame's audio  |   x layers
 *     | x += gate2 . feed_forward(norm2(x) (1 + scale2) + shift2)                |
 *     +--------------------------------------------------------------------------+
 *            |                      shift, scale, gate: modulation of the block + e0(t)
 *     norm, head -> velocity
 *
 * Layouts: tokens (N, C), N in the order (frame, row, column); the residual stream is float32,
 * operands of matrix products are of the run's working type.
 *
 * Quirks we reproduce
 *   - q and k are RMS-normalised over the whole width, all heads together, before heads are cut.
 *   - Text rows beyond the prompt are zeros that go through the text MLP and take part in
 *     attention.
 *   - The checkpoint holds q_audio, upstream computes it and overwrites the result: never read.
 *   - Three attentions share one query, each with its own softmax; their sum goes through one
 *     output projection; the cross-attention branch has no gate.
 *   - A later latent covers four video frames but sees eight window slots: the first frame's slots
 *     0..2, the centres of the two middle frames, the last frame's slots 2..4.
 *   - The head is modulated by e, not by e0.
 */
#include "models/wan_dit.h"

#include "base/alloc.h"
#include "base/hash.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- weights --------------------------------------------------------------------------------- */

enum {
    DIM = EM_SYM(0),
    DIM6 = EM_SYM(1),
    FFN = EM_SYM(2),
    FREQ = EM_SYM(3),
    TEXT = EM_SYM(4),
    IN = EM_SYM(5),
    HEAD = EM_SYM(6),
    PATCH_H = EM_SYM(7),
    PATCH_W = EM_SYM(8),
    CLIP = EM_SYM(9),
    AUDIO_FIRST = EM_SYM(10),
    AUDIO_LATER = EM_SYM(11),
    AUDIO_MID = EM_SYM(12),
    AUDIO_OUT = EM_SYM(13),
    N_SIZES = 14,
};

enum { LATER_SLOTS = 8, FRAMES_PER_LATENT = 4 };

typedef struct affine {
    em_tensor w, b;
} affine;

typedef struct block_weights {
    em_tensor modulation; // (1, 6, C)
    affine q, k, v, o;    // (C, C)
    em_tensor norm_q, norm_k;
    affine norm3;
    affine cross_q, cross_o;
    em_tensor cross_norm_q;
    affine fc1, fc2; // (F, C), (C, F)
} block_weights;

/* What turns a source's tokens into keys and values of one block. */
typedef struct kv_weights {
    affine k, v;
    em_tensor norm_k;
} kv_weights;

enum { SOURCE_TEXT, SOURCE_IMAGE, SOURCE_AUDIO, SOURCES };

/* Groups outside the blocks: a source's embedding, and the stem (patches, time, head). */
enum { STEM = SOURCES, GROUPS };

typedef struct dit_block {
    block_weights w;
    kv_weights source[SOURCES];
    em_group step_group;            // used on every step
    em_group source_group[SOURCES]; // used once a job
} dit_block;

typedef struct stem_weights {
    affine patch, time1, time2, time_projection, head;
    em_tensor head_modulation; // (1, 2, C)
} stem_weights;

typedef struct text_weights {
    affine fc1, fc2;
} text_weights;

typedef struct image_weights {
    affine norm_in, fc1, fc2, norm_out;
} image_weights;

typedef struct audio_weights {
    affine first, later, mid, out, norm;
} audio_weights;

struct em_dit {
    em_dit_config cfg;
    stem_weights stem;
    text_weights text;
    image_weights image;
    audio_weights audio;
    em_group *group;  /* owned, GROUPS of them */
    dit_block *block; /* owned, cfg.layers of them */
};

#define AFFINE(type, field, text, ...)                                                             \
    EM_BIND(type, field.w, text ".weight", __VA_ARGS__),                                           \
        EM_BIND(type, field.b, text ".bias", FIRST(__VA_ARGS__))
#define FIRST(...) FIRST_OF(__VA_ARGS__, 0)
#define FIRST_OF(a, ...) a

static const em_bind block_rows[] = {
    EM_BIND(block_weights, modulation, "modulation", 1, 6, DIM),
    AFFINE(block_weights, q, "self_attn.q", DIM, DIM),
    AFFINE(block_weights, k, "self_attn.k", DIM, DIM),
    AFFINE(block_weights, v, "self_attn.v", DIM, DIM),
    AFFINE(block_weights, o, "self_attn.o", DIM, DIM),
    EM_BIND(block_weights, norm_q, "self_attn.norm_q.weight", DIM),
    EM_BIND(block_weights, norm_k, "self_attn.norm_k.weight", DIM),
    AFFINE(block_weights, norm3, "norm3", DIM),
    AFFINE(block_weights, cross_q, "cross_attn.q", DIM, DIM),
    AFFINE(block_weights, cross_o, "cross_attn.o", DIM, DIM),
    EM_BIND(block_weights, cross_norm_q, "cross_attn.norm_q.weight", DIM),
    AFFINE(block_weights, fc1, "ffn.0", FFN, DIM),
    AFFINE(block_weights, fc2, "ffn.2", DIM, FFN),
    EM_BIND_SPARE("cross_attn.q_audio.weight", DIM, DIM),
    EM_BIND_SPARE("cross_attn.q_audio.bias", DIM),
};

#define SOURCE_ROWS(suffix)                                                                        \
    {                                                                                              \
        AFFINE(kv_weights, k, "k" suffix, DIM, DIM), AFFINE(kv_weights, v, "v" suffix, DIM, DIM),  \
            EM_BIND(kv_weights, norm_k, "norm_k" suffix ".weight", DIM),                           \
    }
enum { SOURCE_ROW_COUNT = 5 };
static const em_bind source_rows[SOURCES][SOURCE_ROW_COUNT] = {
    SOURCE_ROWS(""),
    SOURCE_ROWS("_img"),
    SOURCE_ROWS("_audio"),
};

static const em_bind stem_rows[] = {
    EM_BIND(stem_weights, patch.w, "patch_embedding.weight", DIM, IN, 1, PATCH_H, PATCH_W),
    EM_BIND(stem_weights, patch.b, "patch_embedding.bias", DIM),
    AFFINE(stem_weights, time1, "time_embedding.0", DIM, FREQ),
    AFFINE(stem_weights, time2, "time_embedding.2", DIM, DIM),
    AFFINE(stem_weights, time_projection, "time_projection.1", DIM6, DIM),
    EM_BIND(stem_weights, head_modulation, "head.modulation", 1, 2, DIM),
    AFFINE(stem_weights, head, "head.head", HEAD, DIM),
};

static const em_bind text_rows[] = {
    AFFINE(text_weights, fc1, "text_embedding.0", DIM, TEXT),
    AFFINE(text_weights, fc2, "text_embedding.2", DIM, DIM),
};

static const em_bind image_rows[] = {
    AFFINE(image_weights, norm_in, "img_emb.proj.0", CLIP),
    AFFINE(image_weights, fc1, "img_emb.proj.1", CLIP, CLIP),
    AFFINE(image_weights, fc2, "img_emb.proj.3", DIM, CLIP),
    AFFINE(image_weights, norm_out, "img_emb.proj.4", DIM),
};

static const em_bind audio_rows[] = {
    AFFINE(audio_weights, first, "audio_injection.proj1", AUDIO_MID, AUDIO_FIRST),
    AFFINE(audio_weights, later, "audio_injection.proj1_vf", AUDIO_MID, AUDIO_LATER),
    AFFINE(audio_weights, mid, "audio_injection.proj2", AUDIO_MID, AUDIO_MID),
    AFFINE(audio_weights, out, "audio_injection.proj3", AUDIO_OUT, AUDIO_MID),
    AFFINE(audio_weights, norm, "audio_injection.norm", DIM),
};

/* The one walk over the checkpoint; m is NULL for a visit. */
static void walk(em_binder *b, const em_dit_config *c, em_dit *m)
{
    const int64_t size[N_SIZES] = {
        c->dim,
        6 * c->dim,
        c->ffn_dim,
        c->freq_dim,
        c->text_dim,
        c->in_dim,
        c->out_dim * c->patch_h * c->patch_w,
        c->patch_h,
        c->patch_w,
        c->clip_dim,
        EM_DIT_WINDOW * c->audio_dim,
        LATER_SLOTS * c->audio_dim,
        c->audio_intermediate,
        c->audio_tokens * c->dim,
    };
    em_group no_group[GROUPS] = {{0}};
    em_dit none = {.group = no_group};
    em_dit *to = m ? m : &none;
    em_binder_sizes(b, size, N_SIZES);
    em_binder_group(b, &to->group[STEM]);
    em_binder_rows(b, stem_rows, EM_COUNT(stem_rows), &to->stem, "%s", "");
    em_binder_group(b, &to->group[SOURCE_TEXT]);
    em_binder_rows(b, text_rows, EM_COUNT(text_rows), &to->text, "%s", "");
    em_binder_group(b, &to->group[SOURCE_IMAGE]);
    em_binder_rows(b, image_rows, EM_COUNT(image_rows), &to->image, "%s", "");
    em_binder_group(b, &to->group[SOURCE_AUDIO]);
    em_binder_rows(b, audio_rows, EM_COUNT(audio_rows), &to->audio, "%s", "");
    for (int i = 0; i < (int)c->layers; i++) {
        dit_block spare = {0}, *d = m ? &m->block[i] : &spare;
        em_binder_group(b, &d->step_group);
        em_binder_rows(b, block_rows, EM_COUNT(block_rows), &d->w, "blocks.%d.", i);
        for (int s = 0; s < SOURCES; s++) {
            em_binder_group(b, &d->source_group[s]);
            em_binder_rows(b, source_rows[s], SOURCE_ROW_COUNT, &d->source[s],
                           "blocks.%d.cross_attn.", i);
        }
    }
}

void em_dit_visit(em_binder *b, const em_dit_config *cfg)
{
    walk(b, cfg, NULL);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

em_dit_config em_dit_config_default(void)
{
    return (em_dit_config){
        .dim = 1536,
        .ffn_dim = 8960,
        .heads = 12,
        .layers = 30,
        .freq_dim = 256,
        .text_dim = 4096,
        .text_len = 512,
        .in_dim = 36,
        .out_dim = 16,
        .patch_h = 2,
        .patch_w = 2,
        .clip_dim = 1280,
        .audio_dim = 9216, /* 12 layers of 768 */
        .audio_intermediate = 512,
        .audio_tokens = 32,
        .eps = 1e-6,
    };
}

/* *value, when it is 0, becomes dimension `axis` of the tensor divided by `unit`. */
static void from_shape(int64_t *value, const em_ckpt *ckpt, const char *name, int axis,
                       int64_t unit)
{
    const em_ckpt_tensor *t = em_ckpt_find(ckpt, name);
    if (*value == 0 && t && axis < t->ndim && unit > 0) *value = t->dim[axis] / unit;
}

em_status em_dit_config_read(em_dit_config *cfg, const em_ckpt *ckpt, em_err *err)
{
    em_dit_config c = *cfg;
    from_shape(&c.dim, ckpt, "patch_embedding.weight", 0, 1);
    from_shape(&c.in_dim, ckpt, "patch_embedding.weight", 1, 1);
    from_shape(&c.patch_h, ckpt, "patch_embedding.weight", 3, 1);
    from_shape(&c.patch_w, ckpt, "patch_embedding.weight", 4, 1);
    from_shape(&c.ffn_dim, ckpt, "blocks.0.ffn.0.weight", 0, 1);
    from_shape(&c.freq_dim, ckpt, "time_embedding.0.weight", 1, 1);
    from_shape(&c.text_dim, ckpt, "text_embedding.0.weight", 1, 1);
    from_shape(&c.out_dim, ckpt, "head.head.weight", 0, c.patch_h * c.patch_w);
    from_shape(&c.clip_dim, ckpt, "img_emb.proj.0.weight", 0, 1);
    from_shape(&c.audio_dim, ckpt, "audio_injection.proj1.weight", 1, EM_DIT_WINDOW);
    from_shape(&c.audio_intermediate, ckpt, "audio_injection.proj1.weight", 0, 1);
    from_shape(&c.audio_tokens, ckpt, "audio_injection.proj3.weight", 0, c.dim);
    if (!c.text_len) c.text_len = 512;
    if (c.eps == 0) c.eps = 1e-6;
    const int64_t sizes[] = {c.dim,
                             c.ffn_dim,
                             c.heads,
                             c.layers,
                             c.freq_dim,
                             c.text_dim,
                             c.in_dim,
                             c.out_dim,
                             c.patch_h,
                             c.patch_w,
                             c.clip_dim,
                             c.audio_dim,
                             c.audio_intermediate,
                             c.audio_tokens};
    for (size_t i = 0; i < EM_COUNT(sizes); i++)
        if (sizes[i] < 1 || sizes[i] > 1 << 24)
            return em_fail(
                err, EM_MISMATCH,
                "transformer: its tensors and config.json do not give all sizes (dim %lld, "
                "layers %lld, heads %lld): is this an EchoMimicV3-Flash transformer?",
                (long long)c.dim, (long long)c.layers, (long long)c.heads);
    if (c.dim % c.heads || c.dim / c.heads % 2 || c.freq_dim % 2 || c.in_dim <= c.out_dim)
        return em_fail(
            err, EM_MISMATCH,
            "transformer: dim %lld, heads %lld, freq_dim %lld, in_dim %lld and out_dim %lld do "
            "not go together",
            (long long)c.dim, (long long)c.heads, (long long)c.freq_dim, (long long)c.in_dim,
            (long long)c.out_dim);
    *cfg = c;
    return EM_OK;
}

em_status em_dit_open(em_dit **out, const em_dit_config *cfg, const em_ckpt *ckpt,
                      const em_log *log, em_err *err)
{
    em_binder *b = NULL;
    em_status st;
    em_dit *m = em_alloc(sizeof *m);
    if (!m || !(m->group = em_alloc_array(GROUPS, sizeof *m->group)) ||
        !(m->block = em_alloc_array((size_t)cfg->layers, sizeof *m->block))) {
        em_dit_close(&m);
        return em_fail(err, EM_NOMEM, "no memory for a transformer of %lld blocks",
                       (long long)cfg->layers);
    }
    m->cfg = *cfg;
    st = em_binder_open(&b, ckpt, "transformer", log, err);
    if (st) goto fail;
    walk(b, cfg, m);
    st = em_binder_finish(&b, err);
    if (st) goto fail;
    *out = m;
    return EM_OK;

fail:
    em_dit_close(&m);
    return st;
}

void em_dit_close(em_dit **dit)
{
    em_dit *m = *dit;
    if (!m) return;
    for (int g = 0; m->group && g < GROUPS; g++) em_group_close(&m->group[g]);
    for (int64_t i = 0; m->block && i < m->cfg.layers; i++) {
        em_group_close(&m->block[i].step_group);
        for (int s = 0; s < SOURCES; s++) em_group_close(&m->block[i].source_group[s]);
    }
    em_free(m->group);
    em_free(m->block);
    em_free(m);
    *dit = NULL;
}

const em_dit_config *em_dit_sizes(const em_dit *m)
{
    return &m->cfg;
}

/* ---- conditions: once a job ------------------------------------------------------------------ */

static em_tensor project(em_run *r, em_tensor x, const affine *a, em_act act)
{
    return em_linear(r, x, a->w, a->b, act);
}

static em_tensor text_tokens(em_run *r, const em_dit *m, em_tensor context, int64_t frames)
{
    const em_dit_config *c = &m->cfg;
    (void)frames;
    if (em_run_stopped(r)) return (em_tensor){0};
    if (context.ndim != 2 || context.dim[0] > c->text_len || context.dim[1] != c->text_dim)
        return em_run_fail(r, EM_INVAL,
                           "transformer: text of %lld rows of %lld, at most %lld of %lld fit",
                           (long long)context.dim[0], (long long)em_cols(context),
                           (long long)c->text_len, (long long)c->text_dim);
    em_tensor x = em_run_tensor(r, r->dtype, EM_SHAPE(c->text_len, c->text_dim)); // (T, D)
    em_fill(r, x, 0);
    em_copy(r, em_slice(x, 0, context.dim[0]), context);
    em_tensor h = project(r, x, &m->text.fc1, EM_ACT_GELU_TANH); // (T, C)
    return project(r, h, &m->text.fc2, EM_ACT_NONE);             // (T, C)
}

static em_tensor image_tokens(em_run *r, const em_dit *m, em_tensor clip, int64_t frames)
{
    const image_weights *w = &m->image;
    (void)frames;
    em_tensor h = em_layer_norm(r, clip, w->norm_in.w, w->norm_in.b, 1e-5f); // (n, D)
    h = project(r, h, &w->fc1, EM_ACT_GELU_ERF);                             // (n, D)
    h = project(r, h, &w->fc2, EM_ACT_NONE);                                 // (n, C)
    return em_layer_norm(r, h, w->norm_out.w, w->norm_out.b, 1e-5f);         // (n, C)
}

/* Rows of the flattened windows (frame * 5 + slot) that each latent after the first sees. */
static void later_slots(int64_t latents, int32_t *idx)
{
    static const struct {
        int32_t frame, slot;
    } seen[LATER_SLOTS] = {{0, 0}, {0, 1}, {0, 2}, {1, 2}, {2, 2}, {3, 2}, {3, 3}, {3, 4}};
    for (int64_t l = 1; l < latents; l++)
        for (int s = 0; s < LATER_SLOTS; s++) {
            int32_t frame = (int32_t)(1 + (l - 1) * FRAMES_PER_LATENT) + seen[s].frame;
            *idx++ = frame * EM_DIT_WINDOW + seen[s].slot;
        }
}

/* The windows a latent sees, side by side, in the working type: first (1, 5 A), later (f - 1, 8
 * A). */
static void window_inputs(em_run *r, em_tensor windows, int64_t latents, em_tensor first,
                          em_tensor later)
{
    if (em_tensor_is_empty(windows)) {
        em_fill(r, first, 0);
        if (latents > 1) em_fill(r, later, 0);
        return;
    }
    int32_t idx[LATER_SLOTS * EM_DIT_MAX_POSITIONS];
    int64_t slots = windows.dim[0] * EM_DIT_WINDOW;
    em_tensor flat = em_view(windows, EM_SHAPE(slots, em_tensor_count(windows) / slots));
    em_copy(r, first, em_slice(flat, 0, EM_DIT_WINDOW));
    if (latents == 1) return;
    later_slots(latents, idx);
    em_copy(r, later, em_gather(r, flat, idx, LATER_SLOTS * (latents - 1)));
}

static bool windows_fit(const em_dit_config *c, em_tensor w, int64_t latents)
{
    if (latents < 1 || latents > EM_DIT_MAX_POSITIONS) return false;
    if (em_tensor_is_empty(w)) return true;
    int64_t frames = 1 + FRAMES_PER_LATENT * (latents - 1);
    return w.ndim >= 3 && w.dim[0] == frames && w.dim[1] == EM_DIT_WINDOW &&
           em_tensor_count(w) == frames * EM_DIT_WINDOW * c->audio_dim;
}

static em_tensor audio_tokens(em_run *r, const em_dit *m, em_tensor windows, int64_t frames)
{
    const em_dit_config *c = &m->cfg;
    const audio_weights *w = &m->audio;
    char shape[80];
    if (em_run_stopped(r)) return (em_tensor){0};
    if (!windows_fit(c, windows, frames))
        return em_run_fail(r, EM_INVAL,
                           "transformer: audio windows %s do not fit %lld latent frames",
                           em_shape_text(shape, windows.dim, windows.ndim), (long long)frames);
    int64_t mid = c->audio_intermediate, rest = frames - 1;
    em_tensor first =
        em_run_tensor(r, r->dtype, EM_SHAPE(1, EM_DIT_WINDOW * c->audio_dim)); // (1, 5A)
    em_tensor later =
        em_run_tensor(r, r->dtype, EM_SHAPE(rest, LATER_SLOTS * c->audio_dim)); // (f-1, 8A)
    em_tensor h = em_run_tensor(r, r->dtype, EM_SHAPE(frames, mid));            // (f, M)
    window_inputs(r, windows, frames, first, later);
    em_copy(r, em_slice(h, 0, 1), project(r, first, &w->first, EM_ACT_RELU));
    if (rest) em_copy(r, em_slice(h, 1, rest), project(r, later, &w->later, EM_ACT_RELU));
    h = project(r, h, &w->mid, EM_ACT_RELU);                   // (f, M)
    h = project(r, h, &w->out, EM_ACT_NONE);                   // (f, n C)
    h = em_view(h, EM_SHAPE(frames, c->audio_tokens, c->dim)); // (f, n, C)
    return em_layer_norm(r, h, w->norm.w, w->norm.b, 1e-5f);   // (f, n, C)
}

static em_tensor tokens_of(em_run *r, const em_dit *m, int source, em_tensor in, int64_t frames)
{
    typedef em_tensor (*token_fn)(em_run * r, const em_dit *m, em_tensor in, int64_t frames);
    static const token_fn compute[SOURCES] = {text_tokens, image_tokens, audio_tokens};
    em_run_pin(r, &m->group[source]);
    em_tensor t = compute[source](r, m, in, frames);
    em_run_unpin(r, &m->group[source]);
    return t;
}

em_tensor em_dit_text_tokens(em_run *r, const em_dit *m, em_tensor context)
{
    return tokens_of(r, m, SOURCE_TEXT, context, 0);
}

em_tensor em_dit_image_tokens(em_run *r, const em_dit *m, em_tensor clip)
{
    return tokens_of(r, m, SOURCE_IMAGE, clip, 0);
}

em_tensor em_dit_audio_tokens(em_run *r, const em_dit *m, em_tensor windows, int64_t frames)
{
    return tokens_of(r, m, SOURCE_AUDIO, windows, frames);
}

/* k = RMS(Wk tokens), v = Wv tokens, for every block. kv (layers, 2, …tokens' shape) */
static void keys_values(em_run *r, const em_dit *m, int source, em_tensor tokens, em_tensor kv)
{
    for (int64_t i = 0; i < m->cfg.layers && !em_run_stopped(r); i++) {
        dit_block *b = &m->block[i];
        const kv_weights *w = &b->source[source];
        em_mark mark = em_run_mark(r);
        em_run_pin(r, &b->source_group[source]);
        em_tensor k = project(r, tokens, &w->k, EM_ACT_NONE);
        em_copy(r, em_at(em_at(kv, i), 0), em_rms_norm(r, k, w->norm_k, (float)m->cfg.eps));
        em_copy(r, em_at(em_at(kv, i), 1), project(r, tokens, &w->v, EM_ACT_NONE));
        em_run_unpin(r, &b->source_group[source]);
        em_run_release(r, mark);
    }
}

static em_dit_kv source_kv(em_run *r, const em_dit *m, int source, em_tensor in, int64_t frames)
{
    em_dit_kv out = {0};
    em_mark mark = em_run_mark(r);
    em_tensor t = tokens_of(r, m, source, in, frames);
    if (em_run_stopped(r)) return out;
    int64_t dim[EM_MAX_DIMS] = {m->cfg.layers, 2};
    memcpy(dim + 2, t.dim, (size_t)t.ndim * sizeof *dim);
    out.kv = em_run_keep(r, r->dtype, dim, 2 + t.ndim);
    keys_values(r, m, source, t, out.kv);
    em_run_release(r, mark);
    return out;
}

em_dit_kv em_dit_text(em_run *r, const em_dit *m, em_tensor context)
{
    return source_kv(r, m, SOURCE_TEXT, context, 0);
}

em_dit_kv em_dit_image(em_run *r, const em_dit *m, em_tensor clip)
{
    return source_kv(r, m, SOURCE_IMAGE, clip, 0);
}

em_dit_kv em_dit_audio(em_run *r, const em_dit *m, em_tensor windows, int64_t frames)
{
    return source_kv(r, m, SOURCE_AUDIO, windows, frames);
}

/* ---- time and place -------------------------------------------------------------------------- */

/* [cos(t w_i), sin(t w_i)], w_i = 10000^(-i/half), in float64, as float32 (1, freq_dim) */
static em_tensor sinusoid(em_run *r, double t, int64_t freq_dim)
{
    enum { CHUNK = 256 };
    int64_t half = freq_dim / 2;
    em_tensor s = em_run_tensor(r, EM_F32, EM_SHAPE(1, freq_dim));
    for (int64_t begin = 0; begin < freq_dim; begin += CHUNK) {
        float part[CHUNK];
        int64_t n = freq_dim - begin < CHUNK ? freq_dim - begin : CHUNK;
        for (int64_t i = begin; i < begin + n; i++) {
            double angle = t * pow(10000.0, -(double)(i % half) / (double)half);
            part[i - begin] = (float)(i < half ? cos(angle) : sin(angle));
        }
        em_mark mark = em_run_mark(r);
        em_copy_cols(r, s, begin, em_upload(r, part, EM_F32, EM_SHAPE(1, n)), 0, n);
        em_run_release(r, mark);
    }
    return s;
}

em_dit_time em_dit_time_embed(em_run *r, const em_dit *m, double timestep)
{
    const em_dit_config *c = &m->cfg;
    const stem_weights *w = &m->stem;
    em_dit_time out = {0};
    out.e = em_run_keep(r, r->dtype, EM_SHAPE(c->dim));
    out.e0 = em_run_keep(r, r->dtype, EM_SHAPE(6, c->dim));
    em_mark mark = em_run_mark(r);
    em_run_pin(r, &m->group[STEM]);
    em_tensor s = sinusoid(r, timestep, c->freq_dim);    // (1, freq) all of this in float32
    em_tensor e = project(r, s, &w->time1, EM_ACT_SILU); // (1, C)
    e = project(r, e, &w->time2, EM_ACT_NONE);           // (1, C)
    em_copy(r, out.e, e);
    em_act_inplace(r, e, EM_ACT_SILU);
    em_copy(r, out.e0, project(r, e, &w->time_projection, EM_ACT_NONE)); // (1, 6C)
    em_run_unpin(r, &m->group[STEM]);
    em_run_release(r, mark);
    return out;
}

size_t em_dit_rope_count(const em_dit_config *cfg, em_dit_grid g)
{
    int64_t tokens = g.frames * (g.height / cfg->patch_h) * (g.width / cfg->patch_w);
    return (size_t)(tokens * (cfg->dim / cfg->heads));
}

/* Frequencies of one axis: w_i = 10000^(-2i/d), d twice the number of pairs. */
static double frequency(int64_t i, int64_t pairs)
{
    return pow(10000.0, -(double)i / (double)pairs);
}

/* RIFLEx: one period spans the clip with a tenth to spare; upstream also divides by 4.886. */
static double riflex_frequency(int64_t frames)
{
    return 0.9 * 2 * M_PI / (double)frames / 4.886;
}

void em_dit_rope_fill(const em_dit_config *cfg, em_dit_grid g, int riflex_k, float *host)
{
    int64_t pairs = cfg->dim / cfg->heads / 2, third = pairs / 3;
    int64_t n[3] = {pairs - 2 * third, third, third}; /* time, row, column */
    int64_t rows = g.height / cfg->patch_h, cols = g.width / cfg->patch_w;
    for (int64_t tok = 0; tok < g.frames * rows * cols; tok++) {
        int64_t pos[3] = {tok / (rows * cols), tok / cols % rows, tok % cols};
        for (int axis = 0; axis < 3; axis++)
            for (int64_t i = 0; i < n[axis]; i++) {
                double w = frequency(i, n[axis]);
                if (axis == 0 && i + 1 == riflex_k) w = riflex_frequency(g.frames);
                *host++ = (float)cos((double)pos[axis] * w);
                *host++ = (float)sin((double)pos[axis] * w);
            }
    }
}

em_tensor em_dit_rope(em_run *r, const em_dit *m, em_dit_grid g, const float *host)
{
    int64_t head_dim = m->cfg.dim / m->cfg.heads;
    int64_t tokens = (int64_t)em_dit_rope_count(&m->cfg, g) / head_dim;
    em_tensor table = em_run_keep(r, EM_F32, EM_SHAPE(tokens, head_dim / 2, 2));
    em_mark mark = em_run_mark(r);
    em_copy(r, table, em_upload(r, host, EM_F32, EM_SHAPE(tokens, head_dim / 2, 2)));
    em_run_release(r, mark);
    return table;
}

/* ---- one forward ----------------------------------------------------------------------------- */

em_tensor em_dit_embed(em_run *r, const em_dit *m, em_tensor x, em_tensor y)
{
    const em_dit_config *c = &m->cfg;
    if (em_run_stopped(r)) return (em_tensor){0};
    if (x.ndim != 4 || y.ndim != 4 || x.dim[0] != c->out_dim || x.dim[0] + y.dim[0] != c->in_dim)
        return em_run_fail(r, EM_INVAL,
                           "transformer: latents and condition do not have %lld channels",
                           (long long)c->in_dim);
    int64_t f = x.dim[1], h = x.dim[2], w = x.dim[3],
            tokens = f * (h / c->patch_h) * (w / c->patch_w);
    em_tensor out = em_run_tensor(r, EM_F32, EM_SHAPE(tokens, c->dim)); // (N, C)
    em_mark mark = em_run_mark(r);
    em_run_pin(r, &m->group[STEM]);
    em_tensor xy = em_run_tensor(r, r->dtype, EM_SHAPE(f, h, w, c->in_dim)); // (f, h, w, 36)
    em_copy_cols(r, xy, 0, em_channels_last(r, x), 0, x.dim[0]);
    em_copy_cols(r, xy, x.dim[0], em_channels_last(r, y), 0, y.dim[0]);
    em_tensor patches = em_patchify(r, xy, (int)c->patch_h, (int)c->patch_w); // (N, 36*2*2)
    em_tensor kernel =
        em_view(m->stem.patch.w, EM_SHAPE(c->dim, c->in_dim * c->patch_h * c->patch_w));
    em_copy(r, out, em_linear(r, patches, kernel, m->stem.patch.b, EM_ACT_NONE));
    em_run_unpin(r, &m->group[STEM]);
    em_run_release(r, mark);
    return out;
}

static em_attn attention_of(const em_dit_config *c)
{
    double head_dim = (double)c->dim / (double)c->heads;
    return (em_attn){.heads = (int)c->heads, .scale = (float)(1 / sqrt(head_dim))};
}

/* n (N, C) -> (N, C). The attention's result takes n's place: four such tensors at most. */
static em_tensor self_attention(em_run *r, const em_dit_config *c, const block_weights *w,
                                em_tensor n, em_tensor rope)
{
    const em_attn heads = attention_of(c);
    em_mark mark = em_run_mark(r);
    em_tensor qkv[3]; // (N, C) each
    em_linears(r, 3, qkv, n, (const em_tensor[]){w->q.w, w->k.w, w->v.w},
               (const em_tensor[]){w->q.b, w->k.b, w->v.b});
    em_tensor q = qkv[0], k = qkv[1], v = qkv[2];
    em_rms_norm_inplace(r, q, w->norm_q, (float)c->eps);
    em_rms_norm_inplace(r, k, w->norm_k, (float)c->eps);
    em_rope(r, q, rope, heads.heads);
    em_rope(r, k, rope, heads.heads);
    em_attention_to(r, n, q, k, v, &heads);
    em_run_release(r, mark);
    return project(r, n, &w->o, EM_ACT_NONE); // (N, C)
}

/* q (N, C) against block i's keys and values of one source, into y; `batch` > 1: frame by
 * frame. */
static void look_at(em_run *r, const em_dit_config *c, em_tensor y, em_tensor q, const em_dit_kv *s,
                    int64_t i, int64_t batch)
{
    const em_attn heads = attention_of(c);
    if (em_run_stopped(r)) return;
    em_tensor k = em_at(em_at(s->kv, i), 0), v = em_at(em_at(s->kv, i), 1);
    int64_t keys = em_rows(k) / batch;
    k = em_view(k, EM_SHAPE(batch, keys, c->dim));               // (B, n, C)
    v = em_view(v, EM_SHAPE(batch, keys, c->dim));               // (B, n, C)
    q = em_view(q, EM_SHAPE(batch, em_rows(q) / batch, c->dim)); // (B, N/B, C)
    em_attention_to(r, y, q, k, v, &heads);
}

/* n (N, C) -> (N, C). The sum over the sources takes n's place. */
static em_tensor cross_attention(em_run *r, const em_dit_config *c, const block_weights *w,
                                 em_tensor n, const em_dit_cond *cond, int64_t i)
{
    em_mark mark = em_run_mark(r);
    em_tensor q = project(r, n, &w->cross_q, EM_ACT_NONE); // (N, C)
    em_rms_norm_inplace(r, q, w->cross_norm_q, (float)c->eps);
    em_tensor one = em_run_tensor(r, q.dtype, EM_SHAPE(em_rows(n), c->dim));
    look_at(r, c, n, q, &cond->text, i, 1);
    look_at(r, c, one, q, &cond->image, i, 1);
    em_add(r, n, one);
    look_at(r, c, one, q, &cond->audio, i, cond->grid.frames);
    em_add(r, n, one);
    em_run_release(r, mark);
    return project(r, n, &w->cross_o, EM_ACT_NONE);
}

/* x += gate . feed_forward(norm2(x) (1 + scale) + shift), some rows at a time: the hidden layer is
 * six times as wide as the others. */
static void feed_forward(em_run *r, const em_dit_config *c, const block_weights *w, em_tensor x,
                         em_tensor scale, em_tensor shift, em_tensor gate)
{
    int64_t rows = em_rows(x), most = r->cut.ffn_rows > 0 ? r->cut.ffn_rows : rows;
    for (int64_t at = 0; at < rows && !em_run_stopped(r); at += most) {
        em_mark mark = em_run_mark(r);
        em_tensor part = em_slice(x, at, rows - at < most ? rows - at : most);
        em_tensor h = em_norm_modulate(r, part, scale, shift, (float)c->eps); // (n, C)
        h = project(r, h, &w->fc1, EM_ACT_GELU_TANH);                         // (n, F)
        h = project(r, h, &w->fc2, EM_ACT_NONE);                              // (n, C)
        em_gated_add(r, part, h, gate);
        em_run_release(r, mark);
    }
}

/* modulation + e, in float32 (rows, C): a block's or the head's */
static em_tensor modulation(em_run *r, em_tensor weight, em_tensor e)
{
    em_tensor m = em_run_tensor(r, EM_F32, EM_SHAPE(weight.dim[1], weight.dim[2]));
    em_copy(r, m, weight);
    if (em_rows(e) == em_rows(m)) {
        em_add(r, m, e);
    } else {
        for (int64_t i = 0; i < em_rows(m); i++) em_add(r, em_at(m, i), e);
    }
    return m;
}

/* Upstream: WanAttentionBlock.forward. */
static void block(em_run *r, const em_dit_config *c, const block_weights *w, em_tensor x,
                  em_tensor e0, const em_dit_cond *cond, int64_t i)
{
    enum { SHIFT1, SCALE1, GATE1, SHIFT2, SCALE2, GATE2 };
    float eps = (float)c->eps;
    em_mark mark = em_run_mark(r);
    em_tensor e = modulation(r, w->modulation, e0); // (6, C)
    em_mark part = em_run_mark(r);

    em_tensor n = em_norm_modulate(r, x, em_at(e, SCALE1), em_at(e, SHIFT1), eps); // (N, C)
    em_gated_add(r, x, self_attention(r, c, w, n, cond->rope), em_at(e, GATE1));
    em_run_release(r, part);

    n = em_layer_norm(r, x, w->norm3.w, w->norm3.b, eps); // (N, C)
    em_add(r, x, cross_attention(r, c, w, n, cond, i));
    em_run_release(r, part);

    feed_forward(r, c, w, x, em_at(e, SCALE2), em_at(e, SHIFT2), em_at(e, GATE2));
    em_run_release(r, mark);
}

void em_dit_blocks(em_run *r, const em_dit *m, em_tensor tokens, const em_dit_time *t,
                   const em_dit_cond *c)
{
    for (int64_t i = 0; i < m->cfg.layers && !em_run_stopped(r); i++) {
        dit_block *b = &m->block[i];
        em_run_pin(r, &b->step_group);
        block(r, &m->cfg, &b->w, tokens, t->e0, c, i);
        em_run_unpin(r, &b->step_group);
        if (!em_tensor_is_empty(c->taps)) em_copy(r, em_at(c->taps, i), tokens);
    }
}

em_tensor em_dit_head(em_run *r, const em_dit *m, em_tensor tokens, const em_dit_time *t,
                      em_dit_grid g)
{
    const em_dit_config *c = &m->cfg;
    enum { SHIFT, SCALE };
    em_tensor out = em_run_tensor(r, EM_F32, EM_SHAPE(c->out_dim, g.frames, g.height, g.width));
    em_mark mark = em_run_mark(r);
    em_run_pin(r, &m->group[STEM]);
    em_tensor e = modulation(r, m->stem.head_modulation, t->e); // (2, C)
    em_tensor n =
        em_norm_modulate(r, tokens, em_at(e, SCALE), em_at(e, SHIFT), (float)c->eps); // (N, C)
    em_tensor v = project(r, n, &m->stem.head, EM_ACT_NONE);                          // (N, 64)
    v = em_unpatchify(r, v, g.frames, g.height / c->patch_h, g.width / c->patch_w, (int)c->patch_h,
                      (int)c->patch_w); // (f, h, w, 16)
    em_copy(r, out, em_channels_first(r, v));
    em_run_unpin(r, &m->group[STEM]);
    em_run_release(r, mark);
    return out;
}

/* ---- recorded and replayed ------------------------------------------------------------------- */

static void release(em_run *r, const em_dit *m, int64_t blocks)
{
    for (int64_t i = 0; i < blocks; i++) em_run_unpin(r, &m->block[i].step_group);
}

bool em_dit_hold(em_run *r, const em_dit *m)
{
    for (int64_t i = 0; i < m->cfg.layers; i++) {
        if (em_run_hold(r, &m->block[i].step_group)) continue;
        release(r, m, i);
        return false;
    }
    return true;
}

void em_dit_release(em_run *r, const em_dit *m)
{
    release(r, m, m->cfg.layers);
}

/* A block may make room for what comes next only when its turn is over: until then it is held. */
void em_dit_pass(em_run *r, const em_dit *m)
{
    for (int64_t i = 0; i < m->cfg.layers; i++) {
        em_group *g = &m->block[i].step_group;
        em_run_pin(r, g);
        em_run_unpin(r, g);
        em_run_unpin(r, g);
    }
}

/* A group is one image: where one of its weights is, all are. */
uint64_t em_dit_place(const em_dit *m)
{
    uint64_t place = EM_FNV1A64_INIT;
    for (int64_t i = 0; i < m->cfg.layers; i++) {
        const void *at = m->block[i].step_group.weight[0].slot->data;
        place = em_fnv1a64(place, &at, sizeof at);
    }
    return place;
}
