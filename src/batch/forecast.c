/* What the jobs that wait would take: sizes and arithmetic from the plan, time from the pace of
 * jobs that were made here before, or from a short measurement. */
#include "batch/state.h"

#include "base/time.h"
#include "io/audio_in.h"
#include "io/image_in.h"
#include "ops/ops.h"
#include "ops/table.h"
#include "pipeline/engine.h"

/* ---- pace ------------------------------------------------------------------------------------ */

/* Matrix products of the transformer's shape for a moment: what most of a job consists of. The rest
 * of it (attention's softmax, norms, copies) costs time and hardly any arithmetic. */
static double measure(em_engine *e)
{
    enum { ROWS = 1024, COLS = 1536, BYTES = 64 << 20, MOMENT_MS = 200 };
    static const double SHARE = 0.6; /* of a job's time that is such products: docs/SPEED.md */
    const int64_t x_dim[2] = {ROWS, COLS}, w_dim[2] = {COLS, COLS};
    double start = 0, spent = 0, flops = 0;
    em_run r = em_engine_run(e);
    if (em_arena_open(&r.arena, r.ops->device, BYTES, false, &r.err)) return 0;
    em_tensor x = em_run_tensor(&r, r.dtype, x_dim, 2), w = em_run_tensor(&r, r.dtype, w_dim, 2);
    em_fill(&r, x, 0.5f);
    em_fill(&r, w, 0.5f);
    for (int i = 0; !r.err.code && spent < MOMENT_MS; i++) {
        em_mark m = em_run_mark(&r);
        em_linear(&r, x, w, (em_tensor){0}, EM_ACT_NONE);
        em_run_release(&r, m);
        if (i == 0) { /* the first one sets libraries up */
            start = em_now_ms();
            flops = r.flops;
        }
        spent = em_now_ms() - start;
    }
    flops = r.flops - flops;
    bool ok = !r.err.code && spent > 0;
    em_arena_close(&r.arena);
    return ok ? SHARE * flops / (spent / 1000) : 0;
}

em_status em_batch_pace(const em_batch *b, em_engine *engine, double *flops_per_second,
                        bool *measured, em_err *err)
{
    double pace = 0;
    em_status st = b->ledger ? em_ledger_pace(b->ledger, b->pace, &pace, err) : EM_OK;
    if (st) return st;
    *measured = pace <= 0;
    *flops_per_second = pace > 0 ? pace : measure(engine);
    return EM_OK;
}

/* ---- one job --------------------------------------------------------------------------------- */

em_status em_batch_forecast(const em_batch *b, em_engine *engine, size_t i, em_forecast *out,
                            em_err *err)
{
    const em_batch_job *j = b->item[i].job;
    const em_params *p = &j->params;
    em_forecast f = {.exact = true};
    em_image image = {0};
    em_audio audio = {0};
    em_status st = EM_OK;
    em_picture picture = {NULL, p->sample_size[1], p->sample_size[0]};
    em_sound sound = {NULL, (size_t)p->video_length, p->fps};
    if (em_is_address(j->image)) {
        f.exact = false;
    } else if (!(st = em_image_load(&image, j->image, EM_IMAGE_UPRIGHT, err))) {
        picture = (em_picture){NULL, image.width, image.height};
    }
    if (em_is_address(j->audio)) {
        f.exact = false;
    } else if (!st && !(st = em_audio_load(&audio, j->audio, NULL, err))) {
        sound = (em_sound){NULL, audio.n, audio.rate_hz};
    }
    if (!st) st = em_plan(engine, &picture, &sound, p, &f.plan, err);
    for (int s = 0; !st && s < EM_STAGE_COUNT; s++) f.flops += f.plan.stage[s].flops;
    if (!st) *out = f;
    em_image_free(&image);
    em_audio_free(&audio);
    return st;
}
