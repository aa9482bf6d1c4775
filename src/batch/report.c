/* batch_report.json: what a program reads after the batch. */
#include "base/alloc.h"
#include "batch/state.h"
#include "io/file.h"
#include "io/json.h"

#include <string.h>
#include <sys/resource.h>

/* Every json_object_set_new takes the new value, NULL (out of memory) too, and says so. */
static bool set(json_t *o, const char *key, json_t *value)
{
    return json_object_set_new(o, key, value) == 0;
}

/* JSON is UTF-8, a path is any bytes: those that are not become question marks. */
static json_t *text(const char *bytes)
{
    json_t *v = json_string(bytes);
    char *ascii = v ? NULL : em_strdup(bytes);
    if (!ascii) return v;
    for (char *p = ascii; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    v = json_string(ascii);
    em_free(ascii);
    return v;
}

static json_t *describe_stages(const em_result *r)
{
    json_t *all = json_object();
    bool ok = all != NULL;
    for (int s = 0; ok && s < EM_STAGE_COUNT; s++) {
        const em_stage_report *g = &r->stage[s];
        ok = set(all, em_stage_name((em_stage)s),
                 json_pack("{s:f, s:f, s:I}", "seconds", g->ms / 1000, "flops", g->flops,
                           "scratch_bytes", (json_int_t)g->scratch_bytes));
    }
    if (ok) return all;
    json_decref(all);
    return NULL;
}

static bool describe_result(json_t *o, const em_batch_item *it)
{
    const em_result *r = &it->result;
    return set(o, "width", json_integer(r->width)) && set(o, "height", json_integer(r->height)) &&
           set(o, "frames", json_integer(r->frames)) && set(o, "steps", json_integer(r->steps)) &&
           set(o, "steps_resumed", json_integer(r->steps_resumed)) &&
           set(o, "forwards", json_integer(r->forwards)) &&
           set(o, "forwards_replayed", json_integer(r->forwards_replayed)) &&
           set(o, "peak_memory_bytes",
               json_integer((json_int_t)r->scratch_bytes + (json_int_t)r->weight_bytes)) &&
           set(o, "peak_scratch_bytes", json_integer((json_int_t)r->scratch_bytes)) &&
           set(o, "peak_weight_bytes", json_integer((json_int_t)r->weight_bytes)) &&
           set(o, "stages", describe_stages(r));
}

static json_t *describe_warnings(const em_batch_item *it)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < it->warnings; i++)
        if (json_array_append_new(all, text(it->warning[i])) != 0) {
            json_decref(all);
            return NULL;
        }
    return all;
}

static bool describe_delivery(json_t *o, const em_batch_item *it)
{
    static const char *const word[] = {"none", "due", "done", "failed"};
    char target[300];
    if (!it->job->upload_url) return true;
    return set(o, "upload_url", text(em_url_public(target, sizeof target, it->job->upload_url))) &&
           set(o, "delivery", json_string(word[it->delivery])) &&
           set(o, "delivery_tries", json_integer(it->delivery_tries));
}

static json_t *describe_item(const em_batch_item *it)
{
    char image[256] = "", audio[256] = "";
    const em_batch_job *j = it->job;
    json_t *o = json_object();
    if (j->image) em_address_shown(image, sizeof image, j->image);
    if (j->audio) em_address_shown(audio, sizeof audio, j->audio);
    bool ok = o && set(o, "index", json_integer((json_int_t)j->index)) &&
              set(o, "output_name", j->name ? text(j->name) : json_null()) &&
              set(o, "portrait_image", text(image)) && set(o, "portrait_audio", text(audio)) &&
              set(o, "output", it->output ? text(it->output) : json_null()) &&
              set(o, "state", json_string(em_job_state_name(it->state))) &&
              set(o, "seed", json_integer(j->params.seed)) &&
              set(o, "seconds", json_real(it->seconds)) &&
              set(o, "found", json_boolean(it->found)) &&
              set(o, "audio_cut_seconds", json_real(it->cut_seconds)) &&
              set(o, "warnings", describe_warnings(it)) && describe_delivery(o, it);
    if (ok && it->result.frames) ok = describe_result(o, it);
    if (ok && it->err.code)
        ok = set(o, "error", text(it->err.msg)) &&
             set(o, "error_kind", json_string(em_status_text(it->err.code)));
    if (ok) return o;
    json_decref(o);
    return NULL;
}

/* Of the whole process since it began. */
static json_int_t peak_memory_bytes(void)
{
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) == 0 ? (json_int_t)use.ru_maxrss * 1024 : 0;
}

static json_t *describe_batch(const em_batch *b)
{
    json_t *jobs = json_array(), *summary = json_object(), *doc = NULL;
    bool ok = jobs && summary;
    for (size_t i = 0; ok && i < em_batch_count(b); i++)
        ok = json_array_append_new(jobs, describe_item(em_batch_at(b, i))) == 0;
    for (int s = 0; ok && s < EM_JOB_STATES; s++)
        ok = set(summary, em_job_state_name((em_job_state)s),
                 json_integer((json_int_t)em_batch_in_state(b, (em_job_state)s)));
    if (ok) ok = set(summary, "run_seconds", json_real(b->run_seconds));
    if (ok) ok = set(summary, "peak_memory_bytes", json_integer(peak_memory_bytes()));
    if (ok)
        doc = json_pack("{s:s, s:i, s:O, s:O}", "version", em_version(), "parallel_jobs", b->lanes,
                        "jobs", jobs, "summary", summary);
    json_decref(jobs);
    json_decref(summary);
    return doc;
}

em_status em_batch_report(const em_batch *b, const char *path, em_err *err)
{
    em_json_setup();
    json_t *doc = describe_batch(b);
    char *text = doc ? json_dumps(doc, JSON_INDENT(2)) : NULL;
    em_status st = text ? em_file_write(path, text, strlen(text), err)
                        : em_fail(err, EM_NOMEM, "no memory to write '%s'", path);
    json_decref(doc);
    em_free(text);
    return st;
}
