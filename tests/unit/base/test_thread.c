#include "base/thread.h"

#include "base/alloc.h"

#include "../test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { PIECES = 500 };

typedef struct loop {
    int workers;
    atomic_int runs[PIECES]; /* of each piece */
    atomic_bool stranger;    /* a worker number out of range was seen */
} loop;

static void count_piece(void *arg, size_t i, int worker)
{
    loop *l = arg;
    atomic_fetch_add(&l->runs[i], 1);
    if (worker < 0 || worker >= l->workers) atomic_store(&l->stranger, true);
}

static void check_loop(em_pool *pool, size_t n)
{
    loop l = {.workers = em_pool_threads(pool)};
    em_parallel(pool, n, count_piece, &l);
    for (size_t i = 0; i < PIECES; i++) assert_int_equal(l.runs[i], i < n);
    assert_false(l.stranger);
}

/* Also with more threads than pieces, with none, and many loops in a row. */
static void every_piece_runs_once(void **state)
{
    (void)state;
    const int threads[] = {1, 2, 7};
    for (int t = 0; t < 3; t++) {
        em_pool *pool = NULL;
        em_err err = {0};
        assert_ok(em_pool_create(&pool, threads[t], NULL, &err), err);
        assert_int_equal(em_pool_threads(pool), threads[t]);
        const size_t n[] = {0, 1, 2, 3, PIECES};
        for (int repeat = 0; repeat < 50; repeat++)
            for (int i = 0; i < 5; i++) check_loop(pool, n[i]);
        em_pool_destroy(&pool);
        assert_null(pool);
    }
}

static void slow_elsewhere(void *arg, size_t i, int worker)
{
    (void)i;
    const struct timespec pause = {.tv_nsec = worker ? 20000000 : 1000000};
    nanosleep(&pause, NULL);
    atomic_fetch_add((atomic_int *)arg, 1);
}

/* Also when the caller has finished its own pieces long before the others. */
static void returns_when_all_are_done(void **state)
{
    (void)state;
    em_pool *pool = NULL;
    em_err err = {0};
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    for (int repeat = 0; repeat < 5; repeat++) {
        atomic_int done = 0;
        em_parallel(pool, 12, slow_elsewhere, &done);
        assert_int_equal(done, 12);
    }
    em_pool_destroy(&pool);
}

static void without_a_pool_the_caller_works(void **state)
{
    (void)state;
    em_pool *none = NULL;
    assert_int_equal(em_pool_threads(NULL), 1);
    check_loop(NULL, PIECES);
    check_loop(NULL, 0);
    em_pool_destroy(&none);
}

typedef struct caller {
    em_pool *pool;
    atomic_int *inside;  /* loops that are running now */
    atomic_bool *shared; /* more than one was */
} caller;

/* Counts a loop as running from its first piece to its last. */
typedef struct turn {
    caller *c;
    atomic_size_t left;
    atomic_flag entered;
} turn;

static void turn_piece(void *arg, size_t i, int worker)
{
    (void)i, (void)worker;
    turn *t = arg;
    if (!atomic_flag_test_and_set(&t->entered) && atomic_fetch_add(t->c->inside, 1) > 0)
        atomic_store(t->c->shared, true);
    if (atomic_fetch_sub(&t->left, 1) == 1) atomic_fetch_sub(t->c->inside, 1);
}

static void *call_repeatedly(void *arg)
{
    caller *c = arg;
    for (int i = 0; i < 200; i++) {
        turn t = {.c = c, .left = 20, .entered = ATOMIC_FLAG_INIT};
        em_parallel(c->pool, 20, turn_piece, &t);
        if (atomic_load(&t.left) != 0) return c; /* pieces are missing */
    }
    return NULL;
}

static void callers_take_turns(void **state)
{
    (void)state;
    em_pool *pool = NULL;
    em_err err = {0};
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    atomic_int inside = 0;
    atomic_bool shared = false;
    caller c = {.pool = pool, .inside = &inside, .shared = &shared};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, call_repeatedly, &c), 0);
    assert_null(call_repeatedly(&c));
    void *verdict = NULL;
    assert_int_equal(pthread_join(other, &verdict), 0);
    assert_null(verdict);
    assert_false(shared);
    assert_int_equal(inside, 0);
    em_pool_destroy(&pool);
}

static _Thread_local int starts_here;
static atomic_int starts;

static void on_start(void)
{
    starts_here++;
    atomic_fetch_add(&starts, 1);
}

static void needs_a_start(void *arg, size_t i, int worker)
{
    (void)i;
    if (starts_here < 1 || (worker > 0 && starts_here != 1)) atomic_store((atomic_bool *)arg, true);
}

/* Once in each worker, and in the thread that calls before it works. */
static void threads_are_prepared(void **state)
{
    (void)state;
    const int threads[] = {1, 4};
    for (int t = 0; t < 2; t++) {
        em_pool *pool = NULL;
        em_err err = {0};
        atomic_bool unprepared = false;
        starts = 0;
        starts_here = 0;
        assert_ok(em_pool_create(&pool, threads[t], on_start, &err), err);
        em_parallel(pool, 100, needs_a_start, &unprepared);
        assert_false(unprepared);
        assert_int_equal(starts_here, 1);
        em_pool_destroy(&pool); /* every worker has started by now */
        assert_int_equal(starts, threads[t]);
    }
}

static void sizes_are_checked(void **state)
{
    (void)state;
    em_pool *pool = NULL;
    em_err err = {0};
    assert_int_equal(em_pool_create(&pool, -1, NULL, &err), EM_INVAL);
    assert_int_equal(em_pool_create(&pool, 1025, NULL, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "1025 threads"));
    assert_null(pool);
    assert_ok(em_pool_create(&pool, 0, NULL, &err), err);
    assert_int_equal(em_pool_threads(pool), em_cpu_count());
    assert_true(em_cpu_count() >= 1);
    em_pool_destroy(&pool);
}

static void survives_failing_allocations(void **state)
{
    (void)state;
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_pool *pool = NULL;
        em_err err = {0};
        em_alloc_fail_at(n, false);
        st = em_pool_create(&pool, 4, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true((st == EM_OK) == (pool != NULL));
        assert_true((st == EM_OK) == (n == 6)); /* the pool, its list, three workers */
        em_pool_destroy(&pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(returns_when_all_are_done),
        cmocka_unit_test(without_a_pool_the_caller_works),
        cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(threads_are_prepared),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
