#include "pipeline/audit.h"

#include "models/sizes.h"

/* A tensor that one model alone has. */
static const struct {
    const char *tensor;
    em_model_kind kind;
} marks[] = {
    {"visual.patch_embedding.weight", EM_MODEL_CLIP},
    {"feature_extractor.conv_layers.0.conv.weight", EM_MODEL_WAV2VEC2},
    {"encoder.conv1.weight", EM_MODEL_VAE},
    {"decoder.conv1.weight", EM_MODEL_VAE},
    {"token_embedding.weight", EM_MODEL_T5},
    {"patch_embedding.weight", EM_MODEL_TRANSFORMER},
    {"text_embedding.0.weight", EM_MODEL_TRANSFORMER},
};

em_model_kind em_audit_kind(const em_ckpt *c, const em_ckpt_tensor **mark)
{
    for (size_t i = 0; i < EM_COUNT(marks); i++) {
        const em_ckpt_tensor *t = em_ckpt_find(c, marks[i].tensor);
        if (!t) continue;
        if (mark) *mark = t;
        return marks[i].kind;
    }
    return EM_MODEL_COUNT;
}

/* Each walk below wants sizes; what no shape tells does not matter to it and is one. */

static em_status walk_vae(em_binder *b, const em_ckpt *c, em_err *err)
{
    em_vae_config cfg = {0};
    em_status st = em_vae_config_read(&cfg, c, err);
    if (!st) em_vae_visit(b, &cfg);
    return st;
}

static em_status walk_t5(em_binder *b, const em_ckpt *c, em_err *err)
{
    em_sizes s = {.ckpt = c, .model = "t5"};
    em_umt5_config cfg = {.heads =
                              em_sizes_dim(&s, "blocks.0.pos_embedding.embedding.weight", 2, 1),
                          .max_tokens = 1};
    em_status st = em_sizes_finish(&s, err);
    if (!st) st = em_umt5_config_read(&cfg, c, err);
    if (!st) em_umt5_visit(b, &cfg);
    return st;
}

static em_status walk_clip(em_binder *b, const em_ckpt *c, em_err *err)
{
    em_clip_vit_config cfg = {.heads = 1};
    em_status st = em_clip_vit_config_read(&cfg, c, err);
    if (!st) em_clip_vit_visit(b, &cfg);
    return st;
}

static em_status walk_wav2vec2(em_binder *b, const em_ckpt *c, em_err *err)
{
    em_sizes s = {.ckpt = c, .model = "wav2vec2"};
    em_wav2vec2_config cfg = {.heads = 1,
                              .convs = em_sizes_blocks(&s, "feature_extractor.conv_layers."),
                              .eps = 1e-5f};
    em_sizes_require(&s, cfg.convs <= EM_WAV2VEC2_CONVS, "%lld convolutions, at most %d are read",
                     (long long)cfg.convs, EM_WAV2VEC2_CONVS);
    em_status st = em_sizes_finish(&s, err);
    for (int64_t i = 0; !st && i < cfg.convs; i++) cfg.conv_stride[i] = 1;
    if (!st) st = em_wav2vec2_config_read(&cfg, c, err);
    if (!st) em_wav2vec2_visit(b, &cfg);
    return st;
}

static em_status walk_transformer(em_binder *b, const em_ckpt *c, em_err *err)
{
    em_sizes s = {.ckpt = c, .model = "transformer"};
    em_dit_config cfg = {.heads = 1, .layers = em_sizes_blocks(&s, "blocks.")};
    em_status st = em_sizes_finish(&s, err);
    if (!em_ckpt_find(c, "audio_injection.proj1.weight")) {
        /* A base model: what listens is missing, and is listed at the released sizes. */
        const em_dit_config whole = em_dit_config_default();
        cfg.audio_dim = whole.audio_dim;
        cfg.audio_intermediate = whole.audio_intermediate;
        cfg.audio_tokens = whole.audio_tokens;
    }
    if (!st) st = em_dit_config_read(&cfg, c, err);
    if (!st) em_dit_visit(b, &cfg);
    return st;
}

em_status em_audit_ckpt(em_audit *out, em_ckpt *ckpt, const em_log *log, em_err *err)
{
    typedef em_status (*walk_fn)(em_binder * b, const em_ckpt *c, em_err *err);
    static const walk_fn walk[EM_MODEL_COUNT] = {walk_vae, walk_t5, walk_clip, walk_wav2vec2,
                                                 walk_transformer};
    em_binder *b = NULL;
    em_err unsized = {0};
    em_audit a = {0};
    em_status st = em_ckpt_strip_prefix(ckpt, "wav2vec2.", err);
    if (st) return st;
    a.kind = em_audit_kind(ckpt, NULL);
    if (a.kind == EM_MODEL_COUNT) {
        *out = a;
        return EM_OK;
    }
    st = em_binder_open_audit(&b, ckpt, em_model_name(a.kind), log, &a.tensors, err);
    if (st) return st;
    st = walk[a.kind](b, ckpt, &unsized);
    if (st) {
        /* Without sizes nothing was walked, and every tensor would look surplus. */
        em_binder_ignore(b, "*");
        em_binder_finish(&b, NULL);
        em_bind_audit_close(&a.tensors);
        a.verdict = unsized;
    } else if (em_binder_finish(&b, &a.verdict) == EM_NOMEM) {
        em_bind_audit_close(&a.tensors);
        return em_fail(err, EM_NOMEM, "%s", a.verdict.msg);
    }
    *out = a;
    return EM_OK;
}

void em_audit_close(em_audit *audit)
{
    em_bind_audit_close(&audit->tensors);
}
