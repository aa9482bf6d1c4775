#include "memory/residency.h"

#include "base/alloc.h"
#include "io/file.h"

#include "far/far.h"
#include "ops/table.h"

#include "weights_file.h"

/* Two groups of one and two tensors: 100 and 60 bytes. */
typedef struct weights {
    em_tensor a, b, c;
    em_group large, small;
} weights;

static float floats[25];

static void pin(em_residency *r, em_group *g)
{
    em_err err = {0};
    assert_ok(em_residency_pin(r, g, &err), err);
}

static void unpin(em_residency *r, em_group *g)
{
    em_err err = {0};
    assert_ok(em_residency_unpin(r, g, &err), err);
}

static void fill(weights *w)
{
    *w = (weights){0};
    w->a = em_tensor_of(floats, EM_F32, EM_SHAPE(5, 5));
    w->b = em_tensor_of(floats, EM_F32, EM_SHAPE(10));
    w->c = em_tensor_of(floats, EM_BF16, EM_SHAPE(10));
    assert_true(em_group_add(&w->large, &w->a, NULL));
    assert_true(em_group_add(&w->small, &w->b, NULL));
    assert_true(em_group_add(&w->small, &w->c, NULL));
}

static void empty(weights *w)
{
    em_group_close(&w->large);
    em_group_close(&w->small);
}

static void groups_know_their_size(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    assert_int_equal(w.large.size_bytes, 100);
    assert_int_equal(w.small.size_bytes, 60);
    assert_int_equal(w.small.count, 2);
    assert_ptr_equal(w.small.weight[1].slot, &w.c);
    em_alloc_fail_at(1, false);
    em_group none = {0};
    assert_false(em_group_add(&none, &w.a, NULL));
    em_alloc_fail_at(0, false);
    assert_int_equal(none.size_bytes, 0);
    empty(&w);
    assert_null(w.small.weight);
    em_group_close(&w.small);
}

/* A group counts once, however often it is pinned, and until the last unpin. */
static void pins_are_counted(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency r = {.drop_unpinned = true, .counts_only = true};
    pin(&r, &w.large);
    pin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 100);
    pin(&r, &w.small);
    assert_int_equal(r.resident_bytes, 160);
    unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 160);
    unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 60);
    unpin(&r, &w.small);
    assert_int_equal(r.resident_bytes, 0);
    assert_int_equal(r.peak_bytes, 160);
    empty(&w);
}

static void what_is_kept_stays_counted(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency r = {0};
    for (int i = 0; i < 3; i++) {
        pin(&r, &w.large);
        unpin(&r, &w.large);
        pin(&r, &w.small);
        unpin(&r, &w.small);
        assert_int_equal(r.resident_bytes, 160);
    }
    assert_int_equal(r.peak_bytes, 160);
    empty(&w);
}

/* What is there may be held, which is no use of it: the trace does not move. */
static void a_held_group_stays(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_trace_step step[] = {{&w.large, true, SIZE_MAX}, {&w.small, true, SIZE_MAX}};
    const em_trace trace = {.step = step, .count = 2};
    em_residency r = {.drop_unpinned = true, .follow = &trace};
    assert_false(em_residency_hold(&r, &w.large));
    assert_int_equal(r.resident_bytes, 0);
    pin(&r, &w.large);
    assert_true(em_residency_hold(&r, &w.large));
    assert_int_equal(r.cursor, 1);
    unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 100);
    assert_true(em_residency_hold(&r, &w.large));
    unpin(&r, &w.large);
    unpin(&r, &w.large);
    assert_int_equal(r.resident_bytes, 0);
    assert_false(em_residency_hold(&r, &w.large));
    empty(&w);
}

static size_t planned_peak(weights *w, bool drop, unsigned serial)
{
    em_residency plan = {.drop_unpinned = drop, .counts_only = true, .serial = serial};
    pin(&plan, &w->large);
    unpin(&plan, &w->large);
    pin(&plan, &w->small);
    unpin(&plan, &w->small);
    return plan.peak_bytes;
}

/* Any number of plans, before, between and inside real uses: neither side sees the other's. */
static void plans_count_for_themselves(void **state)
{
    (void)state;
    weights w;
    fill(&w);
    em_residency real = {0};
    assert_int_equal(planned_peak(&w, false, 1), 160);
    pin(&real, &w.large);
    assert_int_equal(real.resident_bytes, 100);
    assert_int_equal(planned_peak(&w, false, 2), 160);
    assert_int_equal(planned_peak(&w, true, 3), 100);
    assert_int_equal(real.resident_bytes, 100);
    unpin(&real, &w.large);
    assert_int_equal(planned_peak(&w, false, 4), 160);
    pin(&real, &w.large); /* still warm: not counted again */
    unpin(&real, &w.large);
    assert_int_equal(real.resident_bytes, 100);
    assert_int_equal(real.peak_bytes, 100);
    empty(&w);
}

enum { PAGES = 64 };

/* Pages that were given back read the same: they come from the file again. */
static void dropped_pages_come_back(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = PAGES * page;
    unsigned char *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(i * 31 + i / page);
    const char *path = tmpdir_write(state, "weights.bin", bytes, size);
    em_map map = {0};
    em_err err = {0};
    assert_ok(em_file_map(&map, path, false, &err), err);

    /* Two tensors that share a page, and do not begin where a page does. */
    char *data = (char *)(uintptr_t)map.data;
    em_tensor first = em_tensor_of(data + 100, EM_U8, EM_SHAPE((int64_t)(20 * page))),
              second = em_tensor_of(data + 100 + 20 * page, EM_U8, EM_SHAPE((int64_t)(40 * page)));
    em_group g = {0};
    assert_true(em_group_add(&g, &first, NULL));
    assert_true(em_group_add(&g, &second, NULL));
    for (int drop = 0; drop < 2; drop++) {
        em_residency r = {.drop_unpinned = drop};
        for (int use = 0; use < 2; use++) {
            pin(&r, &g);
            assert_memory_equal(first.data, bytes + 100, 20 * page);
            assert_memory_equal(second.data, bytes + 100 + 20 * page, 40 * page);
            unpin(&r, &g);
        }
        assert_int_equal(r.resident_bytes, drop ? 0 : 60 * page);
        g.real = (em_group_use){0}; /* the next policy starts cold */
    }
    assert_memory_equal(map.data, bytes, size);
    em_group_close(&g);
    em_map_close(&map);
    free(bytes);
}

/* ---- a store --------------------------------------------------------------------------------- */

enum { GROUPS = 5, VALUES = 1000 };

/* Groups of two tensors, float32 in the file, that a bfloat16 run sees rounded. */
typedef struct blocks {
    em_tensor w[GROUPS], b[GROUPS];
    em_group group[GROUPS];
    float value[GROUPS][VALUES + 8];
} blocks;

static size_t image_bytes(void)
{
    em_group g = {0};
    float v[VALUES + 8] = {0};
    em_tensor w = em_tensor_of(v, EM_F32, EM_SHAPE(VALUES)),
              b = em_tensor_of(v, EM_F32, EM_SHAPE(8));
    assert_true(em_group_add(&g, &w, NULL) && em_group_add(&g, &b, NULL));
    em_group_settle(&g, EM_BF16, true);
    size_t n = g.image_bytes;
    em_group_close(&g);
    return n;
}

static blocks *open_blocks(void)
{
    blocks *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (int i = 0; i < GROUPS; i++) {
        for (int k = 0; k < VALUES + 8; k++) m->value[i][k] = (float)(i + 1) + (float)k / 7000;
        m->w[i] = em_tensor_of(m->value[i], EM_F32, EM_SHAPE(VALUES));
        m->b[i] = em_tensor_of(m->value[i] + VALUES, EM_F32, EM_SHAPE(8));
        assert_true(em_group_add(&m->group[i], &m->w[i], NULL) &&
                    em_group_add(&m->group[i], &m->b[i], NULL));
    }
    return m;
}

static void close_blocks(blocks *m)
{
    for (int i = 0; i < GROUPS; i++) em_group_close(&m->group[i]);
    free(m);
}

/* The pinned group's tensors are the file's, rounded. */
static void assert_values(const blocks *m, int i)
{
    const em_tensor *t[2] = {&m->w[i], &m->b[i]};
    const float *want = m->value[i];
    for (int n = 0; n < 2; n++) {
        assert_int_equal(t[n]->dtype, EM_BF16);
        for (int64_t k = 0; k < em_tensor_count(*t[n]); k++)
            assert_int_equal(((const uint16_t *)t[n]->data)[k], em_f32_to_bf16(*want++));
    }
}

/* Rounds over all groups in a store of `room` groups; returns how many loads that took. */
static size_t loads(size_t room, bool foresight)
{
    blocks *m = open_blocks();
    em_trace trace = {0};
    em_err err = {0};
    size_t image = image_bytes();
    em_residency plan = {.dtype = EM_BF16, .counts_only = true, .serial = 1, .record = &trace};
    plan.capacity_bytes = SIZE_MAX;
    for (int i = 0; i < 4 * GROUPS; i++) {
        pin(&plan, &m->group[i % GROUPS]);
        unpin(&plan, &m->group[i % GROUPS]);
    }
    em_residency_close(&plan);
    em_trace_link(&trace);
    assert_int_equal(trace.count, 8 * GROUPS);

    void *store = aligned_alloc(256, room * image);
    em_residency r = {.dtype = EM_BF16, .follow = foresight ? &trace : NULL};
    assert_ok(em_residency_set_store(&r, store, room * image, &err), err);
    for (int i = 0; i < 4 * GROUPS; i++) {
        pin(&r, &m->group[i % GROUPS]);
        assert_values(m, i % GROUPS);
        unpin(&r, &m->group[i % GROUPS]);
        assert_true(r.resident_bytes <= room * image);
    }
    size_t n = r.copied_bytes / image;
    em_residency_close(&r);
    em_trace_close(&trace);
    free(store);
    close_blocks(m);
    return n;
}

/* In a cycle the least recently used is the very next: without foresight every use is a load. With
 * it, room for k of n groups saves k - 1 loads of n a round, the most there is to save. */
static void foresight_saves_loads(void **state)
{
    (void)state;
    assert_int_equal(loads(GROUPS, false), GROUPS);
    assert_int_equal(loads(3, false), 4 * GROUPS);
    assert_int_equal(loads(1, true), 4 * GROUPS);
    assert_int_equal(loads(GROUPS, true), GROUPS);
    assert_in_range(loads(3, true), GROUPS + 3 * (GROUPS - 3), GROUPS + 3 * (GROUPS - 2));
}

static void too_small_a_store_says_so(void **state)
{
    (void)state;
    blocks *m = open_blocks();
    em_err err = {0};
    size_t image = image_bytes();
    void *store = aligned_alloc(256, 2 * image);
    em_residency r = {.dtype = EM_BF16};
    assert_ok(em_residency_set_store(&r, store, 2 * image - 1, &err), err);
    pin(&r, &m->group[0]);
    assert_int_equal(em_residency_pin(&r, &m->group[1], &err), EM_NOVRAM);
    assert_non_null(strstr(err.msg, "do not fit"));
    unpin(&r, &m->group[1]); /* its pin failed: nothing happens */
    assert_values(m, 0);
    unpin(&r, &m->group[0]);
    pin(&r, &m->group[1]);
    assert_values(m, 1);
    unpin(&r, &m->group[1]);
    em_residency_close(&r);
    free(store);
    close_blocks(m);
}

/* A store that moves loses what it held; one that shrinks, what lies beyond its end. */
static void a_store_may_move(void **state)
{
    (void)state;
    blocks *m = open_blocks();
    em_err err = {0};
    size_t image = image_bytes();
    char *store = aligned_alloc(256, 6 * image);
    em_residency r = {.dtype = EM_BF16};
    assert_ok(em_residency_set_store(&r, store, 3 * image, &err), err);
    for (int i = 0; i < 3; i++) {
        pin(&r, &m->group[i]);
        unpin(&r, &m->group[i]);
    }
    assert_ok(em_residency_set_store(&r, store, 2 * image, &err), err);
    assert_int_equal(r.resident_bytes, 2 * image);
    for (int i = 0; i < 2; i++) {
        pin(&r, &m->group[i]);
        assert_values(m, i);
        unpin(&r, &m->group[i]);
    }
    assert_int_equal(r.copied_bytes, 3 * image);
    assert_ok(em_residency_set_store(&r, store + 3 * image, 3 * image, &err), err);
    assert_int_equal(r.resident_bytes, 0);
    memset(store, 0xFF, 3 * image);
    pin(&r, &m->group[0]);
    assert_values(m, 0);
    unpin(&r, &m->group[0]);
    em_residency_close(&r);
    free(store);
    close_blocks(m);
}

/* Everything is there before the run: pinning along the trace asks for nothing more. */
static void preparing_takes_it_all(void **state)
{
    (void)state;
    blocks *m = open_blocks();
    em_trace trace = {0};
    em_err err = {0};
    bool images_failed = true;
    size_t image = image_bytes();
    em_residency plan = {.dtype = EM_BF16, .counts_only = true, .serial = 2, .record = &trace};
    plan.capacity_bytes = SIZE_MAX;
    for (int i = 0; i < 3 * GROUPS; i++) {
        pin(&plan, &m->group[i % GROUPS]);
        unpin(&plan, &m->group[i % GROUPS]);
    }
    em_residency_close(&plan);
    em_trace_link(&trace);
    void *store = aligned_alloc(256, 2 * image);
    em_residency r = {.dtype = EM_BF16, .follow = &trace};
    assert_ok(em_residency_prepare(&r, &trace, 1 << 20, &images_failed, &err), err);
    assert_false(images_failed);
    assert_int_equal(r.images_bytes, 0); /* on the host nothing is gained by them */
    assert_ok(em_residency_set_store(&r, store, 2 * image, &err), err);
    uint64_t calls = em_alloc_calls();
    for (int i = 0; i < 3 * GROUPS; i++) {
        pin(&r, &m->group[i % GROUPS]);
        assert_values(m, i % GROUPS);
        unpin(&r, &m->group[i % GROUPS]);
    }
    assert_int_equal(em_alloc_calls(), calls);
    em_residency_count_anew(&r);
    assert_int_equal(r.copied_bytes, 0);
    assert_int_equal(r.peak_bytes, r.resident_bytes);
    assert_true(em_residency_sound(&r));
    r.stored[0]->real.pins++; /* a pin that nobody made */
    assert_false(em_residency_sound(&r));
    r.stored[0]->real.pins--;
    r.resident_bytes++;
    assert_false(em_residency_sound(&r));
    r.resident_bytes--;
    r.stored[1]->real.offset_bytes = 0;
    assert_false(em_residency_sound(&r));
    em_residency_close(&r);
    em_trace_close(&trace);
    free(store);
    close_blocks(m);
}

/* The trace of a plan that uses these groups in this order, twice. */
static void plan_trace(em_trace *t, blocks *m, const int *order, int n, unsigned serial)
{
    em_residency plan = {.dtype = EM_BF16,
                         .counts_only = true,
                         .serial = serial,
                         .record = t,
                         .capacity_bytes = SIZE_MAX};
    for (int i = 0; i < 2 * n; i++) {
        pin(&plan, &m->group[order[i % n]]);
        unpin(&plan, &m->group[order[i % n]]);
    }
    em_residency_close(&plan);
    em_trace_link(t);
}

/* A new request knows when it needs what an older one left, and what it does not need at all: that
 * makes room. */
static void a_new_trace_replaces_the_old(void **state)
{
    (void)state;
    static const int first[] = {0, 1, 2}, second[] = {3, 0, 2};
    blocks *m = open_blocks();
    em_trace trace[2] = {{0}};
    em_err err = {0};
    bool images_failed;
    size_t image = image_bytes();
    void *store = aligned_alloc(256, 3 * image);
    em_residency r = {.dtype = EM_BF16};
    plan_trace(&trace[0], m, first, 3, 3);
    plan_trace(&trace[1], m, second, 3, 4);
    for (int k = 0; k < 2; k++) {
        const int *order = k ? second : first;
        assert_ok(em_residency_prepare(&r, &trace[k], 0, &images_failed, &err), err);
        assert_ok(em_residency_set_store(&r, store, 3 * image, &err), err);
        em_residency_count_anew(&r);
        em_residency_follow(&r, &trace[k], NULL, 0);
        for (int i = 0; i < 6; i++) {
            pin(&r, &m->group[order[i % 3]]);
            assert_values(m, order[i % 3]);
            unpin(&r, &m->group[order[i % 3]]);
        }
        assert_int_equal(r.copied_bytes, (k ? 1 : 3) * image);
    }
    em_residency_close(&r);
    em_trace_close(&trace[0]);
    em_trace_close(&trace[1]);
    free(store);
    close_blocks(m);
}

/* ---- a device of its own --------------------------------------------------------------------- */

/* Three groups in files, on the far device, in a store with room for `room` of them. */
typedef struct distant {
    em_device *device;
    weights_file file[3];
    em_trace trace;
    em_residency r;
    void *store;
    size_t store_bytes;
} distant;

static void open_distant(distant *d, void **state, size_t room, bool prefetch, int rounds)
{
    static const char *const name[] = {"first", "second", "third"};
    em_err err = {0};
    bool images_failed;
    far_register();
    *d = (distant){.device = em_ops_find("far")->device};
    for (int i = 0; i < 3; i++) open_weights(&d->file[i], state, name[i], i);
    em_residency plan = {.device = d->device,
                         .dtype = EM_BF16,
                         .counts_only = true,
                         .serial = 1,
                         .record = &d->trace,
                         .capacity_bytes = SIZE_MAX};
    for (int i = 0; i < 3 * rounds; i++) {
        pin(&plan, &d->file[i % 3].group);
        unpin(&plan, &d->file[i % 3].group);
    }
    em_residency_close(&plan);
    em_trace_link(&d->trace);
    d->store_bytes = room * d->file[0].group.image_bytes;
    d->r = (em_residency){.device = d->device,
                          .dtype = EM_BF16,
                          .prefetch = prefetch,
                          .follow = &d->trace,
                          .ring_bytes = 64 << 10};
    assert_ok(em_residency_prepare(&d->r, &d->trace, 0, &images_failed, &err), err);
    assert_ok(d->device->alloc(d->device, &d->store, d->store_bytes, &err), err);
    assert_ok(em_residency_set_store(&d->r, d->store, d->store_bytes, &err), err);
    em_residency_count_anew(&d->r);
}

static void close_distant(distant *d)
{
    em_residency_close(&d->r);
    d->device->free(d->device, d->store, d->store_bytes);
    em_trace_close(&d->trace);
    for (int i = 0; i < 3; i++) close_weights(&d->file[i]);
}

static void assert_there(const distant *d, int i)
{
    const em_group *g = &d->file[i].group;
    em_err err = {0};
    for (size_t k = 0; k < g->count; k++) {
        const em_weight *w = &g->weight[k];
        size_t n = em_tensor_bytes(*w->slot);
        void *back = malloc(n);
        assert_non_null(back);
        assert_ok(d->device->download(d->device, back, w->slot->data, n, &err), err);
        assert_memory_equal(back, d->file[i].image + w->offset_bytes, n);
        free(back);
    }
}

/* On the far device's clock nothing but copies takes time here, a nanosecond a byte. One group at a
 * time: the device waits for all of it. Reading ahead: what was prefetched is on its way when its
 * turn comes, and the clock counts a byte once. */
static void waiting_is_on_the_clock(void **state)
{
    for (int ahead = 0; ahead < 2; ahead++) {
        distant d;
        double copy_ms = -1, wait_ms = -1;
        open_distant(&d, state, ahead ? 3 : 1, ahead, 2);
        uint64_t calls = em_alloc_calls();
        for (int i = 0; i < 6; i++) {
            pin(&d.r, &d.file[i % 3].group);
            assert_there(&d, i % 3);
            unpin(&d.r, &d.file[i % 3].group);
        }
        assert_int_equal(em_alloc_calls(), calls);
        assert_true(em_residency_clock(&d.r, &copy_ms, &wait_ms));
        assert_int_equal(d.r.copied_bytes, (ahead ? 3 : 6) * d.file[0].group.image_bytes);
        assert_float_equal(copy_ms, (double)d.r.copied_bytes / 1e6, 1e-6);
        assert_float_equal(wait_ms, copy_ms, 1e-6);
        em_residency_count_anew(&d.r);
        assert_true(em_residency_clock(&d.r, &copy_ms, &wait_ms));
        assert_true(copy_ms == 0 && wait_ms == 0);
        close_distant(&d);
    }
    em_residency host = {0};
    double untouched = -1;
    assert_false(em_residency_clock(&host, &untouched, &untouched));
    assert_true(untouched == -1);
}

/* Whatever free room takes is sent with the next group; what is needed again makes way for the next
 * one alone. */
static void small_groups_travel_together(void **state)
{
    for (size_t room = 2; room <= 3; room++) {
        distant d;
        open_distant(&d, state, room, true, 2);
        const em_group_use *third = &d.file[2].group.real;
        pin(&d.r, &d.file[0].group);
        assert_int_equal(d.file[1].group.real.state, EM_GROUP_LOADING);
        assert_int_equal(third->state, room == 3 ? EM_GROUP_LOADING : EM_GROUP_COLD);
        unpin(&d.r, &d.file[0].group);
        pin(&d.r, &d.file[1].group);
        assert_int_equal(third->state, EM_GROUP_LOADING);
        assert_int_equal(d.r.copied_bytes, 3 * d.file[0].group.image_bytes);
        unpin(&d.r, &d.file[1].group);
        close_distant(&d);
    }
}

/* A group whose file is not what it was is not there, neither now nor for the next who asks, be it
 * asked for or read ahead. */
static void unreadable_groups_stay_cold(void **state)
{
    for (int ahead = 0; ahead < 2; ahead++) {
        distant d;
        em_err err = {0};
        char last;
        open_distant(&d, state, 2, ahead, 2);
        const weights_file *bad = &d.file[1];
        const em_file_place end = {bad->path, bad->fd, bad->size_bytes - 1};
        assert_ok(em_file_read_at(&last, 1, &end, &err), err);
        if (!ahead) pin(&d.r, &d.file[0].group);
        assert_int_equal(truncate(bad->path, (off_t)bad->size_bytes - 1), 0);
        em_group *asked = &d.file[!ahead].group;
        assert_int_equal(em_residency_pin(&d.r, asked, &err), EM_IO);
        assert_non_null(strstr(err.msg, bad->path));
        assert_true(em_residency_sound(&d.r));
        assert_int_equal(bad->group.real.state, EM_GROUP_COLD);
        unpin(&d.r, asked);
        if (!ahead) unpin(&d.r, &d.file[0].group);

        int fd = open(bad->path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, &last, 1, (off_t)bad->size_bytes - 1), 1);
        close(fd);
        d.r.cursor = 0;
        for (int i = 0; i < 6; i++) {
            pin(&d.r, &d.file[i % 3].group);
            assert_there(&d, i % 3);
            unpin(&d.r, &d.file[i % 3].group);
        }
        close_distant(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_know_their_size),
        cmocka_unit_test(pins_are_counted),
        cmocka_unit_test(what_is_kept_stays_counted),
        cmocka_unit_test(a_held_group_stays),
        cmocka_unit_test(plans_count_for_themselves),
        cmocka_unit_test(foresight_saves_loads),
        cmocka_unit_test(too_small_a_store_says_so),
        cmocka_unit_test(a_store_may_move),
        cmocka_unit_test(preparing_takes_it_all),
        cmocka_unit_test(a_new_trace_replaces_the_old),
        cmocka_unit_test_setup_teardown(dropped_pages_come_back, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(waiting_is_on_the_clock, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(small_groups_travel_together, tmpdir_setup,
                                        tmpdir_teardown),
        cmocka_unit_test_setup_teardown(unreadable_groups_stay_cold, tmpdir_setup, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
