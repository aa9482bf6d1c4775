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

/* One model's checkpoint file; its tensors in bfloat16. pool may be NULL. */
em_status em_synthetic_write(const em_synthetic_sizes *s, em_model_kind kind, uint64_t seed,
                             const char *path, em_pool *pool, em_err *err);

/* Bytes of tensors that em_synthetic_write would write. */
em_status em_synthetic_bytes(uint64_t *out, const em_synthetic_sizes *s, em_model_kind kind,
                             em_err *err);

#endif
