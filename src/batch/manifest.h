/* The job list: JSON in, requests out. All problems are found before any work starts. */
#ifndef EM_BATCH_MANIFEST_H
#define EM_BATCH_MANIFEST_H

#include "base/log.h"
#include "base/status.h"

#include <stddef.h>

enum { EM_NAME_BYTES = 200 }; /* of an output_name, at most */

typedef struct em_batch_job {
    char *image,
        *audio;   /* owned: https URL, or path (relative ones are taken from the list's folder) */
    char *name;   /* owned: output_name */
    char *prompt; /* owned, or NULL: params.prompt is the batch's */
    em_params params;   /* the batch's, with this item's own settings */
    size_t index, line; /* place in the list: from 1 */
} em_batch_job;

typedef struct em_manifest {
    em_batch_job *job; /* owned; only good items */
    size_t count, cap;
    size_t items;    /* in the list */
    size_t problems; /* of items that are not among the jobs */
} em_manifest;

/* Reads and checks the whole list; every problem is one error line in the log, with its item and
 * line; unknown keys are warnings. EM_FORMAT when the file is no list at all. A list with problems
 * is still returned: m->problems says so. Close in any case. */
em_status em_manifest_read(em_manifest *m, const char *path, const em_params *defaults,
                           const em_log *log, em_err *err);
void em_manifest_close(em_manifest *m);

/* Whether `text` is an https (or any) URL and not a path. */
bool em_is_url(const char *text);

/* A name that stays inside its folder and shows as it is; else says why not into err. */
em_status em_name_check(const char *name, em_err *err);

#endif
