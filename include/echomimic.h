/* echomimic: talking-human video from a portrait and a voice, with EchoMimicV3-Flash.
 *
 * The one installed header. An engine holds the five models and a device and lives long; a request
 * is one portrait and one voice; frames come back through a callback as they are decoded.
 *
 *     em_err err = {0};
 *     em_engine *engine = NULL;
 *     em_engine_params where = em_engine_params_default();
 *     where.model_name = "models/base";
 *     where.transformer_path = "models/flash/diffusion_pytorch_model.safetensors";
 *     where.wav2vec_model_dir = "models/chinese-wav2vec2-base";
 *     if (em_engine_open(&engine, &where, &err)) { puts(err.msg); return 1; }
 *
 *     em_request q = em_request_default();
 *     q.image_path = "portrait.png";
 *     q.audio_path = "voice.wav";
 *     q.output_path = "talk.mp4";
 *     em_result result;
 *     if (em_render(engine, &q, &result, &err)) puts(err.msg);
 *     em_engine_close(&engine);
 *
 * Every fallible function returns em_status, takes an em_err last and leaves its outputs untouched
 * when it fails. Nothing here prints, exits or aborts. An engine serves one request at a time;
 * em_engine_cancel may be called from any thread and from a signal handler.
 */
#ifndef ECHOMIMIC_H
#define ECHOMIMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EM_API __attribute__((visibility("default")))

/* ---- failure and messages -------------------------------------------------------------------- */

/* Every way to fail. Add a row, never a number. */
#define EM_STATUS_MAP(X)                                                                           \
    X(OK, "ok")                                                                                    \
    X(NOMEM, "out of host memory")                                                                 \
    X(NOVRAM, "out of device memory")                                                              \
    X(IO, "input/output error")                                                                    \
    X(FORMAT, "malformed or unsupported file")                                                     \
    X(MISMATCH, "weights do not fit the model")                                                    \
    X(INVAL, "invalid argument")                                                                   \
    X(DEVICE, "device error")                                                                      \
    X(NOSPC, "no space left")                                                                      \
    X(NETWORK, "network failure")                                                                  \
    X(EXPIRED, "the signed address has expired")                                                   \
    X(VERDICT, "the result failed its checks")                                                     \
    X(CANCELLED, "cancelled")

typedef enum em_status {
#define X(name, text) EM_##name,
    EM_STATUS_MAP(X)
#undef X
} em_status;

typedef struct em_err {
    em_status code;
    char msg[512]; /* one sentence: which file, tensor or flag, expected, found; empty for EM_OK */
} em_err;

EM_API const char *em_status_text(em_status code); /* "out of host memory"; never NULL */

typedef enum em_level { EM_LOG_DEBUG, EM_LOG_INFO, EM_LOG_WARN, EM_LOG_ERROR } em_level;

/* Where messages go. fn NULL means silence; it may be called from any thread; msg is one line
 * without a newline, borrowed for the call. */
typedef struct em_log {
    void (*fn)(void *user, em_level level, const char *msg);
    void *user;
} em_log;

/* ---- engine ---------------------------------------------------------------------------------- */

typedef enum em_weight_dtype {
    EM_WEIGHT_BFLOAT16,
    EM_WEIGHT_FLOAT16,
    EM_WEIGHT_FLOAT32
} em_weight_dtype;
typedef enum em_memory_mode {
    EM_MEMORY_LIGHTWEIGHT,
    EM_MEMORY_BEEFY,
    EM_MEMORY_AUTO
} em_memory_mode;
/* Which device hears the voice. CPU: wav2vec2 runs on the processor and its features go to the
 * device; they differ in their last bits from the device's own, and so do the frames. */
typedef enum em_audio_device {
    EM_AUDIO_DEVICE_AUTO, /* as DEVICE */
    EM_AUDIO_DEVICE_CPU,
    EM_AUDIO_DEVICE_DEVICE /* the engine's; the same as CPU where that is the engine's */
} em_audio_device;

/* All strings are borrowed for the call of em_engine_open. */
typedef struct em_engine_params {
    const char *model_name;  /* folder: VAE, UMT5, CLIP, tokenizer, base transformer */
    const char *config_path; /* config.yaml; NULL: the built-in one */
    const char
        *transformer_path; /* Flash weights, laid over the base transformer; NULL: base alone */
    const char *wav2vec_model_dir; /* folder */
    const char *vae_path;  /* instead of the one that the configuration names; NULL: that one */
    int ckpt_idx;          /* which checkpoint of a transformer_path folder */
    const char *device;    /* "auto", "cpu" */
    em_weight_dtype dtype; /* operands of matrix products */
    int threads;           /* 0: every core that this process may use */
    em_memory_mode memory_mode;
    em_audio_device audio_device;
    /* Of the device's memory, and of the host's, that this process may take; 0: what is free. A
     * request that cannot keep to them is refused before it starts. On the CPU both bound the same
     * memory: the first what is allocated for a run, the second everything. */
    uint64_t vram_budget_bytes, ram_budget_bytes;
    /* JSON of what every request was to take and took, rewritten after each of them, and a drawing
     * of it beside it (.svg in place of .json); NULL: none. */
    const char *memory_report_path;
    /* A small file where the rates that this machine reached are kept for later forecasts; NULL:
     * none. */
    const char *rates_path;
    em_log log; /* its user pointer must outlive the engine */

    /* Encoded prompts, kept on the disk from run to run: a folder (made if it is not there), what
     * names the text encoder (its checkpoint's content, and anything else outside of this engine
     * that changes what it computes), and how much may lie there (0: 256 MiB; those used longest
     * ago go). Without a folder or without a name none are kept. A prompt found there is encoded
     * by nobody: the text encoder's weights stay untouched. */
    const char *prompt_dir, *prompt_key;
    uint64_t prompt_dir_bytes;

    /* Requests at once: an engine each, used by one thread each, of which this is the lane-th (from
     * 0). Every one takes its share of the budgets, or of what is free when it is opened: open all
     * of them, with the same parameters, before the first works. `threads` is the engine's own. 0
     * lanes: 1. */
    int lane, lanes;
} em_engine_params;

enum { EM_LANES_MAX = 8 };

typedef struct em_engine em_engine;

EM_API em_engine_params em_engine_params_default(void);
/* Maps and checks all checkpoints (every missing or mis-shaped tensor is reported through the log);
 * reads no weights yet. *out is owned by the caller: em_engine_close. */
EM_API em_status em_engine_open(em_engine **out, const em_engine_params *p, em_err *err);
EM_API void em_engine_close(em_engine **engine); /* NULL inside is allowed */
/* The request that is running ends with EM_CANCELLED soon; later ones too, until
 * em_engine_resume. */
EM_API void em_engine_cancel(em_engine *engine);
EM_API void em_engine_resume(em_engine *engine);

/* ---- request --------------------------------------------------------------------------------- */

typedef enum em_sampler_kind {
    EM_SAMPLER_UNIPC,
    EM_SAMPLER_DPMPP,
    EM_SAMPLER_EULER
} em_sampler_kind;
typedef enum em_rng_kind { EM_RNG_CUDA, EM_RNG_CPU } em_rng_kind;
typedef enum em_teacache_mode {
    EM_TEACACHE_OFF,
    EM_TEACACHE_BRANCH,
    EM_TEACACHE_REFERENCE
} em_teacache_mode;

/* The knobs of the method; em_params_default() gives the command line's defaults. */
typedef struct em_params {
    const char *prompt; /* borrowed for the call */
    em_sampler_kind sampler;
    int num_inference_steps;
    double guidance_scale; /* > 1 switches the two-branch mode on; its value has no other effect */
    double audio_guidance_scale; /* v = u + s (c - u) */
    double cfg_skip_ratio;       /* the last part of the steps runs the audio branch alone */
    double shift;                /* of the noise schedule; 0: 5, or the configuration's for EULER */
    int64_t seed;
    em_rng_kind rng;                      /* whose noise a seed means */
    int rng_sm_count, rng_threads_per_sm; /* the reference's card, for EM_RNG_CUDA */
    int video_length;                     /* frames at most */
    int sample_size[2];                   /* height, width: an area bound */
    int fps;
    em_teacache_mode teacache;
    bool teacache_offload; /* what it keeps is in host memory, not the device's: the same frames */
    double teacache_threshold;
    int num_skip_start_steps;
    int riflex_k; /* 0: off */
    bool color_transfer;
    int crf; /* H.264 quality, em_render */

    /* Where a request that is cut short goes on: a small file that follows every step; NULL: none.
     * The identity is text of the caller's for what cannot be seen from here and changes the
     * result: the checkpoints' content above all. A file that is damaged, or another request's
     * (picture, sound, parameters, type, device and identity are all compared), is ignored with a
     * warning. The result is bit for bit that of an undisturbed run. The file stays when the
     * request is over: em_resume_discard it once the result is safe, as em_render does. Both are
     * borrowed for the call. em_plan counts the memory that it takes and looks at no file. */
    const char *resume_path, *resume_identity;
} em_params;

EM_API em_params em_params_default(void);

typedef enum em_stage {
    EM_STAGE_PREPARE, /* decode, resize, resample: the host */
    EM_STAGE_ENCODE,  /* VAE: the portrait */
    EM_STAGE_TEXT,    /* UMT5, and the transformer's keys and values of it; so the next two */
    EM_STAGE_IMAGE,   /* CLIP */
    EM_STAGE_AUDIO,   /* wav2vec2 */
    EM_STAGE_DENOISE, /* the transformer */
    EM_STAGE_DECODE,  /* VAE, colour transfer, the sink */
    EM_STAGE_COUNT
} em_stage;

EM_API const char *em_stage_name(em_stage s); /* "denoise" */

/* One call when a stage begins (done = 0), one a step or chunk, one when it ends (done = total). */
typedef struct em_progress {
    em_stage stage;
    int done, total;
    double stage_ms;     /* since the stage began */
    double remaining_ms; /* of the whole request, a forecast; < 0: unknown */
} em_progress;

/* Frames in order, RGB, 8 bit, width * height * 3 bytes, borrowed for the call. A status other than
 * EM_OK ends the request with it; err is the callback's to fill. */
typedef struct em_sink {
    void (*progress)(void *user, const em_progress *p); /* may be NULL */
    em_status (*begin)(void *user, int width, int height, int frames,
                       em_err *err);                                            /* may be NULL */
    em_status (*frame)(void *user, const uint8_t *rgb, int index, em_err *err); /* may be NULL */
    void *user;
} em_sink;

/* What happened, or, from em_plan, what would. Peaks are those of the stage. */
typedef struct em_stage_report {
    double ms;              /* 0 in a plan */
    double forecast_ms;     /* by the rates that this machine reached before, or by assumed ones */
    double flops;           /* multiply-adds of matrix products, times two */
    uint64_t scratch_bytes; /* peak of the block's scratch */
    uint64_t store_bytes;   /* of the block that the stage leaves to weights */
    uint64_t weights_bytes; /* peak of weights in that */
    uint64_t mapped_bytes;  /* peak of weights used where their files are mapped */
    uint64_t copied_bytes;  /* weights brought into the block */
    uint64_t packed_bytes;  /* of them, those that the host read from files and converted */
    double packed_ms;       /* the host's time for that; 0 in a plan */
    /* By the device's clock: the time of its copies, and the time for which it computed nothing
     * because weights were not there yet; < 0: it has no clock. On the CPU both are packed_ms. */
    double copy_ms, copy_waited_ms;
    uint64_t rss_bytes; /* the process in memory at its end, or its peak if that was raised by
                             * this stage; 0 in a plan */
} em_stage_report;

typedef struct em_result {
    int width, height, frames;
    int64_t seed;
    int steps;              /* of the sampler, in all */
    int steps_resumed;      /* of them, those that resume_path spared this run */
    int forwards;           /* transformer forwards run now; in a plan: at most */
    int forwards_replayed;  /* of them, those whose blocks were a graph's; 0 in a plan */
    uint64_t device_bytes;  /* the block of device memory: scratch, and weights that moved there */
    uint64_t scratch_bytes; /* peak of scratch in it */
    uint64_t weight_bytes;  /* peak of weights that are there at once, in the block or mapped */
    uint64_t copied_bytes;  /* weights brought into the block */
    uint64_t mapped_bytes;  /* peak of weights used where their files are mapped */
    uint64_t pinned_bytes;  /* page-locked host memory; 0 on the CPU */
    /* What the device's driver counted as used at most, of samples at every step, by everybody on
     * the card; and what a process takes of it beside the block, as the device states. 0 on the
     * CPU; the first 0 in a plan. */
    uint64_t driver_bytes, context_bytes;
    uint64_t host_bytes; /* the forecast for this process in host memory, all included */
    uint64_t smallest_bytes, largest_bytes; /* blocks that make sense for this request */
    uint64_t smallest_vram_budget, smallest_ram_budget; /* that do for it, in any mode */
    double forecast_ms;
    bool rates_measured; /* the forecast is by rates of this machine */
    int width_rung;      /* how many cuts narrower than the widest: 0, 1, … */
    char policy[320];    /* what was chosen and why, in words */
    char step_down[256]; /* what failed in spite of the plan and what was done; or empty */
    double color_ms;     /* of EM_STAGE_DECODE: the colour transfer */
    /* The device that hears the voice ("cuda:0"). Where it is another than the rest's
     * (audio_device), it has a block of host memory of its own, 0 otherwise, and in it peaks of
     * scratch and of weights; the last are used where their file has them. All are part of
     * host_bytes and of nothing else above. */
    char voice_device[24];
    uint64_t voice_block_bytes, voice_scratch_bytes, voice_weights_bytes, voice_mapped_bytes;
    em_stage_report stage[EM_STAGE_COUNT];
} em_result;

/* A picture and a sound in memory. */
typedef struct em_picture {
    const uint8_t *rgb; /* height * width * 3 */
    int width, height;
} em_picture;

typedef struct em_sound {
    const float *mono; /* n samples */
    size_t n;
    int rate_hz;
} em_sound;

/* From pixels and samples to frames. `result` may be NULL. */
EM_API em_status em_generate(em_engine *engine, const em_picture *image, const em_sound *audio,
                             const em_params *p, const em_sink *sink, em_result *result,
                             em_err *err);
/* The same without running it: sizes, scratch, weights and arithmetic. Pixels and samples are not
 * read: `rgb` and `mono` may be NULL. */
EM_API em_status em_plan(em_engine *engine, const em_picture *image, const em_sound *audio,
                         const em_params *p, em_result *result, em_err *err);

/* Removes what resume_path left, and what a killed process left of writing it. NULL is allowed. */
EM_API void em_resume_discard(const char *resume_path);

/* The picture and the sound of a request, decoded in a thread of their own ahead of their turn. */
typedef struct em_media em_media;

/* Begins and returns; *out is owned by the caller: em_media_close. Needs no engine; any number may
 * be under way. The paths are copied. */
EM_API em_status em_media_begin(em_media **out, const char *image_path, const char *audio_path,
                                em_err *err);
/* Blocks until both are there. A failure (EM_IO, EM_FORMAT, EM_NOMEM) is told again every time. */
EM_API em_status em_media_wait(em_media *m, em_err *err);
EM_API void em_media_close(em_media **m); /* waits for the thread; NULL inside is allowed */

/* From files to a file. */
typedef struct em_request {
    const char *image_path, *audio_path; /* local files */
    em_media *media;         /* begun for these two, borrowed; NULL: they are read now */
    const char *output_path; /* .mp4; written under another name and renamed when whole */
    em_params params;
    void (*progress)(void *user, const em_progress *p); /* may be NULL */
    void *user;
} em_request;

EM_API em_request em_request_default(void);
EM_API em_status em_render(em_engine *engine, const em_request *q, em_result *result, em_err *err);

EM_API const char *em_version(void); /* "0.1.0" */

#ifdef __cplusplus
}
#endif

#endif
