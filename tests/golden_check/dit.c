/* The transformer: its parts, every block, both branches, RIFLEx, the rotary tables. */
#include "check.h"

#include <math.h>
#include <stdio.h>

typedef struct dit_args {
    check *c;
    const em_ckpt *golden;
    const em_dit *dit;
    em_dit_grid grid;
    float *rope;
    double bound, uncond_bound;
} dit_args;

enum { RIFLEX_K = 6 }; /* what the goldens were made with */

static em_tensor input(em_run *r, const dit_args *a, const char *name)
{
    const em_ckpt_tensor *t = tensor_of(a->golden, name, EM_F32);
    if (!t) return em_run_fail(r, EM_INVAL, "the file does not hold '%s'", name);
    return em_upload(r, t->data, EM_F32, t->dim, t->ndim);
}

static void compare(em_run *r, const dit_args *a, const char *name, em_tensor got, double bound)
{
    if (em_ckpt_find(a->golden, name)) expect_tensor(a->c, r, a->golden, name, got, bound);
}

static void check_tokens_of(em_run *r, const dit_args *a)
{
    em_mark m = em_run_mark(r);
    compare(r, a, "text_tokens", em_dit_text_tokens(r, a->dit, input(r, a, "context")), a->bound);
    em_run_release(r, m);
    compare(r, a, "image_tokens", em_dit_image_tokens(r, a->dit, input(r, a, "clip")), a->bound);
    em_run_release(r, m);
    em_tensor audio = em_dit_audio_tokens(r, a->dit, input(r, a, "audio"), a->grid.frames);
    compare(r, a, "audio_tokens", audio, a->bound);
    em_run_release(r, m);
}

static em_tensor rope(em_run *r, const dit_args *a, int riflex_k)
{
    em_dit_rope_fill(em_dit_sizes(a->dit), a->grid, riflex_k, a->rope);
    return em_dit_rope(r, a->dit, a->grid, a->rope);
}

/* -> velocity; block outputs go to cond->taps. Scratch is left to the caller's mark. */
static em_tensor forward(em_run *r, const dit_args *a, const em_dit_time *t,
                         const em_dit_cond *cond)
{
    em_tensor x = em_dit_embed(r, a->dit, input(r, a, "x"), input(r, a, "y"));
    if (!em_tensor_is_empty(cond->taps))
        compare(r, a, "patch_embedding", em_channels_first(r, x), a->bound);
    em_dit_blocks(r, a->dit, x, t, cond);
    return em_dit_head(r, a->dit, x, t, cond->grid);
}

static void compare_blocks(em_run *r, const dit_args *a, em_tensor taps)
{
    for (int i = 0; i < em_dit_sizes(a->dit)->layers && !em_run_stopped(r); i++) {
        char name[24];
        snprintf(name, sizeof name, "block.%d", i);
        compare(r, a, name, em_at(taps, i), a->bound);
    }
}

static void whole(em_run *r, void *arg)
{
    const dit_args *a = arg;
    const em_dit_config *s = em_dit_sizes(a->dit);
    size_t n;
    const float *t = floats_of(a->golden, "t", &n);
    em_mark start = em_run_mark(r);
    check_tokens_of(r, a);
    em_dit_cond cond = {.grid = a->grid, .rope = rope(r, a, 0)};
    em_mark m = em_run_mark(r);
    cond.text = em_dit_text(r, a->dit, input(r, a, "context"));
    cond.image = em_dit_image(r, a->dit, input(r, a, "clip"));
    cond.audio = em_dit_audio(r, a->dit, input(r, a, "audio"), a->grid.frames);
    em_dit_kv silence = em_dit_audio(r, a->dit, (em_tensor){0}, a->grid.frames), voice = cond.audio;
    em_dit_time time = em_dit_time_embed(r, a->dit, t ? t[0] : 0);
    compare(r, a, "time_embedding", time.e, a->bound);
    compare(r, a, "time_projection", time.e0, a->bound);
    em_run_release(r, m);

    if (!em_run_stopped(r))
        cond.taps = em_run_keep(r, EM_F32, EM_SHAPE(s->layers, cond.rope.dim[0], s->dim));
    compare(r, a, "out.cond", forward(r, a, &time, &cond), a->bound);
    compare_blocks(r, a, cond.taps);
    em_run_release(r, m);
    cond.taps = (em_tensor){0};
    cond.audio = silence;
    compare(r, a, "out.uncond", forward(r, a, &time, &cond), a->uncond_bound);
    em_run_release(r, m);
    if (em_ckpt_find(a->golden, "out.cond.riflex")) {
        cond.audio = voice;
        cond.rope = rope(r, a, RIFLEX_K);
        compare(r, a, "out.cond.riflex", forward(r, a, &time, &cond), a->bound);
    }
    em_run_release_all(r, start);
}

/* Angles, position by position on all axes at once; the table holds their float32 cosine and
 * sine. */
static void check_angles(check *c, const em_ckpt *golden, const em_dit_config *cfg,
                         const char *name, int k)
{
    const em_ckpt_tensor *want = tensor_of(golden, name, EM_F32);
    if (!want) return;
    int64_t n = want->dim[0], pairs = cfg->dim / cfg->heads / 2;
    em_dit_grid g = {n, n * cfg->patch_h, n * cfg->patch_w};
    float *table = em_alloc_array(em_dit_rope_count(cfg, g), sizeof *table);
    if (!table || want->dim[1] != pairs) {
        expect_true(c, name, false, "another head size");
    } else {
        double worst = 0;
        em_dit_rope_fill(cfg, g, k, table);
        for (int64_t i = 0; i < n; i++)
            for (int64_t p = 0; p < pairs; p++) {
                const float *cs = table + (((i * n + i) * n + i) * pairs + p) * 2;
                double d =
                    remainder(atan2(cs[1], cs[0]) - ((const float *)want->data)[i * pairs + p],
                              2 * M_PI);
                worst = fmax(worst, fabs(d));
            }
        expect_measure(c, name, "max angle error", worst, 2e-6);
    }
    em_free(table);
}

/* The grid follows from x: (out, f, h, w). */
static bool find_grid(dit_args *a)
{
    const em_ckpt_tensor *x = tensor_of(a->golden, "x", EM_F32);
    if (!x || x->ndim != 4) return false;
    a->grid = (em_dit_grid){x->dim[1], x->dim[2], x->dim[3]};
    a->rope = em_alloc_array(em_dit_rope_count(em_dit_sizes(a->dit), a->grid), sizeof *a->rope);
    return a->rope != NULL;
}

void check_dit(check *c)
{
    em_err err = {0};
    em_dit *m = NULL;
    em_dit_config cfg = {.heads = c->sizes.dit.heads,
                         .layers = c->sizes.dit.layers,
                         .text_len = c->sizes.dit.text_len,
                         .eps = c->sizes.dit.eps};
    em_ckpt *golden = open_golden(c, c->file),
            *ckpt = golden ? open_synthetic(c, EM_MODEL_TRANSFORMER) : NULL;
    if (ckpt && (em_dit_config_read(&cfg, ckpt, &err) || em_dit_open(&m, &cfg, ckpt, NULL, &err)))
        report_failure(c, "transformer", &err);
    dit_args a = {.c = c, .golden = golden, .dit = m};
    a.bound = model_bound(c, "dit bf16 gpu rel cond");
    a.uncond_bound = model_bound(c, "dit bf16 gpu rel uncond");
    if (a.uncond_bound == NO_BOUND) a.uncond_bound = a.bound;
    if (m && find_grid(&a)) {
        run_forward(c, "transformer", whole, &a);
        check_angles(c, golden, &cfg, "rope.freqs_angle", 0);
        check_angles(c, golden, &cfg, "riflex.freqs_angle_t", RIFLEX_K);
    } else if (m) {
        report_skip(c, "x", "the file does not hold it");
    }
    em_free(a.rope);
    em_dit_close(&m);
    em_ckpt_close(&ckpt);
    em_ckpt_close(&golden);
}
