/* What the transformer looks at: portrait, prompt, picture; hearing.c has the voice. Each stage
 * runs one encoder and leaves nothing behind but what the steps need. */
#include "pipeline/job.h"

enum { MASK_CHANNELS = 4 };

int64_t em_job_portion(const em_job *j, int64_t done)
{
    int64_t left = j->grid.frames - done, most = j->run.cut.vae_latents;
    if (done == 0 || most < 1) return 1;
    return left < most ? left : most;
}

/* Frame 0 is the portrait, every later one mid grey (zero in [-1, 1]): the mask blanks it.
 * -> F32 (f, h, w, 16) */
static em_tensor encode_clip(em_job *j)
{
    em_run *r = &j->run;
    const em_vae *vae = j->engine->vae;
    int64_t f = j->grid.frames, h = j->height, w = j->width;
    em_vae_stream s = {0};
    em_tensor z =
        em_run_tensor(r, EM_F32, EM_SHAPE(f, j->grid.height, j->grid.width, EM_VAE_CHANNELS));
    for (int64_t i = 0, n; i < f && !em_run_stopped(r); i += n) {
        em_mark m = em_run_mark(r);
        n = em_job_portion(j, i);
        em_tensor chunk = i == 0 ? em_upload(r, j->image, EM_F32, EM_SHAPE(1, h, w, 3))
                                 : em_run_tensor(r, EM_F32, EM_SHAPE(n * EM_VAE_TIME, h, w, 3));
        if (i > 0) em_fill(r, chunk, 0);
        em_copy(r, em_slice(z, i, n), em_vae_encode_chunk(r, vae, &s, chunk));
        em_run_release(r, m);
        em_job_progress(j, (int)(i + n), (int)f);
    }
    return z;
}

void em_job_encode(em_job *j)
{
    em_run *r = &j->run;
    em_dit_grid g = j->grid;
    em_job_stage(j, EM_STAGE_ENCODE, (int)g.frames);
    j->x = em_run_keep(r, EM_F32, EM_SHAPE(EM_VAE_CHANNELS, g.frames, g.height, g.width));
    j->y = em_run_keep(r, EM_F32,
                       EM_SHAPE(MASK_CHANNELS + EM_VAE_CHANNELS, g.frames, g.height, g.width));
    em_mark m = em_run_mark(r);
    em_fill(r, em_slice(j->y, 0, MASK_CHANNELS), 0);
    for (int c = 0; c < MASK_CHANNELS; c++) em_fill(r, em_slice(em_at(j->y, c), 0, 1), 1);
    em_copy(r, em_slice(j->y, MASK_CHANNELS, EM_VAE_CHANNELS),
            em_channels_first(r, encode_clip(j)));
    em_run_release_all(r, m);
    em_job_stage_end(j, (int)g.frames);
}

/* The rows come from the prompt cache when this prompt was encoded before. */
void em_job_text(em_job *j)
{
    em_run *r = &j->run;
    em_prompt *p = j->prompt;
    int64_t dim = em_umt5_sizes(j->engine->t5)->dim;
    em_job_stage(j, EM_STAGE_TEXT, 1);
    em_mark m = em_run_mark(r);
    em_tensor rows;
    if (p->encoded) {
        rows = em_upload(r, p->rows, EM_F32, EM_SHAPE(p->n, dim));
    } else {
        rows = em_umt5_forward(r, j->engine->t5, p->ids, p->n); // (L, D)
        em_download(r, rows, p->rows);
        p->encoded = !r->plans && !em_run_stopped(r);
        if (p->encoded) em_prompt_folder_save(j->engine->prompt_folder, p, dim);
    }
    em_dit_kv kv = em_dit_text(r, j->engine->dit, rows);
    for (int b = 0; b < EM_BRANCHES; b++) j->cond[b].text = kv;
    em_run_release(r, m);
    em_job_stage_end(j, 1);
}

void em_job_image(em_job *j)
{
    em_run *r = &j->run;
    em_job_stage(j, EM_STAGE_IMAGE, 1);
    em_mark m = em_run_mark(r);
    em_tensor image = em_upload(r, j->image, EM_F32, EM_SHAPE(j->height, j->width, 3));
    em_tensor clip = em_clip_vit_forward(r, j->engine->clip, image, NULL); // (257, D)
    em_dit_kv kv = em_dit_image(r, j->engine->dit, clip);
    for (int b = 0; b < EM_BRANCHES; b++) j->cond[b].image = kv;
    em_run_release(r, m);
    em_job_stage_end(j, 1);
}
