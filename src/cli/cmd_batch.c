/* `batch` and `run`: jobs to videos. A single job is a batch of one without a report. */
#include "base/alloc.h"
#include "base/str.h"
#include "batch/batch.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "io/file.h"

#include <string.h>

/* ---- what is seen of it ---------------------------------------------------------------------- */

static void on_begin(void *user, const em_batch_item *it, size_t position, size_t count)
{
    em_terminal_job(user, position, count, it->job->name ? it->job->name : "?");
}

static void on_end(void *user, const em_batch_item *it)
{
    em_terminal *t = user;
    char seconds[24];
    const em_result *r = &it->result;
    if (it->state == EM_JOB_DONE)
        em_terminal_say(t, EM_LOG_INFO, "%s%s: %d frames of %d x %d, %d forwards, %s", t->job,
                        it->output, r->frames, r->width, r->height, r->forwards,
                        em_format_seconds(seconds, it->seconds));
    else if (it->state != EM_JOB_INVALID) /* that was said when the list was read */
        em_terminal_say(t, EM_LOG_ERROR, "%s%s", t->job, it->err.msg);
}

/* The table at the end, on stdout. */
static void print_summary(const em_batch *b)
{
    printf("%-5s %-28s %-12s %9s %7s %9s\n", "job", "name", "state", "seconds", "frames", "peak");
    for (size_t i = 0; i < em_batch_count(b); i++) {
        const em_batch_item *it = em_batch_at(b, i);
        char peak[16] = "-";
        if (it->state == EM_JOB_DONE) em_format_bytes(peak, it->result.scratch_bytes);
        printf("%-5zu %-28.28s %-12s %9.1f %7d %9s\n", it->job->index,
               it->job->name ? it->job->name : "?", em_job_state_name(it->state), it->seconds,
               it->result.frames, peak);
    }
    for (int s = 0; s < EM_JOB_STATES; s++) {
        size_t n = em_batch_in_state(b, (em_job_state)s);
        if (n) printf("%zu %s  ", n, em_job_state_name((em_job_state)s));
    }
    printf("\n");
}

static void print_plan(const em_batch *b)
{
    printf("Nothing is done (--dry_run). Jobs:\n");
    for (size_t i = 0; i < em_batch_count(b); i++) {
        const em_batch_item *it = em_batch_at(b, i);
        const em_params *p = &it->job->params;
        char image[200] = "?", audio[200] = "?";
        if (it->job->image) em_address_shown(image, sizeof image, it->job->image);
        if (it->job->audio) em_address_shown(audio, sizeof audio, it->job->audio);
        printf("%4zu  %s + %s -> %s  (%s; seed %lld, %d steps, at most %d frames)\n",
               it->job->index, image, audio, it->output ? it->output : "?",
               it->state == EM_JOB_WAITING ? "to do" : em_job_state_name(it->state),
               (long long)p->seed, p->num_inference_steps, p->video_length);
    }
}

/* ---- the work -------------------------------------------------------------------------------- */

/* Order counts: what is finished is known before anything is loaded, the checkpoint is known to be
 * good before anything is fetched. */
static em_status work(em_batch *b, const em_options *o, em_terminal *t, em_err *err)
{
    em_engine *engine = NULL;
    const em_batch_events events = {on_begin, em_terminal_progress, on_end, t};
    em_status st = em_command_engine(&engine, o, t, err);
    if (!st) st = em_batch_fetch(b, err);
    if (!st) em_batch_run(b, engine, &events);
    em_interrupt_watch(NULL);
    em_engine_close(&engine);
    return st;
}

static em_exit outcome(const em_batch *b)
{
    if (em_batch_disk_full(b)) return EM_EXIT_DISK_FULL;
    if (atomic_load(em_interrupt_flag())) return EM_EXIT_INTERRUPTED;
    size_t good = em_batch_in_state(b, EM_JOB_DONE) + em_batch_in_state(b, EM_JOB_KEPT);
    if (em_batch_count(b) == em_batch_in_state(b, EM_JOB_INVALID)) return EM_EXIT_NOTHING;
    return good == em_batch_count(b) ? EM_EXIT_OK : EM_EXIT_SOME_FAILED;
}

static em_exit write_report(const em_batch *b, const em_options *o, em_terminal *t)
{
    em_err err = {0};
    char *path = em_path_join(o->save_path, "batch_report.json");
    em_status st = path ? em_batch_report(b, path, &err)
                        : em_fail(&err, EM_NOMEM, "no memory for the report's name");
    if (!st) em_terminal_say(t, EM_LOG_INFO, "report: %s", path);
    em_free(path);
    return st ? em_command_fail(t, &err, EM_EXIT_NOTHING) : EM_EXIT_OK;
}

static em_exit run_all(const em_manifest *list, const em_options *o, em_terminal *t)
{
    em_batch *b = NULL;
    em_err err = {0};
    em_exit rc = EM_EXIT_OK, reported = EM_EXIT_OK;
    const em_batch_options options = {.save_path = o->save_path,
                                      .temp_dir = o->temp_dir,
                                      .keep_temp = o->keep_temp,
                                      .force = o->force,
                                      .allow_private = o->allow_private,
                                      .dry_run = o->dry_run,
                                      .log = em_terminal_log(t),
                                      .stop = em_interrupt_flag()};
    if (em_batch_open(&b, list, &options, &err)) return em_command_fail(t, &err, EM_EXIT_NOTHING);
    if (o->dry_run) {
        print_plan(b);
    } else if (em_batch_in_state(b, EM_JOB_WAITING) && work(b, o, t, &err)) {
        rc = em_command_fail(t, &err, EM_EXIT_NOTHING);
    } else {
        rc = outcome(b);
    }
    if (!o->dry_run && o->command == EM_COMMAND_BATCH) {
        em_terminal_job(t, 0, 0, "");
        reported = write_report(b, o, t);
        if (!o->quiet) print_summary(b);
    }
    em_batch_close(&b);
    return rc ? rc : reported;
}

/* ---- the two commands ------------------------------------------------------------------------ */

/* Every flag that is missing, at once, and what the model recommends. */
static em_exit prepare(em_options *o, em_terminal *t, const char *const *flags)
{
    em_err err = {0};
    if (em_command_need(o, flags, t, &err)) return em_command_fail(t, &err, EM_EXIT_USAGE);
    em_status st = em_command_settings(o, t, &err);
    return st ? em_command_fail(t, &err, st == EM_INVAL ? EM_EXIT_USAGE : EM_EXIT_NOTHING)
              : EM_EXIT_OK;
}

em_exit em_command_batch(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"json_path", "model_name", "wav2vec_model_dir", NULL};
    em_manifest list = {0};
    em_err err = {0};
    em_exit rc = prepare(o, t, flags);
    const em_manifest_options options = {.params = &o->params,
                                         .skip_invalid = o->skip_invalid,
                                         .log = em_terminal_log(t)};
    if (rc) return rc;
    if (em_manifest_read(&list, o->json_path, &options, &err)) {
        em_terminal_say(t, EM_LOG_ERROR, "%s", err.msg);
        return EM_EXIT_USAGE;
    }
    if (list.count == list.invalid) {
        em_terminal_say(t, EM_LOG_ERROR, "'%s' holds no usable job: nothing to do", o->json_path);
        rc = EM_EXIT_NOTHING;
    } else {
        rc = run_all(&list, o, t);
    }
    em_manifest_close(&list);
    return rc;
}

em_exit em_command_run(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"image_path", "audio_path", "model_name",
                                        "wav2vec_model_dir", NULL};
    em_manifest list = {0};
    em_err err = {0};
    em_exit rc = prepare(o, t, flags);
    if (rc) return rc;
    if (em_manifest_single(&list, o->image_path, o->audio_path, o->output, &o->params, &err))
        return em_command_fail(t, &err, EM_EXIT_NOTHING);
    rc = run_all(&list, o, t);
    em_manifest_close(&list);
    return rc;
}
