/* Latents to frames: decoded one latent (one frame, then four) at a time, turned into bytes, moved
 * to the first frame's colours, looked at, and handed to the sink before the next latent is
 * touched; or a few latents at a time, as the run's cut says. */
#include "base/time.h"
#include "pipeline/job.h"

/* The sink's answer; one that fails without a sentence gets a plain one. */
static void heed(em_run *r, em_status st)
{
    if (st) em_run_fail(r, st, "whoever receives the frames refused: %s", em_status_text(st));
}

static void move_colours(void *arg, size_t i, int worker)
{
    em_job *j = arg;
    size_t pixels = (size_t)j->width * (size_t)j->height;
    em_job_frames *f = &j->frames_under_way[(j->turn + 1) % 2];
    (void)worker;
    em_color_frame(j->color, f->rgb + i * pixels * 3, pixels);
}

/* The frames that are under way the longest, in order: waits for them, looks at them and hands them
 * on, while the device decodes the next. */
static void hand_over(em_job *j)
{
    em_run *r = &j->run;
    em_job_frames *f = &j->frames_under_way[(j->turn + 1) % 2];
    size_t values = (size_t)j->width * (size_t)j->height * 3;
    if (!f->count) return;
    em_run_await(r, f->copied);
    double start = em_now_ms();
    if (j->color && !em_run_stopped(r)) em_run_parallel(r, (size_t)f->count, move_colours, j);
    j->result.color_ms += em_now_ms() - start;
    for (int i = 0; i < f->count && !em_run_stopped(r); i++) {
        const uint8_t *rgb = f->rgb + (size_t)i * values;
        em_verdict_values(&j->verdict, "frames", f->pixels + (size_t)i * values, values);
        em_verdict_frame(&j->verdict, rgb, values / 3);
        if (j->sink->frame)
            heed(r, j->sink->frame(j->sink->user, rgb, (int)(f->first + i), &r->err));
    }
    f->count = 0;
}

/* Sends the frames of a decoded chunk on their way, and hands over those before. The clip's first
 * frame comes alone, and gives the colours that all others get. */
static void emit(em_job *j, em_tensor pixels, int64_t first)
{
    em_run *r = &j->run;
    em_job_frames *f = &j->frames_under_way[j->turn % 2];
    em_tensor rgb = em_to_u8(r, pixels);
    if (r->plans || em_run_stopped(r)) return;
    em_run_fetch(r, pixels, f->pixels);
    em_run_fetch(r, rgb, f->rgb);
    em_run_mark_fetched(r, f->copied);
    f->first = first;
    f->count = (int)pixels.dim[0];
    hand_over(j);
    j->turn++;
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
    j->began = !r->plans;
    if (!r->plans && !em_run_stopped(r) && j->sink->begin)
        heed(r, j->sink->begin(j->sink->user, j->width, j->height, j->frames, &r->err));
    em_tensor z = em_channels_last(r, j->x); // (f, h, w, 16)
    for (int64_t i = 0, n; i < f && !em_run_stopped(r); i += n) {
        em_mark m = em_run_mark(r);
        n = em_job_portion(j, i);
        em_tensor pixels = em_vae_decode_chunk(r, j->engine->vae, &s, em_slice(z, i, n));
        for (int64_t k = 0; k < n; k++) {
            em_mark one = em_run_mark(r);
            emit(j, em_slice(pixels, k * EM_VAE_TIME, i ? EM_VAE_TIME : 1),
                 i ? 1 + (i + k - 1) * EM_VAE_TIME : 0);
            em_run_release(r, one);
            em_job_progress(j, (int)(i + k) + 1, (int)f);
        }
        em_run_release(r, m);
    }
    hand_over(j);
    if (!r->plans && !em_run_stopped(r)) em_verdict_check(&j->verdict, &r->err);
    em_job_stage_end(j, (int)f);
}
