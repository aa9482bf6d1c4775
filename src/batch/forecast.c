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

/* The time of one product of the transformer's width with so many rows, in milliseconds; 0: it
 * failed. Something is read back before and after, so that a device has done its work. */
static double product_ms(em_run *r, int64_t rows)
{
    enum { COLS = 1536 };
    const int64_t x_dim[2] = {rows, COLS}, w_dim[2] = {COLS, COLS}, end_dim[1] = {1};
    float read;
    double start = 0;
    em_mark m = em_run_mark(r);
    em_tensor end = em_run_tensor(r, EM_F32, end_dim, 1);
    em_tensor x = em_run_tensor(r, r->dtype, x_dim, 2), w = em_run_tensor(r, r->dtype, w_dim, 2);
    em_fill(r, end, 0);
    em_fill(r, x, 0.5f);
    em_fill(r, w, 0.5f);
    for (int i = 0; i < 2; i++) { /* the first one sets libraries up */
        em_download(r, end, &read);
        start = em_now_ms();
        r->flops = 0;
        em_mark inner = em_run_mark(r);
        em_linear(r, x, w, (em_tensor){0}, EM_ACT_NONE);
        em_run_release(r, inner);
    }
    em_download(r, end, &read);
    em_run_release(r, m);
    return r->err.code ? 0 : em_now_ms() - start;
}

/* Products are most of a job's arithmetic, and whole jobs reach a part of their rate
 * (docs/SPEED.md: 0.3 in bfloat16, 0.65 in float32), for attention's softmax, norms and copies cost
 * time and count as nothing. More rows, until a product takes long enough to be measured. */
static double measure(em_engine *e)
{
    enum { LEAST_ROWS = 64, MOST_ROWS = 4096, BYTES = 160 << 20, ENOUGH_MS = 20 };
    static const double SHARE = 0.4;
    double best = 0, ms = 1;
    em_run r = em_engine_run(e);
    if (em_arena_open(&r.arena, r.ops->device, BYTES, false, &r.err)) return 0;
    for (int64_t rows = LEAST_ROWS; rows <= MOST_ROWS && ms > 0 && ms < ENOUGH_MS; rows *= 4) {
        ms = product_ms(&r, rows);
        if (ms > 0 && r.flops / ms > best) best = r.flops / ms;
    }
    em_arena_close(&r.arena);
    return SHARE * best * 1000;
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
    em_params p = j->params;
    em_forecast f = {.exact = true};
    em_image image = {0};
    em_audio audio = {0};
    em_status st = EM_OK;
    em_picture picture = {NULL, p.sample_size[1], p.sample_size[0]};
    em_sound sound = {NULL, (size_t)p.video_length, p.fps};
    p.resume_path = EM_STEPS_SUFFIX; /* there will be one */
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
    if (!st) st = em_plan(engine, &picture, &sound, &p, &f.plan, err);
    for (int s = 0; !st && s < EM_STAGE_COUNT; s++) f.flops += f.plan.stage[s].flops;
    if (!st) *out = f;
    em_image_free(&image);
    em_audio_free(&audio);
    return st;
}
