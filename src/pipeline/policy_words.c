/* A memory policy in words: what was chosen and why, and why nothing could be. */
#include "base/str.h"
#include "pipeline/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *mode_name(em_memory_mode m)
{
    static const char *const name[] = {[EM_MEMORY_LIGHTWEIGHT] = "lightweight",
                                       [EM_MEMORY_BEEFY] = "beefy",
                                       [EM_MEMORY_AUTO] = "auto"};
    return name[m];
}

/* A text of bounded size that is built piece by piece; what does not fit is cut. */
typedef struct text {
    char *out;
    size_t size, len;
} text;

static void add(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->out + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    if (n > 0) t->len = t->len + (size_t)n < t->size ? t->len + (size_t)n : t->size - 1;
}

/* A budget that the flags take: MiB, rounded up. */
static unsigned long long mebibytes(uint64_t bytes)
{
    return (unsigned long long)((bytes + (1 << 20) - 1) >> 20);
}

/* The models whose weights come into the block more than once. */
static void add_streamed(text *t, const em_job *j)
{
    static const char *const model[EM_STAGE_COUNT] = {
        [EM_STAGE_ENCODE] = "VAE",          [EM_STAGE_TEXT] = "UMT5",
        [EM_STAGE_IMAGE] = "CLIP",          [EM_STAGE_AUDIO] = "wav2vec2",
        [EM_STAGE_DENOISE] = "transformer", [EM_STAGE_DECODE] = "VAE"};
    const char *last = "";
    int named = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        const em_stage_need *n = &j->need[s];
        if (!model[s] || !n->streamed_bytes || !strcmp(model[s], last)) continue;
        add(t, "%s%s", named++ ? ", " : "", model[s]);
        last = model[s];
    }
}

static bool streams(const em_job *j)
{
    for (int s = 0; s < EM_STAGE_COUNT; s++)
        if (j->need[s].streamed_bytes) return true;
    return false;
}

static void add_host(text *t, const em_job *j)
{
    char a[16], b[16];
    const em_result *r = &j->result;
    add(t, "%s for the process, %s of it scratch and converted weights; ",
        em_format_bytes(a, r->host_bytes), em_format_bytes(b, r->device_bytes));
    add(t, j->policy.keep_mapped ? "weights stay in memory once they were read"
                                 : "weights are read where their files have them and let go after "
                                   "use");
}

static void add_device(text *t, const em_job *j)
{
    char a[16], b[16];
    const em_result *r = &j->result;
    add(t, "a block of %s on the device", em_format_bytes(a, r->device_bytes));
    if (streams(j)) {
        add(t, "; streamed while it computes: ");
        add_streamed(t, j);
        add(t, " (%s page-locked)", em_format_bytes(b, r->pinned_bytes));
    } else {
        add(t, "; every weight is copied once and stays as long as it is needed");
    }
    if (j->policy.replays) add(t, "; the transformer's steps are replayed");
}

/* " A instead of B": false, and nothing, where that is the same. */
static bool add_seconds(text *t, const char *before, double ms, double instead_ms)
{
    char a[24], b[24];
    if (ms >= instead_ms) return false;
    em_format_seconds(a, ms / 1000);
    em_format_seconds(b, instead_ms / 1000);
    if (!strcmp(a, b)) return false;
    add(t, "%s%s instead of %s", before, a, b);
    return true;
}

/* What lightweight's user would get from the rest of the memory: in this job, which has all weights
 * to load, and in later ones. */
static void add_gain(text *t, const em_result *r, const em_policy_room *room)
{
    char bytes[16];
    add(t, "; beefy would fit (%s)", em_format_bytes(bytes, room->all_bytes));
    bool now = add_seconds(t, " and take about ", room->all_ms, r->forecast_ms);
    if (add_seconds(t, now ? ", and " : " and take about ", room->all_again_ms, room->again_ms))
        add(t, " for a later job");
    else if (!now)
        add(t, " and gain nothing");
}

void em_policy_describe(em_job *j, const em_policy_room *room)
{
    em_engine *e = j->engine;
    const em_result *r = &j->result;
    text t = {.out = j->result.policy, .size = sizeof j->result.policy};
    char a[16];
    bool host = e->ops->device->host_addressable;
    add(&t, "%s on %s: ", mode_name(e->memory_mode), e->ops->device->name);
    if (host)
        add_host(&t, j);
    else
        add_device(&t, j);
    if (e->lanes > 1) add(&t, "; each of %d jobs at once has as much", e->lanes);
    if (e->annex.ops)
        add(&t, "; the voice is heard on %s (%s)", r->voice_device,
            em_format_bytes(a, r->voice_block_bytes + r->voice_mapped_bytes));
    if (e->memory_mode == EM_MEMORY_AUTO)
        add(&t, "; the fastest that fits %s", em_format_bytes(a, room->limit_bytes));
    if (e->memory_mode == EM_MEMORY_LIGHTWEIGHT && room->all_bytes <= room->limit_bytes)
        add_gain(&t, r, room);
    add(&t, ".");
}

/* "; --parallel_jobs 2 would do": how many could have that much each. */
static void add_fewer(text *t, const em_engine *e, uint64_t need, uint64_t may)
{
    uint64_t lanes = need ? may * (uint64_t)e->lanes / need : 0;
    if (e->lanes == 1) return;
    add(t, "; that is for each of %d jobs at once", e->lanes);
    if (lanes) add(t, ", --parallel_jobs %d leaves each of them enough", (int)lanes);
}

static uint64_t beyond(uint64_t all, uint64_t once)
{
    return all > once ? all - once : 0;
}

em_status em_policy_refuse(const em_job *j, const em_policy_room *room, em_err *err)
{
    const em_engine *e = j->engine;
    bool host = e->ops->device->host_addressable;
    bool ram = host && !(e->vram_budget_bytes && e->vram_budget_bytes <= room->limit_bytes);
    bool beefy = e->memory_mode == EM_MEMORY_BEEFY && room->others_fit;
    bool pinned = !beefy && !host && j->result.smallest_bytes <= room->limit_bytes;
    const char *flag = ram || pinned ? "ram_budget" : "vram_budget";
    uint64_t need = ram || pinned ? room->smallest_ram : room->smallest_vram;
    uint64_t may = ram || pinned ? room->ram_bytes : room->limit_bytes;
    uint64_t once = ram || pinned ? e->base_bytes : e->ops->device->context_bytes;
    char a[16], b[16], rest[160] = "";
    text t = {.out = rest, .size = sizeof rest};
    em_status code = host || pinned ? EM_NOMEM : EM_NOVRAM;
    if (beefy) need = room->once_bytes + (ram ? room->rest_bytes : once);
    uint64_t all = ram || pinned ? em_engine_ram_of_all(e, need) : em_engine_vram_of_all(e, need);
    add_fewer(&t, e, beyond(need, once), ram || pinned ? beyond(may, once) : may);
    if (beefy)
        return em_fail(err, code,
                       "beefy needs %s for %d frames of %d x %d, there is room for %s: use "
                       "--memory_mode auto, or --%s %lluM%s",
                       em_format_bytes(a, need), j->frames, j->width, j->height,
                       em_format_bytes(b, may), flag, mebibytes(all), rest);
    if (pinned)
        return em_fail(err, code,
                       "%d frames of %d x %d need %s of host memory in any mode, more than there "
                       "is: --ram_budget %lluM would do%s",
                       j->frames, j->width, j->height, em_format_bytes(a, need), mebibytes(all),
                       rest);
    return em_fail(err, code,
                   "%d frames of %d x %d need %s in any mode, there is room for %s: --%s %lluM "
                   "would do, or a smaller --sample_size or --video_length%s",
                   j->frames, j->width, j->height, em_format_bytes(a, need),
                   em_format_bytes(b, may), flag, mebibytes(all), rest);
}
