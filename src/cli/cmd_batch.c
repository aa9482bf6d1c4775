#include "base/alloc.h"
#include "base/str.h"
#include "batch/batch.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "io/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct view {
    em_progress_view progress;
    const em_manifest *jobs;
} view;

static void on_job(void *user, size_t index)
{
    view *v = user;
    v->progress.job = v->jobs->job[index].name;
    v->progress.index = index;
}

static void on_progress(void *user, const em_progress *p)
{
    view *v = user;
    em_progress_view_show(&v->progress, p);
}

/* A private folder for downloads below --temp_dir or the system's. */
static bool make_temp(char out[512], const em_options *o)
{
    const char *base = o->temp_dir ? o->temp_dir : getenv("TMPDIR");
    snprintf(out, 512, "%s/echomimic-XXXXXX", base && *base ? base : "/tmp");
    if (mkdtemp(out)) return true;
    fprintf(stderr, "--temp_dir: no folder can be made in '%s'\n", base ? base : "/tmp");
    return false;
}

static int exit_code(const em_manifest *m, const em_job_report *r, em_status st)
{
    if (st == EM_CANCELLED) return EM_EXIT_INTERRUPTED;
    if (st == EM_NOSPC) return EM_EXIT_DISK_FULL;
    if (st) return EM_EXIT_NOTHING;
    for (size_t i = 0; i < m->count; i++)
        if (r[i].state == EM_JOB_FAILED) return EM_EXIT_SOME_FAILED;
    return m->problems ? EM_EXIT_SOME_FAILED : EM_EXIT_OK;
}

static void print_report(const em_options *o, const em_manifest *m, const em_job_report *r)
{
    em_err err = {0};
    em_str text = {0};
    em_report_table(&text, m, r);
    printf("%s", em_str_text(&text));
    em_str_free(&text);
    char *path = em_path_join(o->save_path, "batch_report.json");
    if (!path || em_report_write(path, m, r, &err))
        fprintf(stderr, "the report was not written: %s\n", err.msg);
    em_free(path);
}

static int run_jobs(em_options *o, em_engine *engine, const em_manifest *m)
{
    em_err err = {0};
    char temp[512];
    view v = {em_progress_view_open(o), m};
    const em_log log = em_cli_log(o);
    em_job_report *r = em_alloc_array(m->count + 1, sizeof *r);
    if (!r || !make_temp(temp, o)) return em_free(r), EM_EXIT_NOTHING;
    v.progress.count = m->count;
    const em_batch b = {.jobs = m,
                        .report = r,
                        .save_path = o->save_path,
                        .temp_dir = temp,
                        .keep_temp = o->keep_temp,
                        .force = o->force,
                        .cancel = em_cli_interrupted(),
                        .log = &log,
                        .job_begins = on_job,
                        .progress = on_progress,
                        .user = &v};
    em_cli_catch_signals(engine);
    em_status st = em_batch_run(&b, engine, &err);
    em_cli_catch_signals(NULL);
    if (o->keep_temp)
        fprintf(stderr, "downloads are kept in %s\n", temp);
    else
        rmdir(temp);
    if (st) fprintf(stderr, "%s\n", st == EM_CANCELLED ? "interrupted" : err.msg);
    print_report(o, m, r);
    int code = exit_code(m, r, st);
    em_free(r);
    return code;
}

static void print_jobs(const em_manifest *m)
{
    for (size_t i = 0; i < m->count; i++) {
        const em_batch_job *j = &m->job[i];
        printf("%-24s %s + %s, seed %lld, %d steps, at most %d frames of %d x %d pixels' area\n",
               j->name, j->image, j->audio, (long long)j->params.seed,
               j->params.num_inference_steps, j->params.video_length, j->params.sample_size[1],
               j->params.sample_size[0]);
    }
}

static bool save_path_works(const em_options *o)
{
    em_err err = {0};
    if (em_dir_create(o->save_path, &err)) {
        fprintf(stderr, "--save_path: %s\n", err.msg);
        return false;
    }
    if (access(o->save_path, W_OK | X_OK) == 0) return true;
    fprintf(stderr, "--save_path: '%s' cannot be written to\n", o->save_path);
    return false;
}

static int run_list(em_options *o, em_engine *engine)
{
    em_err err = {0};
    em_manifest m;
    const em_log log = em_cli_log(o);
    int code = EM_EXIT_USAGE;
    if (em_manifest_read(&m, o->json_path, &o->params, &log, &err)) {
        fprintf(stderr, "--json_path: %s\n", err.msg);
    } else if (m.problems && !o->skip_invalid) {
        fprintf(stderr,
                "%zu problems in '%s': nothing was started (--skip_invalid runs the good items)\n",
                m.problems, o->json_path);
    } else if (o->dry_run) {
        print_jobs(&m);
        code = EM_EXIT_OK;
    } else {
        code = m.count ? run_jobs(o, engine, &m) : EM_EXIT_NOTHING;
        if (!m.count) fprintf(stderr, "'%s' holds no usable job\n", o->json_path);
    }
    em_manifest_close(&m);
    return code;
}

/* The list is checked before anything is opened, so that its problems come first; and again with
 * the model's recommended settings under it. */
static int check_list(em_options *o)
{
    em_err err = {0};
    em_manifest m;
    const em_log log = em_cli_log(o);
    em_status st = em_manifest_read(&m, o->json_path, &o->params, &log, &err);
    size_t problems = m.problems;
    em_manifest_close(&m);
    if (st) fprintf(stderr, "--json_path: %s\n", err.msg);
    if (!st && problems && !o->skip_invalid)
        fprintf(stderr,
                "%zu problems in '%s': nothing was started (--skip_invalid runs the good items)\n",
                problems, o->json_path);
    return st || (problems && !o->skip_invalid) ? EM_EXIT_USAGE : EM_EXIT_OK;
}

int em_cmd_batch(em_options *o)
{
    em_engine *engine = NULL;
    if (!o->json_path)
        return fprintf(stderr, "--json_path is required: the job list\n"), EM_EXIT_USAGE;
    int code = check_list(o);
    if (code) return code;
    if (!save_path_works(o)) return EM_EXIT_NOTHING;
    code = em_cli_open_engine(&engine, o, EM_CMD_BATCH);
    if (!code) code = run_list(o, engine);
    em_engine_close(&engine);
    return code;
}
