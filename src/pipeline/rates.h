/* How fast this machine is: what forecasts of time are made of.
 *
 * A stage takes its arithmetic at the rate that the same stage reached last (the denoising has two:
 * steps that are replayed are faster), plus a moment a matrix product; bytes move at the rate that
 * they moved last. Before anything was measured the rates are
 * assumed, and a forecast says so. */
#ifndef EM_PIPELINE_RATES_H
#define EM_PIPELINE_RATES_H

#include "echomimic.h"
#include "ops/table.h"

/* What has a rate of its own: every stage, and the denoising with replayed steps. */
enum { EM_RATE_REPLAY = EM_STAGE_COUNT, EM_RATES };

typedef struct em_rates {
    char *path;    /* owned; NULL: kept in this engine alone */
    char key[128]; /* device, threads and type: what the rates belong to */
    const em_log *log;
    double flops_per_ms[EM_RATES];
    bool measured[EM_RATES];
    double product_ms;        /* a matrix product's own cost */
    double pack_bytes_per_ms; /* files to a store or a ring, by the host */
    double copy_bytes_per_ms; /* page-locked memory to the device */
    bool overlaps;            /* the device copies while it computes */
} em_rates;

/* Whose rates; everything is borrowed, the log until em_rates_close. */
typedef struct em_rates_params {
    const em_ops *ops;
    const em_ops *annex; /* hears the voice; NULL: ops does */
    const em_pool *pool;
    em_dtype dtype;
    int lanes;        /* requests at once: each is slower than one alone */
    const char *path; /* NULL: not kept */
    const em_log *log;
} em_rates_params;

/* Assumed rates, replaced by those that `path` has for this device. A file that cannot be used is a
 * debug message. */
void em_rates_open(em_rates *r, const em_rates_params *p);
void em_rates_close(em_rates *r);
/* A finished request's figures; written to the file. */
void em_rates_learn(em_rates *r, const em_result *result);

/* What a stage has to do. */
typedef struct em_stage_work {
    em_stage stage;
    bool replayed; /* the denoising's steps */
    double flops;
    int64_t products; /* matrix products */
    double copied_bytes, packed_bytes;
} em_stage_work;

/* What that would take. */
double em_rates_stage_ms(const em_rates *r, const em_stage_work *w);
bool em_rates_measured(const em_rates *r); /* the transformer's, which is most of the time */

#endif
