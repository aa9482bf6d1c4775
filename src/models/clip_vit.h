/* The image encoder: the portrait to one vector a patch. */
#ifndef EM_MODELS_CLIP_VIT_H
#define EM_MODELS_CLIP_VIT_H

#include "models/bind.h"
#include "ops/run.h"

typedef struct em_clip_vit_config {
    /* what config.yaml alone says */
    int64_t heads;
    /* What the shapes say. layers counts the last one, which is never run; the picture is a square
     * of grid x grid patches, each of patch x patch pixels. */
    int64_t dim, ffn, layers, patch, grid;
    /* The parts of the file that are not read: only a synthetic checkpoint needs their sizes, and
     * zeros leave them out. */
    int64_t embed_dim, text_dim, text_layers, text_vocab, text_positions;
} em_clip_vit_config;

/* ViT-H/14 with its XLM-RoBERTa: the released sizes. */
em_clip_vit_config em_clip_vit_config_default(void);
/* Fills in the visual sizes that the checkpoint's shapes state; heads is the caller's, the unread
 * parts become zeros. */
em_status em_clip_vit_config_read(em_clip_vit_config *cfg, const em_ckpt *ckpt, em_err *err);

typedef struct em_clip_vit em_clip_vit;

/* Binds the weights; cfg as em_clip_vit_config_read left it, ckpt borrowed until close. */
em_status em_clip_vit_open(em_clip_vit **out, const em_clip_vit_config *cfg, const em_ckpt *ckpt,
                           const em_log *log, em_err *err);
void em_clip_vit_close(em_clip_vit **m);
const em_clip_vit_config *em_clip_vit_sizes(const em_clip_vit *m); /* borrowed until close */

/* Names every tensor of such a checkpoint to a visiting binder. */
void em_clip_vit_visit(em_binder *b, const em_clip_vit_config *cfg);

/* Intermediate results for a caller who compares: float32, kept (em_run_keep). */
typedef struct em_clip_vit_taps {
    em_tensor resized; /* (S, S, 3), S = grid patch, before mean and deviation */
} em_clip_vit_taps;

/* image F32 (H, W, 3) in [-1, 1]   taps may be NULL   -> F32 (1 + grid^2, dim), scratch */
em_tensor em_clip_vit_forward(em_run *r, const em_clip_vit *m, em_tensor image,
                              em_clip_vit_taps *taps);

#endif
