/* The video autoencoder: pictures to latents and back, a chunk at a time. */
#ifndef EM_MODELS_WAN_VAE_H
#define EM_MODELS_WAN_VAE_H

#include "models/bind.h"
#include "ops/run.h"

enum {
    EM_VAE_CHANNELS = 16, /* of a latent */
    EM_VAE_SPACE = 8,     /* pixels a latent, along either side */
    EM_VAE_TIME = 4,      /* frames a latent, but for the first one, which is one frame */
    EM_VAE_PASTS = 32,    /* convolutions that look back, in either half, at most */
};

typedef struct em_vae_config {
    int64_t dim; /* width of the outermost stage; the others are 2 and 4 times as wide */
} em_vae_config;

/* Reads the width from the checkpoint's shapes. */
em_status em_vae_config_read(em_vae_config *cfg, const em_ckpt *ckpt, em_err *err);

typedef struct em_vae em_vae;

/* Binds the weights; ckpt is borrowed until close. */
em_status em_vae_open(em_vae **out, const em_vae_config *cfg, const em_ckpt *ckpt,
                      const em_log *log, em_err *err);
void em_vae_close(em_vae **m);

/* Names every tensor of such a checkpoint to a visiting binder. */
void em_vae_visit(em_binder *b, const em_vae_config *cfg);

/* One clip on its way through the encoder or the decoder: {0} before the first chunk. What it
 * remembers are kept tensors of the run it was begun on, so em_run_release_all to a mark from
 * before the first chunk ends it. Worth nothing after a failure of the run. */
typedef struct em_vae_stream {
    em_tensor past[EM_VAE_PASTS]; /* what each convolution saw last; empty until it is first used */
    int64_t chunks;               /* done */
} em_vae_stream;

/* frames F32 (T, H, W, 3) in [-1, 1]; H and W divide by 8; T is 1 at first, then 4 (or 8, 12, …: as
 * many latents at once)
 * -> F32 (1, H/8, W/8, 16), scratch: the posterior's mean, normalised as the diffusion model wants
 * it, (mean - m) / s */
em_tensor em_vae_encode_chunk(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor frames);

/* latents F32 (T, h, w, 16), normalised; T is 1 at first, then 1 or more
 * -> F32 (1, 8h, 8w, 3) at first, then (4T, 8h, 8w, 3), in [-1, 1], scratch */
em_tensor em_vae_decode_chunk(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor latents);

#endif
