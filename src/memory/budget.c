#include "memory/budget.h"

#include "base/alloc.h"

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

static em_residency simulation(const em_residency *like, unsigned serial)
{
    return (em_residency){.device = like->device,
                          .dtype = like->dtype,
                          .prefetch = like->prefetch,
                          .drop_unpinned = like->drop_unpinned,
                          .counts_only = true,
                          .serial = serial};
}

/* Room for what a stage uses at once and for what it uses next. */
static em_status least_room(em_budget *b, em_stage_need *s, unsigned serial, em_err *err)
{
    em_residency r = simulation(&b->like, serial);
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
                         const em_residency *like, em_err *err)
{
    *b = (em_budget){.stage = stage, .stages = stages, .trace = trace, .like = *like};
    b->all_bytes = all_weights(b);
    for (int i = 0; i < stages; i++) {
        em_stage_need *s = &stage[i];
        em_status st = least_room(b, s, like->serial + 1 + (unsigned)i, err);
        if (st) return st;
        size_t least = s->least_bytes + round_up(s->scratch_bytes);
        size_t most = b->all_bytes + round_up(s->scratch_bytes);
        if (least > b->smallest_bytes) b->smallest_bytes = least;
        if (most > b->largest_bytes) b->largest_bytes = most;
    }
    return EM_OK;
}

static void share(em_budget *b, size_t block_bytes)
{
    for (int i = 0; i < b->stages; i++) {
        em_stage_need *s = &b->stage[i];
        size_t room = (block_bytes & ~(size_t)(STEP - 1)) - round_up(s->scratch_bytes);
        s->weights_bytes = room < b->all_bytes ? room : b->all_bytes;
    }
}

/* The request as it will run: does every pin find room? */
static bool works(em_budget *b, unsigned serial)
{
    em_residency r = simulation(&b->like, serial);
    em_err err = {0};
    em_status st = EM_OK;
    r.follow = b->trace;
    for (int i = 0; !st && i < b->stages; i++) {
        st = em_residency_set_store(&r, NULL, b->stage[i].weights_bytes, &err);
        if (!st) st = replay(&r, b->trace, &b->stage[i], &err);
    }
    b->resident_bytes = r.peak_bytes;
    em_residency_close(&r);
    return !st;
}

/* Groups that are in use may leave holes that are too small for another: then a little more is
 * needed than the sum, and all weights at once always fit. */
em_status em_budget_fit(em_budget *b, size_t limit_bytes, size_t *block_bytes, em_err *err)
{
    size_t block = limit_bytes < b->largest_bytes ? limit_bytes : b->largest_bytes;
    unsigned serial = b->like.serial + EM_BUDGET_SERIALS - 1;
    if (block < b->smallest_bytes)
        return em_fail(err, EM_NOVRAM, "this needs %zu bytes of memory at least, %zu are allowed",
                       b->smallest_bytes, limit_bytes);
    share(b, block);
    if (!works(b, serial))
        return em_fail(err, EM_NOVRAM, "%zu bytes of memory do not do for this", block);
    *block_bytes = block;
    return EM_OK;
}
