/* Whole chains: from noise, portrait and voice to latents and frames, step by step.
 *
 * pipeline.safetensors gives the text rows and the audio windows; e2e.safetensors gives token ids
 * and a wave. Both run the program's own stages on a job whose inputs are replaced by the
 * golden's. */
#include "check.h"

#include "io/image_resize.h"
#include "pipeline/color.h"
#include "pipeline/job.h"
#include "pipeline/noise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An engine put together from synthetic checkpoints. */
typedef struct stand {
    check *c;
    em_engine engine;
    em_model_config folder;
    em_ckpt *golden;
    const float *windows; /* (frames, 5, layers, hidden), or NULL: from the wave */
    const char *prefix;   /* "Flow_Unipc.teacache": of latents and video in the golden */
    bool strided;         /* e2e: every 97th value of each step */
} stand;

static bool open_models(stand *s)
{
    check *c = s->c;
    em_engine *e = &s->engine;
    em_err err = {0};
    for (int k = 0; k < EM_MODEL_COUNT; k++) {
        bool needed = k != EM_MODEL_WAV2VEC2 || !s->windows;
        if (needed && !(e->ckpt[k] = open_synthetic(c, (em_model_kind)k))) return false;
    }
    em_vae_config vae = {0};
    em_umt5_config t5 = {.heads = c->sizes.t5.heads, .max_tokens = c->sizes.t5.max_tokens};
    em_clip_vit_config clip = {.heads = c->sizes.clip.heads};
    em_dit_config dit = {.heads = c->sizes.dit.heads,
                         .layers = c->sizes.dit.layers,
                         .text_len = c->sizes.dit.text_len,
                         .eps = c->sizes.dit.eps};
    em_wav2vec2_config speech = c->sizes.speech;
    em_status st = em_vae_config_read(&vae, e->ckpt[EM_MODEL_VAE], &err);
    if (!st) st = em_vae_open(&e->vae, &vae, e->ckpt[EM_MODEL_VAE], NULL, &err);
    if (!st) st = em_umt5_config_read(&t5, e->ckpt[EM_MODEL_T5], &err);
    if (!st) st = em_umt5_open(&e->t5, &t5, e->ckpt[EM_MODEL_T5], NULL, &err);
    if (!st) st = em_clip_vit_config_read(&clip, e->ckpt[EM_MODEL_CLIP], &err);
    if (!st) st = em_clip_vit_open(&e->clip, &clip, e->ckpt[EM_MODEL_CLIP], NULL, &err);
    if (!st) st = em_dit_config_read(&dit, e->ckpt[EM_MODEL_TRANSFORMER], &err);
    if (!st) st = em_dit_open(&e->dit, &dit, e->ckpt[EM_MODEL_TRANSFORMER], NULL, &err);
    if (!st && !s->windows) st = em_wav2vec2_config_read(&speech, e->ckpt[EM_MODEL_WAV2VEC2], &err);
    if (!st && !s->windows)
        st = em_wav2vec2_open(&e->speech, &speech, e->ckpt[EM_MODEL_WAV2VEC2], NULL, &err);
    if (!st) st = em_prompt_cache_open(&e->prompts, &err);
    if (st) report_failure(c, "models", &err);
    return !st;
}

static bool open_stand(stand *s)
{
    s->folder.scheduler_shift = 5;
    s->folder.wav2vec2.do_normalize = true;
    s->engine.folder = &s->folder;
    s->engine.ops = s->c->ops;
    s->engine.pool = s->c->pool;
    s->engine.dtype = s->c->dtype;
    return open_models(s);
}

static void close_stand(stand *s)
{
    em_engine *e = &s->engine;
    em_vae_close(&e->vae);
    em_umt5_close(&e->t5);
    em_clip_vit_close(&e->clip);
    em_wav2vec2_close(&e->speech);
    em_dit_close(&e->dit);
    em_prompt_cache_close(&e->prompts);
    for (int k = 0; k < EM_MODEL_COUNT; k++) em_ckpt_close(&e->ckpt[k]);
    em_ckpt_close(&s->golden);
}

/* The conditions, the voice from windows where the golden gives them. */
static void conditions(stand *s, em_job *j)
{
    em_run *r = &j->run;
    em_job_encode(j);
    em_job_text(j);
    em_job_image(j);
    if (!s->windows) {
        em_job_audio(j);
        return;
    }
    const em_wav2vec2_config *a = &s->c->sizes.speech;
    em_mark m = em_run_mark(r);
    em_tensor w =
        em_upload(r, s->windows, EM_F32, EM_SHAPE(j->frames, EM_DIT_WINDOW, a->layers, a->hidden));
    j->cond[EM_BRANCH_AUDIO].audio = em_dit_audio(r, s->engine.dit, w, j->grid.frames);
    j->cond[EM_BRANCH_SILENT].audio =
        em_dit_audio(r, s->engine.dit, (em_tensor){0}, j->grid.frames);
    em_run_release(r, m);
}

/* ---- latents, step by step ------------------------------------------------------------------- */

typedef struct watcher {
    stand *s;
    em_job *j;
    const char *report_key;
} watcher;

static void on_progress(void *user, const em_progress *p)
{
    const watcher *w = user;
    em_job *j = w->j;
    char name[96], list[64];
    if (p->stage != EM_STAGE_DENOISE || p->done == 0) return;
    size_t n = (size_t)em_tensor_count(j->x), step = (size_t)p->done - 1,
           every = w->s->strided ? 97 : 1, want_n;
    snprintf(list, sizeof list, w->s->strided ? "latents.f32.every97" : "%s.latents", w->s->prefix);
    const float *want = floats_of(w->s->golden, list, &want_n);
    size_t row = (n + every - 1) / every;
    if (!want || want_n < row * (step + 1)) return;
    em_download(&j->run, j->x, j->latents);
    for (size_t i = 0; i < row; i++) j->latents[i] = j->latents[i * every];
    snprintf(name, sizeof name, "%s step %zu", list, step);
    expect_values(w->s->c, name, j->latents, want + step * row, row,
                  step_bound(w->s->c, w->report_key, step));
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* All frames in [0, 1], (3, F, H, W) as the goldens have them; out is the caller's. */
static void decode_all(em_job *j, float *out)
{
    em_run *r = &j->run;
    em_vae_stream v = {0};
    size_t area = (size_t)j->height * (size_t)j->width, plane = (size_t)j->frames * area, at = 0;
    em_mark m = em_run_mark(r);
    em_tensor z = em_channels_last(r, j->x);
    for (int64_t i = 0; i < j->grid.frames && !em_run_stopped(r); i++) {
        em_mark chunk = em_run_mark(r);
        em_tensor pixels = em_vae_decode_chunk(r, j->engine->vae, &v, em_slice(z, i, 1));
        em_download(r, pixels, j->frames_under_way[0].pixels);
        size_t n = em_run_stopped(r) ? 0 : (size_t)pixels.dim[0] * area;
        for (size_t k = 0; k < n * 3 && out; k++) {
            float v01 = j->frames_under_way[0].pixels[k] / 2 + 0.5f;
            out[k % 3 * plane + at + k / 3] = fminf(fmaxf(v01, 0), 1);
        }
        at += n;
        em_run_release(r, chunk);
    }
    em_run_release_all(r, m);
}

static void compare_video(const stand *s, const em_job *j, const float *got)
{
    check *c = s->c;
    char name[64], key[96];
    size_t n, count = 3 * (size_t)j->frames * (size_t)j->height * (size_t)j->width;
    snprintf(name, sizeof name, "%s.video", s->prefix);
    const float *want = floats_of(s->golden, name, &n);
    if (!want || n != count) return;
    if (c->dtype == EM_F32) {
        expect_values(c, name, got, want, n, 1e-4);
        return;
    }
    double sum = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        sum += d;
        worst = fmax(worst, d);
    }
    snprintf(key, sizeof key, "%s bf16 gpu video max abs, mean abs", s->prefix);
    const json_t *bound = c->report ? json_object_get(c->report, key) : NULL;
    double most = json_is_array(bound) ? json_number_value(json_array_get(bound, 0)) : NO_BOUND;
    double mean = json_is_array(bound) ? json_number_value(json_array_get(bound, 1)) : NO_BOUND;
    expect_measure(c, name, "max abs", worst, most);
    expect_measure(c, name, "mean abs", sum / (double)n, mean);
}

/* Three frames in bytes, first, middle and last. In float32 at most 1 % of the values differ, by
 * one level; else the reference's own distance: mean and largest, the latter one level wider for
 * the truncation. */
static void compare_frames(const stand *s, const em_job *j, const float *got)
{
    const em_ckpt_tensor *want = tensor_of(s->golden, "video.f32.frames", EM_U8);
    if (!want || want->ndim != 4) return;
    size_t area = (size_t)j->height * (size_t)j->width, plane = (size_t)j->frames * area;
    size_t differ = 0, sum = 0, count = want->size_bytes;
    int worst = 0;
    const int64_t shown = want->dim[0];
    for (int64_t f = 0; f < shown; f++) {
        int64_t frame = shown > 1 ? f * (j->frames - 1) / (shown - 1) : 0;
        for (size_t p = 0; p < area * 3; p++) {
            float v = got[p % 3 * plane + (size_t)frame * area + p / 3];
            int d =
                abs((int)(v * 255) - (int)((const uint8_t *)want->data)[(size_t)f * area * 3 + p]);
            differ += d > 0;
            sum += (size_t)d;
            worst = d > worst ? d : worst;
        }
    }
    if (s->c->dtype == EM_F32) {
        expect_measure(s->c, "video.f32.frames", "share that differs",
                       (double)differ / (double)count, 0.01);
        expect_measure(s->c, "video.f32.frames", "levels at most", worst, 1);
        return;
    }
    const json_t *own =
        s->c->report ? json_object_get(s->c->report, "bf16 video mean abs, max abs, psnr") : NULL;
    double mean = own ? json_number_value(json_array_get(own, 0)) : NO_BOUND;
    double most = own ? json_number_value(json_array_get(own, 1)) + 1.0 / 255 : NO_BOUND;
    expect_measure(s->c, "video.f32.frames", "mean abs", (double)sum / (double)count / 255, mean);
    expect_measure(s->c, "video.f32.frames", "max abs", worst / 255.0, most);
}

/* ---- a chain --------------------------------------------------------------------------------- */

typedef struct chain {
    stand *s;
    em_job *j;
    float *video;
} chain;

static void run_chain(const chain *a)
{
    em_run *r = &a->j->run;
    conditions(a->s, a->j);
    em_job_denoise(a->j);
    decode_all(a->j, r->plans ? NULL : a->video);
}

/* Plan, then for real in a block of exactly the planned size. All stages share one floor: weights
 * are pinned between them, too. */
static void plan_and_run(const chain *a)
{
    check *c = a->s->c;
    em_job *j = a->j;
    em_err err = {0};
    rehearsal f = {.ops = c->ops, .pool = c->pool, .dtype = c->dtype};
    rehearse_plan(&f, &j->run);
    run_chain(a);
    if (j->run.err.code) return report_failure(c, "plan", &j->run.err);
    em_status st = rehearse_open(&f, &j->run, &err);
    for (int i = 0; i < EM_STAGE_COUNT; i++) j->need[i].weights_bytes = f.need.weights_bytes;
    if (!st) run_chain(a);
    em_err failed = st ? err : j->run.err;
    rehearse_close(&f, &j->run, &err);
    if (failed.code) return report_failure(c, a->s->prefix, &failed);
    if (j->result.weight_bytes > f.weight_bytes) /* stages count for themselves */
        f.weight_bytes = j->result.weight_bytes;
    plan_held(c, a->s->prefix, &f);
    compare_video(a->s, j, a->video);
    compare_frames(a->s, j, a->video);
}

static void run_variant(stand *s, const em_picture *image, size_t samples, em_params *p,
                        const float *noise, const float *wave)
{
    em_err err = {0};
    em_job j;
    char key[96];
    watcher w = {s, &j, key};
    em_sink sink = {.progress = on_progress, .user = &w};
    em_sound sound = {.n = samples, .rate_hz = EM_AUDIO_MODEL_HZ};
    snprintf(key, sizeof key,
             s->strided ? "bf16 latents rel per step" : "%s bf16 gpu latents rel per step",
             s->prefix);
    if (em_job_open(&j, &s->engine, image, &sound, p, &sink, &err)) {
        report_failure(s->c, s->prefix, &err);
        em_job_close(&j);
        return;
    }
    size_t n = EM_VAE_CHANNELS * (size_t)(j.grid.frames * j.grid.height * j.grid.width);
    if (noise) memcpy(j.noise, noise, n * sizeof *noise);
    if (wave && (j.wave = em_alloc_array(j.wave_n, sizeof *j.wave))) {
        memcpy(j.wave, wave, j.wave_n * sizeof *wave);
        em_audio_standardise(j.wave, j.wave_n);
    }
    chain a = {s, &j,
               em_alloc_array((size_t)j.frames * (size_t)j.height * (size_t)j.width,
                              3 * sizeof(float))};
    if (a.video) plan_and_run(&a);
    em_free(a.video);
    em_job_close(&j);
}

/* ---- pipeline.safetensors -------------------------------------------------------------------- */

/* The text rows are another golden's: t5.safetensors `out`. */
static bool borrow_text(stand *s, const char *prompt)
{
    em_err err = {0};
    em_prompt *p = NULL;
    em_ckpt *t5 = has_file(s->c, "t5.safetensors") ? open_golden(s->c, "t5.safetensors") : NULL;
    const em_ckpt_tensor *out = t5 ? tensor_of(t5, "out", EM_F32) : NULL;
    const int32_t no_ids[512] = {0};
    bool ok =
        out && out->dim[0] <= 512 &&
        !em_prompt_cache_add(&p, s->engine.prompts, prompt, no_ids, out->dim[0], out->dim[1], &err);
    if (ok) {
        memcpy(p->rows, out->data, out->size_bytes);
        p->encoded = true;
    }
    em_ckpt_close(&t5);
    return ok;
}

static void check_lanczos(check *c, const em_ckpt *golden)
{
    em_err err = {0};
    em_image out = {0};
    const em_ckpt_tensor *in = tensor_of(golden, "image", EM_U8),
                         *want = tensor_of(golden, "lanczos", EM_U8);
    if (!in || !want) return;
    em_image src = {.rgb = (uint8_t *)(uintptr_t)in->data,
                    .width = (int)in->dim[1],
                    .height = (int)in->dim[0]};
    if (em_image_resize_lanczos(&out, &src, (int)want->dim[1], (int)want->dim[0], &err))
        report_failure(c, "lanczos", &err);
    else
        expect_equal(c, "lanczos", out.rgb, want->data, want->size_bytes);
    em_image_free(&out);
}

static void check_color(check *c, const em_ckpt *golden)
{
    em_err err = {0};
    em_color *color = NULL;
    const em_ckpt_tensor *in = tensor_of(golden, "color_transfer.in", EM_U8);
    const em_ckpt_tensor *want = tensor_of(golden, "color_transfer.out", EM_U8);
    uint8_t *rgb = in && want ? em_alloc(in->size_bytes) : NULL;
    if (!rgb || in->size_bytes != want->size_bytes) {
        report_skip(c, "color_transfer", "the file does not hold it");
    } else if (em_color_open(&color, &err)) {
        report_failure(c, "color_transfer", &err);
    } else {
        size_t frame = in->size_bytes / (size_t)in->dim[0];
        memcpy(rgb, in->data, in->size_bytes);
        for (int64_t i = 0; i < in->dim[0]; i++)
            em_color_frame(color, rgb + (size_t)i * frame, frame / 3);
        expect_equal(c, "color_transfer", rgb, want->data, want->size_bytes);
    }
    em_color_close(&color);
    em_free(rgb);
}

static void run_variants(stand *s, const em_picture *image, const float *noise)
{
    static const struct {
        const char *prefix;
        em_sampler_kind sampler;
        em_teacache_mode teacache;
    } variants[] = {
        {"Flow_Unipc", EM_SAMPLER_UNIPC, EM_TEACACHE_OFF},
        {"Flow_Unipc.teacache", EM_SAMPLER_UNIPC, EM_TEACACHE_REFERENCE},
        {"Flow_DPM++", EM_SAMPLER_DPMPP, EM_TEACACHE_OFF},
        {"Flow", EM_SAMPLER_EULER, EM_TEACACHE_OFF},
    };
    const em_ckpt_tensor *audio = tensor_of(s->golden, "audio", EM_F32);
    for (size_t i = 0; i < EM_COUNT(variants); i++) {
        char name[64];
        em_params p = em_params_default();
        s->prefix = variants[i].prefix;
        snprintf(name, sizeof name, "%s.latents", s->prefix);
        const em_ckpt_tensor *latents = em_ckpt_find(s->golden, name);
        if (!latents) continue;
        p.prompt = "golden";
        p.sampler = variants[i].sampler;
        p.teacache = variants[i].teacache;
        p.num_inference_steps = (int)latents->dim[0];
        p.audio_guidance_scale = 3;
        p.sample_size[0] = image->height;
        p.sample_size[1] = image->width;
        size_t samples = (size_t)audio->dim[0] * EM_AUDIO_MODEL_HZ / EM_AUDIO_MODEL_FPS;
        run_variant(s, image, samples, &p, noise, NULL);
    }
}

void check_pipeline(check *c)
{
    size_t n;
    stand s = {.c = c, .golden = open_golden(c, c->file)};
    if (!s.golden) return;
    check_lanczos(c, s.golden);
    check_color(c, s.golden);
    const em_ckpt_tensor *audio = tensor_of(s.golden, "audio", EM_F32),
                         *image = tensor_of(s.golden, "lanczos", EM_U8);
    const float *noise = floats_of(s.golden, "noise", &n);
    s.windows = audio ? audio->data : NULL;
    if (!audio || !image || !noise) {
        report_skip(c, "latents", "the file does not hold their inputs");
    } else if (open_stand(&s)) {
        em_picture p = {.rgb = image->data,
                        .width = (int)image->dim[1],
                        .height = (int)image->dim[0]};
        if (borrow_text(&s, "golden"))
            run_variants(&s, &p, noise);
        else
            report_skip(c, "latents", "the folder has no t5.safetensors with their text");
    }
    close_stand(&s);
}

/* ---- e2e.safetensors ------------------------------------------------------------------------- */

static bool add_ids(stand *s, const em_ckpt_tensor *ids)
{
    em_err err = {0};
    em_prompt *p = NULL;
    em_status st = em_prompt_cache_add(&p, s->engine.prompts, "golden", ids->data, ids->dim[0],
                                       em_umt5_sizes(s->engine.t5)->dim, &err);
    if (st) report_failure(s->c, "ids", &err);
    return !st;
}

/* The reference drew its noise in bfloat16, whatever it then computed in. Owned. */
static float *bfloat16_noise(stand *s, const em_picture *image, size_t samples)
{
    const em_noise_device card = {EM_NOISE_SM_COUNT, EM_NOISE_THREADS_PER_SM};
    const int every = 4099;
    int frames = em_audio_frames(samples, EM_AUDIO_MODEL_HZ, EM_AUDIO_MODEL_FPS, 4093);
    size_t area = (size_t)(image->height / EM_VAE_SPACE) * (size_t)(image->width / EM_VAE_SPACE);
    size_t n = EM_VAE_CHANNELS * area * (size_t)em_latent_frames(frames), listed;
    float *noise = em_alloc_array(n, sizeof *noise);
    if (!noise) return NULL;
    em_noise_fill(noise, n, (uint64_t)em_params_default().seed, EM_RNG_CUDA, &card);
    em_noise_round(noise, n, EM_BF16);
    const float *want = floats_of(s->golden, "noise.every4099", &listed);
    bool same = want && (listed - 1) * every < n;
    for (size_t i = 0; same && i < listed; i++) same = noise[i * every] == want[i];
    if (want) expect_true(s->c, "noise.every4099", same, "equal");
    return noise;
}

void check_e2e(check *c)
{
    size_t n;
    stand s = {.c = c, .golden = open_golden(c, c->file), .prefix = "e2e", .strided = true};
    if (!s.golden) return;
    json_t *doc = has_file(c, "e2e.json") ? load_json(c, "e2e.json") : NULL;
    const json_t *report = c->report;
    c->report = doc ? json_object_get(doc, "report") : report;
    const em_ckpt_tensor *image = tensor_of(s.golden, "image", EM_U8),
                         *ids = tensor_of(s.golden, "ids", EM_I32);
    const float *wave = floats_of(s.golden, "wave", &n);
    if (!image || !ids || !wave) {
        report_skip(c, "latents", "the file does not hold their inputs");
    } else if (open_stand(&s) && add_ids(&s, ids)) {
        em_picture p = {.rgb = image->data,
                        .width = (int)image->dim[1],
                        .height = (int)image->dim[0]};
        em_params q = em_params_default();
        q.prompt = "golden";
        q.teacache = EM_TEACACHE_OFF;
        q.audio_guidance_scale = 3;
        q.sample_size[0] = p.height;
        q.sample_size[1] = p.width;
        float *noise = bfloat16_noise(&s, &p, n);
        if (noise) run_variant(&s, &p, n, &q, noise, wave);
        em_free(noise);
    }
    c->report = report;
    json_decref(doc);
    close_stand(&s);
}
