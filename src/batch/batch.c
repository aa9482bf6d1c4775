#include "batch/batch.h"

#include "base/alloc.h"
#include "base/hash.h"
#include "base/time.h"
#include "batch/render.h"
#include "io/fetch.h"
#include "io/file.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IMAGE_BYTES = 32 << 20, MAX_AUDIO_BYTES = 512 << 20 };

/* A local file for a path or an address. */
typedef struct media {
    const char *path; /* borrowed from the job, or `download` */
    char *download;   /* owned; a file to remove afterwards */
} media;

/* Downloads are named by a hash of the whole address: equal inputs are fetched once. */
static em_status localise(const em_batch *b, media *m, const char *source, size_t max_bytes,
                          em_err *err)
{
    char name[64];
    const em_fetch_limits limits = {.max_bytes = max_bytes, .cancel = b->cancel};
    m->path = source;
    if (!em_is_url(source)) return EM_OK;
    uint64_t h = em_fnv1a64(EM_FNV1A64_INIT, source, strlen(source));
    snprintf(name, sizeof name, "echomimic-%016llx", (unsigned long long)h);
    m->download = em_path_join(b->temp_dir, name);
    if (!m->download) return em_fail(err, EM_NOMEM, "no memory for a download");
    m->path = m->download;
    if (em_path_is_file(m->download)) return EM_OK;
    return em_fetch(source, m->download, &limits, err);
}

static void forget(const em_batch *b, media *m)
{
    if (m->download && !b->keep_temp) unlink(m->download);
    em_free(m->download);
}

static em_status run_job(const em_batch *b, em_engine *engine, size_t i, em_err *err)
{
    const em_batch_job *j = &b->jobs->job[i];
    em_job_report *r = &b->report[i];
    media image = {0}, audio = {0};
    bool made = false;
    em_status st = localise(b, &image, j->image, MAX_IMAGE_BYTES, err);
    if (!st) st = localise(b, &audio, j->audio, MAX_AUDIO_BYTES, err);
    if (!st) {
        const em_render_job job = {.image_path = image.path,
                                   .audio_path = audio.path,
                                   .output_path = r->output,
                                   .params = &j->params,
                                   .overwrite = b->force,
                                   .progress = b->progress,
                                   .user = b->user,
                                   .log = b->log};
        st = em_render_run(engine, &job, &r->result, &made, err);
    }
    forget(b, &image);
    forget(b, &audio);
    if (!st) r->state = made ? EM_JOB_DONE : EM_JOB_SKIPPED;
    return st;
}

static em_status note_failure(const em_batch *b, size_t i, em_status st, const em_err *why)
{
    em_job_report *r = &b->report[i];
    if (st == EM_CANCELLED) return st; /* it stays "not run" */
    r->state = EM_JOB_FAILED;
    snprintf(r->error, sizeof r->error, "%s", why->msg);
    em_logf(b->log, EM_LOG_ERROR, "%s: %s", b->jobs->job[i].name, why->msg);
    return st == EM_NOSPC ? st : EM_OK;
}

static em_status name_outputs(const em_batch *b, em_err *err)
{
    for (size_t i = 0; i < b->jobs->count; i++) {
        em_job_report *r = &b->report[i];
        *r = (em_job_report){0};
        int n = snprintf(r->output, sizeof r->output, "%s/%s_output.mp4", b->save_path,
                         b->jobs->job[i].name);
        if (n >= (int)sizeof r->output)
            return em_fail(err, EM_INVAL, "'%s/%s_output.mp4' is too long a name for a file",
                           b->save_path, b->jobs->job[i].name);
    }
    return EM_OK;
}

em_status em_batch_run(const em_batch *b, em_engine *engine, em_err *err)
{
    em_status st = name_outputs(b, err);
    for (size_t i = 0; i < b->jobs->count && !st; i++) {
        double start_ms = em_now_ms();
        em_err why = {0};
        if (b->job_begins) b->job_begins(b->user, i);
        em_status job = run_job(b, engine, i, &why);
        b->report[i].total_ms = em_now_ms() - start_ms;
        if (job) st = note_failure(b, i, job, &why);
        if (st) em_fail(err, st, "%s", why.msg);
    }
    return st;
}
