/* From noise to latents: a flow-matching solver asks the transformer for a velocity at every
 * step. */
#include "pipeline/job.h"

static int step_count(const em_job *j)
{
    return j->p->num_inference_steps;
}

/* All timesteps ahead of the first step: they depend on the schedule alone, and TeaCache's
 * decisions on them alone. A plan decides nothing: it computes every forward and keeps every
 * residual, the most that can happen. */
static void schedule_forwards(em_job *j)
{
    em_run *r = &j->run;
    const em_dit *dit = j->engine->dit;
    size_t row = 6 * (size_t)em_dit_sizes(dit)->dim;
    int steps = step_count(j);
    for (int i = 0; i < steps && !em_run_stopped(r); i++) {
        j->time[i] = em_dit_time_embed(r, dit, j->sampler->timestep[i]);
        em_mark m = em_run_mark(r);
        em_download(r, em_cast(r, j->time[i].e0, EM_F32), j->e0 + (size_t)i * row);
        em_run_release(r, m);
    }
    em_guidance_plan(j->steps, steps, j->p->guidance_scale, j->p->cfg_skip_ratio);
    if (r->plans) {
        for (int i = 0; i < steps; i++)
            for (int b = 0; b < EM_BRANCHES; b++)
                j->steps[i].forward[b].slot = j->p->teacache ? b : EM_NO_SLOT;
    } else if (!em_run_stopped(r)) {
        em_teacache t = em_teacache_begin(j->p->teacache, j->p->teacache_threshold,
                                          j->p->num_skip_start_steps, steps);
        em_teacache_plan(&t, j->steps, steps, j->e0, row);
    }
}

/* The step's embedding, where every forward looks for it. */
static const em_dit_time *time_of(em_job *j, int step)
{
    j->now.e = j->time[step].e;
    em_copy(&j->run, j->now.e0, j->time[step].e0);
    return &j->now;
}

/* ---- the blocks ------------------------------------------------------------------------------ */

static void end_replays(em_job *j)
{
    for (int b = 0; b < EM_BRANCHES; b++) {
        em_run_record_close(&j->run, &j->replay[b].recording);
        j->replay[b] = (em_job_replay){0};
    }
}

static void record(em_job *j, em_tensor tokens, const em_dit_time *t, em_branch branch)
{
    em_run *r = &j->run;
    const em_dit *dit = j->engine->dit;
    em_job_replay *p = &j->replay[branch];
    em_run_record_close(r, &p->recording);
    p->place = em_dit_place(dit);
    if (!em_run_record_begin(r, &p->recording)) return;
    em_dit_blocks(r, dit, tokens, t, &j->cond[branch]);
    em_run_record_end(r, &p->recording);
}

/* False: the blocks are still to be computed. */
static bool replayed(em_job *j, em_tensor tokens, const em_dit_time *t, em_branch branch)
{
    em_run *r = &j->run;
    const em_dit *dit = j->engine->dit;
    em_job_replay *p = &j->replay[branch];
    bool first = !p->ran;
    p->ran = true;
    if (first || !j->policy.replays || em_run_stopped(r) || !em_dit_hold(r, dit)) return false;
    if (!p->recording.graph || p->place != em_dit_place(dit)) record(j, tokens, t, branch);
    if (em_run_replay(r, &p->recording)) {
        em_dit_pass(r, dit);
        j->result.forwards_replayed++;
        return true;
    }
    em_dit_release(r, dit);
    if (p->recording.err.code) {
        em_logf(&j->engine->log, EM_LOG_DEBUG, "the transformer's steps are not replayed: %s",
                p->recording.err.msg);
        j->policy.replays = false;
    }
    return false;
}

/* ---- residuals: at the arena's high end or, offloaded, on the host --------------------------- */

static void keep_residual(em_job *j, int slot, em_tensor x)
{
    if (em_job_offload_bytes(j))
        em_run_fetch(&j->run, x, j->offloaded[slot].data);
    else
        em_copy(&j->run, j->residual[slot], x);
}

/* What was kept in the slot, of x's shape. */
static em_tensor kept_residual(em_job *j, int slot, em_tensor x)
{
    if (!em_job_offload_bytes(j)) return j->residual[slot];
    return em_upload(&j->run, j->offloaded[slot].data, EM_F32, x.dim, x.ndim);
}

/* The blocks, or what they added last time. tokens in place. */
static void block_stack(em_job *j, em_forward f, em_tensor tokens, const em_dit_time *t,
                        em_branch branch)
{
    em_run *r = &j->run;
    em_mark m = em_run_mark(r);
    bool keeps = f.kind == EM_FORWARD_COMPUTE && f.slot != EM_NO_SLOT;
    if (keeps) keep_residual(j, f.slot, tokens); /* the input, so far */
    if (f.kind == EM_FORWARD_REUSE)
        em_add(r, tokens, kept_residual(j, f.slot, tokens));
    else if (!replayed(j, tokens, t, branch))
        em_dit_blocks(r, j->engine->dit, tokens, t, &j->cond[branch]);
    if (keeps && !em_run_stopped(r)) {
        const em_tensor out_in[2] = {tokens, kept_residual(j, f.slot, tokens)};
        keep_residual(j, f.slot, em_lincomb(r, 2, out_in, (const float[]){1, -1}));
    }
    em_run_release(r, m);
}

/* -> velocity F32 (16, f, h, w) at x */
static em_tensor velocity(em_job *j, em_forward f, const em_dit_time *t, em_branch branch)
{
    em_run *r = &j->run;
    const em_dit *dit = j->engine->dit;
    em_tensor v = em_run_tensor(r, EM_F32, j->x.dim, 4);
    em_mark m = em_run_mark(r);
    em_tensor tokens = em_dit_embed(r, dit, j->x, j->y); // (N, C)
    block_stack(j, f, tokens, t, branch);
    em_copy(r, v, em_dit_head(r, dit, tokens, t, j->grid));
    em_run_release(r, m);
    j->result.forwards++;
    return v;
}

/* v = u + s (c - u), or c alone where the silent branch does not run. */
static em_tensor guided_velocity(em_job *j, const em_step_plan *s, const em_dit_time *t)
{
    em_tensor c = velocity(j, s->forward[EM_BRANCH_AUDIO], t, EM_BRANCH_AUDIO);
    if (s->forward[EM_BRANCH_SILENT].kind == EM_FORWARD_NONE) return c;
    em_tensor u = velocity(j, s->forward[EM_BRANCH_SILENT], t, EM_BRANCH_SILENT);
    return em_guidance_combine(&j->run, c, u, j->p->audio_guidance_scale);
}

void em_job_residual(em_job *j, int step, em_branch branch, const float *x)
{
    em_run *r = &j->run;
    em_mark m = em_run_mark(r);
    em_tensor at = em_upload(r, x, EM_F32, j->x.dim, 4);
    em_tensor tokens = em_dit_embed(r, j->engine->dit, at, j->y); // (N, C)
    block_stack(j, j->steps[step].forward[branch], tokens, time_of(j, step), branch);
    em_run_release(r, m);
    j->result.forwards++;
}

/* What the steps share, at the arena's high end. */
static void begin(em_job *j)
{
    em_run *r = &j->run;
    const em_dit *dit = j->engine->dit;
    em_tensor rope = em_dit_rope(r, dit, j->grid, j->rope);
    for (int b = 0; b < EM_BRANCHES; b++) {
        j->cond[b].rope = rope;
        j->cond[b].grid = j->grid;
    }
    for (int b = 0; j->p->teacache && !j->p->teacache_offload && b < j->branches; b++)
        j->residual[b] = em_run_keep(r, EM_F32, EM_SHAPE(rope.dim[0], em_dit_sizes(dit)->dim));
    j->now.e0 = em_run_keep(r, r->dtype, EM_SHAPE(6, em_dit_sizes(dit)->dim));
    em_mark m = em_run_mark(r);
    em_copy(r, j->x, em_upload(r, j->noise, EM_F32, j->x.dim, 4));
    em_run_release(r, m);
    em_sampler_begin(j->sampler, r, j->x);
    schedule_forwards(j);
}

void em_job_denoise(em_job *j)
{
    em_run *r = &j->run;
    int steps = step_count(j);
    em_job_stage(j, EM_STAGE_DENOISE, steps);
    begin(j);
    int first = em_job_resume_steps(j);
    if (first) em_job_progress(j, first, steps);
    for (int i = first; i < steps && !em_run_stopped(r); i++) {
        em_mark m = em_run_mark(r);
        em_job_anchor(j, i);
        em_sampler_step(j->sampler, r, j->x, guided_velocity(j, &j->steps[i], time_of(j, i)));
        em_run_release(r, m);
        em_job_note(j);
        em_job_progress(j, i + 1, steps);
    }
    end_replays(j);
    em_job_stage_end(j, steps);
}
