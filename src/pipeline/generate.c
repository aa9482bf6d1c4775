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

/* The method on a plan of the engine's op table: every stage's scratch, the order of the weights,
 * and the arithmetic. */
static em_status rehearse(em_job *j, em_err *err)
{
    em_engine *e = j->engine;
    em_ops plan;
    em_residency weights = {.device = e->ops->device,
                            .dtype = e->dtype,
                            .counts_only = true,
                            .serial = ++e->plans,
                            .capacity_bytes = SIZE_MAX,
                            .record = &j->trace};
    em_ops_plan(&plan, e->ops);
    j->run = em_engine_run(e);
    j->run.ops = &plan;
    j->run.plans = true;
    j->run.residency = &weights;
    em_arena_open_virtual(&j->run.arena);
    method(j);
    em_residency_close(&weights);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    if (j->trace.failed) return em_fail(err, EM_NOMEM, "no memory for a plan");
    em_trace_link(&j->trace);
    j->result.scratch_bytes = j->run.arena.peak_bytes;
    j->total_flops = j->run.flops;
    return EM_OK;
}

/* How large the block of device memory may become. */
static size_t block_limit(const em_engine *e, const em_budget *b)
{
    uint64_t total, free;
    if (e->vram_budget_bytes && e->memory_mode != EM_MEMORY_LIGHTWEIGHT)
        return (size_t)e->vram_budget_bytes;
    switch (e->memory_mode) {
    case EM_MEMORY_BEEFY: return SIZE_MAX;
    case EM_MEMORY_AUTO:
        e->ops->device->memory_info(e->ops->device, &total, &free);
        return (size_t)free + e->block.size_bytes;
    case EM_MEMORY_LIGHTWEIGHT:
    default: return b->smallest_bytes;
    }
}

/* What the request will need, and how the stages share it. */
static em_status forecast(em_job *j, em_err *err)
{
    em_engine *e = j->engine;
    em_budget b;
    size_t block = 0;
    em_status st = rehearse(j, err);
    if (st) return st;
    em_residency like = e->residency;
    like.serial = e->plans;
    e->plans += EM_BUDGET_SERIALS;
    st = em_budget_open(&b, j->need, EM_STAGE_COUNT, &j->trace, &like, err);
    if (!st) st = em_budget_fit(&b, block_limit(e, &b), &block, err);
    if (st) return st;
    j->result.device_bytes = block;
    j->result.weight_bytes = b.resident_bytes;
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        j->result.stage[s].store_bytes = j->need[s].weights_bytes;
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
    em_engine *e = j->engine;
    em_residency *weights = &e->residency;
    em_status st = em_job_remember(j, err);
    if (!st) st = em_engine_take_block(e, (size_t)j->result.device_bytes, err);
    if (st) return st;
    weights->follow = &j->trace;
    weights->cursor = 0;
    weights->peak_bytes = weights->resident_bytes;
    weights->copied_bytes = 0;
    j->run = em_engine_run(e);
    j->run.arena = e->block;
    j->result.forwards = 0;
    j->result.color_ms = 0;
    method(j);
    j->result.scratch_bytes = j->run.arena.peak_bytes;
    j->result.weight_bytes = weights->peak_bytes;
    j->result.copied_bytes = weights->copied_bytes;
    weights->follow = NULL;
    st = em_engine_release_block(e, &j->run.err);
    if (j->run.err.code == EM_VERDICT) em_resume_discard(j->p->resume_path);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    return st;
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
    em_run *r = &j->run;
    em_stage_need *need = &j->need[stage];
    if (r->plans) {
        need->begin = j->trace.count;
    } else if (!em_run_stopped(r)) {
        em_arena_set_floor(&r->arena, need->weights_bytes);
        em_residency_set_store(r->residency, r->arena.base, need->weights_bytes, &r->err);
    }
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
    em_run_sync(&j->run);
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
    em_run_sync(&j->run);
    em_stage_report *s = &j->result.stage[j->stage];
    s->ms = j->run.plans ? 0 : em_now_ms() - j->stage_start_ms;
    s->flops = j->run.flops - j->stage_start_flops;
    s->scratch_bytes = j->run.arena.stage_peak_bytes;
    if (j->run.plans) {
        j->need[j->stage].end = j->trace.count;
        j->need[j->stage].scratch_bytes = (size_t)s->scratch_bytes;
    }
    em_job_progress(j, total, total);
}
