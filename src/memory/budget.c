#include "memory/budget.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdint.h>

enum { STEP = 256 };

static size_t round_up(size_t bytes)
{
    return (bytes + STEP - 1) & ~(size_t)(STEP - 1);
}

/* Replays one stage's part of the trace on a plan's residency. */
static em_status replay(em_residency *r, const em_trace *t, const em_stage_need *s, em_err *err)
{
    em_status st = EM_OK;
    for (size_t i = s->begin; !st && i < s->end; i++)
        st = t->step[i].pin ? em_residency_pin(r, t->step[i].group, err)
                            : em_residency_unpin(r, t->step[i].group, err);
    return st;
}

static em_residency simulation(const em_budget *b)
{
    const em_residency *like = &b->like;
    return (em_residency){.device = like->device,
                          .dtype = like->dtype,
                          .prefetch = like->prefetch,
                          .drop_unpinned = like->drop_unpinned,
                          .counts_only = true,
                          .serial = ++*b->serials};
}

/* Room for what a stage uses at once and for what it uses next. */
static em_status least_room(em_budget *b, em_stage_need *s, em_err *err)
{
    em_residency r = simulation(b);
    em_trace part = {.step = b->trace->step, .count = s->end};
    r.follow = &part;
    r.cursor = s->begin;
    r.eager = true;
    r.capacity_bytes = SIZE_MAX;
    em_status st = replay(&r, b->trace, s, err);
    /* Holes may make that more than all weights take side by side, which always does. */
    s->least_bytes = round_up(r.store_peak_bytes);
    if (s->least_bytes > b->all_bytes) s->least_bytes = b->all_bytes;
    em_residency_close(&r);
    return st;
}

static size_t all_weights(em_budget *b)
{
    size_t sum = 0;
    for (size_t i = 0; i < b->trace->count; i++) {
        const em_trace_step *s = &b->trace->step[i];
        bool last = s->pin && s->next == SIZE_MAX; /* each group once */
        sum += last && !s->group->in_place ? s->group->image_bytes : 0;
    }
    return round_up(sum);
}

em_status em_budget_open(em_budget *b, em_stage_need *stage, int stages, const em_trace *trace,
                         const em_residency *like, unsigned *serials, em_err *err)
{
    assert(stages <= EM_BUDGET_STAGES);
    *b = (em_budget){.stage = stage, .stages = stages, .trace = trace, .like = *like};
    b->serials = serials;
    b->all_bytes = all_weights(b);
    for (int i = 0; i < stages; i++) {
        em_stage_need *s = &stage[i];
        em_status st = least_room(b, s, err);
        if (st) return st;
        size_t least = s->least_bytes + round_up(s->scratch_bytes);
        size_t most = b->all_bytes + round_up(s->scratch_bytes);
        if (least > b->smallest_bytes) b->smallest_bytes = least;
        if (most > b->largest_bytes) b->largest_bytes = most;
    }
    return EM_OK;
}

size_t em_budget_room(const em_stage_need *s, size_t block_bytes)
{
    return (block_bytes & ~(size_t)(STEP - 1)) - round_up(s->scratch_bytes);
}

void em_budget_rooms(const em_stage_need *stage, int stages, em_room *out)
{
    for (int i = 0; i < stages; i++) out[i] = (em_room){stage[i].end, stage[i].weights_bytes};
}

static void share(em_budget *b, size_t block_bytes)
{
    for (int i = 0; i < b->stages; i++) {
        em_stage_need *s = &b->stage[i];
        size_t room = em_budget_room(s, block_bytes);
        s->weights_bytes = room < b->all_bytes ? room : b->all_bytes;
    }
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What a stage did, into the stage and into the whole. */
static void account(em_budget *b, em_stage_need *s, const em_residency *r)
{
    s->store_peak_bytes = r->store_peak_bytes;
    s->mapped_peak_bytes = r->mapped_peak_bytes;
    s->copied_bytes = r->copied_bytes;
    s->packed_bytes = r->packed_bytes;
    b->resident_bytes = larger(b->resident_bytes, r->peak_bytes);
    b->mapped_bytes = larger(b->mapped_bytes, r->mapped_peak_bytes);
    b->source_bytes = larger(b->source_bytes, r->source_peak_bytes);
    b->image_bytes = r->image_bytes;
    b->copied_bytes += r->copied_bytes;
    b->packed_bytes += r->packed_bytes;
}

/* Each group once: at its last pin of the stage. */
static size_t streamed(const em_budget *b, const em_stage_need *s)
{
    size_t sum = 0;
    for (size_t i = s->begin; i < s->end; i++) {
        const em_trace_step *p = &b->trace->step[i];
        bool counts = p->pin && p->next >= s->end && p->group->planned.loads > 1;
        sum += counts ? p->group->image_bytes : 0;
    }
    return sum;
}

/* Plays the request through, from where `real` is (NULL: nothing is anywhere); false when it does
 * not run. */
static bool play(em_budget *b, const em_residency *real)
{
    em_residency r = simulation(b);
    em_err err = {0};
    em_room room[EM_BUDGET_STAGES];
    em_status st = EM_OK;
    em_budget_rooms(b->stage, b->stages, room);
    em_residency_follow(&r, b->trace, room, (size_t)b->stages);
    r.images_bytes = real ? b->image_bytes : b->like.images_bytes;
    b->resident_bytes = b->mapped_bytes = b->source_bytes = b->image_bytes = 0;
    b->copied_bytes = b->packed_bytes = 0;
    if (real) st = em_residency_resume(&r, real, &err);
    for (int i = 0; !st && i < b->stages; i++) {
        em_stage_need *s = &b->stage[i];
        st = em_residency_set_store(&r, r.base, s->weights_bytes, &err);
        em_residency_count_anew(&r);
        if (!st) st = replay(&r, b->trace, s, &err);
        account(b, s, &r);
    }
    for (int i = 0; !real && i < b->stages; i++)
        b->stage[i].streamed_bytes = streamed(b, &b->stage[i]);
    em_residency_close(&r);
    return !st;
}

/* What the trace says of each group, before anything is known to be streamed. */
static void look_at_groups(em_budget *b)
{
    for (size_t i = 0; i < b->trace->count; i++) {
        em_group *g = b->trace->step[i].group;
        g->streamed = g->repeats = false;
    }
    for (int s = 0; s < b->stages; s++)
        for (size_t i = b->stage[s].begin; i < b->stage[s].end; i++) {
            const em_trace_step *p = &b->trace->step[i];
            if (p->pin && p->next < b->stage[s].end) p->group->repeats = true;
        }
}

static void mark_streamed(em_budget *b)
{
    for (size_t i = 0; i < b->trace->count; i++) {
        em_group *g = b->trace->step[i].group;
        g->streamed = g->planned.loads > 1;
    }
}

/* A pin in a stage of a group that it uses in turn with others; and the last one. */
static bool takes_turn(const em_trace_step *p)
{
    return p->pin && p->group->repeats && !p->group->in_place;
}

static bool ends_turns(const em_trace_step *p, const em_stage_need *s)
{
    return takes_turn(p) && p->next >= s->end;
}

/* How many came in again in each turn, on an average, rounded up. */
static size_t again_each_turn(const em_budget *b, const em_stage_need *s, size_t *groups)
{
    size_t pins = 0, again = 0;
    *groups = 0;
    for (size_t i = s->begin; i < s->end; i++) {
        const em_trace_step *p = &b->trace->step[i];
        pins += takes_turn(p);
        if (!ends_turns(p, s)) continue;
        again += p->group->planned.loads - 1;
        ++*groups;
    }
    size_t turns = *groups ? pins / *groups - 1 : 0; /* the first one finds nothing */
    return turns ? (again + turns - 1) / turns : 0;
}

/* After a play that did not know which groups would be streamed: so many a turn, and `more`, one
 * here and one there. A copy that has the time of several groups' computation is hidden behind
 * that, one of many in a row only behind its neighbour's. */
static void spread_streamed(em_budget *b, const em_stage_need *s, size_t more)
{
    size_t groups, streamed = again_each_turn(b, s, &groups), k = 0;
    if (streamed) streamed += more;
    if (streamed > groups) streamed = groups;
    for (size_t i = s->begin; i < s->end; i++) {
        const em_trace_step *p = &b->trace->step[i];
        if (!ends_turns(p, s)) continue;
        p->group->streamed = (k + 1) * streamed / groups > k * streamed / groups;
        k++;
    }
}

/* Plays with streamed groups spread out; false when that takes a third more copies, or hides
 * none. */
static bool play_spread(em_budget *b)
{
    if (!b->like.prefetch) return false;
    size_t copied = b->copied_bytes, again = copied - b->all_bytes;
    for (size_t more = 0; more < 2; more++) {
        for (int i = 0; i < b->stages; i++) spread_streamed(b, &b->stage[i], more);
        if (play(b, NULL) && b->copied_bytes <= copied + again / 3) return true;
        look_at_groups(b);
        if (!play(b, NULL)) return false;
    }
    return false;
}

/* Groups that are in use may leave holes that are too small for another: then a little more is
 * needed than the sum, and all weights at once always fit. Once to see how many groups come in
 * again, and once knowing which: spread out, or else those that were seen (what moves on the device
 * is the same then). */
bool em_budget_try(em_budget *b, size_t block_bytes)
{
    if (block_bytes < b->smallest_bytes) return false;
    share(b, block_bytes);
    look_at_groups(b);
    if (!play(b, NULL)) return false;
    if (b->copied_bytes <= b->all_bytes || play_spread(b)) return true;
    mark_streamed(b);
    return play(b, NULL);
}

bool em_budget_resume(em_budget *b, size_t held_bytes, const em_residency *real)
{
    for (int i = 0; i < b->stages; i++)
        b->stage[i].weights_bytes = em_budget_room(&b->stage[i], held_bytes);
    return play(b, real);
}

em_status em_budget_fit(em_budget *b, size_t limit_bytes, size_t *block_bytes, em_err *err)
{
    size_t block = limit_bytes < b->largest_bytes ? limit_bytes : b->largest_bytes;
    if (block < b->smallest_bytes)
        return em_fail(err, EM_NOVRAM, "this needs %zu bytes of memory at least, %zu are allowed",
                       b->smallest_bytes, limit_bytes);
    if (!em_budget_try(b, block))
        return em_fail(err, EM_NOVRAM, "%zu bytes of memory do not do for this", block);
    *block_bytes = block;
    return EM_OK;
}
