/* What requests were to take and what they took: a JSON file for programs, and a drawing of memory
 * along time beside it for people. Both are rewritten after every request. */
#ifndef EM_PIPELINE_MEMORY_REPORT_H
#define EM_PIPELINE_MEMORY_REPORT_H

#include "base/str.h"
#include "echomimic.h"

typedef struct em_job em_job;

/* One moment of a run. */
typedef struct em_memory_sample {
    double ms; /* since the first request began */
    em_stage stage;
    uint64_t weights_bytes; /* in the block */
    uint64_t scratch_bytes; /* the stage's peak so far */
    uint64_t mapped_bytes;  /* of weights used where their files have them */
    uint64_t rss_bytes;
} em_memory_sample;

typedef struct em_memory_job {
    em_result plan, real;
    uint64_t block_bytes; /* that the engine held */
    double start_ms;
    size_t begin, end; /* its samples */
} em_memory_job;

/* In an engine. Without a path everything below does nothing. */
typedef struct em_memory_report {
    char *path;               /* owned */
    em_memory_sample *sample; /* owned array */
    size_t samples, samples_cap;
    em_memory_job *job; /* owned array */
    size_t jobs, jobs_cap;
    const char *mode, *device;
    bool host;                           /* the device is the host */
    uint64_t device_budget, host_budget; /* 0: none was given */
    uint64_t process_bytes;              /* of host_bytes: all lanes have it once */
    int lanes;
    double start_ms;
    bool failed; /* out of memory: no more is written down */
} em_memory_report;

em_status em_memory_report_open(em_memory_report *r, const char *path, em_err *err);
void em_memory_report_close(em_memory_report *r);

/* Makes room for the samples of a job that was planned, so that its run allocates nothing. */
void em_memory_report_begin(em_memory_report *r, em_job *j);
void em_memory_report_sample(em_memory_report *r, const em_job *j);
/* The job is done: writes both files. A failure is a warning: the video is whole. */
void em_memory_report_end(em_memory_report *r, const em_job *j);

/* The drawing: SVG, of a fixed width. */
void em_memory_svg(em_str *out, const em_memory_report *r);

#endif
