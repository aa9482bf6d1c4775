#include "memory/residency.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/time.h"
#include "memory/staging.h"
#include "memory/stopwatch.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

static em_device *device_of(const em_residency *r)
{
    return r->device ? r->device : &em_device_host;
}

static em_group_use *use_of(const em_residency *r, em_group *g)
{
    return r->counts_only ? &g->planned : &g->real;
}

static bool is_here(const em_residency *r, em_group *g)
{
    const em_group_use *u = use_of(r, g);
    return u->serial == r->serial && u->state != EM_GROUP_COLD;
}

/* ---- the trace ------------------------------------------------------------------------------- */

void em_trace_close(em_trace *t)
{
    em_free(t->step);
    *t = (em_trace){0};
}

void em_trace_link(em_trace *t)
{
    for (size_t i = 0; i < t->count; i++) t->step[i].group->planned.next_use = SIZE_MAX;
    for (size_t i = t->count; i-- > 0;) {
        em_trace_step *s = &t->step[i];
        if (!s->pin) continue;
        s->next = s->group->planned.next_use;
        s->group->planned.next_use = i;
    }
}

static void record(em_residency *r, em_group *g, bool pin)
{
    em_trace *t = r->record;
    em_trace_step s = {.group = g, .pin = pin, .next = SIZE_MAX};
    if (t && !EM_PUSH(t->step, t->count, t->cap, s)) t->failed = true;
}

/* Where this pin stands in the trace. A run may skip parts of it (a forward that is not computed)
 * and goes on at the next pin of the group. Without a trace what was used last is needed first. */
static void look_ahead(em_residency *r, em_group *g, em_group_use *u)
{
    const em_trace *t = r->follow;
    size_t at = r->cursor;
    r->clock++;
    u->next_use = SIZE_MAX - r->clock;
    if (!t) return;
    while (at < t->count && !(t->step[at].pin && t->step[at].group == g)) at++;
    if (at == t->count) return;
    u->next_use = t->step[at].next;
    r->cursor = at + 1;
}

/* When a group that is not in use is needed again; what was skipped does not count. */
static size_t next_use(const em_residency *r, em_group_use *u)
{
    const em_trace *t = r->follow;
    while (t && u->next_use < r->cursor && u->next_use < t->count)
        u->next_use = t->step[u->next_use].next;
    return u->next_use;
}

/* ---- the store ------------------------------------------------------------------------------- */

static void raise_to(size_t *peak, size_t bytes)
{
    if (bytes > *peak) *peak = bytes;
}

static void count(em_residency *r, size_t bytes)
{
    r->resident_bytes += bytes;
    raise_to(&r->peak_bytes, r->resident_bytes);
}

/* What a group in place makes resident. Of a table that stays on the host only rows are read, with
 * the pages that the kernel maps around them. */
enum { TABLE_BYTES = 32 << 20 };

static size_t mapped_size(const em_group *g)
{
    bool table = g->rule == EM_WEIGHTS_ON_HOST && g->size_bytes > TABLE_BYTES;
    return table ? TABLE_BYTES : g->size_bytes;
}

static void count_mapped(em_residency *r, const em_group *g)
{
    count(r, mapped_size(g));
    r->mapped_bytes += mapped_size(g);
    raise_to(&r->mapped_peak_bytes, r->mapped_bytes);
}

/* Something goes, or a trace is followed from its beginning. */
static void look_again(em_residency *r)
{
    r->here_begin = r->here_end = 0;
}

static void let_go(em_residency *r, em_group *g)
{
    use_of(r, g)->state = EM_GROUP_COLD;
    look_again(r);
    r->resident_bytes -= mapped_size(g);
    r->mapped_bytes -= mapped_size(g);
    if (!r->counts_only) em_group_drop_source(g);
}

/* The first hole of size_bytes below `limit`: its offset, and the index in `stored` that its group
 * will have. */
static bool find_hole(const em_residency *r, size_t size_bytes, size_t limit, size_t *offset,
                      size_t *index)
{
    size_t end = 0;
    for (size_t i = 0; i <= r->stored_count; i++) {
        bool last = i == r->stored_count;
        size_t begin = last ? limit : use_of(r, r->stored[i])->offset_bytes;
        if (begin > limit) begin = limit;
        if (begin >= end && begin - end >= size_bytes) {
            *offset = end;
            *index = i;
            return true;
        }
        if (!last) end = begin + r->stored[i]->image_bytes;
    }
    return false;
}

/* The room of stored[i] is free; copies into it wait until the device has used what was there. */
static em_status evict(em_residency *r, size_t i, em_err *err)
{
    em_group *g = r->stored[i];
    em_group_use *u = use_of(r, g);
    em_device *d = device_of(r);
    assert(u->state == EM_GROUP_WARM || u->state == EM_GROUP_LOADING);
    em_status st = EM_OK;
    if (!r->counts_only && u->state == EM_GROUP_WARM)
        st = d->queue_wait(d, EM_QUEUE_COPY, u->done, err);
    u->state = EM_GROUP_COLD;
    look_again(r);
    r->resident_bytes -= g->image_bytes;
    r->stored_count--;
    memmove(r->stored + i, r->stored + i + 1, (r->stored_count - i) * sizeof *r->stored);
    return st;
}

/* Where a group may go: at the cost of those that are not needed before a step of the trace, and
 * below an end of the store. */
typedef struct terms {
    size_t horizon, limit_bytes;
} terms;

/* It was meant to come in again and again, and has been used. */
static bool passes_through(const em_group *g, const em_group_use *u)
{
    return g->streamed && u->state == EM_GROUP_WARM;
}

/* What passes through, else what is needed latest; stored_count when nothing may go. */
static size_t choose_victim(const em_residency *r, terms t)
{
    size_t victim = r->stored_count, latest = 0;
    bool passing = false;
    for (size_t i = 0; i < r->stored_count; i++) {
        em_group_use *u = use_of(r, r->stored[i]);
        if (u->state == EM_GROUP_PINNED || u->offset_bytes >= t.limit_bytes) continue;
        size_t next = next_use(r, u);
        bool passes = passes_through(r->stored[i], u);
        bool better = passes != passing ? passes : next > latest;
        if (next < t.horizon || (victim < r->stored_count && !better)) continue;
        victim = i;
        latest = next;
        passing = passes;
    }
    return victim;
}

/* Takes room for a group. *placed false: there is none. */
static em_status take_room(em_residency *r, em_group *g, terms t, bool *placed, em_err *err)
{
    size_t offset = 0, index = 0;
    em_group_use *u = use_of(r, g);
    *placed = false;
    while (!find_hole(r, g->image_bytes, t.limit_bytes, &offset, &index)) {
        size_t victim = choose_victim(r, t);
        if (victim == r->stored_count) return EM_OK;
        em_status st = evict(r, victim, err);
        if (st) return st;
    }
    if (!EM_PUSH(r->stored, r->stored_count, r->stored_cap, g))
        return em_fail(err, EM_NOMEM, "no memory to place weights");
    memmove(r->stored + index + 1, r->stored + index,
            (r->stored_count - 1 - index) * sizeof *r->stored);
    r->stored[index] = g;
    u->offset_bytes = offset;
    u->state = EM_GROUP_LOADING;
    raise_to(&r->store_peak_bytes, offset + g->image_bytes);
    count(r, g->image_bytes);
    *placed = true;
    return EM_OK;
}

/* ---- what is missing ------------------------------------------------------------------------- */

/* The first pin of the trace, from `at` on, of a group that is not here; count when there is none.
 * Where little must do, the very next group or none: one that is pinned again and again would let
 * one more in every time. What was found to be here is so until something goes: no search looks at
 * it twice, however long the trace. */
static size_t next_missing(em_residency *r, size_t at)
{
    const em_trace *t = r->follow;
    if (at < r->here_begin || at > r->here_end) r->here_begin = r->here_end = at;
    for (at = r->here_end; t && at < t->count; at++) {
        em_group *g = t->step[at].group;
        if (!t->step[at].pin) continue;
        if (!is_here(r, g)) break;
        if (r->eager && !g->in_place) return t->count;
    }
    return r->here_end = at;
}

/* The same of a group that is copied. */
static size_t next_copy(em_residency *r)
{
    size_t at = next_missing(r, r->cursor);
    while (at < r->follow->count && r->follow->step[at].group->in_place)
        at = next_missing(r, at + 1);
    return at;
}

/* What the disk should begin with: what will be missing next. Once: the kernel looks at every page.
 * Of a table nobody reads but rows. NULL: nothing. */
static const em_group *take_announcement(em_residency *r)
{
    if (r->counts_only || !r->follow) return NULL;
    size_t at = next_missing(r, r->cursor);
    if (at == r->follow->count) return NULL;
    em_group *g = r->follow->step[at].group;
    em_group_use *u = use_of(r, g);
    if (u->imaged || u->announced || mapped_size(g) != g->size_bytes) return NULL;
    u->announced = true;
    return g;
}

static void read_ahead(em_residency *r)
{
    const em_group *g = take_announcement(r);
    if (g) em_group_fetch(g);
}

/* ---- moving bytes ---------------------------------------------------------------------------- */

static em_status meet(em_residency *r, em_group *g, em_err *err)
{
    em_group_use *u = use_of(r, g);
    em_device *d = device_of(r);
    if (u->known) return EM_OK;
    if (!EM_PUSH(r->known, r->known_count, r->known_cap, g))
        return em_fail(err, EM_NOMEM, "no memory to keep track of weights");
    u->known = true;
    if (g->in_place) return EM_OK;
    em_status st = d->event_create(d, &u->ready, err);
    return st ? st : d->event_create(d, &u->done, err);
}

static em_status open_ring(em_residency *r, em_err *err)
{
    size_t bytes = r->ring_bytes ? r->ring_bytes : EM_STAGING_BYTES;
    if (r->staging && em_staging_buffer_bytes(r->staging) > bytes) em_staging_close(&r->staging);
    return r->staging ? EM_OK : em_staging_open(&r->staging, device_of(r), bytes, err);
}

/* The host reads a group's file, into memory that it can address. */
static em_status pack(em_residency *r, em_group *g, void *to, em_err *err)
{
    double start = em_now_ms();
    em_status st = em_group_write_all(g, to, r->pool, err);
    em_group_drop_source(g);
    r->packed_ms += em_now_ms() - start;
    return st;
}

/* Weights that come in again and again get an image that the device can read: at once where the
 * plan knew, so that the host reads their file once; else when they were dropped and are needed
 * anew. */
static em_status make_image(em_residency *r, em_group *g, em_group_use *u, em_err *err)
{
    bool again = u->loads > 0 && r->follow && u->next_use < r->follow->count;
    if (u->imaged || !(again || g->streamed) || device_of(r)->host_addressable) return EM_OK;
    if (g->image_bytes > r->images_bytes - r->image_bytes) return EM_OK; /* staged as before */
    em_status st = r->counts_only ? EM_OK : pack(r, g, (char *)r->images + r->image_bytes, err);
    if (st) return st;
    u->imaged = true;
    u->image_offset_bytes = r->image_bytes;
    r->image_bytes += g->image_bytes;
    r->packed_bytes += g->image_bytes;
    return EM_OK;
}

static em_status copy_image(em_residency *r, em_group *g, em_group_use *u, em_err *err)
{
    em_device *d = device_of(r);
    em_status st = em_stopwatch_begin(r->copies, err);
    if (!st)
        st = d->copy_async(d, (char *)r->base + u->offset_bytes,
                           (char *)r->images + u->image_offset_bytes, g->image_bytes, err);
    return st ? st : em_stopwatch_end(r->copies, 1, err);
}

static size_t index_of(const em_residency *r, const em_group *g)
{
    size_t i = 0;
    while (r->stored[i] != g) i++;
    return i;
}

/* Groups that have room and go there together. */
typedef struct batch {
    em_group *group[EM_STAGING_GROUPS];
    size_t count;
} batch;

static em_status count_load(em_residency *r, em_group *g, em_err *err)
{
    em_group_use *u = use_of(r, g);
    em_status st = r->counts_only ? EM_OK : meet(r, g, err);
    if (!st) st = make_image(r, g, u, err);
    if (st) return st;
    if (!u->imaged) r->packed_bytes += g->image_bytes;
    raise_to(&r->source_peak_bytes, g->loose_bytes);
    u->loads++;
    u->announced = false;
    r->copied_bytes += g->image_bytes;
    return EM_OK;
}

/* What goes through the ring is put on `load`. */
static em_status send(em_residency *r, em_group *g, em_staging_load *load, em_err *err)
{
    em_group_use *u = use_of(r, g);
    void *to = (char *)r->base + u->offset_bytes;
    if (u->imaged) return copy_image(r, g, u, err);
    if (device_of(r)->host_addressable) return pack(r, g, to, err);
    load->item[load->count++] = (em_shipment){g, to};
    return EM_OK;
}

static em_status send_staged(em_residency *r, em_staging_load *load, em_err *err)
{
    if (!load->count) return EM_OK;
    double start = em_now_ms();
    load->next = take_announcement(r);
    em_status st = open_ring(r, err);
    if (!st) st = em_staging_send(r->staging, load, err);
    for (size_t i = 0; i < load->count; i++) em_group_drop_source(load->item[i].group);
    r->packed_ms += em_now_ms() - start;
    return st;
}

/* Bytes into the room that each has. */
static em_status fill(em_residency *r, const batch *b, em_err *err)
{
    em_device *d = device_of(r);
    em_staging_load load = {.pool = r->pool, .clock = r->copies};
    em_status st = EM_OK;
    for (size_t i = 0; !st && i < b->count; i++) st = count_load(r, b->group[i], err);
    if (r->counts_only) return st;
    for (size_t i = 0; !st && i < b->count; i++) st = send(r, b->group[i], &load, err);
    if (!st) st = send_staged(r, &load, err);
    for (size_t i = 0; !st && i < b->count; i++)
        st = d->event_record(d, use_of(r, b->group[i])->ready, EM_QUEUE_COPY, err);
    return st;
}

static void give_room_back(em_residency *r, const batch *b)
{
    em_err ignored = {0};
    for (size_t i = 0; i < b->count; i++) evict(r, index_of(r, b->group[i]), &ignored);
}

/* Groups that could not be read are not there, whoever asks next. */
static em_status load(em_residency *r, const batch *b, em_err *err)
{
    em_status st = fill(r, b, err);
    if (st) give_room_back(r, b);
    return st;
}

/* ---- ahead of their pins --------------------------------------------------------------------- */

/* How much more every pin may bring in: whenever the host has read what it was told to, its threads
 * wait for the last one, and small groups by themselves would be mostly that. */
static const size_t AHEAD_BYTES = (size_t)256 << 20;

/* A group is on its way that is needed before `at`. */
static bool one_comes(const em_residency *r, size_t at)
{
    for (size_t i = 0; i < r->stored_count; i++) {
        em_group_use *u = use_of(r, r->stored[i]);
        if (u->state == EM_GROUP_LOADING && next_use(r, u) < at) return true;
    }
    return false;
}

/* The least that the store will be until a step of the trace is over: what lies beyond goes. */
static size_t lasting_bytes(const em_residency *r, size_t at)
{
    size_t least = r->capacity_bytes;
    for (size_t i = 0; i < r->rooms; i++) {
        if (r->room[i].end <= r->cursor) continue;
        if (r->room[i].bytes < least) least = r->room[i].bytes;
        if (at < r->room[i].end) break;
    }
    return least;
}

/* Takes room for the next groups of the trace that are not here, where they can stay until they are
 * needed. The first, unless another comes before it, may have the room of any that is needed later:
 * one group ahead is what hides copies. All others take what is free or not needed any more:
 * weights that are used in turn and do not all fit would else be overwritten with what comes
 * sooner, each just after its use, and none would ever be found here. */
static em_status gather(em_residency *r, batch *b, em_err *err)
{
    const em_trace *t = r->follow;
    em_status st = EM_OK;
    bool placed = true;
    size_t bytes = 0, at = next_copy(r);
    bool urgent = at < t->count && !one_comes(r, at);
    while (placed && at < t->count && bytes < AHEAD_BYTES && b->count < EM_STAGING_GROUPS) {
        em_group *g = t->step[at].group;
        em_group_use *u = use_of(r, g);
        if (u->serial != r->serial) *u = (em_group_use){.serial = r->serial};
        u->next_use = at;
        const terms here = {urgent ? at + 1 : t->count, lasting_bytes(r, at)};
        st = take_room(r, g, here, &placed, err);
        if (st) break;
        if (placed) b->group[b->count++] = g;
        bytes += g->image_bytes;
        urgent = false;
        at = next_copy(r);
    }
    if (st) give_room_back(r, b);
    return st;
}

static em_status prefetch(em_residency *r, em_err *err)
{
    batch b = {.count = 0};
    if (!r->prefetch || !r->follow) return EM_OK;
    em_status st = gather(r, &b, err);
    return st ? st : load(r, &b, err);
}

/* ---- pin and unpin --------------------------------------------------------------------------- */

static em_status bring_in(em_residency *r, em_group *g, em_err *err)
{
    const batch alone = {{g}, 1};
    bool placed;
    if (g->in_place) {
        count_mapped(r, g);
        return EM_OK;
    }
    em_status st = take_room(r, g, (terms){0, r->capacity_bytes}, &placed, err);
    if (st) return st;
    if (placed) return load(r, &alone, err);
    return em_fail(err, EM_NOVRAM,
                   "%zu bytes of weights do not fit beside those in use into the %zu that are set "
                   "aside for weights",
                   g->image_bytes, r->capacity_bytes);
}

/* The types and the layout that this residency's runs see. */
static void settle(const em_residency *r, em_group *g)
{
    bool host = device_of(r)->host_addressable;
    if (!g->settled || g->working != r->dtype || g->host_addressable != host)
        em_group_settle(g, r->dtype, host);
}

static void greet(const em_residency *r, em_group *g)
{
    em_group_use *u = use_of(r, g);
    if (u->serial != r->serial) *u = (em_group_use){.serial = r->serial};
    if (u->state == EM_GROUP_COLD) settle(r, g);
}

/* What COMPUTE cannot do without; then what comes next, ahead of time. */
static em_status bring_both(em_residency *r, em_group *g, em_err *err)
{
    em_group_use *u = use_of(r, g);
    em_device *d = device_of(r);
    em_status st = u->state == EM_GROUP_COLD ? bring_in(r, g, err) : EM_OK;
    if (!st && u->state == EM_GROUP_LOADING && !r->counts_only) {
        st = d->queue_wait(d, EM_QUEUE_COMPUTE, u->ready, err);
        em_group_place(g, (char *)r->base + u->offset_bytes);
    }
    if (st) return st;
    u->state = EM_GROUP_PINNED;
    u->pins++;
    return prefetch(r, err);
}

bool em_residency_hold(em_residency *r, em_group *g)
{
    em_group_use *u = use_of(r, g);
    if (u->serial != r->serial || u->state == EM_GROUP_COLD || u->state == EM_GROUP_LOADING)
        return false;
    u->state = EM_GROUP_PINNED;
    u->pins++;
    assert(em_residency_sound(r));
    return true;
}

/* Where bytes are on their way COMPUTE takes the time, so that what it lacks work for shows, be it
 * for a copy or for a host that reads before it goes on. */
em_status em_residency_pin(em_residency *r, em_group *g, em_err *err)
{
    em_group_use *u = use_of(r, g);
    em_status st = EM_OK;
    greet(r, g);
    record(r, g, true);
    look_ahead(r, g, u);
    bool moves = u->state == EM_GROUP_COLD || u->state == EM_GROUP_LOADING;
    if (moves) st = em_stopwatch_begin(r->waits, err);
    size_t copied = r->copied_bytes;
    if (!st) st = bring_both(r, g, err);
    if (!st && moves) st = em_stopwatch_end(r->waits, 1, err);
    if (!st && (moves || r->copied_bytes > copied)) read_ahead(r);
    assert(em_residency_sound(r));
    return st;
}

em_status em_residency_unpin(em_residency *r, em_group *g, em_err *err)
{
    em_group_use *u = use_of(r, g);
    em_device *d = device_of(r);
    em_status st = EM_OK;
    if (!u->pins) return EM_OK; /* its pin failed, or came too late to happen */
    record(r, g, false);
    if (--u->pins) return EM_OK;
    u->state = EM_GROUP_WARM;
    if (!r->counts_only && !g->in_place) st = d->event_record(d, u->done, EM_QUEUE_COMPUTE, err);
    if (st || !(g->in_place ? r->drop_unpinned : r->eager)) return st;
    if (g->in_place)
        let_go(r, g);
    else
        st = evict(r, index_of(r, g), err);
    assert(em_residency_sound(r));
    return st;
}

void em_residency_drop_mapped(em_residency *r)
{
    for (size_t i = 0; i < r->known_count; i++)
        if (r->known[i]->in_place && use_of(r, r->known[i])->state == EM_GROUP_WARM)
            let_go(r, r->known[i]);
    assert(em_residency_sound(r));
}

bool em_residency_sound(const em_residency *r)
{
    size_t end = 0, in_store = 0;
    for (size_t i = 0; i < r->stored_count; i++) {
        const em_group *g = r->stored[i];
        const em_group_use *u = use_of(r, r->stored[i]);
        bool pinned = u->state == EM_GROUP_PINNED;
        if (u->serial != r->serial || u->state == EM_GROUP_COLD || g->in_place) return false;
        if (u->offset_bytes < end || u->offset_bytes % EM_IMAGE_ALIGN) return false;
        if (pinned != (u->pins > 0) || (u->imaged && u->image_offset_bytes >= r->image_bytes))
            return false;
        end = u->offset_bytes + g->image_bytes;
        in_store += g->image_bytes;
    }
    for (size_t i = r->here_begin; r->follow && i < r->here_end; i++)
        if (r->follow->step[i].pin && !is_here(r, r->follow->step[i].group)) return false;
    return end <= r->capacity_bytes && in_store + r->mapped_bytes == r->resident_bytes &&
           r->image_bytes <= r->images_bytes && r->mapped_bytes <= r->mapped_peak_bytes &&
           r->resident_bytes <= r->peak_bytes;
}

void em_residency_count_anew(em_residency *r)
{
    size_t n = r->stored_count;
    const em_group *top = n ? r->stored[n - 1] : NULL;
    r->peak_bytes = r->resident_bytes;
    r->mapped_peak_bytes = r->mapped_bytes;
    r->store_peak_bytes = top ? use_of(r, r->stored[n - 1])->offset_bytes + top->image_bytes : 0;
    r->source_peak_bytes = r->copied_bytes = r->packed_bytes = 0;
    r->packed_ms = 0;
    if (r->copies) r->copies->ms = r->waits->ms = 0;
}

bool em_residency_clock(em_residency *r, double *copy_ms, double *wait_ms)
{
    em_err err = {0};
    if (!r->copies) return false;
    if (em_stopwatch_read(r->copies, &err) || em_stopwatch_read(r->waits, &err)) return false;
    *copy_ms = r->copies->ms;
    *wait_ms = r->waits->ms;
    return true;
}

/* ---- ahead of a run -------------------------------------------------------------------------- */

void em_residency_drop_images(em_residency *r)
{
    em_device *d = device_of(r);
    em_err ignored = {0};
    for (size_t i = 0; i < r->known_count; i++) {
        em_group_use *u = use_of(r, r->known[i]);
        if (u->imaged && u->ready) d->event_sync(d, u->ready, &ignored);
        u->imaged = false;
    }
    if (r->images) d->host_free(d, r->images, r->images_bytes);
    r->images = NULL;
    r->images_bytes = r->image_bytes = 0;
}

static em_status open_images(em_residency *r, size_t size_bytes, em_err *err)
{
    em_device *d = device_of(r);
    if (r->images_bytes >= size_bytes) return EM_OK;
    em_residency_drop_images(r);
    em_status st = d->host_alloc(d, &r->images, size_bytes, err);
    if (!st) r->images_bytes = size_bytes;
    return st;
}

static em_status open_clock(em_residency *r, em_err *err)
{
    em_device *d = device_of(r);
    if (r->copies) return EM_OK;
    em_status st = em_stopwatch_open(&r->waits, d, EM_QUEUE_COMPUTE, err);
    if (!st) st = em_stopwatch_open(&r->copies, d, EM_QUEUE_COPY, err);
    if (st) em_stopwatch_close(&r->waits);
    return st;
}

/* Groups that older traces left behind are needed when this one says, or never. */
static void forget_older(em_residency *r, const em_trace *t)
{
    for (size_t i = 0; i < r->known_count; i++) use_of(r, r->known[i])->next_use = SIZE_MAX;
    for (size_t i = t->count; i-- > 0;)
        if (t->step[i].pin) use_of(r, t->step[i].group)->next_use = i;
}

void em_residency_follow(em_residency *r, const em_trace *t, const em_room *room, size_t rooms)
{
    r->follow = t;
    r->room = room;
    r->rooms = rooms;
    r->cursor = 0;
    look_again(r);
}

em_status em_residency_prepare(em_residency *r, const em_trace *t, size_t image_bytes,
                               bool *images_failed, em_err *err)
{
    em_status st = EM_OK;
    bool moves = false;
    *images_failed = false;
    for (size_t i = 0; !st && i < t->count; i++) {
        greet(r, t->step[i].group);
        st = meet(r, t->step[i].group, err);
        moves = moves || !t->step[i].group->in_place;
    }
    if (!st) forget_older(r, t);
    if (!st &&
        !em_array_grow((void **)&r->stored, &r->stored_cap, 0, r->known_count, sizeof *r->stored))
        st = em_fail(err, EM_NOMEM, "no memory to place weights");
    if (st || device_of(r)->host_addressable) return st;
    if (moves) st = open_ring(r, err);
    if (!st && moves) st = open_clock(r, err);
    if (st || !image_bytes) return st;
    st = open_images(r, image_bytes, err);
    *images_failed = st != EM_OK;
    return st;
}

/* Images stay where no larger store of them is wanted: see open_images. */
static void resume_group(em_residency *plan, em_group *g, bool images)
{
    const em_group_use *real = &g->real;
    bool stays = g->in_place && !plan->drop_unpinned && real->state != EM_GROUP_COLD;
    g->planned = (em_group_use){.state = stays ? real->state : EM_GROUP_COLD,
                                .serial = plan->serial,
                                .next_use = SIZE_MAX,
                                .loads = real->loads,
                                .imaged = images && real->imaged,
                                .image_offset_bytes = real->image_offset_bytes};
    if (stays) count_mapped(plan, g);
}

em_status em_residency_resume(em_residency *plan, const em_residency *real, em_err *err)
{
    const em_trace *t = plan->follow;
    bool images = real->images_bytes && real->images_bytes >= plan->images_bytes;
    for (size_t i = 0; i < real->known_count; i++) resume_group(plan, real->known[i], images);
    if (images) plan->images_bytes = real->images_bytes;
    plan->image_bytes = images ? real->image_bytes : 0;
    for (size_t i = 0; i < real->stored_count; i++) {
        em_group *g = real->stored[i];
        if (!EM_PUSH(plan->stored, plan->stored_count, plan->stored_cap, g))
            return em_fail(err, EM_NOMEM, "no memory to keep track of weights");
        g->planned.state = g->real.state;
        g->planned.offset_bytes = g->real.offset_bytes;
        count(plan, g->image_bytes);
    }
    plan->base = real->base;
    plan->capacity_bytes = real->capacity_bytes;
    for (size_t i = t->count; i-- > 0;) {
        em_group_use *u = &t->step[i].group->planned;
        if (t->step[i].pin && u->serial == plan->serial) u->next_use = i;
    }
    return EM_OK;
}

/* ---- the store moves, and the end ------------------------------------------------------------ */

/* Scratch may lie where copies are on their way to, and copies may go where scratch was. */
static em_status fence(em_residency *r, em_err *err)
{
    em_device *d = device_of(r);
    em_status st = r->moved ? EM_OK : d->event_create(d, &r->moved, err);
    if (!st) st = d->event_record(d, r->moved, EM_QUEUE_COPY, err);
    if (!st) st = d->queue_wait(d, EM_QUEUE_COMPUTE, r->moved, err);
    if (!st) st = d->event_record(d, r->moved, EM_QUEUE_COMPUTE, err);
    return st ? st : d->queue_wait(d, EM_QUEUE_COPY, r->moved, err);
}

em_status em_residency_set_store(em_residency *r, void *base, size_t capacity_bytes, em_err *err)
{
    em_status st = EM_OK;
    for (size_t i = r->stored_count; !st && i-- > 0;) {
        em_group_use *u = use_of(r, r->stored[i]);
        if (base != r->base || u->offset_bytes + r->stored[i]->image_bytes > capacity_bytes)
            st = evict(r, i, err);
    }
    if (!st && !r->counts_only) st = fence(r, err);
    if (st) return st;
    r->base = base;
    r->capacity_bytes = capacity_bytes;
    return EM_OK;
}

void em_residency_close(em_residency *r)
{
    em_device *d = device_of(r);
    em_staging_close(&r->staging);
    em_stopwatch_close(&r->copies);
    em_stopwatch_close(&r->waits);
    if (!r->counts_only) em_residency_drop_images(r);
    for (size_t i = 0; i < r->known_count; i++) {
        em_group *g = r->known[i];
        em_group_use *u = use_of(r, g);
        em_err ignored = {0};
        if (u->ready) d->event_sync(d, u->ready, &ignored);
        if (u->done) d->event_sync(d, u->done, &ignored);
        d->event_destroy(d, u->ready);
        d->event_destroy(d, u->done);
        *u = (em_group_use){0};
    }
    if (r->moved) d->event_destroy(d, r->moved);
    em_free(r->known);
    em_free(r->stored);
    r->known = r->stored = NULL;
    r->known_count = r->known_cap = r->stored_count = r->stored_cap = 0;
    r->moved = NULL;
    r->resident_bytes = r->mapped_bytes = r->image_bytes = 0;
}
