/* The job list: a JSON array of {"portrait_image", "portrait_audio", "output_name"}, each item with
 * parameters of its own if it wants. Everything that can be wrong with a list is found before any
 * work starts, all of it at once, by item and line. */
#ifndef EM_BATCH_MANIFEST_H
#define EM_BATCH_MANIFEST_H

#include "base/log.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define EM_OUTPUT_NAME_BYTES 200 /* at most, without what is appended */

typedef struct em_batch_job {
    size_t index; /* 1-based position in the list */
    int line;     /* where the item begins; 0: there is no list */
    /* Path or https address; a relative path counts from the list's own folder, or, if nothing is
     * there, from where the program was started. Owned, like the next four. */
    char *image, *audio;
    char *name;       /* output_name */
    char *output;     /* path of the video; NULL: SAVE_PATH/NAME_output.mp4 */
    char *prompt;     /* the job's own, or NULL */
    char *upload_url; /* where the video is PUT when it is made, or NULL; its query is a secret */
    em_params params; /* the batch's with the job's own laid over; prompt as above, or borrowed */
    unsigned own;     /* which of them are the job's: bits of the rows of manifest.c's settings */
    em_err problem;   /* why it cannot run; code EM_OK: it can */
} em_batch_job;

typedef struct em_manifest {
    em_batch_job *job; /* owned */
    size_t count, cap, invalid;
} em_manifest;

typedef struct em_manifest_options {
    const em_params
        *params;       /* of jobs that do not say otherwise; its prompt outlives the manifest */
    bool plain_http;   /* allowed in addresses: the fetcher knows which networks they may lead to */
    bool skip_invalid; /* bad items are warned of and marked; otherwise they fail the list */
    em_log log;
} em_manifest_options;

/* *out is the caller's: em_manifest_close. EM_FORMAT, EM_INVAL: the list is bad. EM_IO: it cannot
 * be read. */
em_status em_manifest_read(em_manifest *out, const char *path, const em_manifest_options *options,
                           em_err *err);

/* A list of one job: its video is `output`, or, if that is NULL, named after the picture up to its
 * first dot. */
em_status em_manifest_single(em_manifest *out, const char *image, const char *audio,
                             const char *output, const em_params *params, em_err *err);

/* Other values for what the jobs do not say themselves: a model's recommendations are known later
 * than the list. */
void em_manifest_rebase(em_manifest *m, const em_params *params);

void em_manifest_close(em_manifest *m);

bool em_is_address(const char *text); /* "https://…", or any other scheme */
/* The part of an address that may be shown: a signed one carries a secret behind its `?`. Into out,
 * cut there and at the room; a path comes through whole. */
void em_address_shown(char *out, size_t room, const char *text);

#endif
