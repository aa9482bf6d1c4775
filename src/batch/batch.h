/* Many jobs, one engine.
 *
 *     open    finished videos are found, the folder is made: nothing is loaded or fetched yet
 *     fetch   media behind addresses, several at once: signed addresses expire
 *     run     job after job; one that fails does not stop the others, a full disk does
 *     report  what became of each, as JSON
 *
 * A job goes from WAITING to one of the other states, once. */
#ifndef EM_BATCH_BATCH_H
#define EM_BATCH_BATCH_H

#include "batch/manifest.h"

#include <stdatomic.h>

typedef enum em_job_state {
    EM_JOB_WAITING, /* in a report: it was not started */
    EM_JOB_DONE,
    EM_JOB_KEPT, /* a whole video of that name was there before */
    EM_JOB_FAILED,
    EM_JOB_INVALID, /* the list is wrong about it */
    EM_JOB_INTERRUPTED,
    EM_JOB_STATES
} em_job_state;

const char *em_job_state_name(em_job_state s); /* "done" */

typedef struct em_batch_item {
    const em_batch_job *job; /* borrowed from the manifest */
    char *output;            /* path of the video; owned, like the next two */
    char *image, *audio;     /* what was fetched; NULL: the job's own paths are files */
    em_job_state state;
    em_err err;
    em_result result; /* of a job that is done */
    double seconds;
} em_batch_item;

typedef struct em_batch_events {
    void (*begin)(void *user, const em_batch_item *item, size_t position, size_t count);
    void (*progress)(void *user, const em_progress *p);
    void (*end)(void *user, const em_batch_item *item);
    void *user;
} em_batch_events; /* any of them may be NULL */

typedef struct em_batch_options {
    const char *save_path;
    const char *temp_dir; /* NULL: $TMPDIR, or /tmp */
    bool keep_temp, force, allow_private;
    bool dry_run; /* make nothing */
    em_log log;
    const atomic_bool *stop; /* when it becomes true nothing new begins; may be NULL */
} em_batch_options;

typedef struct em_batch em_batch;

/* manifest and options' strings are borrowed until em_batch_close. */
em_status em_batch_open(em_batch **out, const em_manifest *manifest,
                        const em_batch_options *options, em_err *err);
void em_batch_close(em_batch **b); /* removes what was fetched */

em_status em_batch_fetch(em_batch *b, em_err *err);
void em_batch_run(em_batch *b, em_engine *engine, const em_batch_events *events);

size_t em_batch_count(const em_batch *b);
const em_batch_item *em_batch_at(const em_batch *b, size_t i); /* borrowed until close */
size_t em_batch_in_state(const em_batch *b, em_job_state s);
bool em_batch_disk_full(const em_batch *b);

/* {"version", "jobs": [{…}], "summary": {…}} under `path`, all or nothing. */
em_status em_batch_report(const em_batch *b, const char *path, em_err *err);

#endif
