/* The voice: heard by the engine's device, or by its annex in host memory, which then hands the
 * features over. Either way the same encoder runs on a plan first and then in what that found. */
#include "pipeline/job.h"

#include <stdio.h>

em_status em_job_take_annex(em_job *j, em_err *err)
{
    em_annex *at = &j->engine->annex;
    bool no_images = false;
    at->residency.drop_unpinned = !j->policy.keep_mapped;
    if (at->residency.drop_unpinned) em_residency_drop_mapped(&at->residency);
    em_status st = em_engine_take_annex(j->engine, j->annex.block_bytes, err);
    return st ? st : em_residency_prepare(&at->residency, &j->annex.trace, 0, &no_images, err);
}

static void enter_annex(em_job *j)
{
    em_run *at = &j->annex.run;
    size_t store = j->annex.need.weights_bytes;
    if (j->run.plans || em_run_stopped(&j->run)) return;
    *at = em_engine_annex_run(j->engine);
    em_residency_follow(at->residency, &j->annex.trace, NULL, 0);
    em_arena_set_floor(&at->arena, store);
    em_residency_set_store(at->residency, at->arena.base, store, &at->err);
    em_residency_count_anew(at->residency);
}

/* What the annex took, and the memory of it, where that is to be spared. */
static void leave_annex(em_job *j)
{
    em_run *at = &j->annex.run;
    em_err late = {0};
    if (j->run.plans || em_run_stopped(&j->run)) return;
    j->result.voice_scratch_bytes = at->arena.peak_bytes;
    j->result.voice_weights_bytes = at->residency->store_peak_bytes;
    j->result.voice_mapped_bytes = at->residency->mapped_peak_bytes;
    em_residency_follow(at->residency, NULL, NULL, 0);
    if (em_engine_release_annex(j->engine, &late)) em_run_fail(&j->run, late.code, "%s", late.msg);
}

/* To the device of `r`, from a run in host memory; its arithmetic counts as r's. */
static em_tensor hand_over(em_run *r, em_run *from, em_tensor x)
{
    if (em_run_stopped(from)) return em_run_fail(r, from->err.code, "%s", from->err.msg);
    r->flops += from->flops;
    r->products += from->products;
    return em_upload(r, x.data, x.dtype, x.dim, x.ndim);
}

/* -> (F, layers, C) on the engine's device */
static em_tensor features(em_job *j)
{
    em_run *r = &j->run, *at = j->engine->annex.ops ? &j->annex.run : r;
    if (at != r) enter_annex(j);
    em_tensor wave = em_upload(at, j->wave, EM_F32, EM_SHAPE((int64_t)j->wave_n));
    em_tensor hidden = em_wav2vec2_forward(at, j->engine->speech, wave, j->frames, NULL);
    if (at == r) return hidden;
    hidden = hand_over(r, at, hidden);
    leave_annex(j);
    return hidden;
}

void em_job_audio(em_job *j)
{
    em_run *r = &j->run;
    const em_wav2vec2_config *s = em_wav2vec2_sizes(j->engine->speech);
    int64_t n = j->frames;
    em_job_stage(j, EM_STAGE_AUDIO, 1);
    em_mark m = em_run_mark(r);
    em_tensor windows = em_gather(r, features(j), j->window, n * EM_DIT_WINDOW);
    windows =
        em_view(windows, EM_SHAPE(n, EM_DIT_WINDOW, s->layers, s->hidden)); // (F, 5, layers, C)
    j->cond[EM_BRANCH_AUDIO].audio = em_dit_audio(r, j->engine->dit, windows, j->grid.frames);
    if (j->branches > 1)
        j->cond[EM_BRANCH_SILENT].audio =
            em_dit_audio(r, j->engine->dit, (em_tensor){0}, j->grid.frames);
    em_run_release(r, m);
    em_job_stage_end(j, 1);
}
