/* What became of every job, in a database beside the videos (SQLite, write-ahead log, synced at
 * every commit): a program that dies at any moment finds there what is finished and what was under
 * way.
 *
 * A job's row, by the file name of its video:
 *
 *                 +--> FAILED          says why; nothing is under the final name because of it
 *     (no row) ---+--> COMMITTING      the video is whole and on the disk under `part`, its hash is
 *                 |        |           known; it is about to get its name
 *                 |        +--> DONE   it has its name
 *                 +--> FOUND           a whole video was there that no row knew: left alone
 *
 * Secrets (queries of addresses) never reach it: callers hand in what may be shown.
 * A ledger may be used from several threads, and by several processes at once. On a network file
 * system, whose hosts share no memory, it keeps a rollback journal in place of the log. */
#ifndef EM_BATCH_LEDGER_H
#define EM_BATCH_LEDGER_H

#include "base/log.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_LEDGER_NAME "echomimic.db"

typedef enum em_ledger_state {
    EM_LEDGER_FAILED,
    EM_LEDGER_COMMITTING,
    EM_LEDGER_DONE,
    EM_LEDGER_FOUND,
    EM_LEDGER_STATES
} em_ledger_state;

enum { EM_LEDGER_HASH = 65, EM_LEDGER_NAME_ROOM = 300 };

/* What says which bytes a file has: size and time quickly, the hash for certain. */
typedef struct em_ledger_file {
    uint64_t size_bytes;
    int64_t mtime_ns;
    char sha256[EM_LEDGER_HASH];
} em_ledger_file;

typedef struct em_ledger_row {
    em_ledger_state state;
    char identity[EM_LEDGER_HASH]; /* of everything that made the frames; "": not known (FOUND) */
    char image_sha256[EM_LEDGER_HASH], audio_sha256[EM_LEDGER_HASH]; /* "": not known */
    em_ledger_file video;                                            /* not of FAILED */
    char part[EM_LEDGER_NAME_ROOM]; /* file name beside the final one; of COMMITTING */
    char aside
        [EM_LEDGER_NAME_ROOM]; /* name that an older video gets when this one takes its place */
    char *about;     /* what `identity` is the hash of, line by line; borrowed on put, owned by
                             the caller after find (em_free); may be NULL */
    char error[512]; /* of FAILED, and of an upload */
    char *target;    /* where it is to be delivered, without query; as `about` */
    bool delivered;  /* it was */
    double flops, seconds; /* of the work, for forecasts */
    char pace[80];         /* the machinery that did it */
} em_ledger_row;

typedef struct em_ledger em_ledger;

/* Opens or makes it. EM_FORMAT: damaged, or another program's, or a newer version's. EM_IO: locked,
 * or not readable. EM_NOSPC: no room to make it. `read_only` makes nothing: *out stays NULL, with
 * EM_OK, where there is none. */
em_status em_ledger_open(em_ledger **out, const char *path, bool read_only, em_err *err);
void em_ledger_close(em_ledger **l);

/* *found tells whether there is a row; only then is *row written (em_ledger_row_close it). */
em_status em_ledger_find(em_ledger *l, const char *output, em_ledger_row *row, bool *found,
                         em_err *err);
void em_ledger_row_close(em_ledger_row *row);
/* Replaces the row; it is on the disk when this returns. */
em_status em_ledger_put(em_ledger *l, const char *output, const em_ledger_row *row, em_err *err);

/* The name of some video whose commit was cut short, after `after` ("": the first) in the order of
 * names, or "" when there is none. */
em_status em_ledger_committing(em_ledger *l, const char *after, char out[EM_LEDGER_NAME_ROOM],
                               em_err *err);

/* A file's fingerprint while its size and time stay the same; *found as above. */
em_status em_ledger_fingerprint(em_ledger *l, const char *path, const em_ledger_file *file,
                                char out[EM_LEDGER_HASH], bool *found, em_err *err);
/* file->sha256 is what is remembered; by a ledger that is only read, nothing. */
em_status em_ledger_remember(em_ledger *l, const char *path, const em_ledger_file *file,
                             em_err *err);

/* Arithmetic a second that finished jobs had on this machinery; 0: there were none. */
em_status em_ledger_pace(em_ledger *l, const char *pace, double *flops_per_second, em_err *err);

#endif
