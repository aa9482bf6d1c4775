#include "batch/state.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/audio_in.h"
#include "io/file.h"
#include "io/video_out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { IMAGE_BYTES = 32 << 20 };

const char *em_job_state_name(em_job_state s)
{
    static const char *const name[EM_JOB_STATES] = {
        [EM_JOB_WAITING] = "not started",
        [EM_JOB_DONE] = "done",
        [EM_JOB_KEPT] = "skipped",
        [EM_JOB_UNDELIVERED] = "made, not delivered",
        [EM_JOB_FAILED] = "failed",
        [EM_JOB_INVALID] = "invalid",
        [EM_JOB_INTERRUPTED] = "interrupted",
    };
    return s < EM_JOB_STATES ? name[s] : "?";
}

static em_status no_memory(em_err *err)
{
    return em_fail(err, EM_NOMEM, "no memory for the batch");
}

/* ---- messages -------------------------------------------------------------------------------- */

/* A warning goes to the report too; one that cannot be kept was at least said. */
static void keep_warning(em_batch *b, em_batch_item *it, const char *msg)
{
    char *copy = em_strdup(msg);
    pthread_mutex_lock(&b->lock);
    if (copy && EM_PUSH(it->warning, it->warnings, it->warnings_cap, copy)) copy = NULL;
    pthread_mutex_unlock(&b->lock);
    em_free(copy);
}

static void tell_item(void *user, em_level level, const char *msg)
{
    em_batch_item *it = user;
    if (level == EM_LOG_WARN) keep_warning(it->batch, it, msg);
    em_logf(&it->batch->options.log, level, "%s", msg);
}

static void tell_current(void *user, em_level level, const char *msg)
{
    const em_batch_lane *lane = user;
    em_batch *b = lane->batch;
    pthread_mutex_lock(&b->lock);
    em_batch_item *it = lane->current;
    pthread_mutex_unlock(&b->lock);
    if (it)
        tell_item(it, level, msg);
    else
        em_logf(&b->options.log, level, "%s", msg);
}

em_log em_batch_log(em_batch *b, int lane)
{
    return (em_log){tell_current, &b->lane[lane]};
}

const char *em_batch_prompt_key(const em_batch *b)
{
    return b->prompt_key;
}

/* ---- which jobs are meant -------------------------------------------------------------------- */

static bool is_named(const em_batch_options *o, const em_batch_job *job)
{
    for (size_t i = 0; i < o->only_count; i++)
        if (job->name && !strcmp(o->only[i], job->name)) return true;
    return o->only_count == 0;
}

static bool is_meant(const em_batch_options *o, const em_batch_job *job)
{
    return is_named(o, job) && em_job_in_shard(job, o->shard, o->shards);
}

/* A name that is nobody's is a slip, and a long night without a video. */
static em_status check_only(const em_batch_options *o, const em_manifest *m, em_err *err)
{
    for (size_t i = 0; i < o->only_count; i++) {
        const char *near = NULL;
        size_t least = strlen(o->only[i]) / 3 + 2;
        bool known = false;
        for (size_t k = 0; k < m->count && !known; k++) {
            if (!m->job[k].name) continue;
            size_t d = em_str_distance(o->only[i], m->job[k].name);
            known = !strcmp(o->only[i], m->job[k].name);
            if (d < least) {
                least = d;
                near = m->job[k].name;
            }
        }
        if (!known)
            return em_fail(err, EM_INVAL, "--only '%.200s': no job of the list has that name%s%s%s",
                           o->only[i], near ? ", did you mean '" : "", near ? near : "",
                           near ? "'?" : "");
    }
    return EM_OK;
}

/* ---- open ------------------------------------------------------------------------------------ */

char *em_item_beside(const em_batch_item *it, const char *format)
{
    em_str path = {0};
    const char *base = em_path_base(it->output);
    em_str_printf(&path, "%.*s", (int)(base - it->output), it->output);
    const char *mark = strstr(format, "%s");
    em_str_printf(&path, "%.*s%s%s", (int)(mark - format), format, base, mark + 2);
    if (path.failed) em_str_free(&path);
    return path.data;
}

static em_status open_item(em_batch *b, em_batch_item *it, const em_batch_job *job, em_err *err)
{
    em_str name = {0};
    char *asked = NULL;
    it->job = job;
    it->batch = b;
    it->log = (em_log){tell_item, it};
    it->image = job->image;
    it->audio = job->audio;
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
    em_status st = em_identity_make(&it->identity, job, em_str_text(&b->models), err);
    return st ? st : em_item_judge(it, err);
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

static em_status open_ledger(em_batch *b, em_err *err)
{
    const em_batch_options *o = &b->options;
    if (!o->ledger) return EM_OK;
    char *db = em_path_join(o->save_path, EM_LEDGER_NAME);
    char *lock = em_path_join(o->save_path, EM_CLAIM_NAME);
    em_status st = db && lock ? EM_OK : no_memory(err);
    if (!st) st = em_ledger_open(&b->ledger, db, o->dry_run, err);
    if (!st && !o->dry_run) st = em_claim_open(&b->claims, lock, err);
    em_free(db);
    em_free(lock);
    return st;
}

/* What is not part of a job but of its identity. */
static em_status describe_models(em_batch *b, em_err *err)
{
    static const char *const dtype[] = {"bfloat16", "float16", "float32"};
    const em_machinery *m = &b->options.machinery;
    snprintf(b->pace, sizeof b->pace, "%.60s %s", m->device, dtype[m->dtype]);
    em_status st =
        em_identity_models(&b->models, b->prompt_key, b->options.models, m, b->ledger, err);
    if (!st) em_sha256_of_text(b->models_hash, em_str_text(&b->models));
    return st;
}

static em_status open_items(em_batch *b, const em_manifest *m, em_err *err)
{
    em_status st = check_only(&b->options, m, err);
    if (st || !m->count) return st;
    b->item = em_alloc_array(m->count, sizeof *b->item);
    b->order = em_alloc_array(m->count, sizeof *b->order);
    if (!b->item || !b->order) return no_memory(err);
    for (size_t i = 0; !st && i < m->count; i++)
        if (is_meant(&b->options, &m->job[i]))
            st = open_item(b, &b->item[b->count++], &m->job[i], err);
    if (!st) em_batch_sort(b);
    return st;
}

em_status em_batch_open(em_batch **out, const em_manifest *manifest,
                        const em_batch_options *options, em_err *err)
{
    em_batch *b = em_alloc(sizeof *b);
    if (!b) return no_memory(err);
    b->options = *options;
    for (int i = 0; i < EM_LANES_MAX; i++) b->lane[i].batch = b;
    b->claims = b->temp_lock = -1;
    pthread_mutex_init(&b->lock, NULL);
    em_status st = check_outputs(b, manifest, err);
    if (!st) st = open_ledger(b, err);
    if (!st) st = describe_models(b, err);
    if (!st && !options->dry_run) st = em_batch_recover(b, err);
    if (!st) st = open_items(b, manifest, err);
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
    em_courier_close(&b->courier);
    em_fetcher_close(&b->fetcher);
    em_batch_remove_temp(b);
    for (size_t i = 0; i < b->count; i++) {
        em_batch_item *it = &b->item[i];
        em_identity_close(&it->identity);
        while (it->warnings) em_free(it->warning[--it->warnings]);
        em_free(it->warning);
        em_free(it->output);
    }
    em_free(b->item);
    em_free(b->order);
    em_ledger_close(&b->ledger);
    em_claim_close(&b->claims);
    em_str_free(&b->models);
    pthread_mutex_destroy(&b->lock);
    em_free(b);
    *batch = NULL;
}

/* ---- fetch ----------------------------------------------------------------------------------- */

bool em_batch_stopping(const em_batch *b)
{
    return b->options.stop && atomic_load(b->options.stop);
}

/* An address becomes a file of the temporary folder. */
static em_status add_address(em_batch *b, size_t *handle, const char *from, size_t index,
                             em_fetch_kind kind, em_err *err)
{
    char name[48];
    if (!em_is_address(from)) return EM_OK;
    snprintf(name, sizeof name, "%zu.%s", index, kind == EM_FETCH_IMAGE ? "image" : "audio");
    char *path = em_path_join(b->temp, name);
    if (!path) return no_memory(err);
    const em_fetch_request request = {.url = from,
                                      .path = path,
                                      .max_bytes = kind == EM_FETCH_IMAGE
                                                       ? (uint64_t)IMAGE_BYTES
                                                       : (uint64_t)EM_AUDIO_MAX_BYTES,
                                      .kind = kind};
    em_status st = em_fetcher_add(b->fetcher, &request, handle, err);
    em_free(path);
    return st;
}

bool em_item_waits(const em_batch_item *it)
{
    return it->state == EM_JOB_WAITING && !it->idle;
}

static bool needs_fetch(const em_batch_item *it)
{
    return it->state == EM_JOB_WAITING &&
           (em_is_address(it->job->image) || em_is_address(it->job->audio));
}

em_status em_batch_fetch(em_batch *b, em_err *err)
{
    em_fetch_options options = em_fetch_options_default();
    size_t jobs = 0;
    for (size_t i = 0; i < b->count; i++) jobs += needs_fetch(&b->item[i]);
    if (!jobs) return EM_OK;
    em_logf(&b->options.log, EM_LOG_INFO, "fetching the media of %zu jobs", jobs);
    options.allow = b->options.allow;
    options.allow_count = b->options.allow_count;
    options.log = b->options.log;
    options.cancel = b->options.stop;
    em_status st = em_batch_make_temp(b, err);
    if (!st) st = em_fetcher_open(&b->fetcher, &options, err);
    for (size_t i = 0; !st && i < b->count; i++) { /* in the order in which they are needed */
        em_batch_item *it = b->order[i];
        const em_batch_job *j = it->job;
        if (!needs_fetch(it)) continue;
        st = add_address(b, &it->image_handle, j->image, j->index, EM_FETCH_IMAGE, err);
        if (!st) st = add_address(b, &it->audio_handle, j->audio, j->index, EM_FETCH_AUDIO, err);
    }
    return st ? st : em_fetcher_start(b->fetcher, err);
}

/* ---- what became of it ----------------------------------------------------------------------- */

void em_item_end(em_batch_item *it, em_status st)
{
    it->state = !st ? EM_JOB_DONE : st == EM_CANCELLED ? EM_JOB_INTERRUPTED : EM_JOB_FAILED;
    if (st == EM_NOSPC) atomic_store(&it->batch->disk_full, true);
}

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

bool em_batch_delivers(const em_batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->item[i].delivery == EM_DELIVERY_DUE) return true;
    return false;
}

bool em_batch_disk_full(const em_batch *b)
{
    return atomic_load(&b->disk_full);
}
