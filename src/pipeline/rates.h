/* How fast this machine is: what forecasts of time are made of.
 *
 * A stage takes its arithmetic at the rate that the same stage reached last, plus a moment a matrix
 * product; bytes move at the rate that they moved last. Before anything was measured the rates are
 * assumed, and a forecast says so. */
#ifndef EM_PIPELINE_RATES_H
#define EM_PIPELINE_RATES_H

#include "echomimic.h"
#include "ops/table.h"

typedef struct em_rates {
    char *path;    /* owned; NULL: kept in this engine alone */
    char key[128]; /* device, threads and type: what the rates belong to */
    const em_log *log;
    double flops_per_ms[EM_STAGE_COUNT];
    bool measured[EM_STAGE_COUNT];
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

/* What a stage would take. */
double em_rates_stage_ms(const em_rates *r, em_stage s, double flops, int64_t products,
                         double copied_bytes, double packed_bytes);
bool em_rates_measured(const em_rates *r); /* the transformer's, which is most of the time */

#endif
