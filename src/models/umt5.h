/* The text encoder: token ids to one vector a token. */
#ifndef EM_MODELS_UMT5_H
#define EM_MODELS_UMT5_H

#include "models/bind.h"
#include "ops/run.h"

typedef struct em_umt5_config {
    /* what config.yaml alone says */
    int64_t heads;      /* num_heads */
    int64_t max_tokens; /* text_length: longer input is refused */
    /* what the shapes say */
    int64_t vocab, dim, dim_attn, dim_ffn, layers, buckets;
} em_umt5_config;

/* UMT5-XXL: the released sizes. */
em_umt5_config em_umt5_config_default(void);
/* Fills in the sizes that the checkpoint's shapes state; heads and max_tokens are the caller's. */
em_status em_umt5_config_read(em_umt5_config *cfg, const em_ckpt *ckpt, em_err *err);

typedef struct em_umt5 em_umt5;

/* Binds the weights; cfg as em_umt5_config_read left it, ckpt borrowed until close. */
em_status em_umt5_open(em_umt5 **out, const em_umt5_config *cfg, const em_ckpt *ckpt,
                       const em_log *log, em_err *err);
void em_umt5_close(em_umt5 **m);
const em_umt5_config *em_umt5_sizes(const em_umt5 *m); /* borrowed until close */

/* Names every tensor of such a checkpoint to a visiting binder. */
void em_umt5_visit(em_binder *b, const em_umt5_config *cfg);

/* ids[0 … n): a host array, borrowed for the call, without padding. -> F32 (n, dim), scratch. In a
 * float16 run it works in bfloat16: its activations overflow half. */
em_tensor em_umt5_forward(em_run *r, const em_umt5 *m, const int32_t *ids, int64_t n);

#endif
