#include "pipeline/engine.h"

#include "base/alloc.h"
#include "base/process.h"
#include "pipeline/audit.h"

const char *em_model_name(em_model_kind kind)
{
    static const char *const name[EM_MODEL_COUNT] = {"vae", "t5", "clip", "wav2vec2",
                                                     "transformer"};
    return name[kind];
}

em_engine_params em_engine_params_default(void)
{
    return (em_engine_params){.device = "auto", .dtype = EM_WEIGHT_BFLOAT16};
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

static em_status open_layers(em_ckpt **out, char *const *path, size_t n, em_err *err)
{
    em_ckpt *c = NULL;
    em_status st = em_ckpt_create(&c, err);
    for (size_t i = 0; !st && i < n; i++) st = em_ckpt_overlay(c, path[i], err);
    if (st)
        em_ckpt_close(&c);
    else
        *out = c;
    return st;
}

em_status em_engine_checkpoint(em_ckpt **out, const em_model_config *folder, em_model_kind kind,
                               em_err *err)
{
    const em_model_files *f = &folder->files;
    em_ckpt *c = NULL;
    em_status st = EM_OK;
    switch (kind) {
    case EM_MODEL_VAE: return em_ckpt_open(out, f->vae, err);
    case EM_MODEL_T5: return em_ckpt_open(out, f->t5, err);
    case EM_MODEL_CLIP: return em_ckpt_open(out, f->clip, err);
    case EM_MODEL_TRANSFORMER: return open_layers(out, f->transformer, f->transformer_count, err);
    case EM_MODEL_WAV2VEC2:
    default: break;
    }
    st = em_ckpt_open(&c, f->wav2vec2, err);
    if (!st) st = em_ckpt_strip_prefix(c, "wav2vec2.", err);
    if (st)
        em_ckpt_close(&c);
    else
        *out = c;
    return st;
}

/* ---- models ---------------------------------------------------------------------------------- */

static em_status open_vae(em_engine *e, const em_ckpt *c, em_err *err)
{
    em_vae_config cfg = {0};
    em_status st = em_vae_config_read(&cfg, c, err);
    return st ? st : em_vae_open(&e->vae, &cfg, c, &e->log, err);
}

static em_status open_t5(em_engine *e, const em_ckpt *c, em_err *err)
{
    em_umt5_config cfg = {.heads = e->folder->t5_num_heads,
                          .max_tokens = e->folder->t5_text_length};
    em_status st = em_umt5_config_read(&cfg, c, err);
    return st ? st : em_umt5_open(&e->t5, &cfg, c, &e->log, err);
}

static em_status open_clip(em_engine *e, const em_ckpt *c, em_err *err)
{
    em_clip_vit_config cfg = {.heads = e->folder->clip_num_heads};
    em_status st = em_clip_vit_config_read(&cfg, c, err);
    return st ? st : em_clip_vit_open(&e->clip, &cfg, c, &e->log, err);
}

static em_status open_speech(em_engine *e, const em_ckpt *c, em_err *err)
{
    const em_wav2vec2_numbers *n = &e->folder->wav2vec2;
    em_wav2vec2_config cfg = {.heads = n->num_heads,
                              .convs = EM_FOLDER_CONVS,
                              .eps = (float)n->eps};
    for (int i = 0; i < EM_FOLDER_CONVS; i++) cfg.conv_stride[i] = n->conv_stride[i];
    em_status st = em_wav2vec2_config_read(&cfg, c, err);
    return st ? st : em_wav2vec2_open(&e->speech, &cfg, c, &e->log, err);
}

static em_status open_dit(em_engine *e, const em_ckpt *c, em_err *err)
{
    const em_transformer_numbers *n = &e->folder->transformer;
    em_dit_config cfg = {.dim = n->dim,
                         .ffn_dim = n->ffn_dim,
                         .heads = n->num_heads,
                         .layers = n->num_layers,
                         .freq_dim = n->freq_dim,
                         .text_dim = n->text_dim,
                         .text_len = n->text_len,
                         .in_dim = n->in_dim,
                         .out_dim = n->out_dim,
                         .patch_h = n->patch[1],
                         .patch_w = n->patch[2],
                         .eps = n->eps};
    em_status st = em_dit_config_read(&cfg, c, err);
    return st ? st : em_dit_open(&e->dit, &cfg, c, &e->log, err);
}

/* A file of another model lacks everything; say which it is instead. */
static em_status name_wrong_file(const em_ckpt *c, em_model_kind wanted, em_status st, em_err *err)
{
    const em_ckpt_tensor *mark = NULL;
    em_model_kind kind = c ? em_audit_kind(c, &mark) : wanted;
    if (kind == wanted || kind == EM_MODEL_COUNT) return st;
    return em_fail(err, st, "'%s' is a checkpoint of the %s, the %s's was expected", mark->file,
                   em_model_name(kind), em_model_name(wanted));
}

/* Every model is tried, so that one look at the log shows all that is wrong; the first failure
 * counts. */
static em_status open_models(em_engine *e, em_err *err)
{
    typedef em_status (*open_fn)(em_engine * e, const em_ckpt *c, em_err *err);
    static const open_fn open_model[EM_MODEL_COUNT] = {open_vae, open_t5, open_clip, open_speech,
                                                       open_dit};
    em_status first = EM_OK;
    for (int k = 0; k < EM_MODEL_COUNT; k++) {
        em_err mine = {0};
        em_status st = em_engine_checkpoint(&e->ckpt[k], e->folder, (em_model_kind)k, &mine);
        if (!st) {
            st = open_model[k](e, e->ckpt[k], &mine);
            if (st == EM_MISMATCH) st = name_wrong_file(e->ckpt[k], (em_model_kind)k, st, &mine);
        }
        if (!st) continue;
        if (first)
            em_logf(&e->log, EM_LOG_ERROR, "%s", mine.msg);
        else
            first = em_fail(err, st, "%s", mine.msg);
    }
    return first;
}

/* The transformer looks at the others' outputs: their widths must be what it was trained on. */
static em_status check_widths(const em_engine *e, em_err *err)
{
    const em_dit_config *d = em_dit_sizes(e->dit);
    const em_wav2vec2_config *s = em_wav2vec2_sizes(e->speech);
    const struct {
        const char *what;
        int64_t gives, wants;
    } width[] = {
        {"text encoder", em_umt5_sizes(e->t5)->dim, d->text_dim},
        {"image encoder", em_clip_vit_sizes(e->clip)->dim, d->clip_dim},
        {"audio encoder (layers times width)", s->layers * s->hidden, d->audio_dim},
    };
    for (size_t i = 0; i < EM_COUNT(width); i++)
        if (width[i].gives != width[i].wants)
            return em_fail(err, EM_MISMATCH,
                           "the %s gives %lld values a token, the transformer wants %lld: these "
                           "checkpoints do not belong together",
                           width[i].what, (long long)width[i].gives, (long long)width[i].wants);
    return EM_OK;
}

/* ---- engine ---------------------------------------------------------------------------------- */

const em_ops *em_engine_annex_ops(const em_ops *ops, em_audio_device where)
{
    const em_ops *processor = where == EM_AUDIO_DEVICE_CPU ? em_ops_find("cpu") : ops;
    return processor != ops ? processor : NULL;
}

static em_residency weights_on(const em_engine *e, em_device *d)
{
    return (em_residency){.device = d,
                          .dtype = e->dtype,
                          .pool = e->pool,
                          .prefetch = !d->host_addressable};
}

static em_status choose_lane(em_engine *e, const em_engine_params *p, em_err *err)
{
    e->lane = p->lane;
    e->lanes = p->lanes ? p->lanes : 1;
    if (e->lanes < 1 || e->lanes > EM_LANES_MAX || e->lane < 0 || e->lane >= e->lanes)
        return em_fail(err, EM_INVAL, "lane %d of %d: 1 to %d are possible", p->lane, p->lanes,
                       EM_LANES_MAX);
    return EM_OK;
}

static em_status choose_device(em_engine *e, const em_engine_params *p, em_err *err)
{
    static const em_dtype dtype[] = {
        [EM_WEIGHT_BFLOAT16] = EM_BF16, [EM_WEIGHT_FLOAT16] = EM_F16, [EM_WEIGHT_FLOAT32] = EM_F32};
    const char *name = p->device ? p->device : "auto";
    if ((unsigned)p->dtype > EM_WEIGHT_FLOAT32)
        return em_fail(err, EM_INVAL, "weight_dtype is none of bfloat16, float16 and float32");
    if ((unsigned)p->audio_device > EM_AUDIO_DEVICE_DEVICE)
        return em_fail(err, EM_INVAL, "audio_device is none of auto, cpu and device");
    e->dtype = dtype[p->dtype];
    e->memory_mode = p->memory_mode;
    e->vram_budget_bytes = p->vram_budget_bytes;
    e->ram_budget_bytes = p->ram_budget_bytes;
    em_status st = choose_lane(e, p, err);
    if (!st) st = em_ops_open_lane(&e->ops, name, e->lane, err);
    if (st) return st;
    e->annex.ops = em_engine_annex_ops(e->ops, p->audio_device);
    const em_ops *annex = e->annex.ops;
    st = em_pool_create(&e->pool, p->threads, annex ? annex->thread_start : e->ops->thread_start,
                        err);
    if (st) return st;
    e->residency = weights_on(e, e->ops->device);
    if (annex) e->annex.residency = weights_on(e, annex->device);
    return EM_OK;
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* What the device takes of its memory once, whatever the lanes. */
static uint64_t once_on_device(const em_engine *e)
{
    const em_device *d = e->ops->device;
    return d->context_bytes + (uint64_t)(e->lanes - 1) * d->lane_bytes;
}

/* A lane's part of `all`, of which `once` is everybody's. */
static uint64_t part(uint64_t all, uint64_t once, int lanes)
{
    return all > once ? (all - once) / (uint64_t)lanes : 0;
}

static uint64_t free_of(em_device *d)
{
    uint64_t total = 0, free = 0;
    d->memory_info(d, &total, &free);
    return free;
}

/* This lane's budgets. The process is there once, and so is a device's context; those who open
 * later take as much of the host as this one did. */
static void take_share(em_engine *e, uint64_t rss_before)
{
    em_device *d = e->ops->device;
    uint64_t rss = em_process_memory_now().rss_bytes, later = (uint64_t)(e->lanes - 1 - e->lane);
    uint64_t most = rss + free_of(&em_device_host);
    e->base_bytes = rss;
    if (e->lanes == 1) return;
    if (rss > rss_before) e->base_bytes += later * (rss - rss_before);
    if (e->ram_budget_bytes && e->ram_budget_bytes < most) most = e->ram_budget_bytes;
    e->ram_budget_bytes = e->base_bytes + part(most, e->base_bytes, e->lanes);
    if (d->host_addressable) {
        e->vram_budget_bytes /= (uint64_t)e->lanes;
        return;
    }
    uint64_t room = part(free_of(d), later * d->lane_bytes, e->lanes);
    uint64_t may = part(e->vram_budget_bytes, once_on_device(e), e->lanes);
    if (e->vram_budget_bytes && may < room) room = may;
    e->vram_budget_bytes = d->context_bytes + room;
}

uint64_t em_engine_vram_of_all(const em_engine *e, uint64_t bytes)
{
    const em_device *d = e->ops->device;
    return once_on_device(e) + (bytes - d->context_bytes) * (uint64_t)e->lanes;
}

uint64_t em_engine_ram_of_all(const em_engine *e, uint64_t bytes)
{
    return e->base_bytes + (bytes - e->base_bytes) * (uint64_t)e->lanes;
}

/* ---- open and close -------------------------------------------------------------------------- */

/* A folder that cannot be used costs a warning: nothing depends on it. */
static void open_prompt_folder(em_engine *e, const em_engine_params *p)
{
    em_err err = {0};
    const em_prompt_folder_params q = {.dir = p->prompt_dir,
                                       .key = p->prompt_key,
                                       .ops = e->ops->name,
                                       .dtype = e->dtype,
                                       .max_bytes = p->prompt_dir_bytes,
                                       .log = e->log};
    if (!q.dir || !q.key) return;
    if (em_prompt_folder_open(&e->prompt_folder, &q, &err))
        em_logf(&e->log, EM_LOG_WARN, "%s: prompts are not kept for the next run", err.msg);
}

static void open_rates(em_engine *e, const em_engine_params *p)
{
    const em_rates_params q = {.ops = e->ops,
                               .annex = e->annex.ops,
                               .pool = e->pool,
                               .dtype = e->dtype,
                               .lanes = e->lanes,
                               .path = p->rates_path,
                               .log = &e->log};
    em_rates_open(&e->rates, &q);
}

em_status em_engine_open(em_engine **out, const em_engine_params *p, em_err *err)
{
    const em_model_source source = {.model_dir = p->model_name,
                                    .config_path = p->config_path,
                                    .transformer_path = p->transformer_path,
                                    .wav2vec_dir = p->wav2vec_model_dir,
                                    .vae_path = p->vae_path,
                                    .ckpt_idx = p->ckpt_idx};
    em_status st;
    uint64_t rss_before = em_process_memory_now().rss_bytes;
    em_engine *e = em_alloc(sizeof *e);
    if (!e) return em_fail(err, EM_NOMEM, "no memory for an engine");
    e->log = p->log;
    st = choose_device(e, p, err);
    if (!st) st = em_model_folder_open(&e->folder, &source, err);
    if (!st) st = open_models(e, err);
    if (!st) st = check_widths(e, err);
    if (!st) st = em_tokenizer_open(&e->tokenizer, e->folder->files.tokenizer, err);
    if (!st) st = em_prompt_cache_open(&e->prompts, err);
    if (!st) open_rates(e, p);
    if (!st) st = em_memory_report_open(&e->report, p->memory_report_path, err);
    if (!st) open_prompt_folder(e, p);
    if (st) {
        em_engine_close(&e);
        return st;
    }
    take_share(e, rss_before);
    *out = e;
    return EM_OK;
}

void em_engine_close(em_engine **engine)
{
    em_engine *e = *engine;
    if (!e) return;
    em_residency_close(&e->residency);
    em_arena_close(&e->block);
    em_residency_close(&e->annex.residency);
    em_arena_close(&e->annex.block);
    em_vae_close(&e->vae);
    em_umt5_close(&e->t5);
    em_clip_vit_close(&e->clip);
    em_wav2vec2_close(&e->speech);
    em_dit_close(&e->dit);
    em_tokenizer_close(&e->tokenizer);
    em_prompt_cache_close(&e->prompts);
    em_memory_report_close(&e->report);
    em_rates_close(&e->rates);
    em_prompt_folder_close(&e->prompt_folder);
    for (int k = 0; k < EM_MODEL_COUNT; k++) em_ckpt_close(&e->ckpt[k]);
    em_model_folder_close(&e->folder);
    em_pool_destroy(&e->pool);
    em_free(e);
    *engine = NULL;
}

static em_status drop(em_residency *weights, em_arena *block, em_err *err)
{
    if (!block->base) return EM_OK;
    em_status st = em_residency_set_store(weights, NULL, 0, err);
    em_arena_close(block);
    return st;
}

static em_status take(em_residency *weights, em_arena *block, size_t size_bytes, em_err *err)
{
    if (block->base && block->size_bytes >= size_bytes) return EM_OK;
    em_status st = drop(weights, block, err);
    return st ? st : em_arena_open(block, weights->device, size_bytes, false, err);
}

em_status em_engine_drop_block(em_engine *e, em_err *err)
{
    em_status st = drop(&e->residency, &e->block, err);
    em_status annex = drop(&e->annex.residency, &e->annex.block, err);
    return st ? st : annex;
}

em_status em_engine_take_block(em_engine *e, size_t size_bytes, em_err *err)
{
    return take(&e->residency, &e->block, size_bytes, err);
}

em_status em_engine_take_annex(em_engine *e, size_t size_bytes, em_err *err)
{
    return take(&e->annex.residency, &e->annex.block, size_bytes, err);
}

bool em_engine_step_down(em_engine *e, em_memory_kind failed, const char **what)
{
    const struct {
        em_memory_kind kind;
        bool *taken;
        const char *what;
    } rung[] = {
        {EM_MEMORY_IMAGES, &e->down.no_images, "streamed weights are read from their files"},
        {EM_MEMORY_RING, &e->down.small_ring, "weights are copied in small pieces"},
        {EM_MEMORY_BLOCK, &e->down.streamed, "weights are streamed"},
        {EM_MEMORY_BLOCK, &e->down.narrow, "less goes through the models at once"},
    };
    for (size_t i = 0; i < EM_COUNT(rung); i++) {
        if (rung[i].kind != failed || *rung[i].taken) continue;
        *rung[i].taken = true;
        *what = rung[i].what;
        return true;
    }
    return false;
}

em_status em_engine_release_block(em_engine *e, em_err *err)
{
    return e->memory_mode == EM_MEMORY_LIGHTWEIGHT ? em_engine_drop_block(e, err) : EM_OK;
}

em_status em_engine_release_annex(em_engine *e, em_err *err)
{
    if (e->memory_mode != EM_MEMORY_LIGHTWEIGHT) return EM_OK;
    return drop(&e->annex.residency, &e->annex.block, err);
}

void em_engine_cancel(em_engine *engine)
{
    atomic_store(&engine->cancel, true);
}

void em_engine_resume(em_engine *engine)
{
    atomic_store(&engine->cancel, false);
}

em_run em_engine_run(em_engine *e)
{
    return (em_run){.ops = e->ops,
                    .residency = &e->residency,
                    .pool = e->pool,
                    .dtype = e->dtype,
                    .cancel = &e->cancel};
}

em_run em_engine_annex_run(em_engine *e)
{
    em_run r = em_engine_run(e);
    r.ops = e->annex.ops;
    r.residency = &e->annex.residency;
    r.arena = e->annex.block;
    return r;
}
