/* The diffusion transformer: EchoMimicV3-Flash, a Wan 2.1 image-to-video transformer with audio
 * cross-attention. See wan_dit.c for the story. */
#ifndef EM_MODELS_WAN_DIT_H
#define EM_MODELS_WAN_DIT_H

#include "base/log.h"
#include "models/bind.h"
#include "ops/ops.h"

typedef struct em_dit em_dit;

enum {
    EM_DIT_MAX_POSITIONS = 1024, /* an axis: where the reference's rotary tables end */
    EM_DIT_WINDOW = 5,           /* neighbouring frames in an audio window */
};

/* Sizes. 0 = take it from the checkpoint's shapes; `heads` and `layers` must be given. */
typedef struct em_dit_config {
    int64_t dim, ffn_dim, heads, layers;
    int64_t freq_dim, text_dim, text_len; /* text_len 0 = 512 */
    int64_t in_dim, out_dim;              /* channels in (latent + condition) and out */
    int64_t patch_h, patch_w;
    int64_t clip_dim;                         /* width of the image tokens */
    int64_t audio_dim;                        /* layers * hidden of the audio encoder */
    int64_t audio_intermediate, audio_tokens; /* of the audio projection */
    double eps;                               /* 0 = 1e-6 */
} em_dit_config;

/* EchoMimicV3-Flash: the released sizes. */
em_dit_config em_dit_config_default(void);
/* Fills the zeros of *cfg from tensor shapes; EM_MISMATCH when the numbers contradict each
 * other. */
em_status em_dit_config_read(em_dit_config *cfg, const em_ckpt *ckpt, em_err *err);

/* ckpt is borrowed until em_dit_close. All missing and mis-shaped tensors are reported at once. */
em_status em_dit_open(em_dit **out, const em_dit_config *cfg, const em_ckpt *ckpt,
                      const em_log *log, em_err *err);
void em_dit_close(em_dit **m);
const em_dit_config *em_dit_sizes(const em_dit *m);

/* Walks every tensor of a checkpoint of these sizes (all must be set). */
void em_dit_visit(em_binder *b, const em_dit_config *cfg);

/* Latent grid of a job: frames, and tokens a frame. */
typedef struct em_dit_grid {
    int64_t frames, height, width; /* of the latents; height and width divide by the patch */
} em_dit_grid;

/* Keys and values of what the tokens look at, for every block. They depend on the job alone: made
 * once, kept at the arena's high end. Working type. */
typedef struct em_dit_kv {
    /* text, image: (layers, 2, n, dim); audio: (layers, 2, frames, audio_tokens, dim) */
    em_tensor kv;
} em_dit_kv;

/* context F32 (L, text_dim), L <= text_len: rows of the text encoder; missing rows are zeros, as in
 * the reference, and do take part. */
em_dit_kv em_dit_text(em_run *r, const em_dit *m, em_tensor context);
/* clip (n, clip_dim) */
em_dit_kv em_dit_image(em_run *r, const em_dit *m, em_tensor clip);
/* windows F32 (1 + 4 (frames - 1), 5, layers, hidden); empty = no audio: zeros, for `frames`
 * latents. */
em_dit_kv em_dit_audio(em_run *r, const em_dit *m, em_tensor windows, int64_t frames);

/* The tokens themselves before the first block, for parity checks: text (text_len, dim), image (n,
 * dim), audio (frames, audio_tokens, dim). Scratch. */
em_tensor em_dit_text_tokens(em_run *r, const em_dit *m, em_tensor context);
em_tensor em_dit_image_tokens(em_run *r, const em_dit *m, em_tensor clip);
em_tensor em_dit_audio_tokens(em_run *r, const em_dit *m, em_tensor windows, int64_t frames);

/* The timestep's embedding, computed in float32, in the working type. Kept. */
typedef struct em_dit_time {
    em_tensor e;  /* (dim): the head's */
    em_tensor e0; /* (6, dim): the blocks'; also what TeaCache watches */
} em_dit_time;
em_dit_time em_dit_time_embed(em_run *r, const em_dit *m, double timestep);

/* Rotary table (cos, sin) of every token, F32 (N, head_dim/2, 2), N in the order (frame, row,
 * column). `host` is the caller's room for em_dit_rope_count floats. riflex_k: 0, or the 1-based
 * time frequency that RIFLEx (arXiv 2502.15894) replaces. Kept. */
size_t em_dit_rope_count(const em_dit_config *cfg, em_dit_grid g);
void em_dit_rope_fill(const em_dit_config *cfg, em_dit_grid g, int riflex_k, float *host);
em_tensor em_dit_rope(em_run *r, const em_dit *m, em_dit_grid g, const float *host);

/* Everything a forward looks at besides x and t. */
typedef struct em_dit_cond {
    em_dit_kv text, image, audio;
    em_tensor rope;
    em_dit_grid grid;
    /* empty, or F32 (layers, N, dim): receives every block's output (parity checks) */
    em_tensor taps;
} em_dit_cond;

/* A forward is these three; TeaCache may put something else in place of the second. Scratch.
 * embed: latents x F32 (out_dim, f, h, w) and condition y F32 (in_dim - out_dim, f, h, w) -> F32
 * (N, dim) blocks: in place
 * head: -> velocity F32 (out_dim, f, h, w) */
em_tensor em_dit_embed(em_run *r, const em_dit *m, em_tensor x, em_tensor y);
void em_dit_blocks(em_run *r, const em_dit *m, em_tensor tokens, const em_dit_time *t,
                   const em_dit_cond *c);
em_tensor em_dit_head(em_run *r, const em_dit *m, em_tensor tokens, const em_dit_time *t,
                      em_dit_grid g);

/* For whoever records em_dit_blocks (em_run_record_begin) and replays it. */

/* All its weights stay where they are until the next of the two below. False, and none is held:
 * some are not there. */
bool em_dit_hold(em_run *r, const em_dit *m);
void em_dit_release(em_run *r, const em_dit *m);
/* The same, block by block as em_dit_blocks goes through them: for the weights' order it was
 * one. */
void em_dit_pass(em_run *r, const em_dit *m);
/* Where they are, while they are held: another number is another place. */
uint64_t em_dit_place(const em_dit *m);

#endif
