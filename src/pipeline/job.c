#include "pipeline/job.h"

#include "base/alloc.h"
#include "base/time.h"
#include "io/audio.h"
#include "io/image_resize.h"
#include "io/loudness.h"
#include "pipeline/noise.h"
#include "pipeline/params.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PROMPT_IDS = 512 };

const char *em_stage_name(em_stage s)
{
    static const char *const name[EM_STAGE_COUNT] = {
        [EM_STAGE_PREPARE] = "prepare", [EM_STAGE_ENCODE] = "encode",
        [EM_STAGE_TEXT] = "text",       [EM_STAGE_IMAGE] = "image",
        [EM_STAGE_AUDIO] = "audio",     [EM_STAGE_DENOISE] = "denoise",
        [EM_STAGE_DECODE] = "decode",
    };
    return s < EM_STAGE_COUNT ? name[s] : "?";
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static em_status find_sizes(em_job *j, const em_picture *image, const em_sound *audio, em_err *err)
{
    const em_params *p = j->p;
    const em_dit_config *d = em_dit_sizes(j->engine->dit);
    em_status st = em_image_check_size("the portrait", image->width, image->height,
                                       p->sample_size[0], p->sample_size[1], err);
    if (st) return st;
    em_image_target_size(image->width, image->height, p->sample_size[0], p->sample_size[1],
                         &j->width, &j->height);
    j->frames = em_audio_frames(audio->n, audio->rate_hz, p->fps, p->video_length);
    if (j->frames < 1)
        return em_fail(err, EM_INVAL,
                       "the sound has %zu samples at %d Hz: less than one frame at %d fps",
                       audio->n, audio->rate_hz, p->fps);
    j->grid = (em_dit_grid){.frames = em_latent_frames(j->frames),
                            .height = j->height / EM_VAE_SPACE,
                            .width = j->width / EM_VAE_SPACE};
    j->branches = p->guidance_scale > 1 ? EM_BRANCHES : 1;
    j->wave_n = em_audio_cut_samples(j->frames);
    enum { TRACKS = 5 }; /* two channels, one of them, that at 16 kHz, twice while it is measured */
    j->inputs_bytes = 3 * (uint64_t)image->width * (uint64_t)image->height +
                      TRACKS * (uint64_t)audio->n * sizeof(float);
    if (j->grid.frames > EM_DIT_MAX_POSITIONS ||
        j->grid.height / d->patch_h > EM_DIT_MAX_POSITIONS ||
        j->grid.width / d->patch_w > EM_DIT_MAX_POSITIONS)
        return em_fail(err, EM_INVAL,
                       "%d frames of %d x %d are more than %d positions along an axis", j->frames,
                       j->width, j->height, EM_DIT_MAX_POSITIONS);
    return EM_OK;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static em_status prepare_image(em_job *j, const em_picture *image, em_err *err)
{
    em_image scaled = {0};
    const em_image source = {.rgb = (uint8_t *)(uintptr_t)image->rgb,
                             .width = image->width,
                             .height = image->height};
    em_status st = em_image_resize_lanczos(&scaled, &source, j->width, j->height, err);
    if (st) return st;
    em_pixels_from_u8(j->image, scaled.rgb, (size_t)j->width * (size_t)j->height * 3);
    em_image_free(&scaled);
    return EM_OK;
}

/* pipeline of the reference: 16 kHz, -23 LUFS, cut to the clip, zero mean and unit variance. */
static em_status prepare_audio(em_job *j, const em_sound *audio, em_err *err)
{
    size_t n = 0;
    em_loudness_result loudness = EM_LOUDNESS_SCALED;
    const em_log *log = &j->engine->log;
    em_status st = em_audio_resample(&j->wave, &n, audio->mono, audio->n, 1, audio->rate_hz,
                                     EM_AUDIO_MODEL_HZ, err);
    if (!st) st = em_loudness_normalise(j->wave, n, EM_AUDIO_MODEL_HZ, &loudness, err);
    if (st) return st;
    if (loudness == EM_LOUDNESS_SILENT)
        em_logf(log, EM_LOG_WARN, "the sound is silent: the mouth will rest");
    if (loudness == EM_LOUDNESS_TOO_SHORT)
        em_logf(log, EM_LOG_WARN, "the sound is under 0.4 s: its loudness is left as it is");
    if (n < j->wave_n) j->wave_n = n;
    if (j->engine->folder->wav2vec2.do_normalize) em_audio_standardise(j->wave, j->wave_n);
    return EM_OK;
}

static em_status add_prompt(em_job *j, int64_t dim, em_err *err)
{
    em_engine *e = j->engine;
    const char *text = j->p->prompt;
    int64_t most = em_umt5_sizes(e->t5)->max_tokens;
    int32_t ids[MAX_PROMPT_IDS];
    size_t n = 0;
    em_status st =
        em_tokenizer_encode(e->tokenizer, text, strlen(text),
                            most < MAX_PROMPT_IDS ? (size_t)most : MAX_PROMPT_IDS, ids, &n, err);
    if (st) return st;
    return em_prompt_cache_add(&j->prompt, e->prompts, text, ids, (int64_t)n, dim, err);
}

static em_status prepare_prompt(em_job *j, em_err *err)
{
    em_engine *e = j->engine;
    int64_t dim = em_umt5_sizes(e->t5)->dim;
    j->prompt = em_prompt_cache_find(e->prompts, j->p->prompt);
    em_status st = j->prompt ? EM_OK : add_prompt(j, dim, err);
    if (!st) em_prompt_folder_load(e->prompt_folder, j->prompt, dim);
    return st;
}

static void prepare_noise(em_job *j, size_t n)
{
    const em_noise_device card = {j->p->rng_sm_count, j->p->rng_threads_per_sm};
    em_noise_fill(j->noise, n, (uint64_t)j->p->seed, j->p->rng, &card);
    em_noise_round(j->noise, n, j->engine->dtype);
}

/* ---- open and close -------------------------------------------------------------------------- */

size_t em_job_latents(const em_job *j)
{
    return EM_VAE_CHANNELS * (size_t)(j->grid.frames * j->grid.height * j->grid.width);
}

static size_t chunk_values(const em_job *j)
{
    return EM_VAE_TIME * (size_t)j->width * (size_t)j->height * 3;
}

/* Page-locked memory is scarce: without it copies wait, and nothing else changes. */
static em_status open_room(em_job *j, em_job_room *room, size_t size_bytes, const char *what,
                           em_err *err)
{
    em_engine *e = j->engine;
    em_device *d = e->ops->device;
    em_err full = {0};
    if (d->host_alloc(d, &room->data, size_bytes, &full)) {
        snprintf(e->down.reason, sizeof e->down.reason, "%s go through pageable memory: %.190s",
                 what, full.msg);
        em_logf(&e->log, EM_LOG_DEBUG, "%s", e->down.reason);
        room->pageable = true;
        room->data = em_alloc(size_bytes);
    }
    room->size_bytes = size_bytes;
    return room->data ? EM_OK
                      : em_fail(err, EM_NOMEM, "no memory for %s of %d frames of %d x %d", what,
                                j->frames, j->width, j->height);
}

static void close_room(em_device *d, em_job_room *room)
{
    if (room->pageable)
        em_free(room->data);
    else if (room->data)
        d->host_free(d, room->data, room->size_bytes);
    *room = (em_job_room){0};
}

static em_status open_frames(em_job *j, em_job_frames *f, em_err *err)
{
    em_device *d = j->engine->ops->device;
    size_t n = chunk_values(j) * (sizeof *f->pixels + sizeof *f->rgb);
    em_status st = open_room(j, &f->room, n, "frames", err);
    if (st) return st;
    f->pixels = f->room.data;
    f->rgb = (uint8_t *)(f->pixels + chunk_values(j));
    return d->event_create(d, &f->copied, err);
}

static void close_frames(em_job *j, em_job_frames *f)
{
    em_device *d = j->engine ? j->engine->ops->device : NULL;
    if (!d) return;
    em_err ignored = {0};
    if (f->copied) d->event_sync(d, f->copied, &ignored);
    close_room(d, &f->room);
    d->event_destroy(d, f->copied);
    *f = (em_job_frames){0};
}

size_t em_job_offload_bytes(const em_job *j)
{
    const em_dit_config *d = em_dit_sizes(j->engine->dit);
    const em_dit_grid g = j->grid;
    int64_t tokens = g.frames * (g.height / d->patch_h) * (g.width / d->patch_w);
    return j->p->teacache && j->p->teacache_offload ? sizeof(float) * (size_t)(tokens * d->dim) : 0;
}

em_status em_job_take_offload(em_job *j, em_err *err)
{
    size_t n = em_job_offload_bytes(j);
    em_status st = EM_OK;
    for (int b = 0; !st && n && b < j->branches; b++)
        if (!j->offloaded[b].data)
            st = open_room(j, &j->offloaded[b], n, "TeaCache's residuals", err);
    return st;
}

/* After a failure copies may still be on their way. */
static void close_offload(em_job *j)
{
    em_device *d = j->engine ? j->engine->ops->device : NULL;
    em_err ignored = {0};
    for (int b = 0; d && b < EM_BRANCHES; b++) {
        if (j->offloaded[b].data) d->sync(d, &ignored);
        close_room(d, &j->offloaded[b]);
    }
}

/* The host buffers that a plan needs too. */
static em_status open_schedule(em_job *j, em_err *err)
{
    const em_params *p = j->p;
    const em_dit_config *d = em_dit_sizes(j->engine->dit);
    size_t steps = (size_t)p->num_inference_steps, latents = em_job_latents(j);
    double shift = p->shift > 0                     ? p->shift
                   : p->sampler == EM_SAMPLER_EULER ? j->engine->folder->scheduler_shift
                                                    : 5.0;
    em_status st =
        em_sampler_open(&j->sampler, em_solver_get(p->sampler), p->num_inference_steps, shift, err);
    if (!st && p->color_transfer) st = em_color_open(&j->color, err);
    if (st) return st;
    j->time = em_alloc_array(steps, sizeof *j->time);
    j->steps = em_alloc_array(steps, sizeof *j->steps);
    j->e0 = em_alloc_array(steps, 6 * (size_t)d->dim * sizeof *j->e0);
    j->window = em_alloc_array((size_t)j->frames, EM_DIT_WINDOW * sizeof *j->window);
    j->rope = em_alloc_array(em_dit_rope_count(d, j->grid), sizeof *j->rope);
    j->latents = em_alloc_array(latents, sizeof *j->latents);
    j->noise = em_alloc_array(latents, sizeof *j->noise);
    j->image = em_alloc_array(chunk_values(j) / EM_VAE_TIME, sizeof *j->image);
    if (!j->time || !j->steps || !j->e0 || !j->window || !j->rope || !j->latents || !j->noise ||
        !j->image)
        return em_fail(err, EM_NOMEM, "no memory for %d frames of %d x %d", j->frames, j->width,
                       j->height);
    for (int i = 0; !st && i < 2; i++) st = open_frames(j, &j->frames_under_way[i], err);
    if (st) return st;
    em_audio_windows(j->window, j->frames);
    em_dit_rope_fill(d, j->grid, p->riflex_k, j->rope);
    prepare_noise(j, latents);
    return EM_OK;
}

static em_status heed_cancel(const em_job *j, em_err *err)
{
    return atomic_load(&j->engine->cancel) ? em_fail(err, EM_CANCELLED, "cancelled") : EM_OK;
}

/* The largest picture and an hour of sound take seconds each: a cancel is heeded between them. */
static em_status open_inputs(em_job *j, const em_picture *image, const em_sound *audio, em_err *err)
{
    em_status st = prepare_prompt(j, err);
    if (!st) st = heed_cancel(j, err);
    if (!st && image->rgb) st = prepare_image(j, image, err);
    if (!st) st = heed_cancel(j, err);
    if (!st && audio->mono) st = prepare_audio(j, audio, err);
    return st ? st : heed_cancel(j, err);
}

em_status em_job_open(em_job *j, em_engine *e, const em_picture *image, const em_sound *audio,
                      const em_params *p, const em_sink *sink, em_err *err)
{
    em_job fresh = {.engine = e, .p = p, .sink = sink, .start_ms = em_now_ms()};
    *j = fresh;
    em_status st = em_params_check(p, err);
    if (!st) st = find_sizes(j, image, audio, err);
    if (!st) st = open_schedule(j, err);
    if (!st) st = open_inputs(j, image, audio, err);
    j->result.width = j->width;
    j->result.height = j->height;
    j->result.frames = j->frames;
    j->result.seed = p->seed;
    j->result.steps = p->num_inference_steps;
    j->result.stage[EM_STAGE_PREPARE].ms = em_now_ms() - j->start_ms;
    return st;
}

void em_job_close(em_job *j)
{
    em_resume_close(&j->resume);
    em_sampler_close(&j->sampler);
    em_color_close(&j->color);
    void *const owned[] = {j->image, j->wave,    j->window, j->noise, j->rope,
                           j->e0,    j->latents, j->time,   j->steps};
    for (int i = 0; i < 2; i++) close_frames(j, &j->frames_under_way[i]);
    close_offload(j);
    for (size_t i = 0; i < EM_COUNT(owned); i++) em_free(owned[i]);
    em_trace_close(&j->trace);
    em_trace_close(&j->annex.trace);
    *j = (em_job){0};
}
