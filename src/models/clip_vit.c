/* The visual tower of CLIP ViT-H/14 (arXiv 2103.00020; the transformer is arXiv 2010.11929),
 * trained by open_clip as xlm-roberta-large-vit-huge-14.
 *
 * Upstream: src/wan_image_encoder.py, classes CLIPModel, VisionTransformer and AttentionBlock.
 *
 *     image (H, W, 3) in [-1, 1]
 *       -> bicubic to 224 x 224, CLIP's mean and deviation               (224, 224, 3)
 *       -> 16 x 16 patches of 14 x 14 pixels, linear                     (256, 1280)
 *       -> class token in front, + position embedding, layer norm        (257, 1280)
 *       -> 31 of 32 blocks: x += attention(LN(x)); x += mlp(LN(x))       (257, 1280)
 *
 * Quirks we reproduce
 *   - the last block, the norm behind it and the head are in the file and not used: the diffusion
 *     model was trained on the features before them
 *   - the picture is resized without antialiasing and without keeping its aspect
 *   - the textual half of the file is never read */
#include "models/clip_vit.h"

#include "base/alloc.h"
#include "models/nn.h"
#include "models/sizes.h"

#include <math.h>

static const float eps = 1e-5f;
static const double pixel_mean[3] = {0.48145466, 0.4578275, 0.40821073};
static const double pixel_deviation[3] = {0.26862954, 0.26130258, 0.27577711};

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct block_weights {
    em_nn_norm norm1, norm2;
    em_nn_dense qkv; /* rows: queries, keys, values */
    em_nn_dense proj, mlp_in, mlp_out;
} block_weights;

struct em_clip_vit {
    em_clip_vit_config cfg;
    em_tensor patch; /* (dim, 3, patch, patch) */
    em_tensor cls;   /* (1, 1, dim) */
    em_tensor pos;   /* (1, 1 + grid^2, dim) */
    em_nn_norm pre_norm;
    block_weights *block; /* owned, cfg.layers - 1 */
    em_group *group;      /* owned: one a block, and a last one for everything in front of them */
};

enum { DIM = EM_SYM(0), FFN = EM_SYM(1), QKV = EM_SYM(2), PATCH = EM_SYM(3), TOKENS = EM_SYM(4) };

static const em_bind stem_rows[] = {
    EM_BIND(em_clip_vit, cls, "cls_embedding", 1, 1, DIM),
    EM_BIND(em_clip_vit, pos, "pos_embedding", 1, TOKENS, DIM),
    EM_BIND(em_clip_vit, patch, "patch_embedding.weight", DIM, 3, PATCH, PATCH),
    EM_BIND(em_clip_vit, pre_norm.w, "pre_norm.weight", DIM),
    EM_BIND(em_clip_vit, pre_norm.b, "pre_norm.bias", DIM),
    EM_BIND_SPARE("post_norm.weight", DIM),
    EM_BIND_SPARE("post_norm.bias", DIM),
};
static const em_bind block_rows[] = {
    EM_BIND(block_weights, norm1.w, "norm1.weight", DIM),
    EM_BIND(block_weights, norm1.b, "norm1.bias", DIM),
    EM_BIND(block_weights, qkv.w, "attn.to_qkv.weight", QKV, DIM),
    EM_BIND(block_weights, qkv.b, "attn.to_qkv.bias", QKV),
    EM_BIND(block_weights, proj.w, "attn.proj.weight", DIM, DIM),
    EM_BIND(block_weights, proj.b, "attn.proj.bias", DIM),
    EM_BIND(block_weights, norm2.w, "norm2.weight", DIM),
    EM_BIND(block_weights, norm2.b, "norm2.bias", DIM),
    EM_BIND(block_weights, mlp_in.w, "mlp.0.weight", FFN, DIM),
    EM_BIND(block_weights, mlp_in.b, "mlp.0.bias", FFN),
    EM_BIND(block_weights, mlp_out.w, "mlp.2.weight", DIM, FFN),
    EM_BIND(block_weights, mlp_out.b, "mlp.2.bias", DIM),
};
static const em_bind last_block_rows[] = {
    EM_BIND_SPARE("norm1.weight", DIM),
    EM_BIND_SPARE("norm1.bias", DIM),
    EM_BIND_SPARE("attn.to_qkv.weight", QKV, DIM),
    EM_BIND_SPARE("attn.to_qkv.bias", QKV),
    EM_BIND_SPARE("attn.proj.weight", DIM, DIM),
    EM_BIND_SPARE("attn.proj.bias", DIM),
    EM_BIND_SPARE("norm2.weight", DIM),
    EM_BIND_SPARE("norm2.bias", DIM),
    EM_BIND_SPARE("mlp.0.weight", FFN, DIM),
    EM_BIND_SPARE("mlp.0.bias", FFN),
    EM_BIND_SPARE("mlp.2.weight", DIM, FFN),
    EM_BIND_SPARE("mlp.2.bias", DIM),
};

/* The halves of CLIP that speak to each other: an embedding of both, and XLM-RoBERTa. */
enum { EMBED = EM_SYM(5), TEXT = EM_SYM(6), TEXT_FFN = EM_SYM(7), TEXT_MID = EM_SYM(8) };
enum { VOCAB = EM_SYM(9), POSITIONS = EM_SYM(10) };

static const em_bind spare_rows[] = {
    EM_BIND_SPARE("log_scale", 0), /* a scalar */
    EM_BIND_SPARE("visual.head", DIM, EMBED),
    EM_BIND_SPARE("textual.token_embedding.weight", VOCAB, TEXT),
    EM_BIND_SPARE("textual.type_embedding.weight", 1, TEXT),
    EM_BIND_SPARE("textual.pos_embedding.weight", POSITIONS, TEXT),
    EM_BIND_SPARE("textual.norm.weight", TEXT),
    EM_BIND_SPARE("textual.norm.bias", TEXT),
    EM_BIND_SPARE("textual.head.0.weight", TEXT_MID, TEXT),
    EM_BIND_SPARE("textual.head.2.weight", EMBED, TEXT_MID),
};
static const em_bind text_block_rows[] = {
    EM_BIND_SPARE("attn.q.weight", TEXT, TEXT),    EM_BIND_SPARE("attn.q.bias", TEXT),
    EM_BIND_SPARE("attn.k.weight", TEXT, TEXT),    EM_BIND_SPARE("attn.k.bias", TEXT),
    EM_BIND_SPARE("attn.v.weight", TEXT, TEXT),    EM_BIND_SPARE("attn.v.bias", TEXT),
    EM_BIND_SPARE("attn.o.weight", TEXT, TEXT),    EM_BIND_SPARE("attn.o.bias", TEXT),
    EM_BIND_SPARE("norm1.weight", TEXT),           EM_BIND_SPARE("norm1.bias", TEXT),
    EM_BIND_SPARE("ffn.0.weight", TEXT_FFN, TEXT), EM_BIND_SPARE("ffn.0.bias", TEXT_FFN),
    EM_BIND_SPARE("ffn.2.weight", TEXT, TEXT_FFN), EM_BIND_SPARE("ffn.2.bias", TEXT),
    EM_BIND_SPARE("norm2.weight", TEXT),           EM_BIND_SPARE("norm2.bias", TEXT),
};

static int64_t token_count(const em_clip_vit_config *c)
{
    return 1 + c->grid * c->grid;
}

/* The blocks that are run: all but the last. */
static int64_t block_count(const em_clip_vit_config *c)
{
    return c->layers - 1;
}

static void walk_spares(em_binder *b, const em_clip_vit_config *c)
{
    em_binder_rows(b, spare_rows, EM_COUNT(spare_rows), NULL, "%s", "");
    for (int i = 0; i < c->text_layers; i++)
        em_binder_rows(b, text_block_rows, EM_COUNT(text_block_rows), NULL, "textual.blocks.%d.",
                       i);
}

/* The whole checkpoint; m is NULL in a visit. */
static void walk(em_binder *b, const em_clip_vit_config *c, em_clip_vit *m)
{
    int blocks = (int)block_count(c);
    const int64_t sizes[] = {c->dim,        c->ffn,           3 * c->dim,
                             c->patch,      token_count(c),   c->embed_dim,
                             c->text_dim,   4 * c->text_dim,  (c->text_dim + c->embed_dim) / 2,
                             c->text_vocab, c->text_positions};
    em_binder_sizes(b, sizes, EM_COUNT(sizes));
    em_binder_group(b, m ? &m->group[blocks] : NULL);
    em_binder_rows(b, stem_rows, EM_COUNT(stem_rows), m, "visual.");
    for (int i = 0; i < blocks; i++) {
        em_binder_group(b, m ? &m->group[i] : NULL);
        em_binder_rows(b, block_rows, EM_COUNT(block_rows), m ? &m->block[i] : NULL,
                       "visual.transformer.%d.", i);
    }
    em_binder_rows(b, last_block_rows, EM_COUNT(last_block_rows), NULL, "visual.transformer.%d.",
                   blocks);
    if (c->text_layers) walk_spares(b, c);
    em_binder_sizes(b, NULL, 0);
    em_binder_ignore(b, "log_scale");
    em_binder_ignore(b, "visual.head");
    em_binder_ignore(b, "textual.*");
}

void em_clip_vit_visit(em_binder *b, const em_clip_vit_config *cfg)
{
    walk(b, cfg, NULL);
}

/* ---- config ---------------------------------------------------------------------------------- */

em_clip_vit_config em_clip_vit_config_default(void)
{
    return (em_clip_vit_config){
        .heads = 16,
        .dim = 1280,
        .ffn = 5120,
        .layers = 32,
        .patch = 14,
        .grid = 16,
        .embed_dim = 1024,
        .text_dim = 1024,
        .text_layers = 24,
        .text_vocab = 250002,
        .text_positions = 514,
    };
}

em_status em_clip_vit_config_read(em_clip_vit_config *cfg, const em_ckpt *ckpt, em_err *err)
{
    em_clip_vit_config c = {.heads = cfg->heads};
    em_sizes s = {.ckpt = ckpt, .model = "clip"};
    c.dim = em_sizes_dim(&s, "visual.patch_embedding.weight", 4, 0);
    c.patch = em_sizes_dim(&s, "visual.patch_embedding.weight", 4, 2);
    int64_t tokens = em_sizes_dim(&s, "visual.pos_embedding", 3, 1);
    c.grid = (int64_t)sqrt((double)(tokens - 1));
    c.layers = em_sizes_blocks(&s, "visual.transformer.");
    c.ffn = em_sizes_dim(&s, "visual.transformer.0.mlp.0.weight", 2, 0);
    em_sizes_require(&s, c.heads >= 1 && c.dim % c.heads == 0,
                     "config.yaml gives the image encoder %lld heads, which do not divide its "
                     "width %lld",
                     (long long)c.heads, (long long)c.dim);
    em_sizes_require(&s, c.grid >= 1 && token_count(&c) == tokens,
                     "'visual.pos_embedding' has %lld rows, expected one and a square",
                     (long long)tokens);
    em_sizes_require(&s, c.layers >= 2,
                     "%lld blocks, of which all but the last are run: expected "
                     "at least 2",
                     (long long)c.layers);
    em_status st = em_sizes_finish(&s, err);
    if (!st) *cfg = c;
    return st;
}

em_status em_clip_vit_open(em_clip_vit **out, const em_clip_vit_config *cfg, const em_ckpt *ckpt,
                           const em_log *log, em_err *err)
{
    em_binder *b = NULL;
    em_status st = EM_NOMEM;
    em_clip_vit *m = em_alloc(sizeof *m);
    if (m) {
        m->cfg = *cfg;
        m->block = em_alloc_array((size_t)block_count(cfg), sizeof *m->block);
        m->group = em_alloc_array((size_t)block_count(cfg) + 1, sizeof *m->group);
    }
    if (!m || !m->block || !m->group) {
        em_fail(err, EM_NOMEM, "no memory to open the image encoder");
        goto fail;
    }
    st = em_binder_open(&b, ckpt, "clip", log, err);
    if (st) goto fail;
    walk(b, cfg, m);
    st = em_binder_finish(&b, err);
    if (st) goto fail;
    *out = m;
    return EM_OK;

fail:
    em_clip_vit_close(&m);
    return st;
}

void em_clip_vit_close(em_clip_vit **model)
{
    if (!model || !*model) return;
    em_clip_vit *m = *model;
    for (int64_t i = 0; m->group && i <= block_count(&m->cfg); i++) em_group_close(&m->group[i]);
    em_free(m->group);
    em_free(m->block);
    em_free(m);
    *model = NULL;
}

const em_clip_vit_config *em_clip_vit_sizes(const em_clip_vit *m)
{
    return &m->cfg;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* [-1, 1] to CLIP's units, (x/2 + 1/2 - mean) / deviation, as one scale and shift.   x (S, S, 3) */
static void normalise_pixels(em_run *r, em_tensor x)
{
    float scale[3], shift[3];
    for (int i = 0; i < 3; i++) {
        scale[i] = (float)(0.5 / pixel_deviation[i]);
        shift[i] = (float)((0.5 - pixel_mean[i]) / pixel_deviation[i]);
    }
    em_scale_shift(r, x, em_upload(r, scale, EM_F32, EM_SHAPE(3)),
                   em_upload(r, shift, EM_F32, EM_SHAPE(3)));
}

/* image (H, W, 3) -> patches as the convolution's weight orders them (grid^2, 3 patch^2) */
static em_tensor patches(em_run *r, const em_clip_vit *m, em_tensor image, em_clip_vit_taps *taps)
{
    int patch = (int)m->cfg.patch;
    int64_t side = m->cfg.grid * patch;
    em_tensor x = em_resize_bicubic(r, image, side, side); // (S, S, 3)
    if (taps) em_nn_tap(r, &taps->resized, x);
    normalise_pixels(r, x);
    x = em_view(x, EM_SHAPE(1, side, side, 3));
    return em_cast(r, em_patchify(r, x, patch, patch), r->dtype);
}

/* x = LN([class; patches] + positions)   x F32 (1 + grid^2, dim) */
static void embed(em_run *r, const em_clip_vit *m, em_tensor x, em_tensor image,
                  em_clip_vit_taps *taps)
{
    em_mark mark = em_run_mark(r);
    em_dtype working = r->dtype;
    int64_t dim = m->cfg.dim, pixels = 3 * m->cfg.patch * m->cfg.patch;
    em_tensor p = patches(r, m, image, taps);               // (grid^2, pixels)
    em_tensor w = em_view(m->patch, EM_SHAPE(dim, pixels)); // (dim, pixels)
    p = em_linear(r, p, w, (em_tensor){0}, EM_ACT_NONE);    // (grid^2, dim)
    em_copy(r, em_slice(x, 0, 1), m->cls);
    em_copy(r, em_slice(x, 1, em_rows(x) - 1), p);
    em_add(r, x, m->pos);
    r->dtype = EM_F32; /* a residual stream starts here */
    em_copy(r, x, em_layer_norm(r, x, m->pre_norm.w, m->pre_norm.b, eps));
    r->dtype = working;
    em_run_release(r, mark);
}

/* Rows [begin, begin + count) of a dense layer: one of the fused projections. */
static em_nn_dense rows(const em_nn_dense *d, int64_t begin, int64_t count)
{
    return (em_nn_dense){em_slice(d->w, begin, count), em_slice(d->b, begin, count)};
}

/* x += attention(LN(x)), x += mlp(LN(x))   x F32 (N, dim), in place */
static void block(em_run *r, const em_clip_vit *m, const block_weights *b, em_tensor x)
{
    em_mark mark = em_run_mark(r);
    int64_t dim = m->cfg.dim;
    em_nn_attn w = {rows(&b->qkv, 0, dim), rows(&b->qkv, dim, dim), rows(&b->qkv, 2 * dim, dim),
                    b->proj};
    em_attn a = {.heads = (int)m->cfg.heads, .scale = 1 / sqrtf((float)(dim / m->cfg.heads))};

    em_tensor n = em_layer_norm(r, x, b->norm1.w, b->norm1.b, eps); // (N, dim)
    em_add(r, x, em_nn_self_attention(r, n, &w, &a));
    n = em_layer_norm(r, x, b->norm2.w, b->norm2.b, eps); // (N, dim)
    em_add(r, x, em_nn_mlp(r, n, &b->mlp_in, &b->mlp_out, EM_ACT_GELU_ERF));
    em_run_release(r, mark);
}

/* ---- entry ----------------------------------------------------------------------------------- */

em_tensor em_clip_vit_forward(em_run *r, const em_clip_vit *m, em_tensor image,
                              em_clip_vit_taps *taps)
{
    if (em_run_stopped(r)) return (em_tensor){0};
    if (image.ndim != 3 || image.dim[2] != 3)
        return em_run_fail(r, EM_INVAL, "clip: the image has %d dimensions, expected (H, W, 3)",
                           image.ndim);
    int64_t blocks = block_count(&m->cfg);
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(token_count(&m->cfg), m->cfg.dim));
    em_mark mark = em_run_mark(r);

    em_run_pin(r, &m->group[blocks]);
    embed(r, m, x, image, taps); // (N, dim)
    em_run_unpin(r, &m->group[blocks]);
    for (int64_t i = 0; i < blocks; i++) {
        em_run_pin(r, &m->group[i]);
        block(r, m, &m->block[i], x);
        em_run_unpin(r, &m->group[i]);
    }
    em_run_release(r, mark);
    return em_run_stopped(r) ? (em_tensor){0} : x;
}
