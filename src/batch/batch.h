/* Many requests, one engine: fetch what is remote, make each video, survive every failure. */
#ifndef EM_BATCH_BATCH_H
#define EM_BATCH_BATCH_H

#include "base/log.h"
#include "batch/manifest.h"
#include "batch/report.h"

#include <stdatomic.h>

typedef struct em_batch {
    const em_manifest *jobs;
    em_job_report *report; /* (jobs->count), the caller's */
    const char *save_path; /* exists */
    const char *temp_dir;  /* for downloads; exists */
    bool keep_temp, force;
    const atomic_bool *cancel; /* set by whoever also cancels the engine */
    const em_log *log;
    void (*job_begins)(void *user, size_t index); /* may be NULL */
    void (*progress)(void *user, const em_progress *p);
    void *user;
} em_batch;

/* Runs the jobs in order and fills the report. A job's failure never stops the others; a full disk
 * (EM_NOSPC) and a cancel do, and are returned. */
em_status em_batch_run(const em_batch *b, em_engine *engine, em_err *err);

#endif
