/* The five models, tensor by tensor. Inputs of a forward are uploaded inside it, so that a plan
 * sees them. */
#include "check.h"

#include <stdio.h>
#include <string.h>

typedef struct forward_args {
    check *c;
    const em_ckpt *golden;
    const void *model;
} forward_args;

static em_tensor upload(em_run *r, const em_ckpt_tensor *t)
{
    return em_upload(r, t->data, t->dtype, t->dim, t->ndim);
}

static void compare(em_run *r, const forward_args *a, const char *name, em_tensor got, double bound)
{
    expect_tensor(a->c, r, a->golden, name, got, bound);
}

/* ---- text ------------------------------------------------------------------------------------ */

static void t5_forward(em_run *r, void *arg)
{
    const forward_args *a = arg;
    const em_ckpt_tensor *ids = tensor_of(a->golden, "ids", EM_I32);
    em_mark m = em_run_mark(r);
    compare(r, a, "out", em_umt5_forward(r, a->model, ids->data, ids->dim[0]),
            model_bound(a->c, "t5 bf16 gpu rel"));
    em_run_release_all(r, m);
}

void check_t5(check *c)
{
    em_err err = {0};
    em_umt5 *m = NULL;
    em_umt5_config cfg = {.heads = c->sizes.t5.heads, .max_tokens = c->sizes.t5.max_tokens};
    em_ckpt *golden = open_golden(c, c->file),
            *ckpt = golden ? open_synthetic(c, EM_MODEL_T5) : NULL;
    forward_args a = {c, golden, NULL};
    if (!ckpt) goto done;
    if (!tensor_of(golden, "ids", EM_I32)) {
        report_skip(c, "ids", "the file does not hold it");
    } else if (em_umt5_config_read(&cfg, ckpt, &err) || em_umt5_open(&m, &cfg, ckpt, NULL, &err)) {
        report_failure(c, "t5", &err);
    } else {
        a.model = m;
        run_forward(c, "t5", t5_forward, &a);
    }
done:
    em_umt5_close(&m);
    em_ckpt_close(&ckpt);
    em_ckpt_close(&golden);
}

/* ---- image ----------------------------------------------------------------------------------- */

typedef struct clip_args {
    forward_args base;
    float *image; /* (H, W, 3) in [-1, 1] */
    const em_ckpt_tensor *bytes;
} clip_args;

static void clip_forward(em_run *r, void *arg)
{
    const clip_args *a = arg;
    em_clip_vit_taps taps = {0};
    em_mark m = em_run_mark(r);
    em_tensor image = em_upload(r, a->image, EM_F32, a->bytes->dim, 3);
    em_tensor out = em_clip_vit_forward(r, a->base.model, image, &taps);
    compare(r, &a->base, "out", out, model_bound(a->base.c, "clip bf16 gpu rel"));
    if (em_ckpt_find(a->base.golden, "resized"))
        compare(r, &a->base, "resized", em_channels_first(r, taps.resized), 2e-5);
    em_run_release_all(r, m);
}

void check_clip(check *c)
{
    em_err err = {0};
    em_clip_vit *m = NULL;
    em_clip_vit_config cfg = {.heads = c->sizes.clip.heads};
    em_ckpt *golden = open_golden(c, c->file),
            *ckpt = golden ? open_synthetic(c, EM_MODEL_CLIP) : NULL;
    clip_args a = {.base = {c, golden, NULL}};
    if (!ckpt) goto done;
    a.bytes = tensor_of(golden, "image", EM_U8);
    if (!a.bytes) {
        report_skip(c, "image", "the file does not hold it");
    } else if (em_clip_vit_config_read(&cfg, ckpt, &err) ||
               em_clip_vit_open(&m, &cfg, ckpt, NULL, &err)) {
        report_failure(c, "clip", &err);
    } else {
        a.base.model = m;
        a.image = em_alloc_array(a.bytes->size_bytes, sizeof *a.image);
        if (a.image) em_pixels_from_u8(a.image, a.bytes->data, a.bytes->size_bytes);
        if (a.image) run_forward(c, "clip", clip_forward, &a);
    }
done:
    em_free(a.image);
    em_clip_vit_close(&m);
    em_ckpt_close(&ckpt);
    em_ckpt_close(&golden);
}

/* ---- audio ----------------------------------------------------------------------------------- */

typedef struct speech_args {
    forward_args base;
    float *wave; /* normalised */
    size_t n;
    int64_t frames;
} speech_args;

/* wav2vec2 runs in float32 always, and so its bound is float32's. */
static void speech_forward(em_run *r, void *arg)
{
    const speech_args *a = arg;
    const em_wav2vec2_config *s = em_wav2vec2_sizes(a->base.model);
    em_wav2vec2_taps taps = {0};
    em_mark m = em_run_mark(r);
    em_tensor wave = em_upload(r, a->wave, EM_F32, EM_SHAPE((int64_t)a->n));
    em_tensor hidden =
        em_wav2vec2_forward(r, a->base.model, wave, a->frames, &taps); // (F, layers, C)
    compare(r, &a->base, "features", taps.features, 2e-5);
    compare(r, &a->base, "hidden.0", taps.hidden0, 2e-5);
    for (int64_t i = 0; i < s->layers && !em_run_stopped(r); i++) {
        char name[32];
        snprintf(name, sizeof name, "hidden.%d", (int)i + 1);
        em_tensor one = em_run_tensor(r, EM_F32, EM_SHAPE(a->frames, s->hidden));
        em_tensor rows = em_view(hidden, EM_SHAPE(a->frames, s->layers * s->hidden));
        em_copy_cols(r, one, 0, rows, i * s->hidden, s->hidden);
        compare(r, &a->base, name, one, 2e-5);
    }
    em_run_release_all(r, m);
}

static em_wav2vec2 *open_speech(check *c, const em_ckpt *ckpt)
{
    em_err err = {0};
    em_wav2vec2 *m = NULL;
    em_wav2vec2_config cfg = {.heads = c->sizes.speech.heads,
                              .convs = c->sizes.speech.convs,
                              .eps = c->sizes.speech.eps};
    memcpy(cfg.conv_stride, c->sizes.speech.conv_stride, sizeof cfg.conv_stride);
    if (em_wav2vec2_config_read(&cfg, ckpt, &err) || em_wav2vec2_open(&m, &cfg, ckpt, NULL, &err))
        report_failure(c, "wav2vec2", &err);
    return m;
}

void check_wav2vec2(check *c)
{
    em_ckpt *golden = open_golden(c, c->file),
            *ckpt = golden ? open_synthetic(c, EM_MODEL_WAV2VEC2) : NULL;
    em_wav2vec2 *m = ckpt ? open_speech(c, ckpt) : NULL;
    speech_args a = {.base = {c, golden, m}};
    const float *wave = m ? floats_of(golden, "wave", &a.n) : NULL;
    const em_ckpt_tensor *features = m ? tensor_of(golden, "features", EM_F32) : NULL;
    if (m && wave && features && (a.wave = em_alloc_array(a.n, sizeof *a.wave))) {
        a.frames = features->dim[0];
        memcpy(a.wave, wave, a.n * sizeof *wave);
        em_audio_standardise(a.wave, a.n);
        run_forward(c, "wav2vec2", speech_forward, &a);
    } else if (m) {
        report_skip(c, "wave", "the file does not hold it");
    }
    em_free(a.wave);
    em_wav2vec2_close(&m);
    em_ckpt_close(&ckpt);
    em_ckpt_close(&golden);
}

/* ---- video ----------------------------------------------------------------------------------- */

/* (3, F, H, W) in, chunk by chunk; `frames` empty after the first one: grey. -> (16, f, h, w) */
static em_tensor encode(em_run *r, const em_vae *vae, em_tensor first_last, int64_t latents)
{
    int64_t h = first_last.dim[1], w = first_last.dim[2];
    em_vae_stream s = {0};
    em_tensor z =
        em_run_tensor(r, EM_F32,
                      EM_SHAPE(latents, h / EM_VAE_SPACE, w / EM_VAE_SPACE, EM_VAE_CHANNELS));
    for (int64_t i = 0; i < latents && !em_run_stopped(r); i++) {
        em_mark m = em_run_mark(r);
        int64_t n = i ? EM_VAE_TIME : 1, begin = i ? 1 + (i - 1) * EM_VAE_TIME : 0;
        em_tensor chunk;
        if (begin < first_last.dim[0]) {
            chunk = em_slice(first_last, begin, n);
        } else {
            chunk = em_run_tensor(r, EM_F32, EM_SHAPE(n, h, w, 3));
            em_fill(r, chunk, 0);
        }
        em_copy(r, em_slice(z, i, 1), em_vae_encode_chunk(r, vae, &s, chunk));
        em_run_release(r, m);
    }
    return em_channels_first(r, z);
}

/* (16, f, h, w) -> (3, F, H, W) */
static em_tensor decode(em_run *r, const em_vae *vae, em_tensor latents)
{
    em_vae_stream s = {0};
    int64_t f = latents.dim[1], h = latents.dim[2] * EM_VAE_SPACE,
            w = latents.dim[3] * EM_VAE_SPACE;
    em_tensor z = em_channels_last(r, latents);
    em_tensor video = em_run_tensor(r, EM_F32, EM_SHAPE(1 + (f - 1) * EM_VAE_TIME, h, w, 3));
    for (int64_t i = 0, at = 0; i < f && !em_run_stopped(r); at += i++ ? EM_VAE_TIME : 1) {
        em_mark m = em_run_mark(r);
        em_tensor pixels = em_vae_decode_chunk(r, vae, &s, em_slice(z, i, 1));
        em_copy(r, em_slice(video, at, i ? EM_VAE_TIME : 1), pixels);
        em_run_release(r, m);
    }
    return em_channels_first(r, video);
}

static void vae_forward(em_run *r, void *arg)
{
    const forward_args *a = arg;
    em_mark m = em_run_mark(r);
    double enc = model_bound(a->c, "vae encode bf16 gpu rel"),
           dec = model_bound(a->c, "vae decode bf16 gpu rel");
    const em_ckpt_tensor *frame =
        tensor_of(a->golden, "encode.first_frame_then_zero.in_frame0", EM_F32);
    const em_ckpt_tensor *out = tensor_of(a->golden, "encode.first_frame_then_zero.out", EM_F32);
    const em_ckpt_tensor *video = tensor_of(a->golden, "encode.video.in", EM_F32);
    const em_ckpt_tensor *video_out = tensor_of(a->golden, "encode.video.out", EM_F32);
    const em_ckpt_tensor *latents = tensor_of(a->golden, "decode.in", EM_F32);
    if (frame && out) {
        em_tensor one = em_channels_last(r, upload(r, frame)); // (H, W, 3)
        one = em_view(one, EM_SHAPE(1, frame->dim[1], frame->dim[2], 3));
        compare(r, a, "encode.first_frame_then_zero.out", encode(r, a->model, one, out->dim[1]),
                enc);
        em_run_release_all(r, m);
    }
    if (video && video_out) {
        em_tensor clip = em_channels_last(r, upload(r, video)); // (F, H, W, 3)
        compare(r, a, "encode.video.out", encode(r, a->model, clip, video_out->dim[1]), enc);
        em_run_release_all(r, m);
    }
    if (latents) compare(r, a, "decode.out", decode(r, a->model, upload(r, latents)), dec);
    em_run_release_all(r, m);
}

void check_vae(check *c)
{
    em_err err = {0};
    em_vae *m = NULL;
    em_vae_config cfg = {0};
    em_ckpt *golden = open_golden(c, c->file),
            *ckpt = golden ? open_synthetic(c, EM_MODEL_VAE) : NULL;
    if (ckpt && (em_vae_config_read(&cfg, ckpt, &err) || em_vae_open(&m, &cfg, ckpt, NULL, &err)))
        report_failure(c, "vae", &err);
    forward_args a = {c, golden, m};
    if (m) run_forward(c, "vae", vae_forward, &a);
    em_vae_close(&m);
    em_ckpt_close(&ckpt);
    em_ckpt_close(&golden);
}
