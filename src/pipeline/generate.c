/* READ THIS FIRST: the whole method.
 *
 * EchoMimicV3-Flash (arXiv 2507.03905) on Wan 2.1 (arXiv 2503.20314): a diffusion transformer turns
 * noise into the latents of a clip while it looks at a portrait, a prompt and a voice; a causal VAE
 * translates between latents and pictures. Upstream: antgroup/echomimic_v3, infer_flash.py and
 * src/pipeline_wan_fun_inpaint_audio_2512.py. */
#include "base/process.h"
#include "base/time.h"
#include "pipeline/job.h"

#include <stdio.h>
#include <string.h>

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

/* What a run that plans looks at. */
typedef struct stage_set {
    em_ops ops;
    em_residency weights;
} stage_set;

/* A run as `real` would be, on a plan; the order of its weights goes into *trace. */
static em_run planned(em_run real, em_engine *e, stage_set *set, em_trace *trace)
{
    em_trace_close(trace);
    em_ops_plan(&set->ops, real.ops);
    set->weights = (em_residency){.device = real.ops->device,
                                  .dtype = e->dtype,
                                  .counts_only = true,
                                  .serial = ++e->plans,
                                  .capacity_bytes = SIZE_MAX,
                                  .record = trace};
    real.ops = &set->ops;
    real.residency = &set->weights;
    real.plans = true;
    em_arena_open_virtual(&real.arena);
    return real;
}

em_status em_job_rehearse(em_job *j, em_cut cut, em_memo *memo, em_err *err)
{
    em_engine *e = j->engine;
    em_job_annex *a = &j->annex;
    stage_set set, annex = {0};
    j->run = planned(em_engine_run(e), e, &set, &j->trace);
    j->run.cut = cut;
    j->run.memo = memo;
    if (e->annex.ops) a->run = planned(em_engine_annex_run(e), e, &annex, &a->trace);
    j->result.forwards = 0;
    method(j);
    em_residency_close(&set.weights);
    em_residency_close(&annex.weights);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    if (j->trace.failed || a->trace.failed) return em_fail(err, EM_NOMEM, "no memory for a plan");
    em_trace_link(&j->trace);
    em_trace_link(&a->trace);
    a->need = (em_stage_need){.scratch_bytes = a->run.arena.peak_bytes, .end = a->trace.count};
    j->result.scratch_bytes = j->run.arena.peak_bytes;
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
    if (!st) st = em_policy_choose(&j, err);
    if (!st) *result = j.result;
    em_job_close(&j);
    return st;
}

/* Everything that the run will take, before it starts: from here on nothing is allocated. *failed
 * tells what could not be had. */
static em_status take_memory(em_job *j, em_memory_kind *failed, em_err *err)
{
    em_engine *e = j->engine;
    em_residency *w = &e->residency;
    bool images_failed = false;
    w->drop_unpinned = !j->policy.keep_mapped;
    w->ring_bytes = j->policy.ring_bytes;
    if (w->drop_unpinned) em_residency_drop_mapped(w);
    *failed = EM_MEMORY_BLOCK;
    em_status st = em_job_take_offload(j, err);
    if (!st) st = em_engine_take_block(e, j->policy.block_bytes, err);
    if (!st && j->policy.empties_block) st = em_residency_set_store(w, NULL, 0, err);
    if (j->policy.drops_images) em_residency_drop_images(w);
    if (st) return st;
    st = em_residency_prepare(w, &j->trace, j->policy.image_bytes, &images_failed, err);
    *failed = images_failed ? EM_MEMORY_IMAGES : EM_MEMORY_RING;
    if (st || !e->annex.ops) return st;
    *failed = EM_MEMORY_ANNEX;
    return em_job_take_annex(j, err);
}

static em_status compute(em_job *j, em_memory_kind *failed, em_err *err)
{
    em_engine *e = j->engine;
    em_residency *weights = &e->residency;
    em_room room[EM_STAGE_COUNT];
    em_status st = em_job_remember(j, err);
    if (!st) st = take_memory(j, failed, err);
    if (st) return st;
    *failed = EM_MEMORY_BLOCK;
    em_budget_rooms(j->need, EM_STAGE_COUNT, room);
    em_residency_follow(weights, &j->trace, room, EM_STAGE_COUNT);
    em_residency_count_anew(weights);
    j->run = em_engine_run(e);
    j->run.arena = e->block;
    j->run.cut = j->policy.cut;
    j->block_held_bytes = e->block.size_bytes;
    j->result.forwards = j->result.forwards_replayed = 0;
    j->result.color_ms = 0;
    j->result.driver_bytes = 0;
    j->result.weight_bytes = j->result.mapped_bytes = j->result.copied_bytes = 0;
    method(j);
    j->result.scratch_bytes = j->run.arena.peak_bytes;
    em_residency_follow(weights, NULL, NULL, 0);
    st = em_engine_release_block(e, &j->run.err);
    if (j->run.err.code == EM_VERDICT) em_resume_discard(j->p->resume_path);
    if (j->run.err.code) return em_fail(err, j->run.err.code, "%s", j->run.err.msg);
    return st;
}

/* Memory that could not be had in spite of the plan: on to the next rung, unless frames are out. */
static bool step_down(em_job *j, em_memory_kind failed, em_status st, const em_err *why)
{
    em_engine *e = j->engine;
    const char *what = "";
    if ((st != EM_NOVRAM && st != EM_NOMEM) || j->began) return false;
    if (!em_engine_step_down(e, failed, &what)) return false;
    snprintf(e->down.reason, sizeof e->down.reason, "%s: %.190s", what, why->msg);
    em_logf(&e->log, EM_LOG_WARN, "memory that was planned could not be had, from now on %s (%s)",
            what, why->msg);
    em_err ignored = {0};
    em_engine_drop_block(e, &ignored);
    em_resume_close(&j->resume);
    return true;
}

/* Says the policy when it is another than before. */
static void say_policy(em_job *j)
{
    em_engine *e = j->engine;
    if (!strcmp(e->said, j->result.policy)) return;
    memcpy(e->said, j->result.policy, sizeof e->said);
    em_logf(&e->log, EM_LOG_INFO, "%s", e->said);
}

/* Chooses and computes; where memory fails that was planned, with the next rung. */
static em_status attempt(em_job *j, em_err *err)
{
    em_memory_kind failed = EM_MEMORY_BLOCK;
    for (;;) {
        em_err mine = {0};
        em_status st = em_policy_choose(j, &mine);
        if (!st) {
            say_policy(j);
            j->plan = j->result;
            em_memory_report_begin(&j->engine->report, j);
            st = compute(j, &failed, &mine);
            if (st && step_down(j, failed, st, &mine)) continue;
        }
        memcpy(j->result.step_down, j->engine->down.reason, sizeof j->result.step_down);
        return st ? em_fail(err, st, "%s", mine.msg) : EM_OK;
    }
}

em_status em_generate(em_engine *engine, const em_picture *image, const em_sound *audio,
                      const em_params *p, const em_sink *sink, em_result *result, em_err *err)
{
    em_job j;
    em_status st = em_job_open(&j, engine, image, audio, p, sink, err);
    if (!st) st = attempt(&j, err);
    if (!st) em_rates_learn(&engine->rates, &j.result);
    if (!st) em_memory_report_end(&engine->report, &j);
    if (!st && result) *result = j.result;
    em_job_close(&j);
    return st;
}

/* ---- stages, seen from outside --------------------------------------------------------------- */

static void sample_memory(em_job *j)
{
    em_device *d = j->engine->ops->device;
    uint64_t total = 0, free = 0;
    if (j->run.plans) return;
    em_memory_report_sample(&j->engine->report, j);
    if (d->host_addressable) return;
    d->memory_info(d, &total, &free);
    if (total - free > j->result.driver_bytes) j->result.driver_bytes = total - free;
}

void em_job_stage(em_job *j, em_stage stage, int total)
{
    em_run *r = &j->run;
    em_stage_need *need = &j->need[stage];
    if (r->plans) {
        need->begin = j->trace.count;
    } else if (!em_run_stopped(r)) {
        em_arena_set_floor(&r->arena, need->weights_bytes);
        em_residency_set_store(r->residency, r->arena.base, need->weights_bytes, &r->err);
        em_residency_count_anew(r->residency);
    }
    j->stage = stage;
    j->reported = -1;
    j->stage_start_ms = em_now_ms();
    j->stage_start_flops = j->run.flops;
    j->stage_start_products = j->run.products;
    j->stage_start_peak = j->run.plans ? 0 : em_process_memory_now().rss_peak_bytes;
    em_arena_stage_begin(&j->run.arena);
    em_job_progress(j, 0, total);
}

/* Arithmetic done so far and its pace forecast the rest; a plan told how much there is. */
void em_job_progress(em_job *j, int done, int total)
{
    sample_memory(j);
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

/* The CPU reads and converts itself; a device without a clock does not tell. */
static void account_copies(em_residency *w, em_stage_report *s)
{
    bool host = !w->device || w->device->host_addressable;
    s->packed_ms = w->packed_ms;
    s->copy_ms = s->copy_waited_ms = host ? w->packed_ms : -1;
    if (!host) em_residency_clock(w, &s->copy_ms, &s->copy_waited_ms);
}

/* What the stage's weights did, into the stage and into the whole. */
static void account(em_job *j, em_stage_report *s)
{
    em_residency *w = j->run.residency;
    em_result *r = &j->result;
    em_process_memory m = em_process_memory_now();
    s->weights_bytes = w->store_peak_bytes;
    s->mapped_bytes = w->mapped_peak_bytes;
    s->copied_bytes = w->copied_bytes;
    s->packed_bytes = w->packed_bytes;
    account_copies(w, s);
    s->rss_bytes = m.rss_peak_bytes > j->stage_start_peak ? m.rss_peak_bytes : m.rss_bytes;
    if (w->peak_bytes > r->weight_bytes) r->weight_bytes = w->peak_bytes;
    if (w->mapped_peak_bytes > r->mapped_bytes) r->mapped_bytes = w->mapped_peak_bytes;
    r->copied_bytes += w->copied_bytes;
}

void em_job_stage_end(em_job *j, int total)
{
    em_run_sync(&j->run);
    em_stage_report *s = &j->result.stage[j->stage];
    s->ms = j->run.plans ? 0 : em_now_ms() - j->stage_start_ms;
    s->flops = j->run.flops - j->stage_start_flops;
    s->scratch_bytes = j->run.arena.stage_peak_bytes;
    j->stage_products[j->stage] = j->run.products - j->stage_start_products;
    if (j->run.plans) {
        j->need[j->stage].end = j->trace.count;
        j->need[j->stage].scratch_bytes = (size_t)s->scratch_bytes;
    } else {
        account(j, s);
    }
    em_job_progress(j, total, total);
}
