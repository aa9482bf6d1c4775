#include "batch/batch.h"

#include "base/alloc.h"
#include "base/str.h"
#include "base/thread.h"
#include "base/time.h"
#include "io/audio_in.h"
#include "io/fetch.h"
#include "io/file.h"
#include "io/image_in.h"
#include "io/video_out.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FETCHES = 4, IMAGE_BYTES = 32 << 20 };

struct em_batch {
    em_batch_options options;
    em_batch_item *item; /* owned */
    size_t count;
    char *temp; /* owned; the folder of what was fetched, NULL: none was made */
    bool disk_full;
};

const char *em_job_state_name(em_job_state s)
{
    static const char *const name[EM_JOB_STATES] = {
        [EM_JOB_WAITING] = "not started", [EM_JOB_DONE] = "done",
        [EM_JOB_KEPT] = "skipped",        [EM_JOB_FAILED] = "failed",
        [EM_JOB_INVALID] = "invalid",     [EM_JOB_INTERRUPTED] = "interrupted",
    };
    return s < EM_JOB_STATES ? name[s] : "?";
}

/* ---- open ------------------------------------------------------------------------------------ */

static em_status no_memory(em_err *err)
{
    return em_fail(err, EM_NOMEM, "no memory for the batch");
}

/* A name alone proves nothing: a killed program leaves half a file under it. */
static void look_for_finished(em_batch *b, em_batch_item *it)
{
    em_video_info video;
    em_err e = {0};
    if (b->options.force || !em_path_is_file(it->output)) return;
    if (em_video_check(&video, it->output, &e)) {
        em_logf(&b->options.log, EM_LOG_WARN, "%s; it is made anew", e.msg);
        return;
    }
    it->state = EM_JOB_KEPT;
    em_logf(&b->options.log, EM_LOG_INFO, "'%s' is finished: skipped (--force makes it anew)",
            it->output);
}

static em_status open_item(em_batch *b, em_batch_item *it, const em_batch_job *job, em_err *err)
{
    em_str name = {0};
    char *asked = NULL;
    it->job = job;
    if (job->problem.code) {
        it->state = EM_JOB_INVALID;
        it->err = job->problem;
        return EM_OK;
    }
    if (job->output) {
        asked = em_strdup(job->output);
    } else {
        em_str_printf(&name, "%s_output.mp4", job->name);
        if (!name.failed) asked = em_path_join(b->options.save_path, em_str_text(&name));
        em_str_free(&name);
    }
    if (asked) it->output = em_video_out_name(asked);
    em_free(asked);
    if (!it->output) return no_memory(err);
    look_for_finished(b, it);
    return EM_OK;
}

/* Found out now rather than when the first video is ready to be written. */
static em_status check_folder(const char *flag, const char *path, bool make, em_err *err)
{
    em_status st = make ? em_dir_create(path, err) : EM_OK;
    if (st) return em_err_prefix(err, "%s", flag), st;
    if (!em_path_is_dir(path))
        return make ? em_fail(err, EM_IO, "%s '%s': there is no such folder", flag, path) : EM_OK;
    if (access(path, W_OK | X_OK) == 0) return EM_OK;
    return em_fail_errno(err, errno, "%s '%s': nothing can be written there", flag, path);
}

static em_status check_outputs(const em_batch *b, const em_manifest *m, em_err *err)
{
    bool make = !b->options.dry_run;
    if (m->count != 1 || !m->job[0].output)
        return check_folder("--save_path", b->options.save_path, make, err);
    const char *path = m->job[0].output, *base = em_path_base(path);
    char *dir = base == path ? em_strdup(".") : em_strndup(path, (size_t)(base - path));
    em_status st = dir ? check_folder("--output", dir, make, err) : no_memory(err);
    em_free(dir);
    return st;
}

em_status em_batch_open(em_batch **out, const em_manifest *manifest,
                        const em_batch_options *options, em_err *err)
{
    em_batch *b = em_alloc(sizeof *b);
    if (!b) return no_memory(err);
    b->options = *options;
    em_status st = check_outputs(b, manifest, err);
    if (!st && manifest->count && !(b->item = em_alloc_array(manifest->count, sizeof *b->item)))
        st = no_memory(err);
    for (; !st && b->count < manifest->count; b->count++)
        st = open_item(b, &b->item[b->count], &manifest->job[b->count], err);
    if (st)
        em_batch_close(&b);
    else
        *out = b;
    return st;
}

void em_batch_close(em_batch **batch)
{
    em_batch *b = *batch;
    if (!b) return;
    for (size_t i = 0; b->item && i < b->count; i++) {
        em_batch_item *it = &b->item[i];
        if (!b->options.keep_temp) {
            if (it->image) unlink(it->image);
            if (it->audio) unlink(it->audio);
        }
        em_free(it->output);
        em_free(it->image);
        em_free(it->audio);
    }
    if (b->temp && !b->options.keep_temp) rmdir(b->temp);
    em_free(b->temp);
    em_free(b->item);
    em_free(b);
    *batch = NULL;
}

/* ---- fetch ----------------------------------------------------------------------------------- */

static bool stopping(const em_batch *b)
{
    return b->options.stop && atomic_load(b->options.stop);
}

static em_status make_temp(em_batch *b, em_err *err)
{
    const char *dir = b->options.temp_dir ? b->options.temp_dir : getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    em_status st = em_dir_create(dir, err);
    if (st) return em_err_prefix(err, "--temp_dir"), st;
    char *path = em_path_join(dir, "echomimic-XXXXXX");
    if (!path) return no_memory(err);
    if (!mkdtemp(path)) {
        st = em_fail_errno(err, errno, "--temp_dir '%s': nothing can be written there", dir);
        em_free(path);
        return st;
    }
    b->temp = path;
    if (b->options.keep_temp)
        em_logf(&b->options.log, EM_LOG_INFO, "fetched files stay in '%s'", path);
    return EM_OK;
}

/* *local becomes the path of what `from` addresses; of a file it stays NULL. */
static em_status fetch_one(em_batch *b, char **local, const char *from, size_t index,
                           const char *what, size_t max_bytes, em_err *err)
{
    char name[48];
    if (!em_is_address(from)) return EM_OK;
    snprintf(name, sizeof name, "%zu.%s", index, what);
    *local = em_path_join(b->temp, name);
    if (!*local) return no_memory(err);
    const em_fetch_limits limits = {.max_bytes = max_bytes,
                                    .allow_private = b->options.allow_private,
                                    .cancel = b->options.stop};
    return em_fetch(from, *local, &limits, err);
}

static void end_item(em_batch *b, em_batch_item *it, em_status st)
{
    it->state = !st ? EM_JOB_DONE : st == EM_CANCELLED ? EM_JOB_INTERRUPTED : EM_JOB_FAILED;
    if (st == EM_NOSPC) b->disk_full = true;
}

static void fetch_item(void *arg, size_t index, int worker)
{
    em_batch *b = arg;
    em_batch_item *it = &b->item[index];
    const em_batch_job *j = it->job;
    (void)worker;
    if (it->state != EM_JOB_WAITING || stopping(b)) return;
    em_status st = fetch_one(b, &it->image, j->image, j->index, "image", IMAGE_BYTES, &it->err);
    if (!st)
        st = fetch_one(b, &it->audio, j->audio, j->index, "audio", EM_AUDIO_MAX_BYTES, &it->err);
    if (st) end_item(b, it, st);
}

em_status em_batch_fetch(em_batch *b, em_err *err)
{
    em_pool *pool = NULL;
    bool any = false;
    for (size_t i = 0; i < b->count; i++)
        any |= b->item[i].state == EM_JOB_WAITING &&
               (em_is_address(b->item[i].job->image) || em_is_address(b->item[i].job->audio));
    if (!any) return EM_OK;
    em_status st = make_temp(b, err);
    if (!st) st = em_pool_create(&pool, FETCHES, NULL, err);
    if (!st) em_parallel(pool, b->count, fetch_item, b);
    em_pool_destroy(&pool);
    return st;
}

/* ---- run ------------------------------------------------------------------------------------- */

static void run_item(em_batch *b, em_batch_item *it, em_engine *engine,
                     const em_batch_events *events)
{
    em_request q = em_request_default();
    q.image_path = it->image ? it->image : it->job->image;
    q.audio_path = it->audio ? it->audio : it->job->audio;
    q.output_path = it->output;
    q.params = it->job->params;
    q.progress = events->progress;
    q.user = events->user;
    double start = em_now_ms();
    em_status st = em_render(engine, &q, &it->result, &it->err);
    it->seconds = (em_now_ms() - start) / 1000;
    end_item(b, it, st);
}

void em_batch_run(em_batch *b, em_engine *engine, const em_batch_events *events)
{
    for (size_t i = 0; i < b->count; i++) {
        em_batch_item *it = &b->item[i];
        bool run = it->state == EM_JOB_WAITING && !b->disk_full && !stopping(b);
        if (it->state == EM_JOB_KEPT || (it->state == EM_JOB_WAITING && !run)) continue;
        if (events->begin) events->begin(events->user, it, i + 1, b->count);
        if (run) run_item(b, it, engine, events);
        if (events->end) events->end(events->user, it);
    }
}

/* ---- what became of it ----------------------------------------------------------------------- */

size_t em_batch_count(const em_batch *b)
{
    return b->count;
}

const em_batch_item *em_batch_at(const em_batch *b, size_t i)
{
    return &b->item[i];
}

size_t em_batch_in_state(const em_batch *b, em_job_state s)
{
    size_t n = 0;
    for (size_t i = 0; i < b->count; i++) n += b->item[i].state == s;
    return n;
}

bool em_batch_disk_full(const em_batch *b)
{
    return b->disk_full;
}
