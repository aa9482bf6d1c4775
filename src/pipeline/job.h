/* One request on its way: sizes, host buffers, and the tensors that the stages hand on.
 *
 * Everything on the host is allocated when the job is prepared; from then on the run's arena is
 * the only memory. The same job is run twice: on a plan (which yields the arena's size) and for
 * real. */
#ifndef EM_PIPELINE_JOB_H
#define EM_PIPELINE_JOB_H

#include "pipeline/color.h"
#include "pipeline/engine.h"
#include "pipeline/frames.h"
#include "pipeline/guidance.h"
#include "pipeline/policy.h"
#include "pipeline/resume.h"
#include "pipeline/sampler.h"
#include "pipeline/teacache.h"

/* Host memory that the device reads and writes by itself. */
typedef struct em_job_room {
    void *data; /* owned */
    size_t size_bytes;
    bool pageable; /* the device had none of that kind */
} em_job_room;

/* Decoded frames on their way to the sink. */
typedef struct em_job_frames {
    em_job_room room;
    float *pixels;    // (4, height, width, 3) in it
    uint8_t *rgb;     // (4, height, width, 3) the same in bytes, behind them
    em_event *copied; /* owned */
    int64_t first;    /* of the clip's frames */
    int count;        /* 0: nothing is under way */
} em_job_frames;

/* A branch's blocks, which are the same ops on the same addresses in every forward. */
typedef struct em_job_replay {
    em_recording recording; /* owned */
    uint64_t place;         /* of the weights, when it was made */
    bool ran;               /* once in the ordinary way: libraries have chosen, weights have come */
} em_job_replay;

/* The audio encoder's run, where the engine has an annex for it. */
typedef struct em_job_annex {
    em_run run;
    em_trace trace; /* owned */
    em_stage_need need;
    size_t block_bytes;
} em_job_annex;

struct em_job {
    em_engine *engine; /* borrowed, like the next two */
    const em_params *p;
    const em_sink *sink;
    em_run run;
    em_job_annex annex;

    int width, height; /* of the video */
    int frames;
    em_dit_grid grid; /* of the latents */
    int branches;     /* 2 with guidance, else 1 */
    uint64_t
        inputs_bytes; /* of the picture and the sound, the caller's, and what is made of them */

    /* host side, owned */
    float *image; // (height, width, 3) in [-1, 1]
    float *wave;  // (wave_n) 16 kHz, normalised
    size_t wave_n;
    em_prompt *prompt;   /* borrowed from the engine's cache */
    int32_t *window;     // (frames * 5) the frames that each audio window sees
    float *noise;        // (16, f, h, w)
    float *rope;         // (N, head_dim / 2, 2)
    float *e0;           // (steps, 6 * dim) time projections, for TeaCache
    float *latents;      // (16, f, h, w) the final ones, for the verdict
    em_dit_time *time;   // (steps) the embedded timesteps
    em_step_plan *steps; // (steps) which forwards run
    em_sampler *sampler;
    em_color *color;
    em_job_frames
        frames_under_way[2]; /* one is filled by the device while the other is handed on */
    unsigned turn;
    em_job_room offloaded[EM_BRANCHES]; /* p->teacache_offload: residuals, F32 (N, dim) each */
    em_verdict verdict;
    em_resume *resume; /* NULL: nothing is remembered */

    /* on the device, kept from stage to stage */
    em_tensor x;                     // (16, f, h, w) the latents
    em_tensor y;                     // (20, f, h, w) mask and portrait
    em_dit_cond cond[EM_BRANCHES];   /* text, image and rope are shared */
    em_tensor residual[EM_BRANCHES]; // (N, dim) what the blocks added when they last ran, if that
                                     // is kept here
    em_dit_time now;                 /* the step's; its e0 is at one place in all steps */

    em_job_replay replay[EM_BRANCHES]; /* while the transformer runs */

    /* what the plan found: the order of weights, and each stage's share of the block */
    em_trace trace;
    em_stage_need need[EM_STAGE_COUNT];
    em_policy policy;
    em_result plan; /* the forecast, once the result is the measurement */

    em_result result;
    em_stage stage;
    int reported; /* the last `done` of this stage that the sink was told */
    double start_ms, stage_start_ms, stage_start_flops;
    int64_t stage_start_products, stage_products[EM_STAGE_COUNT];
    uint64_t stage_start_peak; /* of the process */
    uint64_t block_held_bytes; /* by the engine, for this run */
    double total_flops;        /* by the plan; 0 while planning */
    bool began;                /* the sink was told: too late to start again */
};

/* Sizes, host buffers, the schedule. Without pixels or samples (a plan) their buffers stay
 * empty. */
em_status em_job_open(em_job *j, em_engine *e, const em_picture *image, const em_sound *audio,
                      const em_params *p, const em_sink *sink, em_err *err);
void em_job_close(em_job *j);

/* The method on a plan, at a width: every stage's scratch, the order of the weights (j->trace,
 * owned by the job), and the arithmetic. */
em_status em_job_rehearse(em_job *j, em_cut cut, em_memo *memo, em_err *err);
size_t em_job_latents(const em_job *j); /* how many values */
/* Of a branch's residual, where that is kept on the host; else 0. */
size_t em_job_offload_bytes(const em_job *j);
/* Room for them, before a run. */
em_status em_job_take_offload(em_job *j, em_err *err);

/* The stages of generate.c; failures stay in j->run.err. */
void em_job_encode(em_job *j);  /* y: the portrait as latents */
void em_job_text(em_job *j);    /* cond[].text */
void em_job_image(em_job *j);   /* cond[].image */
void em_job_audio(em_job *j);   /* cond[].audio, with and without the voice: hearing.c */
void em_job_denoise(em_job *j); /* x: from noise to the clip's latents */
void em_job_decode(em_job *j);  /* frames into the sink */

/* Before the run: the memory of the engine's annex, as the policy sized it. */
em_status em_job_take_annex(em_job *j, em_err *err);

/* How many latents go into the VAE at once when `done` of them are: the first goes alone. */
int64_t em_job_portion(const em_job *j, int64_t done);
/* Over an interruption (recall.c). A plan remembers and recalls nothing. */
em_status em_job_remember(em_job *j, em_err *err); /* opens p->resume_path, if there is one */
uint64_t em_job_remember_bytes(const em_job *j);   /* of the host's memory for it */
bool em_job_recall(em_job *j);           /* all steps were done: x holds the latents, decode them */
int em_job_resume_steps(em_job *j);      /* begun anew: how many steps that leaves out */
void em_job_anchor(em_job *j, int step); /* before a step */
void em_job_note(em_job *j);             /* after it */

/* Fills the slot of that step's forward again: what its blocks add at x (host memory). */
void em_job_residual(em_job *j, int step, em_branch branch, const float *x);

/* Brackets of a stage, and its steps: reports to the sink and the result. */
void em_job_stage(em_job *j, em_stage stage, int total);
void em_job_progress(em_job *j, int done, int total);
void em_job_stage_end(em_job *j, int total);

#endif
