#include "pipeline/synthetic_model.h"

#include "base/alloc.h"
#include "base/array.h"
#include "models/inventory.h"

#include <stddef.h>
#include <string.h>

em_synthetic_sizes em_synthetic_sizes_full(void)
{
    return (em_synthetic_sizes){
        .dit = em_dit_config_default(),
        .vae = {.dim = 96},
        .t5 = em_umt5_config_default(),
        .clip = em_clip_vit_config_default(),
        .speech = em_wav2vec2_config_default(),
    };
}

em_synthetic_sizes em_synthetic_sizes_tiny(void)
{
    em_synthetic_sizes s = em_synthetic_sizes_full();
    s.dit = (em_dit_config){.dim = 256,
                            .ffn_dim = 512,
                            .heads = 2,
                            .layers = 3,
                            .freq_dim = 64,
                            .text_dim = 64,
                            .text_len = 512,
                            .in_dim = 36,
                            .out_dim = 16,
                            .patch_h = 2,
                            .patch_w = 2,
                            .clip_dim = 80,
                            .audio_dim = 256, /* 4 layers of 64 */
                            .audio_intermediate = 48,
                            .audio_tokens = 8,
                            .eps = 1e-6};
    s.vae.dim = 8;
    s.t5 = (em_umt5_config){.heads = 4,
                            .max_tokens = 512,
                            .vocab = 512,
                            .dim = 64,
                            .dim_attn = 64,
                            .dim_ffn = 128,
                            .layers = 3,
                            .buckets = 32};
    s.clip = (em_clip_vit_config){.heads = 5,
                                  .dim = 80,
                                  .ffn = 320,
                                  .layers = 4,
                                  .patch = 14,
                                  .grid = 16,
                                  .embed_dim = 32,
                                  .text_dim = 32,
                                  .text_layers = 1,
                                  .text_vocab = 64,
                                  .text_positions = 16};
    s.speech.heads = 4;
    s.speech.hidden = 64;
    s.speech.ffn = 128;
    s.speech.layers = 4;
    s.speech.pos_kernel = 16;
    s.speech.pos_groups = 4;
    for (int i = 0; i < s.speech.convs; i++) s.speech.conv_dim[i] = 32;
    return s;
}

/* ---- from JSON ------------------------------------------------------------------------------- */

/* One number of a section. */
typedef struct number {
    const char *key;
    int64_t *to;
} number;

enum { MOST = 1 << 24 };

static em_status read_section(const json_t *config, const char *section, const number *n,
                              size_t count, const char *source, em_err *err)
{
    const json_t *obj = json_object_get(config, section);
    em_status st = EM_OK;
    if (obj && !json_is_object(obj))
        return em_fail(err, EM_FORMAT, "%s: '%s' must be an object, it is %s", source, section,
                       em_json_kind(obj));
    for (size_t i = 0; obj && !st && i < count; i++)
        st = em_json_get_int(n[i].to, obj, n[i].key, 1, MOST, source, err);
    if (st) em_err_prefix(err, "section '%s'", section);
    return st;
}

static em_status read_clip(em_clip_vit_config *c, const json_t *config, const char *source,
                           em_err *err)
{
    int64_t ratio = c->ffn / c->dim, image = c->grid * c->patch;
    const number n[] = {
        {"vision_dim", &c->dim},
        {"vision_heads", &c->heads},
        {"vision_layers", &c->layers},
        {"vision_mlp_ratio", &ratio},
        {"image_size", &image},
        {"patch_size", &c->patch},
        {"embed_dim", &c->embed_dim},
        {"vocab_size", &c->text_vocab},
        {"text_dim", &c->text_dim},
        {"text_layers", &c->text_layers},
        {"max_text_len", &c->text_positions},
    };
    em_status st = read_section(config, "clip", n, EM_COUNT(n), source, err);
    if (st) return st;
    if (image < c->patch)
        return em_fail(err, EM_FORMAT,
                       "%s: section 'clip': image_size %lld is less than patch_size %lld", source,
                       (long long)image, (long long)c->patch);
    c->ffn = ratio * c->dim;
    c->grid = image / c->patch;
    return EM_OK;
}

static em_status read_speech(em_wav2vec2_config *s, const json_t *config, const char *source,
                             em_err *err)
{
    const number n[] = {
        {"hidden_size", &s->hidden},
        {"num_hidden_layers", &s->layers},
        {"num_attention_heads", &s->heads},
        {"intermediate_size", &s->ffn},
        {"num_feat_extract_layers", &s->convs},
        {"num_conv_pos_embeddings", &s->pos_kernel},
        {"num_conv_pos_embedding_groups", &s->pos_groups},
    };
    const struct {
        const char *key;
        int64_t *to;
    } list[] = {{"conv_dim", s->conv_dim},
                {"conv_kernel", s->conv_kernel},
                {"conv_stride", s->conv_stride}};
    em_status st = read_section(config, "w2v", n, EM_COUNT(n), source, err);
    if (!st && s->convs > EM_WAV2VEC2_CONVS)
        st = em_fail(err, EM_FORMAT, "%s: section 'w2v': at most %d convolutions", source,
                     EM_WAV2VEC2_CONVS);
    const json_t *obj = json_object_get(config, "w2v");
    for (size_t i = 0; obj && !st && i < EM_COUNT(list); i++)
        st = em_json_get_ints(list[i].to, (size_t)s->convs, obj, list[i].key, 1, MOST, source, err);
    return st;
}

static em_status read_dit(em_dit_config *d, const json_t *config, const char *source, em_err *err)
{
    const number main[] = {
        {"dim", &d->dim},           {"ffn_dim", &d->ffn_dim},   {"num_heads", &d->heads},
        {"num_layers", &d->layers}, {"freq_dim", &d->freq_dim}, {"text_dim", &d->text_dim},
        {"text_len", &d->text_len}, {"in_dim", &d->in_dim},     {"out_dim", &d->out_dim},
    };
    const number audio[] = {
        {"intermediate_dim", &d->audio_intermediate},
        {"context_tokens", &d->audio_tokens},
    };
    em_status st = read_section(config, "dit", main, EM_COUNT(main), source, err);
    const json_t *obj = json_object_get(config, "dit");
    if (!st && obj) st = em_json_get_double(&d->eps, obj, "eps", 0, 1, source, err);
    return st ? st : read_section(config, "audio", audio, EM_COUNT(audio), source, err);
}

em_status em_synthetic_sizes_read(em_synthetic_sizes *out, const json_t *doc, const char *source,
                                  em_err *err)
{
    em_synthetic_sizes s = em_synthetic_sizes_full();
    const json_t *config = em_json_has(doc, "config") ? json_object_get(doc, "config") : doc;
    if (!json_is_object(config))
        return em_fail(err, EM_FORMAT, "%s: sizes must be an object, they are %s", source,
                       em_json_kind(config));
    const number vae[] = {{"dim", &s.vae.dim}};
    const number t5[] = {
        {"vocab", &s.t5.vocab},         {"dim", &s.t5.dim},         {"dim_attn", &s.t5.dim_attn},
        {"dim_ffn", &s.t5.dim_ffn},     {"num_heads", &s.t5.heads}, {"num_layers", &s.t5.layers},
        {"num_buckets", &s.t5.buckets},
    };
    em_status st = read_dit(&s.dit, config, source, err);
    if (!st) st = read_section(config, "vae", vae, EM_COUNT(vae), source, err);
    if (!st) st = read_section(config, "t5", t5, EM_COUNT(t5), source, err);
    if (!st) st = read_clip(&s.clip, config, source, err);
    if (!st) st = read_speech(&s.speech, config, source, err);
    if (st) return st;
    s.dit.clip_dim = s.clip.dim;
    s.dit.audio_dim = s.speech.layers * s.speech.hidden;
    *out = s;
    return EM_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

static em_status list_tensors(em_inventory *inv, const em_synthetic_sizes *s, em_model_kind kind,
                              em_err *err)
{
    em_binder *walk = NULL;
    em_status st = em_binder_open_visit(&walk, em_inventory_item, inv, err);
    if (st) return st;
    switch (kind) {
    case EM_MODEL_VAE: em_vae_visit(walk, &s->vae); break;
    case EM_MODEL_T5: em_umt5_visit(walk, &s->t5); break;
    case EM_MODEL_CLIP: em_clip_vit_visit(walk, &s->clip); break;
    case EM_MODEL_WAV2VEC2: em_wav2vec2_visit(walk, &s->speech); break;
    case EM_MODEL_TRANSFORMER: em_dit_visit(walk, &s->dit); break;
    case EM_MODEL_COUNT: break;
    }
    return em_binder_finish(&walk, err);
}

em_status em_synthetic_write(const em_synthetic_sizes *s, em_model_kind kind, uint64_t seed,
                             const char *path, em_pool *pool, em_err *err)
{
    em_inventory inv = {0};
    em_status st = list_tensors(&inv, s, kind, err);
    if (!st)
        st = em_inventory_synthesize(&inv, em_model_name(kind), seed, EM_BF16, path, pool, err);
    em_inventory_close(&inv);
    return st;
}

static bool hears(const char *name)
{
    return strstr(name, "audio") != NULL;
}

em_status em_synthetic_write_base(const em_synthetic_sizes *s, uint64_t seed, const char *path,
                                  em_pool *pool, em_err *err)
{
    em_inventory all = {0}, mute = {0};
    em_status st = list_tensors(&all, s, EM_MODEL_TRANSFORMER, err);
    for (size_t i = 0; i < all.count && !st; i++)
        if (!hears(all.spec[i].name) && !EM_PUSH(mute.spec, mute.count, mute.cap, all.spec[i]))
            st = em_fail(err, EM_NOMEM, "no memory to write '%s'", path);
    if (!st)
        st = em_inventory_synthesize(&mute, em_model_name(EM_MODEL_TRANSFORMER), seed, EM_BF16,
                                     path, pool, err);
    em_free(mute.spec); /* the names are those of `all` */
    em_inventory_close(&all);
    return st;
}

em_status em_synthetic_bytes(uint64_t *out, const em_synthetic_sizes *s, em_model_kind kind,
                             em_err *err)
{
    em_inventory inv = {0};
    em_status st = list_tensors(&inv, s, kind, err);
    uint64_t bytes = 0;
    for (size_t i = 0; i < inv.count && !st; i++) {
        uint64_t n = em_dtype_bytes(EM_BF16);
        for (int d = 0; d < inv.spec[i].ndim; d++) n *= (uint64_t)inv.spec[i].dim[d];
        bytes += n;
    }
    em_inventory_close(&inv);
    if (!st) *out = bytes;
    return st;
}
