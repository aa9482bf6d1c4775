#include "pipeline/policy.h"

#include "base/alloc.h"
#include "base/process.h"
#include "memory/staging.h"
#include "pipeline/job.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* How far behind the fastest the least memory may be. */
static const double AS_GOOD_AS = 1.02;

/* Page-locked memory that streamed weights may take: the blocks of the released transformer are
 * 2.5 GB. */
static const size_t MOST_IMAGES = (size_t)4 << 30;

/* Of the host, beside what is counted: threads' stacks, libraries' own state, an encoder's
 * pictures. Measured: docs/MEMORY.md. */
static const uint64_t SLACK_BYTES = (uint64_t)96 << 20;
enum { ENCODER_FRAMES = 64 }; /* that a video encoder holds, as YUV 4:2:0 with its own notes */

/* From the widest; parts of the rows, then em_cut. */
static const struct {
    int ffn_parts, vae_frames, vae_latents;
} widths[EM_WIDTHS] = {{1, 4, 2}, {2, 4, 1}, {4, 2, 1}, {8, 1, 1}, {16, 1, 1}};

/* The job at one width. */
typedef struct variant {
    em_cut cut;
    em_trace trace; /* owned */
    em_stage_need need[EM_STAGE_COUNT];
    em_budget budget;
    em_result result; /* scratch and arithmetic */
    int64_t products[EM_STAGE_COUNT];
} variant;

/* A width and a block. */
typedef struct candidate {
    int width;
    size_t block_bytes;
    double ms, again_ms; /* of this request; of the next one like it */
} candidate;

typedef struct choice {
    em_job *job;
    em_engine *engine;
    variant at[EM_WIDTHS];
    em_policy_room room;
    double best_again_ms; /* of any candidate */
    em_policy policy;
    em_memo memo;
    em_budget annex; /* where there is one */
} choice;

static bool on_host(const choice *c)
{
    return c->engine->ops->device->host_addressable;
}

/* ---- rehearsals ------------------------------------------------------------------------------ */

static em_cut cut_of(const em_job *j, int width)
{
    const em_dit_config *d = em_dit_sizes(j->engine->dit);
    const em_dit_grid g = j->grid;
    /* Whole tiles of any kernel; and what it takes to fill a GPU, where the weights are read for
     * every part again: 30 to 40 MB of hidden layer. */
    enum { ROWS = 256, FILL_ROWS = 2048 };
    int64_t tokens = g.frames * (g.height / d->patch_h) * (g.width / d->patch_w);
    int64_t rows = (tokens / widths[width].ffn_parts + ROWS) / ROWS * ROWS;
    if (!j->engine->ops->device->host_addressable && rows < FILL_ROWS) rows = FILL_ROWS;
    return (em_cut){.ffn_rows = rows < tokens ? rows : 0,
                    .vae_frames = widths[width].vae_frames,
                    .vae_latents = widths[width].vae_latents};
}

static em_status rehearse(choice *c, int width, em_err *err)
{
    variant *v = &c->at[width];
    em_job *j = c->job;
    em_residency like = c->engine->residency;
    v->cut = cut_of(j, width);
    em_status st = em_job_rehearse(j, v->cut, &c->memo, err);
    if (st) return st;
    v->trace = j->trace;
    j->trace = (em_trace){0};
    memcpy(v->need, j->need, sizeof v->need);
    v->result = j->result;
    memcpy(v->products, j->stage_products, sizeof v->products);
    like.drop_unpinned = !c->policy.keep_mapped;
    like.images_bytes = c->policy.image_bytes;
    return em_budget_open(&v->budget, v->need, EM_STAGE_COUNT, &v->trace, &like, &c->engine->plans,
                          err);
}

/* A recorded step has its weights' addresses, so they must stay where they are. A graph takes
 * memory of the driver's that nobody has planned: lightweight goes without. */
static bool replays(const choice *c, const variant *v, em_memory_mode mode)
{
    return mode != EM_MEMORY_LIGHTWEIGHT && c->engine->ops->device->capture_begin &&
           !v->need[EM_STAGE_DENOISE].streamed_bytes;
}

/* A stage's time, when so many bytes are moved in it. */
static double stage_forecast(const choice *c, const variant *v, int s, bool replayed,
                             size_t copied_bytes, size_t packed_bytes)
{
    const em_stage_work work = {.stage = (em_stage)s,
                                .replayed = replayed,
                                .flops = v->result.stage[s].flops,
                                .products = v->products[s],
                                .copied_bytes = (double)copied_bytes,
                                .packed_bytes = (double)packed_bytes};
    return em_rates_stage_ms(&c->engine->rates, &work);
}

/* A candidate's time, after em_budget_try. */
static double forecast(const choice *c, const variant *v, bool replayed, double *stage_ms)
{
    double sum = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        const em_stage_need *n = &v->need[s];
        double ms = stage_forecast(c, v, s, replayed, n->copied_bytes, n->packed_bytes);
        if (stage_ms) stage_ms[s] = ms;
        sum += ms;
    }
    return sum;
}

/* The same of a later request, for which weights that stay are there already. What each choice has
 * to read once says nothing about which is better, however slow a disk makes it. */
static double forecast_again(const choice *c, const variant *v, bool replayed)
{
    bool anew = v->budget.packed_bytes > v->budget.all_bytes; /* files are read again and again */
    double sum = 0;
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        const em_stage_need *n = &v->need[s];
        bool streams = n->streamed_bytes > 0;
        sum += stage_forecast(c, v, s, replayed, streams ? n->copied_bytes : 0,
                              streams && anew ? n->packed_bytes : 0);
    }
    return sum;
}

/* What a mode would get of a width and a block; false: it does not run in that. */
static bool weigh(choice *c, em_memory_mode mode, int width, size_t block_bytes, candidate *out)
{
    variant *v = &c->at[width];
    if (!em_budget_try(&v->budget, block_bytes)) return false;
    bool replayed = replays(c, v, mode);
    *out = (candidate){width, block_bytes, forecast(c, v, replayed, NULL),
                       forecast_again(c, v, replayed)};
    return true;
}

static bool try(choice *c, int width, size_t block_bytes, candidate *out)
{
    return weigh(c, c->engine->memory_mode, width, block_bytes, out);
}

/* Down to what an arena is a multiple of: a block of any other size would be made larger. */
static size_t whole(size_t bytes)
{
    return bytes & ~(size_t)(EM_ARENA_ALIGN - 1);
}

/* The least block of this width that works: the sum of what is in use may leave holes. */
static size_t least_block(choice *c, int width)
{
    em_budget *b = &c->at[width].budget;
    size_t block = b->smallest_bytes, step = whole((b->largest_bytes - block) / 64);
    while (block < b->largest_bytes && !em_budget_try(b, block))
        block += step ? step : EM_ARENA_ALIGN;
    return block < b->largest_bytes ? block : b->largest_bytes;
}

/* The least block in which nothing is copied twice, to a hundredth. */
static size_t once_block(choice *c, int width)
{
    em_budget *b = &c->at[width].budget;
    size_t low = b->smallest_bytes, high = b->largest_bytes;
    while (high - low > b->largest_bytes / 128) {
        size_t mid = low + (high - low) / 2;
        if (em_budget_try(b, mid) && b->copied_bytes <= b->all_bytes)
            high = mid;
        else
            low = mid;
    }
    return high;
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* Of decoded frames on their way: page-locked where the device knows that. */
static uint64_t frames_bytes(const em_job *j)
{
    uint64_t values = EM_VAE_TIME * (uint64_t)j->width * (uint64_t)j->height * 3;
    return 2 * values * (sizeof(float) + 1);
}

static uint64_t offload_bytes(const em_job *j)
{
    return (uint64_t)j->branches * em_job_offload_bytes(j);
}

/* What the job has on the host whatever the mode. */
static uint64_t job_bytes(const em_job *j)
{
    uint64_t frame = (uint64_t)j->width * (uint64_t)j->height * 3;
    uint64_t latents =
        EM_VAE_CHANNELS * (uint64_t)(j->grid.frames * j->grid.height * j->grid.width);
    uint64_t rope = em_dit_rope_count(em_dit_sizes(j->engine->dit), j->grid);
    return (frame + 2 * latents + rope) * sizeof(float) + frames_bytes(j) + offload_bytes(j) +
           em_job_remember_bytes(j) + j->inputs_bytes + ENCODER_FRAMES * frame + SLACK_BYTES;
}

static uint64_t free_of(em_device *d)
{
    uint64_t total = 0, free = 0;
    d->memory_info(d, &total, &free);
    return free;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Host memory that this process may have, in all. */
static uint64_t ram_limit(const em_engine *e)
{
    uint64_t has = em_process_memory_now().rss_bytes, could = has + free_of(&em_device_host);
    return e->ram_budget_bytes ? lesser(e->ram_budget_bytes, could) : could;
}

/* A block for the annex: no width changes what the audio encoder takes. */
static em_status size_annex(choice *c, em_err *err)
{
    em_engine *e = c->engine;
    em_job_annex *a = &c->job->annex;
    em_budget *b = &c->annex;
    if (!e->annex.ops) return EM_OK;
    em_status st = em_budget_open(b, &a->need, 1, &a->trace, &e->annex.residency, &e->plans, err);
    if (st) return st;
    bool least = e->memory_mode == EM_MEMORY_LIGHTWEIGHT && em_budget_try(b, b->smallest_bytes);
    a->block_bytes = least ? b->smallest_bytes : b->largest_bytes;
    return EM_OK;
}

/* Host memory of the annex: its block, and weights in their file. */
static uint64_t annex_bytes(choice *c)
{
    em_budget *b = &c->annex;
    size_t block = c->job->annex.block_bytes;
    if (!c->engine->annex.ops) return 0;
    b->like.drop_unpinned = !c->policy.keep_mapped;
    em_budget_try(b, block);
    return block + b->mapped_bytes + b->source_bytes;
}

/* Of the host beside the block: the process, the job, weights in their files, what moves them, and
 * the annex. After em_budget_try. */
static uint64_t rest_of(choice *c, const em_budget *b)
{
    uint64_t rest = c->engine->base_bytes + c->engine->ops->device->host_context_bytes +
                    job_bytes(c->job) + b->mapped_bytes + b->source_bytes + annex_bytes(c);
    if (on_host(c)) return rest;
    return rest + EM_STAGING_BUFFERS * c->policy.ring_bytes + b->image_bytes;
}

/* The block's limit on the CPU, where the two budgets share one memory. */
static void limit_host(choice *c, uint64_t ram)
{
    em_engine *e = c->engine;
    uint64_t most = minus(ram, c->room.rest_bytes);
    if (e->vram_budget_bytes) most = lesser(most, e->vram_budget_bytes);
    c->room.limit_bytes = (size_t)most;
}

/* Elsewhere the block has a memory of its own. */
static void limit_device(choice *c)
{
    em_engine *e = c->engine;
    em_device *d = e->ops->device;
    uint64_t most = free_of(d) + e->block.size_bytes;
    if (e->vram_budget_bytes) most = lesser(most, minus(e->vram_budget_bytes, d->context_bytes));
    c->room.limit_bytes = (size_t)lesser(most, SIZE_MAX);
}

/* Page-locked memory within the host's limit: the ring that hides calls and images of what is
 * streamed, or less. False: not even the least of both. */
static bool fit_pinned(choice *c, uint64_t ram)
{
    const em_step_down *down = &c->engine->down;
    uint64_t images = c->at[0].budget.image_bytes;
    uint64_t rest = c->room.rest_bytes - images;
    if (rest > ram && c->policy.ring_bytes > EM_STAGING_LEAST_BYTES) {
        rest -= EM_STAGING_BUFFERS * (c->policy.ring_bytes - EM_STAGING_LEAST_BYTES);
        c->policy.ring_bytes = EM_STAGING_LEAST_BYTES;
    }
    c->policy.image_bytes = down->no_images ? 0 : (size_t)lesser(MOST_IMAGES, minus(ram, rest));
    for (int w = 0; w < EM_WIDTHS; w++) c->at[w].budget.like.images_bytes = c->policy.image_bytes;
    c->room.rest_bytes = rest;
    return rest <= ram;
}

static void find_smallest(choice *c)
{
    size_t least = SIZE_MAX;
    for (int w = 0; w < EM_WIDTHS; w++) {
        size_t block = least_block(c, w);
        if (block < least) least = block;
    }
    c->room.smallest_vram = least + c->engine->ops->device->context_bytes;
    c->room.smallest_ram = c->room.least_rest_bytes + (on_host(c) ? least : 0);
    c->job->result.smallest_bytes = least;
    c->job->result.largest_bytes = c->at[0].budget.largest_bytes;
}

/* Host memory beside the block when files' pages are kept, or let go. What a width changes of it
 * is little, so the widest speaks for all. */
static uint64_t rest_when(choice *c, bool keep_mapped)
{
    em_budget *b = &c->at[0].budget;
    c->policy.keep_mapped = keep_mapped;
    for (int w = 0; w < EM_WIDTHS; w++) c->at[w].budget.like.drop_unpinned = !keep_mapped;
    em_budget_try(b, b->largest_bytes);
    return rest_of(c, b);
}

static bool find_limits(choice *c)
{
    em_engine *e = c->engine;
    em_budget *b = &c->at[0].budget;
    uint64_t ram = ram_limit(e), least = on_host(c) ? b->smallest_bytes : 0;
    c->room.ram_bytes = ram;
    c->room.least_rest_bytes = c->room.rest_bytes = rest_when(c, false);
    if (e->memory_mode != EM_MEMORY_LIGHTWEIGHT) c->room.rest_bytes = rest_when(c, true);
    if (e->memory_mode == EM_MEMORY_AUTO && c->room.rest_bytes + least > ram)
        c->room.rest_bytes = rest_when(c, false);
    bool fits = true;
    if (on_host(c)) {
        limit_host(c, ram);
    } else {
        limit_device(c);
        em_budget_try(b, b->smallest_bytes); /* images are most where the block is least */
        c->room.rest_bytes = rest_of(c, b);
        fits = fit_pinned(c, ram);
        c->room.least_rest_bytes = c->room.rest_bytes;
    }
    find_smallest(c);
    size_t smallest = c->job->result.smallest_bytes;
    bool vram = smallest <= c->room.limit_bytes || (on_host(c) && !e->vram_budget_bytes);
    c->room.others_fit = fits && vram && c->room.smallest_ram <= ram;
    return fits && smallest <= c->room.limit_bytes;
}

/* ---- the modes ------------------------------------------------------------------------------- */

/* The better of two in the sense of the mode. */
static bool preferred(const choice *c, candidate a, candidate b)
{
    if (c->engine->memory_mode != EM_MEMORY_LIGHTWEIGHT) { /* as fast: more stays for the next */
        bool same = a.again_ms < 1.001 * b.again_ms && b.again_ms < 1.001 * a.again_ms;
        return same ? a.block_bytes > b.block_bytes : a.again_ms < b.again_ms;
    }
    double enough = c->best_again_ms * AS_GOOD_AS;
    if ((a.again_ms <= enough) != (b.again_ms <= enough)) return a.again_ms <= enough;
    if (a.block_bytes != b.block_bytes) return a.block_bytes < b.block_bytes;
    return a.again_ms < b.again_ms;
}

enum { SIZES = 8, MOST_CANDIDATES = EM_WIDTHS * (SIZES + 1) };

/* Every width in blocks between its least and its most, up to the limit. */
static int candidates(choice *c, candidate *out)
{
    const em_step_down *down = &c->engine->down;
    int n = 0;
    for (int w = down->narrow ? EM_WIDTHS - 1 : 0; w < EM_WIDTHS; w++) {
        em_budget *b = &c->at[w].budget;
        size_t least = least_block(c, w), most = b->largest_bytes;
        if (least > c->room.limit_bytes) continue;
        if (most > c->room.limit_bytes) most = whole(c->room.limit_bytes);
        if (most < least) most = least;
        for (int i = 0; i <= SIZES; i++) {
            size_t block = least + whole((most - least) / SIZES * (size_t)i);
            if (i == SIZES) block = most;
            if (i > 0 && (down->streamed || block == least)) break;
            n += try(c, w, block, &out[n]);
        }
    }
    return n;
}

static bool choose_among(choice *c, candidate *best)
{
    candidate all[MOST_CANDIDATES];
    int n = candidates(c, all);
    for (int i = 0; i < n; i++)
        if (i == 0 || all[i].again_ms < c->best_again_ms) c->best_again_ms = all[i].again_ms;
    for (int i = 0; i < n; i++)
        if (i == 0 || preferred(c, all[i], *best)) *best = all[i];
    return n > 0;
}

/* The widest in which everything stays; failing that, in which nothing is copied twice. */
static bool choose_beefy(choice *c, candidate *best)
{
    for (int w = 0; w < EM_WIDTHS; w++)
        if (c->at[w].budget.largest_bytes <= c->room.limit_bytes)
            return try(c, w, c->at[w].budget.largest_bytes, best);
    for (int w = 0; w < EM_WIDTHS; w++)
        if (try(c, w, whole(c->room.limit_bytes), best) &&
            c->at[w].budget.copied_bytes <= c->at[w].budget.all_bytes)
            return true;
    return false;
}

/* What beefy would take and gain, for lightweight's advice and beefy's refusal. */
static void weigh_beefy(choice *c)
{
    candidate all;
    c->room.all_bytes = c->at[0].budget.largest_bytes;
    c->room.once_bytes = c->room.all_bytes;
    if (c->engine->memory_mode == EM_MEMORY_BEEFY && c->room.all_bytes > c->room.limit_bytes)
        c->room.once_bytes = once_block(c, EM_WIDTHS - 1);
    if (!weigh(c, EM_MEMORY_BEEFY, 0, c->room.all_bytes, &all)) return;
    c->room.all_ms = all.ms;
    c->room.all_again_ms = all.again_ms;
}

/* Weights that earlier jobs left in a block that this one is going to use are there already, unless
 * they lie in the way: then the block is emptied, so that no job copies more than a first one. */
static void resume(choice *c, variant *v, candidate *best)
{
    em_engine *e = c->engine;
    em_budget *b = &v->budget;
    em_residency now = e->residency;
    if (c->policy.drops_images) now.images_bytes = now.image_bytes = 0;
    size_t copied = b->copied_bytes;
    bool kept = e->block.base && e->block.size_bytes >= best->block_bytes;
    if (!now.known_count) return;
    if (kept && em_budget_resume(b, e->block.size_bytes, &now) && b->copied_bytes <= copied) return;
    if (kept) try(c, best->width, best->block_bytes, best);
    now.stored_count = 0; /* pages and images are still there */
    c->policy.empties_block = kept;
    if (!em_budget_resume(b, best->block_bytes, &now)) try(c, best->width, best->block_bytes, best);
}

/* Page-locked memory that earlier jobs' images hold beyond what this one needs: kept where there is
 * room for it. */
static uint64_t spare_images(choice *c, uint64_t image_bytes, uint64_t host_bytes)
{
    uint64_t spare = minus(c->engine->residency.images_bytes, image_bytes);
    c->policy.drops_images = spare && host_bytes + spare > c->room.ram_bytes;
    return c->policy.drops_images ? 0 : spare;
}

/* The chosen one becomes the job's. */
static void adopt(choice *c, candidate best)
{
    em_job *j = c->job;
    variant *v = &c->at[best.width];
    em_result *r = &j->result;
    const em_ops *annex = c->engine->annex.ops;
    double stage_ms[EM_STAGE_COUNT];
    uint64_t smallest = r->smallest_bytes, largest = r->largest_bytes;
    assert(best.block_bytes == whole(best.block_bytes));
    try(c, best.width, best.block_bytes, &best);
    const em_budget *b = &v->budget;
    c->policy.cut = v->cut;
    c->policy.width = best.width;
    c->policy.block_bytes = best.block_bytes;
    c->policy.image_bytes = b->image_bytes;
    if (on_host(c) || !b->copied_bytes) c->policy.ring_bytes = 0;
    c->policy.replays = replays(c, v, c->engine->memory_mode);
    c->room.again_ms = best.again_ms;
    uint64_t pinned = b->image_bytes, host = rest_of(c, b); /* of an empty block: the most */
    uint64_t spare = spare_images(c, pinned, host);
    pinned += spare;
    host += spare;
    resume(c, v, &best);
    j->policy = c->policy;
    em_trace_close(&j->trace);
    j->trace = v->trace;
    v->trace = (em_trace){0};
    memcpy(j->need, v->need, sizeof v->need);
    *r = v->result;
    r->smallest_bytes = smallest;
    r->largest_bytes = largest;
    r->smallest_vram_budget = em_engine_vram_of_all(c->engine, c->room.smallest_vram);
    r->smallest_ram_budget = em_engine_ram_of_all(c->engine, c->room.smallest_ram);
    r->width_rung = best.width;
    r->device_bytes = best.block_bytes;
    r->context_bytes = c->engine->ops->device->context_bytes;
    r->weight_bytes = b->resident_bytes;
    r->mapped_bytes = b->mapped_bytes;
    r->copied_bytes = b->copied_bytes;
    r->pinned_bytes = pinned + EM_STAGING_BUFFERS * c->policy.ring_bytes;
    r->host_bytes = host + (on_host(c) ? best.block_bytes : 0);
    if (!on_host(c)) r->pinned_bytes += frames_bytes(j) + offload_bytes(j);
    snprintf(r->voice_device, sizeof r->voice_device, "%s",
             (annex ? annex : c->engine->ops)->device->name);
    r->voice_block_bytes = j->annex.block_bytes;
    r->voice_scratch_bytes = j->annex.need.scratch_bytes;
    r->voice_weights_bytes = j->annex.need.store_peak_bytes;
    r->voice_mapped_bytes = j->annex.need.mapped_peak_bytes;
    r->forecast_ms = forecast(c, v, c->policy.replays, stage_ms);
    r->rates_measured = em_rates_measured(&c->engine->rates);
    for (int s = 0; s < EM_STAGE_COUNT; s++) {
        r->stage[s].forecast_ms = stage_ms[s];
        r->stage[s].store_bytes = v->need[s].weights_bytes;
        r->stage[s].weights_bytes = v->need[s].store_peak_bytes;
        r->stage[s].mapped_bytes = v->need[s].mapped_peak_bytes;
        r->stage[s].copied_bytes = v->need[s].copied_bytes;
        r->stage[s].packed_bytes = v->need[s].packed_bytes;
    }
}

em_status em_policy_choose(em_job *j, em_err *err)
{
    em_engine *e = j->engine;
    candidate best;
    em_status st = EM_OK;
    choice *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "no memory for a plan");
    *c = (choice){.job = j, .engine = e};
    bool host = on_host(c);
    c->policy.image_bytes = host || e->down.no_images ? 0 : MOST_IMAGES;
    c->policy.ring_bytes = host                 ? 0
                           : e->down.small_ring ? (size_t)EM_STAGING_LEAST_BYTES
                                                : (size_t)EM_STAGING_BYTES;
    for (int w = 0; !st && w < EM_WIDTHS; w++) st = rehearse(c, w, err);
    if (!st) st = size_annex(c, err);
    if (!st) {
        bool fits = find_limits(c);
        weigh_beefy(c);
        if (fits)
            fits = e->memory_mode == EM_MEMORY_BEEFY && !e->down.streamed ? choose_beefy(c, &best)
                                                                          : choose_among(c, &best);
        if (fits) {
            adopt(c, best);
            em_policy_describe(j, &c->room);
        } else {
            st = em_policy_refuse(j, &c->room, err);
        }
    }
    for (int w = 0; w < EM_WIDTHS; w++) em_trace_close(&c->at[w].trace);
    em_free(c);
    return st;
}
