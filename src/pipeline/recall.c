/* A request that may have been cut short: what makes it this request and no other, and how it goes
 * on. Nothing here touches device memory but through em_upload and em_download. */
#include "pipeline/job.h"

#include <string.h>

/* ---- which request --------------------------------------------------------------------------- */

static void add_text(em_sha256 *h, const char *text)
{
    em_sha256_add(h, text ? text : "", (text ? strlen(text) : 0) + 1);
}

#define ADD(h, v) em_sha256_add((h), &(v), sizeof(v))

static void add_floats(em_sha256 *h, const float *x, size_t n)
{
    ADD(h, n);
    em_sha256_add(h, x, n * sizeof *x);
}

/* All that the latents depend on. The noise stands for the seed and whose it is, the schedule for
 * sampler, steps and shift; what only the decoder looks at (colours, crf) is left out. */
static void job_key(const em_job *j, unsigned char out[EM_SHA256_BYTES])
{
    const em_params *p = j->p;
    const int64_t numbers[] = {j->width,
                               j->height,
                               j->frames,
                               j->branches,
                               p->teacache,
                               p->num_skip_start_steps,
                               p->riflex_k,
                               p->sampler,
                               p->num_inference_steps,
                               (int64_t)j->engine->dtype};
    const double settings[] = {p->guidance_scale, p->audio_guidance_scale, p->cfg_skip_ratio,
                               p->teacache_threshold};
    size_t steps = (size_t)j->sampler->steps;
    em_sha256 h;
    em_sha256_start(&h);
    add_text(&h, p->resume_identity);
    add_text(&h, j->engine->ops->name);
    if (j->engine->annex.ops) add_text(&h, j->engine->annex.ops->name);
    add_text(&h, p->prompt);
    ADD(&h, numbers);
    ADD(&h, settings);
    add_floats(&h, j->sampler->sigma, steps + 1);
    add_floats(&h, j->sampler->timestep, steps);
    add_floats(&h, j->noise, em_job_latents(j));
    add_floats(&h, j->image, (size_t)j->width * (size_t)j->height * 3);
    add_floats(&h, j->wave, j->wave_n);
    em_sha256_end(&h, out);
}

static em_resume_params resume_params(const em_job *j)
{
    return (em_resume_params){.path = j->p->resume_path,
                              .count = em_job_latents(j),
                              .steps = j->sampler->steps,
                              .states = j->sampler->solver->states,
                              .anchors = j->p->teacache ? j->branches : 0,
                              .log = j->engine->log};
}

uint64_t em_job_remember_bytes(const em_job *j)
{
    const em_resume_params p = resume_params(j);
    return p.path ? em_resume_bytes(&p) : 0;
}

em_status em_job_remember(em_job *j, em_err *err)
{
    em_resume_params p = resume_params(j);
    if (!p.path) return EM_OK;
    job_key(j, p.key);
    em_status st = em_resume_open(&j->resume, &p, err);
    if (st) return st;
    if (em_resume_load(j->resume)) {
        em_logf(&p.log, EM_LOG_INFO, "'%s': %d of %d steps are done already", p.path,
                em_resume_at(j->resume)->sampler.step, p.steps);
    } else {
        em_waypoint *at = em_resume_at(j->resume);
        memcpy(at->x, j->noise, at->count * sizeof *at->x);
    }
    return EM_OK;
}

/* ---- going on -------------------------------------------------------------------------------- */

/* The forecast of the time that is left knows what will not be done. */
static void skip_flops(em_job *j, em_stage s, double part)
{
    j->total_flops -= part * j->result.stage[s].flops;
}

static void set_latents(em_job *j, const float *x)
{
    em_run *r = &j->run;
    em_mark m = em_run_mark(r);
    em_copy(r, j->x, em_upload(r, x, EM_F32, j->x.dim, 4));
    em_run_release(r, m);
}

bool em_job_recall(em_job *j)
{
    em_run *r = &j->run;
    em_dit_grid g = j->grid;
    int steps = j->sampler->steps;
    if (!j->resume || em_resume_at(j->resume)->sampler.step < steps) return false;
    for (int s = EM_STAGE_ENCODE; s <= EM_STAGE_DENOISE; s++) {
        skip_flops(j, (em_stage)s, 1);
        j->result.stage[s] = (em_stage_report){0};
    }
    em_job_stage(j, EM_STAGE_DENOISE, steps);
    j->x = em_run_keep(r, EM_F32, EM_SHAPE(EM_VAE_CHANNELS, g.frames, g.height, g.width));
    set_latents(j, em_resume_at(j->resume)->x);
    j->result.steps_resumed = steps;
    em_job_stage_end(j, steps);
    return true;
}

/* Every residual that will be reused has the forward that made it. */
static bool anchors_fit(const em_job *j, const em_waypoint *at)
{
    for (int s = 0; s < EM_TEACACHE_SLOTS; s++) {
        const em_anchor *a = &at->anchor[s];
        if (!em_teacache_reads(j->steps, j->sampler->steps, at->sampler.step, s)) continue;
        if (a->step < 0) return false;
        const em_forward *f = &j->steps[a->step].forward[a->branch];
        if (f->kind != EM_FORWARD_COMPUTE || f->slot != s) return false;
    }
    return true;
}

static void start_over(em_job *j, em_waypoint *at)
{
    em_logf(&j->engine->log, EM_LOG_WARN,
            "'%s' does not fit the steps of this request: it starts at the beginning",
            j->p->resume_path);
    at->sampler.step = 0;
    for (int s = 0; s < EM_TEACACHE_SLOTS; s++) at->anchor[s].step = -1;
    memcpy(at->x, j->noise, at->count * sizeof *at->x);
}

int em_job_resume_steps(em_job *j)
{
    if (!j->resume || em_run_stopped(&j->run)) return 0;
    em_waypoint *at = em_resume_at(j->resume);
    if (at->sampler.step == 0) return 0;
    if (!anchors_fit(j, at) || !em_sampler_restore(j->sampler, &j->run, &at->sampler)) {
        start_over(j, at);
        return 0;
    }
    set_latents(j, at->x);
    for (int s = 0; s < EM_TEACACHE_SLOTS; s++)
        if (em_teacache_reads(j->steps, j->sampler->steps, at->sampler.step, s))
            em_job_residual(j, at->anchor[s].step, (em_branch)at->anchor[s].branch,
                            at->anchor[s].x);
    skip_flops(j, EM_STAGE_DENOISE, (double)at->sampler.step / j->sampler->steps);
    j->result.steps_resumed = at->sampler.step;
    return at->sampler.step;
}

/* ---- remembering ----------------------------------------------------------------------------- */

/* Before a step: its forwards fill residual slots, and at->x is what they see. */
void em_job_anchor(em_job *j, int step)
{
    if (!j->resume) return;
    em_waypoint *at = em_resume_at(j->resume);
    for (int b = 0; b < EM_BRANCHES; b++) {
        const em_forward *f = &j->steps[step].forward[b];
        if (f->kind != EM_FORWARD_COMPUTE || f->slot == EM_NO_SLOT) continue;
        em_anchor *a = &at->anchor[f->slot];
        a->step = step;
        a->branch = b;
        memcpy(a->x, at->x, at->count * sizeof *at->x);
    }
}

/* A cancel cuts ops short without a word: what was fetched counts only while there is none. */
void em_job_note(em_job *j)
{
    em_run *r = &j->run;
    if (!j->resume || em_run_stopped(r)) return;
    em_waypoint *at = em_resume_at(j->resume);
    em_sampler_save(j->sampler, r, &at->sampler);
    em_download(r, j->x, at->x);
    if (em_run_stopped(r)) return;
    for (int s = 0; s < EM_TEACACHE_SLOTS; s++)
        if (!em_teacache_reads(j->steps, j->sampler->steps, at->sampler.step, s))
            at->anchor[s].step = -1;
    em_resume_save(j->resume);
    if (at->sampler.step == j->sampler->steps) em_resume_flush(j->resume);
}
