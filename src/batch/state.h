/* A batch from inside: what its parts share. */
#ifndef EM_BATCH_STATE_H
#define EM_BATCH_STATE_H

#include "batch/batch.h"
#include "batch/claim.h"

#include <pthread.h>

#define EM_STEPS_SUFFIX ".steps" /* ".NAME.steps": what a job that was cut short goes on from */

typedef struct em_courier em_courier;

/* One engine's place in the batch. */
typedef struct em_batch_lane {
    em_batch *batch;
    em_batch_item *current; /* whom its messages are about; NULL: nobody */
} em_batch_lane;

struct em_batch {
    em_batch_options options;
    em_batch_item *item; /* owned; in the list's order */
    size_t count;
    em_batch_item **order; /* owned; the same in the order of work */
    em_ledger *ledger;     /* NULL: none is kept */
    int claims;            /* the lock file; -1: none */
    em_str models;         /* the lines of every identity that all jobs share */
    char models_hash[EM_SHA256_HEX_BYTES], prompt_key[EM_SHA256_HEX_BYTES];
    char pace[80]; /* device and type: what a job's speed depends on */

    char *temp;    /* owned; the folder of what is fetched, NULL: none was made */
    int temp_lock; /* held while it is in use */
    em_fetcher *fetcher;
    em_courier *courier;

    pthread_mutex_t lock; /* of `current`, of the warnings and of who opens the courier */
    em_batch_lane lane[EM_LANES_MAX];
    int lanes;          /* that worked */
    double run_seconds; /* all of them together */
    atomic_bool disk_full;
};

bool em_batch_stopping(const em_batch *b);
void em_item_end(em_batch_item *it, em_status st); /* DONE, FAILED, INTERRUPTED by its status */
char *em_item_beside(const em_batch_item *it, const char *format); /* DIR/format % NAME; owned */

/* judge.c: WAITING, or KEPT, by what the ledger and the folder say; whether something is to be
 * delivered; whether an older video is in the way. Completes a commit that was cut short. */
em_status em_item_judge(em_batch_item *it, em_err *err);
void em_item_keep(em_batch_item *it); /* KEPT: says so */
/* Commits of jobs that are not in the list, and what was left for jobs that are finished. */
em_status em_batch_recover(em_batch *b, em_err *err);
/* Is it what the row says? By size and time, else by the content. */
bool em_ledger_agrees(const em_ledger_file *recorded, const char *path);

/* record.c: the rows of a job on its way. */
em_status em_item_record_whole(em_batch_item *it, const char *part, em_err *err); /* COMMITTING */
em_status em_item_record_done(em_batch_item *it, em_err *err);
void em_item_record_failure(em_batch_item *it); /* what cannot be written is said */
/* The same picture and sound under other names or times: then the row takes the new identity and
 * the job is KEPT. */
em_status em_item_record_same(em_batch_item *it, bool *same, em_err *err);
void em_item_record_delivery(em_batch_item *it);
/* Has another process finished it since it was judged? Then it is KEPT. */
em_status em_item_finished(em_batch_item *it, em_err *err);

/* deliver.c */
void em_courier_take(em_batch *b, em_batch_item *it); /* its video is safe: upload it */
void em_courier_close(em_courier **c);                /* after the last upload */

/* temp.c: the folder of what is fetched, and those that killed programs left. */
em_status em_batch_make_temp(em_batch *b, em_err *err);
void em_batch_remove_temp(em_batch *b);

/* order.c */
void em_batch_sort(em_batch *b);
bool em_job_in_shard(const em_batch_job *job, int shard, int shards);

#endif
