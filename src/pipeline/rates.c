#include "pipeline/rates.h"

#include "base/alloc.h"
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 16 };

/* Assumed until measured, stated in docs/MEMORY.md. */
static const double HOST_FLOPS_PER_MS = 40e9 / 1000; /* of one thread; double without float32 */
static const double DEVICE_FLOPS_PER_MS = 250e12 / 1000;
static const double DEVICE_PRODUCT_MS = 0.02, HOST_PRODUCT_MS = 0.01;
static const double PACK_BYTES_PER_MS = 2e9 / 1000;
static const double COPY_BYTES_PER_MS = 20e9 / 1000;

/* Stages that are too short to tell a rate. */
static const double LEAST_MS = 20;

bool em_rates_measured(const em_rates *r)
{
    return r->measured[EM_STAGE_DENOISE] || r->measured[EM_RATE_REPLAY];
}

static const char *rate_name(int i)
{
    return i == EM_RATE_REPLAY ? "replay" : em_stage_name((em_stage)i);
}

/* ---- the file: {KEY: {STAGE: FLOP/ms, …, "replay": FLOP/ms, "pack": bytes/ms, "copy": bytes/ms},
 * …} */

static void read_file(em_rates *r, json_t *doc)
{
    const json_t *mine = json_object_get(doc, r->key);
    em_err err = {0};
    for (int i = 0; mine && i < EM_RATES; i++) {
        double rate = 0;
        if (em_json_get_double(&rate, mine, rate_name(i), 1, 1e18, r->path, &err) || rate <= 0)
            continue;
        r->flops_per_ms[i] = rate;
        r->measured[i] = true;
    }
    if (mine) em_json_get_double(&r->pack_bytes_per_ms, mine, "pack", 1, 1e15, r->path, &err);
    if (mine) em_json_get_double(&r->copy_bytes_per_ms, mine, "copy", 1, 1e15, r->path, &err);
    if (err.code) em_logf(r->log, EM_LOG_DEBUG, "%s", err.msg);
}

static json_t *describe(const em_rates *r)
{
    json_t *mine = json_object();
    bool ok = mine != NULL;
    for (int i = 0; ok && i < EM_RATES; i++)
        if (r->measured[i])
            ok = !json_object_set_new(mine, rate_name(i), json_real(r->flops_per_ms[i]));
    if (ok) ok = !json_object_set_new(mine, "pack", json_real(r->pack_bytes_per_ms));
    if (ok && r->overlaps) ok = !json_object_set_new(mine, "copy", json_real(r->copy_bytes_per_ms));
    if (ok) return mine;
    json_decref(mine);
    return NULL;
}

static em_status make_folder(const char *path, em_err *err)
{
    size_t n = (size_t)(em_path_base(path) - path);
    char *folder = n ? em_strndup(path, n) : NULL;
    em_status st = folder ? em_dir_create(folder, err) : EM_OK;
    em_free(folder);
    return st;
}

/* Other devices' entries stay. Rates are a convenience: a failure is not the request's. */
static void write_file(const em_rates *r)
{
    em_err err = {0};
    json_t *doc = NULL;
    em_json_setup();
    if (em_json_load(&doc, r->path, MAX_FILE_BYTES, &err) || !json_is_object(doc)) {
        json_decref(doc);
        doc = json_object();
    }
    bool ok = doc && !json_object_set_new(doc, r->key, describe(r));
    char *text = ok ? json_dumps(doc, JSON_INDENT(1)) : NULL;
    err = (em_err){0};
    if (text && make_folder(r->path, &err) == EM_OK)
        em_file_write(r->path, text, strlen(text), &err);
    if (err.code) em_logf(r->log, EM_LOG_DEBUG, "%s", err.msg);
    json_decref(doc);
    em_free(text);
}

/* ---- rates ----------------------------------------------------------------------------------- */

/* Of a table, on as many threads. */
static double assumed(const em_ops *ops, int threads, em_dtype dtype)
{
    double narrow = dtype == EM_F32 ? 1 : 2;
    return ops->device->host_addressable ? HOST_FLOPS_PER_MS * narrow * threads
                                         : DEVICE_FLOPS_PER_MS * narrow / 2;
}

/* "NAME, DEVICE, 0 threads, BF16, voice on cpu, 2 at once" */
static void name_key(em_rates *r, const em_rates_params *p)
{
    bool host = p->ops->device->host_addressable || p->annex;
    char lanes[24] = "";
    if (p->lanes > 1) snprintf(lanes, sizeof lanes, ", %d at once", p->lanes);
    snprintf(r->key, sizeof r->key, "%s, %s, %d threads, %s%s%s%s", p->ops->name,
             p->ops->device->name, host ? em_pool_threads(p->pool) : 0, em_dtype_name(p->dtype),
             p->annex ? ", voice on " : "", p->annex ? p->annex->name : "", lanes);
}

void em_rates_open(em_rates *r, const em_rates_params *p)
{
    bool host = p->ops->device->host_addressable;
    int threads = em_pool_threads(p->pool);
    em_err absent = {0};
    json_t *doc = NULL;
    *r = (em_rates){.path = p->path ? em_strdup(p->path) : NULL,
                    .log = p->log,
                    .product_ms = host ? HOST_PRODUCT_MS : DEVICE_PRODUCT_MS,
                    .pack_bytes_per_ms = PACK_BYTES_PER_MS,
                    .copy_bytes_per_ms = COPY_BYTES_PER_MS,
                    .overlaps = !host};
    name_key(r, p);
    for (int i = 0; i < EM_RATES; i++) r->flops_per_ms[i] = assumed(p->ops, threads, p->dtype);
    if (p->annex) r->flops_per_ms[EM_STAGE_AUDIO] = assumed(p->annex, threads, EM_F32);
    if (!r->path || em_json_load(&doc, r->path, MAX_FILE_BYTES, &absent)) return;
    if (json_is_object(doc)) read_file(r, doc);
    json_decref(doc);
}

void em_rates_close(em_rates *r)
{
    em_free(r->path);
    r->path = NULL;
}

/* For weights, by the device's clock: no part of what its arithmetic takes. If it were, whoever
 * waited would be told that copies cost nothing, and wait longer the next time. */
static double waited_ms(const em_stage_report *g)
{
    return g->copy_waited_ms > 0 ? g->copy_waited_ms : 0;
}

void em_rates_learn(em_rates *r, const em_result *result)
{
    uint64_t packed = 0, copied = 0;
    double packed_ms = 0, copy_ms = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        const em_stage_report *g = &result->stage[s];
        double ms = g->ms - (r->overlaps ? waited_ms(g) : g->packed_ms);
        packed += g->packed_bytes;
        packed_ms += g->packed_ms;
        copied += g->copied_bytes;
        copy_ms += g->copy_ms;
        if (ms < LEAST_MS || g->flops <= 0) continue;
        int i = s == EM_STAGE_DENOISE && result->forwards_replayed ? EM_RATE_REPLAY : s;
        r->flops_per_ms[i] = g->flops / ms; /* a product's own cost is in it from here on */
        r->measured[i] = true;
    }
    if (packed_ms >= LEAST_MS) r->pack_bytes_per_ms = (double)packed / packed_ms;
    if (r->overlaps && copy_ms >= LEAST_MS) r->copy_bytes_per_ms = (double)copied / copy_ms;
    if (r->path) write_file(r);
}

/* One of the denoising's two rates speaks for the other until that is measured. */
static int rate_of(const em_rates *r, const em_stage_work *w)
{
    if (w->stage != EM_STAGE_DENOISE) return w->stage;
    int own = w->replayed ? EM_RATE_REPLAY : EM_STAGE_DENOISE;
    int other = w->replayed ? EM_STAGE_DENOISE : EM_RATE_REPLAY;
    return r->measured[own] || !r->measured[other] ? own : other;
}

double em_rates_stage_ms(const em_rates *r, const em_stage_work *w)
{
    int i = rate_of(r, w);
    double products_ms = r->measured[i] ? 0 : (double)w->products * r->product_ms;
    double compute = w->flops / r->flops_per_ms[i] + products_ms;
    double pack = w->packed_bytes / r->pack_bytes_per_ms;
    if (!r->overlaps) return compute + pack;
    double copy = w->copied_bytes / r->copy_bytes_per_ms;
    double longest = pack > copy ? pack : copy;
    return compute > longest ? compute : longest;
}
