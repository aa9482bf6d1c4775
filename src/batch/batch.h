/* Many jobs, one engine, or a few that work at once.
 *
 *     open      finished videos are found, commits that were cut short are completed, the folder is
 *               made: nothing is loaded or fetched yet
 *     fetch     media behind addresses, all up front, on a thread of their own: signed addresses
 *               expire; returns at once
 *     run       job after job, ordered so that neighbours share prompts and sizes, on as many lanes
 *               as there are engines; one that fails does not stop the others, a full disk does
 *     deliver   waits for the uploads
 *     report    what became of each, as JSON
 *
 * While one job is denoised, the media of the next are decoded, the video of the one before is
 * encoded, checked and recorded, and those before that are uploaded.
 *
 * A job goes from WAITING to one of the other states, once (an upload that fails turns DONE and
 * KEPT into UNDELIVERED). */
#ifndef EM_BATCH_BATCH_H
#define EM_BATCH_BATCH_H

#include "batch/identity.h"
#include "batch/manifest.h"
#include "io/fetch.h"

#include <stdatomic.h>

typedef enum em_job_state {
    EM_JOB_WAITING, /* in a report: it was not started */
    EM_JOB_DONE,
    EM_JOB_KEPT,        /* it was finished before */
    EM_JOB_UNDELIVERED, /* it is finished, the upload failed */
    EM_JOB_FAILED,
    EM_JOB_INVALID, /* the list is wrong about it */
    EM_JOB_INTERRUPTED,
    EM_JOB_STATES
} em_job_state;

const char *em_job_state_name(em_job_state s); /* "done" */

typedef enum em_delivery {
    EM_DELIVERY_NONE, /* nobody asked for one */
    EM_DELIVERY_DUE,
    EM_DELIVERY_DONE,
    EM_DELIVERY_FAILED,
} em_delivery;

typedef struct em_batch_item {
    const em_batch_job *job; /* borrowed from the manifest */
    struct em_batch *batch;  /* whose it is */
    em_log log;              /* messages about it */
    size_t position;         /* 1-based, in the order of work */
    int lane;                /* which of the engines makes it */
    char *output;            /* path of the video; owned, like the identity and the warnings */
    em_identity identity;
    em_job_state state;
    em_err err;
    em_result result; /* of a job that is done */
    double seconds;
    double cut_seconds; /* of the sound, behind the end of the video */
    bool found;         /* KEPT, and no record knew the video: somebody else made it */
    bool idle;          /* --retry_failed: it never failed, and is not started now */
    bool elsewhere;     /* another process makes it now */
    bool aside;         /* an older video has the name: it is kept under another one */
    char **warning;
    size_t warnings, warnings_cap;

    /* media: paths and hashes of the content */
    const char *image, *audio; /* the job's own, or the fetcher's */
    size_t image_handle, audio_handle;
    char image_sha256[EM_SHA256_HEX_BYTES], audio_sha256[EM_SHA256_HEX_BYTES];

    em_delivery delivery;
    em_err delivery_err;
    int delivery_tries;
} em_batch_item;

bool em_item_waits(const em_batch_item *it); /* it is meant, and was not started */

/* From the threads of the lanes, one at a time. A lane has one job between its begin and the begin
 * of its next one. */
typedef struct em_batch_events {
    void (*begin)(void *user, const em_batch_item *item);
    void (*progress)(void *user, const em_batch_item *item, const em_progress *p);
    void (*end)(void *user, const em_batch_item *item); /* maybe after the lane's next begin */
    void *user;
} em_batch_events; /* any of them may be NULL */

typedef struct em_batch_options {
    const char *save_path;
    const char *temp_dir; /* NULL: $TMPDIR, or /tmp */
    bool keep_temp, force, retry_failed;
    bool ledger;  /* keep one in save_path; without it a whole video of a job's name is finished */
    bool dry_run; /* make nothing */
    const char *const *only; /* names of the jobs that are meant; none: all */
    size_t only_count;
    int shard, shards;   /* the shard-th part (from 1) of so many; 0: everything */
    const em_net *allow; /* networks that are not public and may be talked to */
    size_t allow_count;
    const em_model_config *models;
    em_machinery machinery;
    em_log log;
    const atomic_bool *stop; /* when it becomes true nothing new begins; may be NULL */
} em_batch_options;

typedef struct em_batch em_batch;

/* manifest and what options point to are borrowed until em_batch_close. EM_INVAL: `only` names no
 * job. */
em_status em_batch_open(em_batch **out, const em_manifest *manifest,
                        const em_batch_options *options, em_err *err);
void em_batch_close(em_batch **b); /* removes what was fetched */

/* For the engine of a lane (from 0): warnings reach the report; which prompts it may share on the
 * disk. Borrowed until em_batch_close. */
em_log em_batch_log(em_batch *b, int lane);
const char *em_batch_prompt_key(const em_batch *b);

em_status em_batch_fetch(em_batch *b, em_err *err);
/* A lane an engine, each in a thread of its own (the first in this one), at most EM_LANES_MAX; they
 * take the next job of the order whenever they are free. The videos are those of one lane. */
void em_batch_run(em_batch *b, em_engine *const *engines, int lanes, const em_batch_events *events);
void em_batch_deliver(em_batch *b);

size_t em_batch_count(const em_batch *b);                      /* of the jobs that are meant */
const em_batch_item *em_batch_at(const em_batch *b, size_t i); /* borrowed until close */
size_t em_batch_in_state(const em_batch *b, em_job_state s);
bool em_batch_delivers(const em_batch *b); /* there is something to upload */
bool em_batch_disk_full(const em_batch *b);

/* {"version", "parallel_jobs", "jobs": [{…}], "summary": {…}} under `path`, all or nothing. */
em_status em_batch_report(const em_batch *b, const char *path, em_err *err);

/* Whether the jobs that wait would be done sooner, in this mode, on another number of lanes of a
 * device with a memory of its own, in one sentence. False: no, or nothing is known. */
bool em_batch_advice(const em_batch *b, em_memory_mode mode, int lanes, char *text,
                     size_t text_bytes);

/* What a job that waits would take. */
typedef struct em_forecast {
    em_result plan;
    double flops; /* of all stages */
    bool exact;   /* picture and sound are here; otherwise the largest that the flags allow */
} em_forecast;

/* Reads files that are here, fetches nothing. A problem of the job's own (a file that is missing)
 * is the status. */
em_status em_batch_forecast(const em_batch *b, em_engine *engine, size_t i, em_forecast *out,
                            em_err *err);
/* Arithmetic a second that jobs like these reached here before; or, `measured`, what a short trial
 * lets expect. 0: not known. */
em_status em_batch_pace(const em_batch *b, em_engine *engine, double *flops_per_second,
                        bool *measured, em_err *err);

#endif
