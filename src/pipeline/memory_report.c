#include "pipeline/memory_report.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/process.h"
#include "base/time.h"
#include "io/file.h"
#include "io/json.h"
#include "pipeline/job.h"

#include <string.h>

em_status em_memory_report_open(em_memory_report *r, const char *path, em_err *err)
{
    *r = (em_memory_report){.path = path ? em_strdup(path) : NULL};
    return path && !r->path ? em_fail(err, EM_NOMEM, "no memory for a path") : EM_OK;
}

void em_memory_report_close(em_memory_report *r)
{
    em_free(r->path);
    em_free(r->sample);
    em_free(r->job);
    *r = (em_memory_report){0};
}

/* ---- during a run ---------------------------------------------------------------------------- */

/* Two a stage and one a step. */
static size_t most_samples(const em_job *j)
{
    return (size_t)4 * EM_STAGE_COUNT + (size_t)j->p->num_inference_steps +
           2 * (size_t)j->grid.frames;
}

void em_memory_report_begin(em_memory_report *r, em_job *j)
{
    static const char *const mode[] = {[EM_MEMORY_LIGHTWEIGHT] = "lightweight",
                                       [EM_MEMORY_BEEFY] = "beefy",
                                       [EM_MEMORY_AUTO] = "auto"};
    const em_engine *e = j->engine;
    if (!r->path) return;
    em_memory_job job = {.plan = j->result, .start_ms = em_now_ms(), .begin = r->samples};
    if (!r->start_ms) r->start_ms = job.start_ms;
    job.start_ms -= r->start_ms;
    r->mode = mode[e->memory_mode];
    r->device = e->ops->device->name;
    r->host = e->ops->device->host_addressable;
    r->device_budget = e->vram_budget_bytes;
    r->host_budget = e->ram_budget_bytes;
    r->process_bytes = e->base_bytes;
    r->lanes = e->lanes;
    r->failed = r->failed ||
                !em_array_grow((void **)&r->sample, &r->samples_cap, r->samples, most_samples(j),
                               sizeof *r->sample) ||
                !EM_PUSH(r->job, r->jobs, r->jobs_cap, job);
}

void em_memory_report_sample(em_memory_report *r, const em_job *j)
{
    const em_residency *w = j->run.residency;
    if (!r->path || r->failed || r->samples == r->samples_cap) return;
    r->sample[r->samples++] =
        (em_memory_sample){.ms = em_now_ms() - r->start_ms,
                           .stage = j->stage,
                           .weights_bytes = w->resident_bytes - w->mapped_bytes,
                           .scratch_bytes = j->run.arena.stage_peak_bytes,
                           .mapped_bytes = w->mapped_bytes,
                           .rss_bytes = em_process_memory_now().rss_bytes};
}

/* ---- the file -------------------------------------------------------------------------------- */

/* A number, or null where nobody can know it. */
static json_t *seconds(double ms, bool known)
{
    return known ? json_real(ms / 1000) : json_null();
}

static json_t *bytes(uint64_t n, bool known)
{
    return known ? json_integer((json_int_t)n) : json_null();
}

/* A device waits for its copies, and for a host that reads files before it goes on; what is longer
 * than the copies hid nothing of them. */
static json_t *describe_measured(const em_stage_report *s)
{
    bool known = s->copy_ms >= 0;
    double hidden = s->copy_ms > s->copy_waited_ms ? s->copy_ms - s->copy_waited_ms : 0;
    return json_pack("{s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "seconds", s->ms / 1000,
                     "scratch_bytes", (json_int_t)s->scratch_bytes, "weights_bytes",
                     (json_int_t)s->weights_bytes, "mapped_bytes", (json_int_t)s->mapped_bytes,
                     "copied_bytes", (json_int_t)s->copied_bytes, "packed_bytes",
                     (json_int_t)s->packed_bytes, "host_rss_bytes", (json_int_t)s->rss_bytes,
                     "copy_hidden_seconds", seconds(hidden, known), "copy_not_hidden_seconds",
                     seconds(s->copy_waited_ms, known));
}

static json_t *describe_planned(const em_stage_report *s)
{
    return json_pack("{s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "seconds", s->forecast_ms / 1000,
                     "scratch_bytes", (json_int_t)s->scratch_bytes, "weights_bytes",
                     (json_int_t)s->weights_bytes, "mapped_bytes", (json_int_t)s->mapped_bytes,
                     "copied_bytes", (json_int_t)s->copied_bytes, "packed_bytes",
                     (json_int_t)s->packed_bytes, "room_for_weights_bytes",
                     (json_int_t)s->store_bytes);
}

static json_t *describe_stages(const em_memory_job *j)
{
    json_t *all = json_object();
    bool ok = all != NULL;
    for (int s = EM_STAGE_ENCODE; ok && s < EM_STAGE_COUNT; s++)
        ok = !json_object_set_new(all, em_stage_name((em_stage)s),
                                  json_pack("{s:o, s:o}", "planned",
                                            describe_planned(&j->plan.stage[s]), "measured",
                                            describe_measured(&j->real.stage[s])));
    if (ok) return all;
    json_decref(all);
    return NULL;
}

static json_t *describe_whole(const em_result *r, double ms)
{
    return json_pack("{s:f, s:I, s:I, s:I, s:I, s:I}", "seconds", ms / 1000, "scratch_bytes",
                     (json_int_t)r->scratch_bytes, "weight_bytes", (json_int_t)r->weight_bytes,
                     "mapped_bytes", (json_int_t)r->mapped_bytes, "copied_bytes",
                     (json_int_t)r->copied_bytes, "host_bytes", (json_int_t)r->host_bytes);
}

/* Beside the block: nothing, unless another device hears the voice. */
static json_t *describe_voice(const em_result *r)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "block_bytes", (json_int_t)r->voice_block_bytes,
                     "scratch_bytes", (json_int_t)r->voice_scratch_bytes, "weights_bytes",
                     (json_int_t)r->voice_weights_bytes, "mapped_bytes",
                     (json_int_t)r->voice_mapped_bytes);
}

static double real_ms(const em_result *r)
{
    double sum = 0;
    for (int s = EM_STAGE_ENCODE; s < EM_STAGE_COUNT; s++) sum += r->stage[s].ms;
    return sum;
}

static json_t *describe_job(const em_memory_report *r, const em_memory_job *j)
{
    const em_result *p = &j->plan;
    uint64_t beyond = j->block_bytes > p->device_bytes ? j->block_bytes - p->device_bytes : 0;
    return json_pack(
        "{s:i, s:i, s:i, s:s, s:s?, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, "
        "s:o, s:o, s:o}",
        "width", p->width, "height", p->height, "frames", p->frames, "policy", p->policy,
        "step_down", j->real.step_down[0] ? j->real.step_down : NULL, "forwards", j->real.forwards,
        "forwards_replayed", j->real.forwards_replayed, "narrower_by", p->width_rung, "block_bytes",
        (json_int_t)p->device_bytes, "fragmentation_bytes", (json_int_t)beyond, "pinned_bytes",
        (json_int_t)p->pinned_bytes, "smallest_block_bytes", (json_int_t)p->smallest_bytes,
        "largest_block_bytes", (json_int_t)p->largest_bytes, "host_rss_peak_bytes",
        (json_int_t)j->real.host_bytes, "driver_used_peak_bytes",
        bytes(j->real.driver_bytes, !r->host), "context_bytes", bytes(p->context_bytes, !r->host),
        "planned", describe_whole(p, p->forecast_ms), "measured",
        describe_whole(&j->real, real_ms(&j->real)), "stages", describe_stages(j), "voice",
        json_pack("{s:s, s:o, s:o}", "device", p->voice_device, "planned", describe_voice(p),
                  "measured", describe_voice(&j->real)));
}

static json_t *describe(const em_memory_report *r)
{
    json_t *jobs = json_array();
    bool ok = jobs != NULL;
    for (size_t i = 0; ok && i < r->jobs; i++)
        ok = !json_array_append_new(jobs, describe_job(r, &r->job[i]));
    if (!ok) {
        json_decref(jobs);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:I, s:o}", "version", em_version(), "mode",
                     r->mode, "device", r->device, "vram_budget_bytes",
                     (json_int_t)r->device_budget, "ram_budget_bytes", (json_int_t)r->host_budget,
                     "jobs_at_once", r->lanes, "process_bytes", (json_int_t)r->process_bytes,
                     "jobs", jobs);
}

static em_status write_json(const em_memory_report *r, em_err *err)
{
    em_json_setup();
    json_t *doc = describe(r);
    char *text = doc ? json_dumps(doc, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    em_status st = text ? em_file_write(r->path, text, strlen(text), err)
                        : em_fail(err, EM_NOMEM, "no memory to write '%s'", r->path);
    json_decref(doc);
    em_free(text);
    return st;
}

/* r.json -> r.svg */
static em_status write_svg(const em_memory_report *r, em_err *err)
{
    em_str path = {0}, svg = {0};
    size_t n = strlen(r->path);
    if (n > 5 && !strcmp(r->path + n - 5, ".json")) n -= 5;
    em_str_printf(&path, "%.*s.svg", (int)n, r->path);
    em_memory_svg(&svg, r);
    em_status st = path.failed || svg.failed
                       ? em_fail(err, EM_NOMEM, "no memory to draw '%s'", r->path)
                       : em_file_write(em_str_text(&path), em_str_text(&svg), svg.len, err);
    em_str_free(&path);
    em_str_free(&svg);
    return st;
}

void em_memory_report_end(em_memory_report *r, const em_job *j)
{
    em_err err = {0};
    if (!r->path || r->failed || !r->jobs) return;
    em_memory_job *job = &r->job[r->jobs - 1];
    job->real = j->result;
    job->real.host_bytes = em_process_memory_now().rss_peak_bytes;
    job->block_bytes = j->block_held_bytes;
    job->end = r->samples;
    em_status st = write_json(r, &err);
    if (!st) st = write_svg(r, &err);
    if (st) em_logf(&j->engine->log, EM_LOG_WARN, "memory report: %s", err.msg);
}
