/* Where a model's files are, and the numbers that no tensor's shape tells.
 *
 *     MODEL/config.json                   transformer (in transformer_subpath)
 *     MODEL/diffusion_pytorch_model.*     its base weights; a complete Flash file does without
 *     MODEL/Wan2.1_VAE.*                  names from config.yaml, these too:
 *     MODEL/models_t5_*.*  MODEL/models_clip_*.*
 *     MODEL/google/umt5-xxl/spiece.model
 *     WAV2VEC/config.json  preprocessor_config.json  model.safetensors or pytorch_model.bin
 *
 * config.yaml is the one given, else MODEL/config.yaml, else a built-in copy of the released one. A
 * file is looked for under its configured name, as an index of shards (NAME.index.json), in the
 * other format (.safetensors for .pth, .pt and .bin, and .pth for .safetensors), and then in MODEL
 * itself. The transformer's base weights, in the reference's order: diffusion_pytorch_model.bin,
 * .safetensors, every *.safetensors of the folder that is no other model's.
 */
#ifndef EM_IO_MODEL_FOLDER_H
#define EM_IO_MODEL_FOLDER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the user said; all borrowed for the call. */
typedef struct em_model_source {
    const char *model_dir;        /* --model_name */
    const char *config_path;      /* --config_path, or NULL */
    const char *transformer_path; /* file, or folder of checkpoint-N.pth, or NULL */
    const char *wav2vec_dir;      /* --wav2vec_model_dir */
    const char *vae_path;         /* in place of the configured one, or NULL */
    int ckpt_idx;                 /* N above; 0 means 50000 */
} em_model_source;

/* Sizes that config.json does not give, and the model reads off its tensors, are 0. */
typedef struct em_transformer_numbers {
    int64_t dim, ffn_dim, num_layers, in_dim; /* 0: not said */
    int64_t num_heads;
    int64_t out_dim, freq_dim, text_dim, text_len;
    int64_t patch[3]; /* frames, rows, columns */
    double eps;
} em_transformer_numbers;

#define EM_FOLDER_CONVS 7
typedef struct em_wav2vec2_numbers {
    int64_t hidden, ffn, num_layers, num_heads;
    int64_t conv_dim[EM_FOLDER_CONVS], conv_kernel[EM_FOLDER_CONVS], conv_stride[EM_FOLDER_CONVS];
    int64_t pos_conv_kernel, pos_conv_groups;
    double eps;
    bool do_normalize; /* zero mean, unit variance before the first convolution */
} em_wav2vec2_numbers;

/* Owned by the config; files exist. */
typedef struct em_model_files {
    char **transformer; /* to lay over one another: base parts, then --transformer_path */
    size_t transformer_count;
    char *vae, *t5, *clip, *wav2vec2, *tokenizer;
} em_model_files;

/* A flag of `batch` that the model's makers recommend: {"num_inference_steps", "12"}. */
typedef struct em_model_setting {
    char *flag, *value; /* owned by the config; a list is written with spaces: "512 512" */
} em_model_setting;

typedef struct em_model_config {
    em_transformer_numbers transformer;
    em_wav2vec2_numbers wav2vec2;
    int64_t t5_num_heads, t5_text_length;
    int64_t clip_num_heads;
    double scheduler_shift;
    em_model_files files;
    em_model_setting *recommended; /* owned */
    size_t recommended_count;
    char *config_path; /* owned; of the config.yaml that was read, NULL for the built-in copy */
} em_model_config;

/* Reads the configuration and finds every file; *out is owned by the caller. */
em_status em_model_folder_open(em_model_config **out, const em_model_source *source, em_err *err);
void em_model_folder_close(em_model_config **config);

#endif
