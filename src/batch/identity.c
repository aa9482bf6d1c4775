#include "batch/identity.h"

#include "base/alloc.h"
#include "io/ckpt.h"
#include "io/file.h"
#include "io/fingerprint.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ----------------------------------------------------------------------------------- */

bool em_identity_stat(em_ledger_file *out, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return false;
    *out = (em_ledger_file){
        .size_bytes = (uint64_t)info.st_size,
        .mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec,
    };
    return true;
}

em_status em_identity_of_file(em_ledger_file *out, const char *path, em_err *err)
{
    em_map map;
    em_ledger_file file;
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256 h;
    em_status st = em_file_map(&map, path, true, err);
    if (st) return st;
    if (!em_identity_stat(&file, path)) {
        em_map_close(&map);
        return em_fail(err, EM_IO, "'%s' was removed while it was read", path);
    }
    em_sha256_start(&h);
    em_sha256_add(&h, map.data, map.size_bytes);
    em_sha256_end(&h, sum);
    em_sha256_hex(file.sha256, sum);
    em_map_close(&map);
    *out = file;
    return EM_OK;
}

void em_sha256_of_text(char out[EM_SHA256_HEX_BYTES], const char *text)
{
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256 h;
    em_sha256_start(&h);
    em_sha256_add(&h, text, strlen(text));
    em_sha256_end(&h, sum);
    em_sha256_hex(out, sum);
}

/* ---- what all jobs share --------------------------------------------------------------------- */

/* Of a checkpoint the fingerprint, of any other file (a tokenizer) the hash. */
static em_status fingerprint(char out[EM_SHA256_HEX_BYTES], const char *path, bool tensors,
                             em_ledger *ledger, em_err *err)
{
    char real[PATH_MAX];
    bool found = false;
    em_ckpt *c = NULL;
    em_ledger_file file = {0};
    em_status st = EM_OK;
    if (!realpath(path, real)) snprintf(real, sizeof real, "%s", path);
    if (ledger && em_identity_stat(&file, real))
        st = em_ledger_fingerprint(ledger, real, &file, out, &found, err);
    if (st || found) return st;
    if (!tensors) {
        st = em_identity_of_file(&file, path, err);
    } else if (!(st = em_ckpt_open(&c, path, err))) {
        em_ckpt_fingerprint(c, file.sha256);
        em_ckpt_close(&c);
    }
    if (!st && ledger) st = em_ledger_remember(ledger, real, &file, err);
    if (!st) memcpy(out, file.sha256, sizeof file.sha256);
    return st;
}

/* What the configuration says beside the tensors. */
static void add_numbers(em_str *to, const em_model_config *m)
{
    const em_transformer_numbers *t = &m->transformer;
    const em_wav2vec2_numbers *w = &m->wav2vec2;
    em_str_printf(to,
                  "transformer heads %" PRId64 ", frequencies %" PRId64 ", text %" PRId64
                  ", patch %" PRId64 " %" PRId64 " %" PRId64 ", eps %.17g\n",
                  t->num_heads, t->freq_dim, t->text_len, t->patch[0], t->patch[1], t->patch[2],
                  t->eps);
    em_str_printf(to, "wav2vec2 heads %" PRId64 ", eps %.17g, normalised %d, strides", w->num_heads,
                  w->eps, w->do_normalize);
    for (int i = 0; i < EM_FOLDER_CONVS; i++) em_str_printf(to, " %" PRId64, w->conv_stride[i]);
    em_str_printf(to,
                  "\nt5 heads %" PRId64 ", tokens %" PRId64 "; clip heads %" PRId64
                  "; scheduler shift %.17g\n",
                  m->t5_num_heads, m->t5_text_length, m->clip_num_heads, m->scheduler_shift);
}

em_status em_identity_models(em_str *out, char text_encoder[EM_SHA256_HEX_BYTES],
                             const em_model_config *models, const em_machinery *machinery,
                             em_ledger *ledger, em_err *err)
{
    static const char *const dtype[] = {"bfloat16", "float16", "float32"};
    const em_model_files *f = &models->files;
    const struct {
        const char *what, *path;
        bool tensors;
    } rest[] = {{"vae", f->vae, true},
                {"t5", f->t5, true},
                {"clip", f->clip, true},
                {"wav2vec2", f->wav2vec2, true},
                {"tokenizer", f->tokenizer, false}};
    char print[EM_SHA256_HEX_BYTES] = "", encoder[EM_SHA256_HEX_BYTES] = "", words[200];
    em_str text = {0};
    em_status st = EM_OK;
    em_str_printf(&text, "result version %d\ndevice %s%s%s\ntype %s\n", EM_RESULT_VERSION,
                  machinery->device, machinery->voice ? ", the voice on " : "",
                  machinery->voice ? machinery->voice : "", dtype[machinery->dtype]);
    for (size_t i = 0; !st && i < f->transformer_count; i++) {
        st = fingerprint(print, f->transformer[i], true, ledger, err);
        if (!st) em_str_printf(&text, "transformer %s\n", print);
    }
    for (size_t i = 0; !st && i < sizeof rest / sizeof *rest; i++) {
        st = fingerprint(print, rest[i].path, rest[i].tensors, ledger, err);
        if (!st) em_str_printf(&text, "%s %s\n", rest[i].what, print);
        if (!strcmp(rest[i].what, "t5")) snprintf(encoder, sizeof encoder, "%s", print);
    }
    add_numbers(&text, models);
    if (!st && text.failed) st = em_fail(err, EM_NOMEM, "no memory to describe the checkpoints");
    if (st) {
        em_str_free(&text);
        return st;
    }
    snprintf(words, sizeof words, "%s %s %" PRId64 " %" PRId64, encoder, print,
             models->t5_num_heads, models->t5_text_length); /* `print` is the tokenizer's */
    em_sha256_of_text(text_encoder, words);
    *out = text;
    return EM_OK;
}

/* ---- a job ----------------------------------------------------------------------------------- */

static void add_input(em_str *to, const char *what, const char *from)
{
    char shown[PATH_MAX];
    em_ledger_file file;
    if (em_is_address(from)) {
        em_address_shown(shown, sizeof shown, from);
        em_str_printf(to, "%s at %s\n", what, shown);
        return;
    }
    if (!realpath(from, shown)) snprintf(shown, sizeof shown, "%s", from);
    if (em_identity_stat(&file, from))
        em_str_printf(to, "%s '%s' of %" PRIu64 " bytes and time %" PRId64 "\n", what, shown,
                      file.size_bytes, file.mtime_ns);
    else
        em_str_printf(to, "%s '%s', missing\n", what, shown);
}

/* What has no effect at this setting is left out: it must not make a difference. */
static void add_params(em_str *to, const em_params *p)
{
    static const char *const sampler[] = {"Flow_Unipc", "Flow_DPM++", "Flow"};
    static const char *const cache[] = {"off", "branch", "reference"};
    em_str_printf(to, "seed %" PRId64 "\nsteps %d\nsampler %s\nshift %.17g\n", p->seed,
                  p->num_inference_steps, sampler[p->sampler], p->shift);
    if (p->guidance_scale > 1)
        em_str_printf(to, "guidance on, audio_guidance_scale %.17g, cfg_skip_ratio %.17g\n",
                      p->audio_guidance_scale, p->cfg_skip_ratio);
    else
        em_str_printf(to, "guidance off\n");
    if (p->rng == EM_RNG_CPU)
        em_str_printf(to, "rng of the processor\n");
    else
        em_str_printf(to, "rng of a card with %d x %d threads\n", p->rng_sm_count,
                      p->rng_threads_per_sm);
    em_str_printf(to, "video_length %d\nsample_size %d %d\nfps %d\n", p->video_length,
                  p->sample_size[0], p->sample_size[1], p->fps);
    em_str_printf(to, "teacache %s", cache[p->teacache]);
    if (p->teacache != EM_TEACACHE_OFF)
        em_str_printf(to, ", threshold %.17g, start %d", p->teacache_threshold,
                      p->num_skip_start_steps);
    em_str_printf(to, "\nriflex_k %d\ncolor_transfer %d\ncrf %d\nprompt %s\n", p->riflex_k,
                  p->color_transfer, p->crf, p->prompt ? p->prompt : "");
}

em_status em_identity_make(em_identity *out, const em_batch_job *job, const char *models,
                           em_err *err)
{
    em_str text = {0};
    add_input(&text, "picture", job->image);
    add_input(&text, "sound", job->audio);
    em_str_printf(&text, "%s", models);
    add_params(&text, &job->params);
    if (text.failed) {
        em_str_free(&text);
        return em_fail(err, EM_NOMEM, "no memory to describe a job");
    }
    em_sha256_of_text(out->hash, text.data);
    out->about = text.data; /* moved */
    return EM_OK;
}

void em_identity_close(em_identity *id)
{
    em_free(id->about);
    *id = (em_identity){0};
}

/* ---- two of them ----------------------------------------------------------------------------- */

static const char *next_line(const char *p)
{
    const char *end = strchr(p, '\n');
    return end ? end + 1 : p + strlen(p);
}

bool em_identity_same_but_inputs(const char *a, const char *b)
{
    enum { INPUTS = 2 }; /* the first lines */
    for (int i = 0; i < INPUTS; i++) {
        a = next_line(a);
        b = next_line(b);
    }
    return *a && !strcmp(a, b);
}

const char *em_identity_difference(char *out, size_t room, const char *before, const char *now)
{
    enum { SHOWN = 100 };
    out[0] = 0;
    while (*before && *now) {
        const char *b = next_line(before), *n = next_line(now);
        int b_len = (int)strcspn(before, "\n"), n_len = (int)strcspn(now, "\n");
        if (b_len != n_len || memcmp(before, now, (size_t)b_len) != 0) {
            snprintf(out, room, "%.*s, now %.*s", b_len < SHOWN ? b_len : SHOWN, before,
                     n_len < SHOWN ? n_len : SHOWN, now);
            em_trim_utf8(out);
            break;
        }
        before = b;
        now = n;
    }
    return out;
}
