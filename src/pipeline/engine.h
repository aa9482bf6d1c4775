/* What lives as long as the engine: the models and the device they run on. */
#ifndef EM_PIPELINE_ENGINE_H
#define EM_PIPELINE_ENGINE_H

#include "base/thread.h"
#include "io/ckpt.h"
#include "io/model_folder.h"
#include "models/clip_vit.h"
#include "models/tokenizer.h"
#include "models/umt5.h"
#include "models/wan_dit.h"
#include "models/wan_vae.h"
#include "models/wav2vec2.h"
#include "ops/table.h"
#include "pipeline/memory_report.h"
#include "pipeline/prompt_cache.h"
#include "pipeline/prompt_folder.h"
#include "pipeline/rates.h"

#include <stdatomic.h>

/* The five checkpoints, in the order of a request. */
typedef enum em_model_kind {
    EM_MODEL_VAE,
    EM_MODEL_T5,
    EM_MODEL_CLIP,
    EM_MODEL_WAV2VEC2,
    EM_MODEL_TRANSFORMER,
    EM_MODEL_COUNT
} em_model_kind;

/* What could not be had in spite of a plan: later requests do without. Each rung is taken once. */
typedef struct em_step_down {
    bool streamed;    /* the least block of the width that was chosen */
    bool narrow;      /* the least of all */
    bool no_images;   /* streamed weights are read from their files every time */
    bool small_ring;  /* through a small ring */
    char reason[256]; /* of the last one; or empty */
} em_step_down;

/* A second place to compute, for the audio encoder alone, where --audio_device asks for one. Its
 * memory is the host's. */
typedef struct em_annex {
    const em_ops *ops; /* NULL: there is none, the encoder runs where everything does */
    em_residency residency;
    em_arena block;
} em_annex;

struct em_engine {
    em_log log;
    em_model_config *folder; /* owned, like everything below */
    em_ckpt *ckpt[EM_MODEL_COUNT];
    em_vae *vae;
    em_umt5 *t5;
    em_clip_vit *clip;
    em_wav2vec2 *speech;
    em_dit *dit;
    em_tokenizer *tokenizer;
    em_prompt_cache *prompts;
    em_prompt_folder *prompt_folder; /* NULL: prompts are not kept on the disk */
    em_pool *pool;
    const em_ops *ops;
    em_dtype dtype;
    em_residency residency;
    em_arena block; /* device memory of the runs; kept between them unless memory is to be spared */
    em_annex annex;
    em_memory_mode memory_mode;
    uint64_t vram_budget_bytes, ram_budget_bytes; /* this lane's; 0: what is free */
    int lane, lanes;
    uint64_t base_bytes; /* the process, once all models were opened */
    em_rates rates;
    em_step_down down;
    em_memory_report report;
    char said[sizeof((em_result *)NULL)->policy]; /* told last */
    unsigned plans;                               /* serials handed out to plans so far */
    atomic_bool cancel;
};

typedef enum em_memory_kind {
    EM_MEMORY_BLOCK,  /* scratch and weights, on the device */
    EM_MEMORY_RING,   /* page-locked, between files and the device */
    EM_MEMORY_IMAGES, /* page-locked, of streamed weights */
    EM_MEMORY_ANNEX   /* of the host, for the annex */
} em_memory_kind;

/* A run on the engine's device without an arena: open one (or a virtual one) in it before use. */
em_run em_engine_run(em_engine *e);
em_run em_engine_annex_run(em_engine *e); /* the same in the annex, if there is one */

/* A block of device memory of at least size_bytes in e->block; weights in an older one that is too
 * small are given up. The same for e->annex.block. */
em_status em_engine_take_block(em_engine *e, size_t size_bytes, em_err *err);
em_status em_engine_take_annex(em_engine *e, size_t size_bytes, em_err *err);
/* Takes the next rung after `failed`, which kind of memory it was that could not be had; false:
 * none is left. *what (borrowed) becomes its description. */
bool em_engine_step_down(em_engine *e, em_memory_kind failed, const char **what);
/* Gives both blocks back, whatever the mode. */
em_status em_engine_drop_block(em_engine *e, em_err *err);
/* After a run, and after the annex's part of it: gives the block back where memory is to be
 * spared. */
em_status em_engine_release_block(em_engine *e, em_err *err);
em_status em_engine_release_annex(em_engine *e, em_err *err);

/* The budget of all lanes that gives each of them this one; its own where there is one lane. */
uint64_t em_engine_vram_of_all(const em_engine *e, uint64_t bytes);
uint64_t em_engine_ram_of_all(const em_engine *e, uint64_t bytes);

/* The table that hears the voice when `ops` does the rest; NULL: `ops` does that, too. */
const em_ops *em_engine_annex_ops(const em_ops *ops, em_audio_device where);

/* Opens one model's checkpoint as the folder says: files laid over one another, prefixes dropped.
 * *out is owned by the caller. */
em_status em_engine_checkpoint(em_ckpt **out, const em_model_config *folder, em_model_kind kind,
                               em_err *err);
const char *em_model_name(em_model_kind kind); /* "transformer" */

#endif
