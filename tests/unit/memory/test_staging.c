#include "memory/staging.h"

#include "far/far.h"
#include "ops/table.h"

#include "weights_file.h"

#include <stdatomic.h>

/* A far device whose copies may fail. */
static em_device device;
static const em_device *far;
static atomic_int copies; /* the ring's threads copy side by side */
static int fail_at;

static em_status copy_or_fail(em_device *d, void *dst, const void *src, size_t n, em_err *err)
{
    (void)d;
    if (atomic_fetch_add(&copies, 1) + 1 == fail_at)
        return em_fail(err, EM_DEVICE, "the cable was pulled");
    return far->copy_async((em_device *)(uintptr_t)far, dst, src, n, err);
}

static int set_up(void **state)
{
    (void)state;
    far_register();
    far = em_ops_find("far")->device;
    device = *far;
    device.copy_async = copy_or_fail;
    return 0;
}

static em_event *event(void)
{
    em_err err = {0};
    em_event *e = NULL;
    assert_ok(device.event_create(&device, &e, &err), err);
    return e;
}

/* The image arrives, once whoever wants it has waited for COPY. */
static void assert_arrives(const weights_file *f, const void *at, em_event *e)
{
    em_err err = {0};
    size_t n = f->group.image_bytes;
    unsigned char *back = malloc(n);
    assert_non_null(back);
    assert_ok(device.event_record(&device, e, EM_QUEUE_COPY, &err), err);
    assert_ok(device.event_sync(&device, e, &err), err);
    assert_ok(device.download(&device, back, at, n, &err), err);
    assert_memory_equal(back, f->image, n);
    free(back);
}

/* Two groups at once, and once more, through rings of all sizes, on any number of threads. The
 * device copies as late as it may: a buffer that is filled anew too early spoils what was in it. */
static void groups_arrive_whole(void **state)
{
    static const size_t sizes[] = {EM_STAGING_LEAST_BYTES / 8, EM_STAGING_LEAST_BYTES,
                                   EM_STAGING_BYTES};
    weights_file f[2];
    em_err err = {0};
    em_event *e = event();
    void *block = NULL;
    open_weights(&f[0], state, "first", 1);
    open_weights(&f[1], state, "second", 2);
    size_t n = f[0].group.image_bytes;
    assert_ok(device.alloc(&device, &block, 2 * n, &err), err);
    for (int threads = 0; threads <= 7; threads += threads ? 5 : 2)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            em_staging *s = NULL;
            em_pool *pool = NULL;
            if (threads) assert_ok(em_pool_create(&pool, threads, NULL, &err), err);
            assert_ok(em_staging_open(&s, &device, sizes[i], &err), err);
            const em_staging_load both = {.item = {{&f[0].group, block},
                                                   {&f[1].group, (char *)block + n}},
                                          .count = 2,
                                          .next = &f[i % 2].group,
                                          .pool = pool};
            for (int twice = 0; twice < 2; twice++) assert_ok(em_staging_send(s, &both, &err), err);
            for (int k = 0; k < 2; k++) assert_arrives(&f[k], (char *)block + (size_t)k * n, e);
            em_staging_close(&s);
            em_pool_destroy(&pool);
        }
    device.free(&device, block, 2 * n);
    device.event_destroy(&device, e);
    close_weights(&f[0]);
    close_weights(&f[1]);
}

/* Every byte is on the clock once: one copy of eight is timed for the others, the last for
 * fewer. */
static void copies_are_timed(void **state)
{
    enum { PIECE = 1024, RUN = 8 * PIECE };
    weights_file f;
    em_err err = {0};
    em_event *e = event();
    void *block = NULL;
    em_staging *s = NULL;
    em_stopwatch *w = NULL;
    em_pool *pool = NULL;
    open_weights(&f, state, "weights", 1);
    size_t n = f.group.image_bytes;
    assert_ok(device.alloc(&device, &block, n, &err), err);
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    assert_ok(em_staging_open(&s, &device, PIECE, &err), err);
    assert_ok(em_stopwatch_open(&w, &device, EM_QUEUE_COPY, &err), err);
    size_t laps = (n + RUN - 1) / RUN;
    assert_true(laps > EM_LAPS && n % RUN && n % PIECE);
    const em_staging_load load = {{{&f.group, block}}, 1, NULL, pool, w};
    assert_ok(em_staging_send(s, &load, &err), err);
    assert_arrives(&f, block, e);
    assert_ok(em_stopwatch_read(w, &err), err);
    assert_true(w->read == w->begun && w->begun == laps);
    assert_float_equal(w->ms, (double)n / 1e6, 1e-6); /* what the far device says a byte takes */
    em_stopwatch_close(&w);
    em_staging_close(&s);
    em_pool_destroy(&pool);
    device.free(&device, block, n);
    device.event_destroy(&device, e);
    close_weights(&f);
}

/* A file that shrank, a copy that fails: a status, and the ring is as good as before. */
static void failures_end_a_group(void **state)
{
    weights_file f;
    em_err err = {0};
    em_event *e = event();
    void *block = NULL;
    em_staging *s = NULL;
    em_pool *pool = NULL;
    open_weights(&f, state, "weights", 1);
    size_t n = f.group.image_bytes;
    assert_ok(device.alloc(&device, &block, n, &err), err);
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    assert_ok(em_staging_open(&s, &device, EM_STAGING_LEAST_BYTES, &err), err);
    const em_staging_load load = {.item = {{&f.group, block}}, .count = 1, .pool = pool};
    atomic_store(&copies, 0);
    fail_at = 5;
    assert_int_equal(em_staging_send(s, &load, &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "the cable was pulled"));
    assert_true(atomic_load(&copies) < 5 + EM_STAGING_LANES); /* nobody went on much longer */
    fail_at = 0;

    char last;
    const em_file_place end = {f.path, f.fd, f.size_bytes - 1};
    assert_ok(em_file_read_at(&last, 1, &end, &err), err);
    assert_int_equal(truncate(f.path, (off_t)f.size_bytes - 1), 0);
    assert_int_equal(em_staging_send(s, &load, &err), EM_IO);
    assert_non_null(strstr(err.msg, f.path));
    int fd = open(f.path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &last, 1, (off_t)f.size_bytes - 1), 1);
    close(fd);
    assert_ok(em_staging_send(s, &load, &err), err);
    assert_arrives(&f, block, e);
    em_staging_close(&s);
    em_pool_destroy(&pool);
    device.free(&device, block, n);
    device.event_destroy(&device, e);
    close_weights(&f);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(groups_arrive_whole),
        IN_TMPDIR(copies_are_timed),
        IN_TMPDIR(failures_end_a_group),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
