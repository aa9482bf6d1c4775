#include "batch/report.h"

#include "base/alloc.h"
#include "io/fetch.h"
#include "io/file.h"
#include "io/json.h"

#include <string.h>

const char *em_job_state_name(em_job_state s)
{
    static const char *const name[] = {[EM_JOB_NOT_RUN] = "not run",
                                       [EM_JOB_DONE] = "done",
                                       [EM_JOB_SKIPPED] = "skipped",
                                       [EM_JOB_FAILED] = "failed"};
    return name[s];
}

void em_report_table(em_str *text, const em_manifest *m, const em_job_report *r)
{
    size_t count[4] = {0};
    for (size_t i = 0; i < m->count; i++) {
        char took[24] = "";
        count[r[i].state]++;
        if (r[i].state == EM_JOB_DONE) em_format_seconds(took, r[i].total_ms / 1e3);
        em_str_printf(text, "%-24s %-8s %12s  %s\n", m->job[i].name, em_job_state_name(r[i].state),
                      took, r[i].state == EM_JOB_FAILED ? r[i].error : r[i].output);
    }
    em_str_printf(text, "%zu done, %zu skipped as done, %zu failed, %zu not run\n",
                  count[EM_JOB_DONE], count[EM_JOB_SKIPPED], count[EM_JOB_FAILED],
                  count[EM_JOB_NOT_RUN]);
}

static json_t *stages_json(const em_result *r)
{
    json_t *stages = json_object();
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        json_object_set_new(stages, em_stage_name((em_stage)s),
                            json_pack("{s:f, s:f, s:I}", "seconds", r->stage[s].ms / 1e3, "gflop",
                                      r->stage[s].flops / 1e9, "peak_scratch_bytes",
                                      (json_int_t)r->stage[s].scratch_bytes));
    return stages;
}

static json_t *job_json(const em_batch_job *j, const em_job_report *r)
{
    char image[512], audio[512];
    json_t *o =
        json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:I}", "output_name", j->name, "item",
                  (json_int_t)j->index, "line", (json_int_t)j->line, "state",
                  em_job_state_name(r->state), "portrait_image",
                  em_url_public(image, sizeof image, j->image), "portrait_audio",
                  em_url_public(audio, sizeof audio, j->audio), "seed", (json_int_t)j->params.seed);
    if (r->state == EM_JOB_FAILED) json_object_set_new(o, "error", json_string(r->error));
    if (r->state == EM_JOB_DONE || r->state == EM_JOB_SKIPPED)
        json_object_set_new(o, "output", json_string(r->output));
    if (r->state != EM_JOB_DONE) return o;
    json_object_update_new(o, json_pack("{s:i, s:i, s:i, s:i, s:f, s:I, s:I, s:o}", "width",
                                        r->result.width, "height", r->result.height, "frames",
                                        r->result.frames, "forwards", r->result.forwards, "seconds",
                                        r->total_ms / 1e3, "peak_scratch_bytes",
                                        (json_int_t)r->result.scratch_bytes, "peak_weight_bytes",
                                        (json_int_t)r->result.weight_bytes, "stages",
                                        stages_json(&r->result)));
    return o;
}

em_status em_report_write(const char *path, const em_manifest *m, const em_job_report *r,
                          em_err *err)
{
    em_file_writer *file = NULL;
    em_json_setup(); /* so that the text is ours to free */
    json_t *jobs = json_array(),
           *doc = json_pack("{s:s, s:o}", "version", em_version(), "jobs", jobs);
    for (size_t i = 0; i < m->count; i++) json_array_append_new(jobs, job_json(&m->job[i], &r[i]));
    char *text = doc ? json_dumps(doc, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    em_status st = text ? EM_OK : em_fail(err, EM_NOMEM, "no memory for the report '%s'", path);
    if (!st) st = em_file_writer_open(&file, path, err);
    if (!st) st = em_file_writer_write(file, 0, text, strlen(text), err);
    if (!st) st = em_file_writer_commit(&file, err);
    em_file_writer_close(&file);
    json_decref(doc);
    em_free(text);
    return st;
}
