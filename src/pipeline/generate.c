/* READ THIS FIRST: the whole method.
 *
 * EchoMimicV3-Flash (arXiv 2507.03905) on Wan 2.1 (arXiv 2503.20314): a diffusion transformer turns
 * noise into the latents of a clip while it looks at a portrait, a prompt and a voice; a causal VAE
 * translates between latents and pictures. Upstream: antgroup/echomimic_v3, infer_flash.py and
 * src/pipeline_wan_fun_inpaint_audio_2512.py. */
#include "base/time.h"
#include "pipeline/job.h"

static void conditions_and_steps(em_job *j)
{
    /* y: the portrait as the first latent, grey after it, and a mask that says so */
    em_job_encode(j);

    /* keys and values of the prompt, of the portrait and, frame by frame, of the voice: once a job,
     * used by every step */
    em_mark conditions = em_run_mark(&j->run);
    em_job_text(j);
    em_job_image(j);
    em_job_audio(j);

    /* x: noise -> latents, num_inference_steps steps of a flow-matching solver */
    em_job_denoise(j);
    em_run_release_all(&j->run, conditions);
}

static void method(em_job *j)
{
    if (!em_job_recall(j)) conditions_and_steps(j);

    /* latents -> frames, one latent (four frames) at a time */
    em_job_decode(j);
}

/* The method on a plan of the engine's op table: the arena's exact size, and the arithmetic. */
static em_status forecast(em_job *j, em_err *err)
{
    em_ops plan;
    em_residency weights = j->engine->residency;
    weights.counts_only = true;
    weights.serial = ++j->engine->plans;
    weights.resident_bytes = weights.peak_bytes = 0;
    em_ops_plan(&plan, j->engine->ops);
    j->run = em_engine_run(j->engine);
    j->run.ops = &plan;
    j->run.plans = true;
    j->run.residency = &weights;
    em_arena_open_virtual(&j->run.arena);
    method(j);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    j->result.scratch_bytes = j->run.arena.peak_bytes;
    j->result.weight_bytes = weights.peak_bytes;
    j->total_flops = j->run.flops;
    return EM_OK;
}

em_status em_plan(em_engine *engine, const em_picture *image, const em_sound *audio,
                  const em_params *p, em_result *result, em_err *err)
{
    em_job j;
    const em_picture size_only = {.width = image->width, .height = image->height};
    const em_sound length_only = {.n = audio->n, .rate_hz = audio->rate_hz};
    em_status st = em_job_open(&j, engine, &size_only, &length_only, p, &(em_sink){0}, err);
    if (!st) st = forecast(&j, err);
    if (!st) *result = j.result;
    em_job_close(&j);
    return st;
}

static em_status compute(em_job *j, em_err *err)
{
    size_t scratch_bytes = (size_t)j->result.scratch_bytes;
    em_residency *weights = &j->engine->residency;
    weights->peak_bytes = weights->resident_bytes;
    j->run = em_engine_run(j->engine);
    j->result.forwards = 0;
    em_status st = em_arena_open(&j->run.arena, j->run.ops->device, scratch_bytes, false, err);
    if (!st) st = em_job_remember(j, err);
    if (!st) method(j);
    j->result.scratch_bytes = j->run.arena.peak_bytes;
    j->result.weight_bytes = weights->peak_bytes;
    em_arena_close(&j->run.arena);
    if (st) return st;
    if (j->run.err.code == EM_VERDICT) em_resume_discard(j->p->resume_path);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    return EM_OK;
}

em_status em_generate(em_engine *engine, const em_picture *image, const em_sound *audio,
                      const em_params *p, const em_sink *sink, em_result *result, em_err *err)
{
    em_job j;
    em_status st = em_job_open(&j, engine, image, audio, p, sink, err);
    if (!st) st = forecast(&j, err);
    if (!st) st = compute(&j, err);
    if (!st && result) *result = j.result;
    em_job_close(&j);
    return st;
}

/* ---- stages, seen from outside --------------------------------------------------------------- */

void em_job_stage(em_job *j, em_stage stage, int total)
{
    j->stage = stage;
    j->reported = -1;
    j->stage_start_ms = em_now_ms();
    j->stage_start_flops = j->run.flops;
    em_arena_stage_begin(&j->run.arena);
    em_job_progress(j, 0, total);
}

/* Arithmetic done so far and its pace forecast the rest; a plan told how much there is. */
void em_job_progress(em_job *j, int done, int total)
{
    if (j->run.plans || j->run.err.code || !j->sink->progress || done == j->reported) return;
    j->reported = done;
    double now = em_now_ms(), spent = now - j->start_ms, flops = j->run.flops;
    em_progress p = {.stage = j->stage,
                     .done = done,
                     .total = total,
                     .stage_ms = now - j->stage_start_ms};
    p.remaining_ms = flops > 0 ? spent * (j->total_flops - flops) / flops : -1;
    if (flops > 0 && p.remaining_ms < 0) p.remaining_ms = 0;
    j->sink->progress(j->sink->user, &p);
}

void em_job_stage_end(em_job *j, int total)
{
    em_stage_report *s = &j->result.stage[j->stage];
    s->ms = j->run.plans ? 0 : em_now_ms() - j->stage_start_ms;
    s->flops = j->run.flops - j->stage_start_flops;
    s->scratch_bytes = j->run.arena.stage_peak_bytes;
    em_job_progress(j, total, total);
}
