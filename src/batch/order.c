/* In which order jobs run, and which of them are this process's. */
#include "batch/state.h"

#include "base/hash.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- order ----------------------------------------------------------------------------------- */

/* Neighbours share the prompt (it is encoded once), then what decides the size of the work (scratch
 * is kept); otherwise the list's order. */
static int by_likeness(const void *a, const void *b)
{
    const em_batch_item *x = *(em_batch_item *const *)a, *y = *(em_batch_item *const *)b;
    const em_params *p = &x->job->params, *q = &y->job->params;
    int d = strcmp(p->prompt ? p->prompt : "", q->prompt ? q->prompt : "");
    if (!d) d = (p->sample_size[0] > q->sample_size[0]) - (p->sample_size[0] < q->sample_size[0]);
    if (!d) d = (p->sample_size[1] > q->sample_size[1]) - (p->sample_size[1] < q->sample_size[1]);
    if (!d) d = (p->video_length > q->video_length) - (p->video_length < q->video_length);
    return d ? d : (x->job->index > y->job->index) - (x->job->index < y->job->index);
}

void em_batch_sort(em_batch *b)
{
    for (size_t i = 0; i < b->count; i++) b->order[i] = &b->item[i];
    qsort(b->order, b->count, sizeof *b->order, by_likeness);
    for (size_t i = 0; i < b->count; i++) b->order[i]->position = i + 1;
}

/* ---- shards ---------------------------------------------------------------------------------- */

/* By the hash of the name, so that a job stays where it is when others are added to the list or
 * leave it. Capitals are no difference, as in the check for duplicates. */
bool em_job_in_shard(const em_batch_job *job, int shard, int shards)
{
    char place[32];
    uint64_t h = EM_FNV1A64_INIT;
    if (shards <= 0) return true;
    snprintf(place, sizeof place, "item %zu", job->index);
    for (const char *p = job->name ? job->name : place; *p; p++) {
        char c = (char)tolower((unsigned char)*p);
        h = em_fnv1a64(h, &c, 1);
    }
    h ^= h >> 32; /* its low bits alone would be uneven */
    h *= 0x9e3779b97f4a7c15u;
    return (h >> 32) % (uint64_t)shards == (uint64_t)(shard - 1);
}
