/* Whole checkpoints whose every value is a pure function of a seed and a name (base/synthetic.h),
 * at any size: what tests, benchmarks and demos run on where the released weights cannot be
 * shipped. */
#ifndef EM_PIPELINE_SYNTHETIC_MODEL_H
#define EM_PIPELINE_SYNTHETIC_MODEL_H

#include "base/log.h"
#include "base/thread.h"
#include "io/json.h"
#include "models/clip_vit.h"
#include "models/umt5.h"
#include "models/wan_dit.h"
#include "models/wan_vae.h"
#include "models/wav2vec2.h"
#include "pipeline/engine.h"

typedef struct em_synthetic_sizes {
    em_dit_config dit;
    em_vae_config vae;
    em_umt5_config t5;
    em_clip_vit_config clip;
    em_wav2vec2_config speech;
} em_synthetic_sizes;

em_synthetic_sizes em_synthetic_sizes_full(void); /* the released sizes */
em_synthetic_sizes em_synthetic_sizes_tiny(void);

/* Sizes from JSON: {"dit": {…}, "audio": {…}, "vae": {…}, "t5": {…}, "clip": {…}, "w2v": {…}}, or
 * an object that holds this under "config". An absent section, and an absent key, mean the released
 * size. `source` names the file in messages. */
em_status em_synthetic_sizes_read(em_synthetic_sizes *out, const json_t *doc, const char *source,
                                  em_err *err);

/* One model's checkpoint file; its tensors in bfloat16; the format is the name's (.pth, .bin, or
 * safetensors). pool may be NULL. */
em_status em_synthetic_write(const em_synthetic_sizes *s, em_model_kind kind, uint64_t seed,
                             const char *path, em_pool *pool, em_err *err);

/* The transformer without what listens to the voice: what Flash is laid over. */
em_status em_synthetic_write_base(const em_synthetic_sizes *s, uint64_t seed, const char *path,
                                  em_pool *pool, em_err *err);

/* Bytes of tensors that em_synthetic_write would write. */
em_status em_synthetic_bytes(uint64_t *out, const em_synthetic_sizes *s, em_model_kind kind,
                             em_err *err);

/* A whole checkpoint, laid out as the released one:
 *
 *     DIR/config.yaml
 *     DIR/Wan2.1-Fun-V1.1-1.3B-InP/    config.json, VAE, text and image encoder, tokenizer
 *     DIR/transformer/                 the Flash transformer
 *     DIR/chinese-wav2vec2-base/
 */
#define EM_SYNTHETIC_CONFIG "config.yaml"
#define EM_SYNTHETIC_BASE "Wan2.1-Fun-V1.1-1.3B-InP"
#define EM_SYNTHETIC_FLASH "transformer/diffusion_pytorch_model.safetensors"
#define EM_SYNTHETIC_WAV2VEC2 "chinese-wav2vec2-base"

typedef struct em_synthetic_folder {
    const char *dir;
    uint64_t seed;
    bool with_base; /* the base model's own transformer, which has no audio tensors, too */
    bool torch;     /* VAE, text and image encoder in .pth, wav2vec2 in .bin, as released */
    em_pool *pool;  /* may be NULL */
    em_log log;     /* one line a file */
    const atomic_bool
        *stop; /* when it becomes true: EM_CANCELLED after the file at hand; or NULL */
} em_synthetic_folder;

/* Each file is all or nothing. EM_NOSPC before the first one if the disk cannot hold them all. */
em_status em_synthetic_write_folder(const em_synthetic_sizes *s, const em_synthetic_folder *to,
                                    em_err *err);

#endif
