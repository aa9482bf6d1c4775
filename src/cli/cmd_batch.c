/* `batch` and `run`: jobs to videos. A single job is a batch of one without a ledger and a
 * report. */
#include "base/alloc.h"
#include "base/str.h"
#include "batch/batch.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "io/file.h"
#include "ops/table.h"
#include "pipeline/engine.h"

#include <string.h>

enum { NETS = 64 };

/* ---- what is seen of it ---------------------------------------------------------------------- */

typedef struct view {
    em_terminal *t;
    size_t count;
    const em_batch_item *current[EM_LANES_MAX];
} view;

static const char *name_of(const em_batch_item *it)
{
    return it->job->name ? it->job->name : "?";
}

static void on_begin(void *user, const em_batch_item *it)
{
    view *v = user;
    v->current[it->lane] = it;
    em_terminal_job(v->t, it->lane, it->position, v->count, name_of(it));
}

static void on_progress(void *user, const em_batch_item *it, const em_progress *p)
{
    em_terminal_progress(((const view *)user)->t, it->lane, p);
}

/* The lane's next job may have begun: then this one's name is not the terminal's any more. */
static void on_end(void *user, const em_batch_item *it)
{
    const view *v = user;
    if (v->current[it->lane] == it) em_terminal_job(v->t, it->lane, 0, 0, "");
    char seconds[24], prefix[80] = "";
    const em_result *r = &it->result;
    if (v->count > 1)
        snprintf(prefix, sizeof prefix, "[%zu/%zu %.40s] ", it->position, v->count, name_of(it));
    if (it->state == EM_JOB_DONE)
        em_terminal_say(v->t, EM_LOG_INFO, "%s%s: %d frames of %d x %d, %d forwards, %s", prefix,
                        it->output, r->frames, r->width, r->height, r->forwards,
                        em_format_seconds(seconds, it->seconds));
    else if (it->state != EM_JOB_INVALID) /* that was said when the list was read */
        em_terminal_say(v->t, EM_LOG_ERROR, "%s%s", prefix, it->err.msg);
}

/* The table at the end, on stdout. */
static void print_summary(const em_batch *b)
{
    printf("%-5s %-28s %-12s %9s %7s %9s\n", "job", "name", "state", "seconds", "frames", "peak");
    for (size_t i = 0; i < em_batch_count(b); i++) {
        const em_batch_item *it = em_batch_at(b, i);
        char peak[16] = "-";
        if (it->result.frames)
            em_format_bytes(peak, it->result.scratch_bytes + it->result.weight_bytes);
        printf("%-5zu %-28.28s %-12s %9.1f %7d %9s\n", it->job->index, name_of(it),
               em_job_state_name(it->state), it->seconds, it->result.frames, peak);
    }
    for (int s = 0; s < EM_JOB_STATES; s++) {
        size_t n = em_batch_in_state(b, (em_job_state)s);
        if (n) printf("%zu %s  ", n, em_job_state_name((em_job_state)s));
    }
    printf("\n");
}

/* Where lanes were measured: on a device of its own. */
static void advise(const em_batch *b, const em_options *o, em_terminal *t)
{
    char text[200];
    const em_ops *ops = em_ops_find(o->engine.device);
    if (!ops->device->host_addressable &&
        em_batch_advice(b, o->engine.memory_mode, o->parallel_jobs, text, sizeof text))
        em_terminal_say(t, EM_LOG_INFO, "%s", text);
}

/* ---- a dry run ------------------------------------------------------------------------------- */

typedef struct total {
    double flops;
    uint64_t most_bytes;
    size_t jobs, bad;
} total;

static void print_job(const em_batch *b, em_engine *engine, size_t i, double pace, total *all)
{
    const em_batch_item *it = em_batch_at(b, i);
    char image[200] = "?", audio[200] = "?", bytes[16], seconds[24] = "time not known";
    em_forecast f;
    em_err e = {0};
    if (it->job->image) em_address_shown(image, sizeof image, it->job->image);
    if (it->job->audio) em_address_shown(audio, sizeof audio, it->job->audio);
    printf("%4zu  %s + %s -> %s\n", it->job->index, image, audio, it->output ? it->output : "?");
    if (!em_item_waits(it)) {
        printf("      %s\n", it->idle ? "did not fail: not meant" : em_job_state_name(it->state));
        return;
    }
    if (em_batch_forecast(b, engine, i, &f, &e)) {
        printf("      will fail: %s\n", e.msg);
        all->bad++;
        return;
    }
    uint64_t need = f.plan.scratch_bytes + f.plan.weight_bytes;
    if (pace > 0) em_format_seconds(seconds, f.flops / pace);
    printf("      to do: %s%d frames of %d x %d, seed %lld, %d steps; %s, %s\n",
           f.exact ? "" : "at most ", f.plan.frames, f.plan.width, f.plan.height,
           (long long)it->job->params.seed, it->job->params.num_inference_steps, seconds,
           em_format_bytes(bytes, need));
    all->flops += f.flops;
    all->jobs++;
    if (need > all->most_bytes) all->most_bytes = need;
}

static em_status print_plan(const em_batch *b, const em_options *o, em_terminal *t, em_err *err)
{
    em_engine *engine = NULL;
    double pace = 0;
    bool measured = false;
    total all = {0};
    char seconds[24], bytes[16];
    em_status st = em_command_engine(&engine, o, &(em_command_lane){0}, t, err);
    if (!st) st = em_batch_pace(b, engine, &pace, &measured, err);
    if (!st) {
        advise(b, o, t);
        printf("Nothing is done (--dry_run). Jobs:\n");
        for (size_t i = 0; i < em_batch_count(b); i++) print_job(b, engine, i, pace, &all);
        printf("%zu to do, %zu of them will fail", all.jobs + all.bad, all.bad);
        if (pace > 0)
            printf("; about %s, by %s", em_format_seconds(seconds, all.flops / pace),
                   measured ? "a short trial of this machine" : "the pace of the jobs made here");
        printf("; memory at most %s\n", em_format_bytes(bytes, all.most_bytes));
    }
    em_interrupt_watch(NULL);
    em_engine_close(&engine);
    return st;
}

/* ---- the work -------------------------------------------------------------------------------- */

static size_t to_do(const em_batch *b)
{
    size_t n = 0;
    for (size_t i = 0; i < em_batch_count(b); i++) n += em_item_waits(em_batch_at(b, i));
    return n;
}

/* What is finished is known before anything is loaded or fetched; fetching and loading overlap. */
static em_status work(em_batch *b, const em_options *o, em_terminal *t, em_err *err)
{
    em_engine *engine[EM_LANES_MAX] = {NULL};
    view v = {.t = t, .count = em_batch_count(b)};
    const em_batch_events events = {on_begin, on_progress, on_end, &v};
    int lanes = o->parallel_jobs;
    em_status st = EM_OK;
    if ((size_t)lanes > to_do(b)) lanes = (int)to_do(b);
    if (lanes) {
        advise(b, o, t);
        st = em_batch_fetch(b, err);
        for (int i = 0; !st && i < lanes; i++) {
            const em_log log = em_batch_log(b, i);
            const em_command_lane at = {i, lanes, &log, em_batch_prompt_key(b)};
            st = em_command_engine(&engine[i], o, &at, t, err);
        }
        if (!st) em_batch_run(b, engine, lanes, &events);
        em_interrupt_watch(NULL);
        for (int i = 0; i < lanes; i++) em_engine_close(&engine[i]);
    }
    em_batch_deliver(b);
    return st;
}

static em_exit outcome(const em_batch *b)
{
    if (em_batch_disk_full(b)) return EM_EXIT_DISK_FULL;
    if (atomic_load(em_interrupt_flag())) return EM_EXIT_INTERRUPTED;
    size_t good = em_batch_in_state(b, EM_JOB_DONE) + em_batch_in_state(b, EM_JOB_KEPT), idle = 0;
    for (size_t i = 0; i < em_batch_count(b); i++) idle += em_batch_at(b, i)->idle;
    if (em_batch_count(b) && em_batch_count(b) == em_batch_in_state(b, EM_JOB_INVALID))
        return EM_EXIT_NOTHING;
    return good + idle == em_batch_count(b) ? EM_EXIT_OK : EM_EXIT_SOME_FAILED;
}

static em_exit write_report(const em_batch *b, const em_options *o, em_terminal *t)
{
    em_err err = {0};
    char name[64] = "batch_report.json";
    if (o->shard[1])
        snprintf(name, sizeof name, "batch_report.%d-of-%d.json", o->shard[0], o->shard[1]);
    char *path = em_path_join(o->save_path, name);
    em_status st = path ? em_batch_report(b, path, &err)
                        : em_fail(&err, EM_NOMEM, "no memory for the report's name");
    if (!st) em_terminal_say(t, EM_LOG_INFO, "report: %s", path);
    em_free(path);
    return st ? em_command_fail(t, &err, EM_EXIT_NOTHING) : EM_EXIT_OK;
}

static em_exit run_batch(em_batch *b, const em_options *o, em_terminal *t)
{
    em_err err = {0};
    em_exit rc = EM_EXIT_OK, reported = EM_EXIT_OK;
    if (o->dry_run)
        return print_plan(b, o, t, &err) ? em_command_fail(t, &err, EM_EXIT_NOTHING) : EM_EXIT_OK;
    if ((to_do(b) || em_batch_delivers(b)) && work(b, o, t, &err))
        rc = em_command_fail(t, &err, EM_EXIT_NOTHING);
    else
        rc = outcome(b);
    if (o->command == EM_COMMAND_BATCH) {
        for (int i = 0; i < EM_LANES_MAX; i++) em_terminal_job(t, i, 0, 0, "");
        reported = write_report(b, o, t);
        if (!o->quiet) print_summary(b);
    }
    return rc ? rc : reported;
}

static em_exit run_all(const em_manifest *list, const em_model_config *models, const em_net *nets,
                       const em_options *o, em_terminal *t)
{
    em_batch *b = NULL;
    em_err err = {0};
    const em_ops *ops = em_ops_find(o->engine.device);
    const em_ops *annex = em_engine_annex_ops(ops, o->engine.audio_device);
    const em_batch_options options = {.save_path = o->save_path,
                                      .temp_dir = o->temp_dir,
                                      .keep_temp = o->keep_temp,
                                      .force = o->force,
                                      .retry_failed = o->retry_failed,
                                      .ledger = o->command == EM_COMMAND_BATCH,
                                      .dry_run = o->dry_run,
                                      .only = o->only.item,
                                      .only_count = o->only.count,
                                      .shard = o->shard[0],
                                      .shards = o->shard[1],
                                      .allow = nets,
                                      .allow_count = o->allow_private.count,
                                      .models = models,
                                      .machinery = {ops->name, annex ? annex->name : NULL,
                                                    o->engine.dtype},
                                      .log = em_terminal_log(t),
                                      .stop = em_interrupt_flag()};
    em_status st = em_batch_open(&b, list, &options, &err);
    if (st) return em_command_fail(t, &err, st == EM_INVAL ? EM_EXIT_USAGE : EM_EXIT_NOTHING);
    em_exit rc = run_batch(b, o, t);
    em_batch_close(&b);
    return rc;
}

/* ---- the two commands ------------------------------------------------------------------------ */

/* What the model recommends; and whether its files are there. */
static em_exit settle(em_model_config **models, em_options *o, em_terminal *t)
{
    em_err err = {0};
    em_status st = em_command_settings(models, o, t, &err);
    return st ? em_command_fail(t, &err, st == EM_INVAL ? EM_EXIT_USAGE : EM_EXIT_NOTHING)
              : EM_EXIT_OK;
}

/* --allow_private, as networks. */
static em_status read_nets(em_net nets[NETS], const em_options *o, em_terminal *t, em_err *err)
{
    const em_log log = em_terminal_log(t);
    em_problems all = {.log = &log};
    em_err e = {0};
    if (o->allow_private.count > NETS)
        em_problems_add(&all, EM_INVAL, "--allow_private: %d networks at most", NETS);
    for (size_t i = 0; i < o->allow_private.count && i < NETS; i++)
        if (em_net_parse(&nets[i], o->allow_private.item[i], &e)) {
            em_err_prefix(&e, "--allow_private");
            em_problems_take(&all, &e);
        }
    return em_problems_end(&all, "the command line", err);
}

em_exit em_command_batch(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"json_path", "model_name", "wav2vec_model_dir", NULL};
    const em_manifest_options options = {.params = &o->params,
                                         .plain_http = o->allow_private.count > 0,
                                         .skip_invalid = o->skip_invalid,
                                         .log = em_terminal_log(t)};
    em_manifest list = {0};
    em_model_config *models = NULL;
    em_net nets[NETS];
    em_err err = {0};
    if (em_command_need(o, flags, t, &err) || read_nets(nets, o, t, &err) ||
        em_manifest_read(&list, o->json_path, &options, &err)) {
        em_terminal_say(t, EM_LOG_ERROR, "%s", err.msg);
        return EM_EXIT_USAGE;
    }
    em_exit rc = settle(&models, o, t);
    em_manifest_rebase(&list, &o->params);
    if (!rc && list.count == list.invalid) {
        em_terminal_say(t, EM_LOG_ERROR, "'%s' holds no usable job: nothing to do", o->json_path);
        rc = EM_EXIT_NOTHING;
    }
    if (!rc) rc = run_all(&list, models, nets, o, t);
    em_model_folder_close(&models);
    em_manifest_close(&list);
    return rc;
}

em_exit em_command_run(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"image_path", "audio_path", "model_name",
                                        "wav2vec_model_dir", NULL};
    em_manifest list = {0};
    em_model_config *models = NULL;
    em_net nets[NETS];
    em_err err = {0};
    if (em_command_need(o, flags, t, &err) || read_nets(nets, o, t, &err))
        return em_command_fail(t, &err, EM_EXIT_USAGE);
    em_exit rc = settle(&models, o, t);
    if (!rc && em_manifest_single(&list, o->image_path, o->audio_path, o->output, &o->params, &err))
        rc = em_command_fail(t, &err, EM_EXIT_NOTHING);
    if (!rc) rc = run_all(&list, models, nets, o, t);
    em_model_folder_close(&models);
    em_manifest_close(&list);
    return rc;
}
