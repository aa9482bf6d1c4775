/* What became of every job: a table for people, JSON for programs. */
#ifndef EM_BATCH_REPORT_H
#define EM_BATCH_REPORT_H

#include "base/status.h"
#include "base/str.h"
#include "batch/manifest.h"

#include <stddef.h>

typedef enum em_job_state {
    EM_JOB_NOT_RUN, /* the batch ended before its turn */
    EM_JOB_DONE,
    EM_JOB_SKIPPED, /* its video is there already */
    EM_JOB_FAILED,
} em_job_state;

typedef struct em_job_report {
    em_job_state state;
    em_result result; /* of a job that is done */
    double total_ms;
    char output[512];
    char error[512];
} em_job_report;

const char *em_job_state_name(em_job_state s); /* "done" */

/* A line a job and a line of totals, appended to text. */
void em_report_table(em_str *text, const em_manifest *m, const em_job_report *r);
/* SAVE_PATH/batch_report.json, complete or not at all. */
em_status em_report_write(const char *path, const em_manifest *m, const em_job_report *r,
                          em_err *err);

#endif
