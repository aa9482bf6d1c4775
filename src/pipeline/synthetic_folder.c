#include "base/alloc.h"
#include "base/str.h"
#include "io/file.h"
#include "pipeline/synthetic_model.h"

/* share/demo-model's tokenizer, embedded by the build: small, and its ids are below every
 * vocabulary's size. */
extern const unsigned char em_spiece_model[];
extern const size_t em_spiece_model_bytes;

enum { KINDS = EM_MODEL_COUNT, SMALL_FILES_BYTES = 1 << 20 };

#define CLIP EM_SYNTHETIC_BASE "/models_clip_open-clip-xlm-roberta-large-vit-huge-14"

/* Where each model's file lies: in safetensors, and as released. */
static const char *const weights[2][KINDS] = {
    {
        [EM_MODEL_VAE] = (EM_SYNTHETIC_BASE "/Wan2.1_VAE.safetensors"),
        [EM_MODEL_T5] = (EM_SYNTHETIC_BASE "/models_t5_umt5-xxl-enc-bf16.safetensors"),
        [EM_MODEL_CLIP] = (CLIP ".safetensors"),
        [EM_MODEL_WAV2VEC2] = (EM_SYNTHETIC_WAV2VEC2 "/model.safetensors"),
        [EM_MODEL_TRANSFORMER] = EM_SYNTHETIC_FLASH,
    },
    {
        [EM_MODEL_VAE] = (EM_SYNTHETIC_BASE "/Wan2.1_VAE.pth"),
        [EM_MODEL_T5] = (EM_SYNTHETIC_BASE "/models_t5_umt5-xxl-enc-bf16.pth"),
        [EM_MODEL_CLIP] = (CLIP ".pth"),
        [EM_MODEL_WAV2VEC2] = (EM_SYNTHETIC_WAV2VEC2 "/pytorch_model.bin"),
        [EM_MODEL_TRANSFORMER] = EM_SYNTHETIC_FLASH,
    },
};
static const char base_transformer[] = EM_SYNTHETIC_BASE "/diffusion_pytorch_model.safetensors";

/* ---- small files ----------------------------------------------------------------------------- */

static em_status write_file(const em_synthetic_folder *to, const char *name, const void *data,
                            size_t size_bytes, em_err *err)
{
    char *path = em_path_join(to->dir, name);
    em_status st = path ? em_file_write(path, data, size_bytes, err)
                        : em_fail(err, EM_NOMEM, "no memory to write '%s'", name);
    em_free(path);
    return st;
}

/* A text that was built; always freed. */
static em_status write_text(const em_synthetic_folder *to, const char *name, em_str *text,
                            em_err *err)
{
    em_status st = text->failed ? em_fail(err, EM_NOMEM, "no memory to write '%s'", name)
                                : write_file(to, name, em_str_text(text), text->len, err);
    em_str_free(text);
    return st;
}

/* What no tensor's shape tells, and where the files are. */
static em_status write_config(const em_synthetic_sizes *s, const em_synthetic_folder *to,
                              em_err *err)
{
    em_str t = {0};
    const char *const *file = weights[to->torch];
    em_str_printf(&t, "# Synthetic weights: every value is a function of seed %llu and a name.\n",
                  (unsigned long long)to->seed);
    em_str_printf(&t, "format: civitai\npipeline: Wan\n"
                      "transformer_additional_kwargs:\n  transformer_subpath: ./\n");
    em_str_printf(&t, "vae_kwargs:\n  vae_subpath: %s\n", em_path_base(file[EM_MODEL_VAE]));
    em_str_printf(&t,
                  "text_encoder_kwargs:\n  text_encoder_subpath: %s\n"
                  "  tokenizer_subpath: google/umt5-xxl\n  text_length: %lld\n  num_heads: %lld\n",
                  em_path_base(file[EM_MODEL_T5]), (long long)s->t5.max_tokens,
                  (long long)s->t5.heads);
    em_str_printf(&t, "scheduler_kwargs:\n  num_train_timesteps: 1000\n  shift: 5.0\n");
    em_str_printf(&t, "image_encoder_kwargs:\n  image_encoder_subpath: %s\n  num_heads: %lld\n",
                  em_path_base(file[EM_MODEL_CLIP]), (long long)s->clip.heads);
    return write_text(to, EM_SYNTHETIC_CONFIG, &t, err);
}

static em_status write_transformer_config(const em_dit_config *d, const em_synthetic_folder *to,
                                          em_err *err)
{
    em_str t = {0};
    em_str_printf(&t,
                  "{\n  \"model_type\": \"i2v\",\n  \"dim\": %lld,\n  \"ffn_dim\": %lld,\n"
                  "  \"num_heads\": %lld,\n  \"num_layers\": %lld,\n  \"freq_dim\": %lld,\n",
                  (long long)d->dim, (long long)d->ffn_dim, (long long)d->heads,
                  (long long)d->layers, (long long)d->freq_dim);
    em_str_printf(&t,
                  "  \"text_dim\": %lld,\n  \"text_len\": %lld,\n  \"in_dim\": %lld,\n"
                  "  \"out_dim\": %lld,\n  \"patch_size\": [1, %lld, %lld],\n  \"eps\": %g\n}\n",
                  (long long)d->text_dim, (long long)d->text_len, (long long)d->in_dim,
                  (long long)d->out_dim, (long long)d->patch_h, (long long)d->patch_w, d->eps);
    return write_text(to, EM_SYNTHETIC_BASE "/config.json", &t, err);
}

static void append_list(em_str *t, const char *key, const int64_t *v, int64_t n)
{
    em_str_printf(t, "  \"%s\": [", key);
    for (int64_t i = 0; i < n; i++) em_str_printf(t, "%s%lld", i ? ", " : "", (long long)v[i]);
    em_str_printf(t, "],\n");
}

static em_status write_speech_config(const em_wav2vec2_config *w, const em_synthetic_folder *to,
                                     em_err *err)
{
    em_str t = {0};
    em_str_printf(&t,
                  "{\n  \"model_type\": \"wav2vec2\",\n  \"hidden_size\": %lld,\n"
                  "  \"intermediate_size\": %lld,\n  \"num_hidden_layers\": %lld,\n"
                  "  \"num_attention_heads\": %lld,\n",
                  (long long)w->hidden, (long long)w->ffn, (long long)w->layers,
                  (long long)w->heads);
    append_list(&t, "conv_dim", w->conv_dim, w->convs);
    append_list(&t, "conv_kernel", w->conv_kernel, w->convs);
    append_list(&t, "conv_stride", w->conv_stride, w->convs);
    em_str_printf(&t,
                  "  \"num_conv_pos_embeddings\": %lld,\n"
                  "  \"num_conv_pos_embedding_groups\": %lld,\n  \"layer_norm_eps\": %g,\n"
                  "  \"feat_extract_norm\": \"group\",\n  \"conv_bias\": false,\n"
                  "  \"do_stable_layer_norm\": false\n}\n",
                  (long long)w->pos_kernel, (long long)w->pos_groups, (double)w->eps);
    return write_text(to, EM_SYNTHETIC_WAV2VEC2 "/config.json", &t, err);
}

static em_status write_preprocessor_config(const em_synthetic_folder *to, em_err *err)
{
    static const char text[] = "{\n  \"do_normalize\": true,\n  \"sampling_rate\": 16000\n}\n";
    return write_file(to, EM_SYNTHETIC_WAV2VEC2 "/preprocessor_config.json", text, sizeof text - 1,
                      err);
}

/* ---- weights --------------------------------------------------------------------------------- */

static em_status write_weights(const em_synthetic_sizes *s, const em_synthetic_folder *to,
                               em_model_kind kind, const char *name, em_err *err)
{
    char *path = em_path_join(to->dir, name);
    if (!path) return em_fail(err, EM_NOMEM, "no memory to write '%s'", name);
    em_logf(&to->log, EM_LOG_INFO, "writing %s", path);
    em_status st = name == base_transformer
                       ? em_synthetic_write_base(s, to->seed, path, to->pool, err)
                       : em_synthetic_write(s, kind, to->seed, path, to->pool, err);
    em_free(path);
    return st;
}

/* Files that are there already count as room: each makes way for its successor, but only when that
 * is whole. */
static em_status check_room(const em_synthetic_sizes *s, const em_synthetic_folder *to, em_err *err)
{
    uint64_t need = SMALL_FILES_BYTES, bytes = 0, room = 0;
    char want[16], have[16];
    em_status st = EM_OK;
    for (int k = 0; k < KINDS && !st; k++) {
        st = em_synthetic_bytes(&bytes, s, (em_model_kind)k, err);
        need += k == EM_MODEL_TRANSFORMER && to->with_base ? 2 * bytes : bytes;
    }
    if (!st) st = em_dir_free_bytes(&room, to->dir, err);
    if (st || need <= room) return st;
    return em_fail(err, EM_NOSPC, "'%s': the checkpoint needs %s, the disk has %s left", to->dir,
                   em_format_bytes(want, need), em_format_bytes(have, room));
}

static em_status make_folders(const char *dir, em_err *err)
{
    static const char *const folder[] = {EM_SYNTHETIC_BASE "/google/umt5-xxl", "transformer",
                                         EM_SYNTHETIC_WAV2VEC2};
    em_status st = EM_OK;
    for (size_t i = 0; i < EM_COUNT(folder) && !st; i++) {
        char *path = em_path_join(dir, folder[i]);
        st = path ? em_dir_create(path, err)
                  : em_fail(err, EM_NOMEM, "no memory to write '%s'", dir);
        em_free(path);
    }
    return st;
}

static em_status stopped(const em_synthetic_folder *to, em_err *err)
{
    if (!to->stop || !atomic_load(to->stop)) return EM_OK;
    return em_fail(err, EM_CANCELLED, "'%s' is incomplete: interrupted", to->dir);
}

em_status em_synthetic_write_folder(const em_synthetic_sizes *s, const em_synthetic_folder *to,
                                    em_err *err)
{
    em_status st = make_folders(to->dir, err);
    if (!st) st = check_room(s, to, err);
    for (int k = 0; k < KINDS && !st; k++) {
        st = stopped(to, err);
        if (!st) st = write_weights(s, to, (em_model_kind)k, weights[to->torch][k], err);
    }
    if (!st && to->with_base)
        st = write_weights(s, to, EM_MODEL_TRANSFORMER, base_transformer, err);
    if (!st) st = stopped(to, err);
    if (!st) st = write_transformer_config(&s->dit, to, err);
    if (!st) st = write_speech_config(&s->speech, to, err);
    if (!st) st = write_preprocessor_config(to, err);
    if (!st)
        st = write_file(to, EM_SYNTHETIC_BASE "/google/umt5-xxl/spiece.model", em_spiece_model,
                        em_spiece_model_bytes, err);
    return st ? st : write_config(s, to, err);
}
