/* Latents to frames: decoded one latent (one frame, then four) at a time, turned into bytes, moved
 * to the first frame's colours, looked at, and handed to the sink before the next latent is
 * touched. */
#include "base/time.h"
#include "pipeline/job.h"

/* The sink's answer; one that fails without a sentence gets a plain one. */
static void heed(em_run *r, em_status st)
{
    if (st) em_run_fail(r, st, "whoever receives the frames refused: %s", em_status_text(st));
}

/* The frames of one decoded chunk, in order. */
static void emit(em_job *j, em_tensor pixels, int64_t first)
{
    em_run *r = &j->run;
    size_t values = (size_t)j->width * (size_t)j->height * 3;
    em_download(r, pixels, j->pixels);
    em_download(r, em_to_u8(r, pixels), j->rgb);
    if (r->plans || em_run_stopped(r)) return;
    for (int64_t i = 0; i < pixels.dim[0] && !r->err.code; i++) {
        uint8_t *rgb = j->rgb + (size_t)i * values;
        em_verdict_values(&j->verdict, "frames", j->pixels + (size_t)i * values, values);
        double start = em_now_ms();
        if (j->color) em_color_frame(j->color, rgb, values / 3);
        j->result.color_ms += em_now_ms() - start;
        em_verdict_frame(&j->verdict, rgb, values / 3);
        if (j->sink->frame) heed(r, j->sink->frame(j->sink->user, rgb, (int)(first + i), &r->err));
    }
}

static void look_at_latents(em_job *j)
{
    em_run *r = &j->run;
    em_download(r, j->x, j->latents);
    if (!r->plans && !em_run_stopped(r))
        em_verdict_values(&j->verdict, "latents", j->latents, (size_t)em_tensor_count(j->x));
}

void em_job_decode(em_job *j)
{
    em_run *r = &j->run;
    int64_t f = j->grid.frames;
    em_vae_stream s = {0};
    em_job_stage(j, EM_STAGE_DECODE, (int)f);
    look_at_latents(j);
    if (!r->plans && !em_run_stopped(r) && j->sink->begin)
        heed(r, j->sink->begin(j->sink->user, j->width, j->height, j->frames, &r->err));
    em_tensor z = em_channels_last(r, j->x); // (f, h, w, 16)
    for (int64_t i = 0; i < f && !em_run_stopped(r); i++) {
        em_mark m = em_run_mark(r);
        em_tensor pixels = em_vae_decode_chunk(r, j->engine->vae, &s, em_slice(z, i, 1));
        emit(j, pixels, i == 0 ? 0 : 1 + (i - 1) * EM_VAE_TIME);
        em_run_release(r, m);
        em_job_progress(j, (int)i + 1, (int)f);
    }
    if (!r->plans && !em_run_stopped(r)) em_verdict_check(&j->verdict, &r->err);
    em_job_stage_end(j, (int)f);
}
