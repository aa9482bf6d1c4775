#include "pipeline/params.h"

#include "pipeline/noise.h"

#include <stddef.h>
#include <string.h>

em_params em_params_default(void)
{
    return (em_params){
        .prompt = "Speaker speaks clearly with clear mouth movement and facial expressions.",
        .sampler = EM_SAMPLER_UNIPC,
        .num_inference_steps = 8,
        .guidance_scale = 6.0,
        .audio_guidance_scale = 6.0,
        .seed = 43,
        .rng = EM_RNG_CUDA,
        .rng_sm_count = EM_NOISE_SM_COUNT,
        .rng_threads_per_sm = EM_NOISE_THREADS_PER_SM,
        .video_length = 300,
        .sample_size = {512, 512},
        .fps = 25,
        .teacache = EM_TEACACHE_BRANCH,
        .teacache_threshold = 0.1,
        .num_skip_start_steps = 5,
        .color_transfer = true,
        .crf = 18,
    };
}

typedef enum kind { INT, DOUBLE, INT64 } kind;

typedef struct range {
    const char *flag;
    size_t offset;
    kind kind;
    double least, most;
} range;

#define ROW(flag, field, kind, least, most)                                                        \
    {                                                                                              \
        flag, offsetof(em_params, field), kind, least, most                                        \
    }

static const range ranges[] = {
    ROW("video_length", video_length, INT, 1, 4093),
    ROW("num_inference_steps", num_inference_steps, INT, 1, 1000),
    ROW("guidance_scale", guidance_scale, DOUBLE, 0, 100),
    ROW("audio_guidance_scale", audio_guidance_scale, DOUBLE, 0, 100),
    ROW("seed", seed, INT64, 0, 0x1p63),
    ROW("teacache_threshold", teacache_threshold, DOUBLE, 0, 10),
    ROW("num_skip_start_steps", num_skip_start_steps, INT, 0, 1000),
    ROW("sample_size", sample_size[0], INT, 16, 4096),
    ROW("sample_size", sample_size[1], INT, 16, 4096),
    ROW("fps", fps, INT, 1, 120),
    ROW("shift", shift, DOUBLE, 0.01, 100),
    ROW("riflex_k", riflex_k, INT, 1, 1024),
    ROW("cfg_skip_ratio", cfg_skip_ratio, DOUBLE, 0, 1),
    ROW("crf", crf, INT, 0, 51),
    ROW("rng_sm_count", rng_sm_count, INT, 1, 4096),
    ROW("rng_threads_per_sm", rng_threads_per_sm, INT, 256, 4096),
};

static double value_of(const em_params *p, const range *r)
{
    const char *at = (const char *)p + r->offset;
    switch (r->kind) {
    case INT: return *(const int *)at;
    case INT64: return (double)*(const int64_t *)at;
    case DOUBLE:
    default: return *(const double *)at;
    }
}

/* 0 means "not given" for these two. */
static bool may_be_zero(const range *r)
{
    return r->offset == offsetof(em_params, shift) || r->offset == offsetof(em_params, riflex_k);
}

em_status em_params_check(const em_params *p, em_err *err)
{
    if (!p->prompt)
        return em_fail(err, EM_INVAL, "prompt: there is none (an empty one is allowed)");
    if ((unsigned)p->sampler > EM_SAMPLER_EULER || (unsigned)p->rng > EM_RNG_CPU ||
        (unsigned)p->teacache > EM_TEACACHE_REFERENCE)
        return em_fail(err, EM_INVAL, "sampler, rng or teacache is none of the values there are");
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const range *r = &ranges[i];
        double v = value_of(p, r);
        if ((v >= r->least && v <= r->most) || (v == 0 && may_be_zero(r))) continue;
        return em_fail(err, EM_INVAL, "%s is %g, it must be between %g and %g", r->flag, v,
                       r->least, r->most);
    }
    return EM_OK;
}

bool em_params_range(const char *flag, double *least, double *most)
{
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (strcmp(ranges[i].flag, flag)) continue;
        *least = ranges[i].least;
        *most = ranges[i].most;
        return true;
    }
    return false;
}
