#include "base/thread.h"

#include "base/alloc.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

struct em_pool {
    pthread_mutex_t lock;      /* guards everything below but `next` */
    pthread_mutex_t turn;      /* held by the caller of em_parallel */
    pthread_cond_t work, done; /* a new generation; a worker ran out of pieces */
    pthread_t *thread;         /* workers 1 .. threads-1 */
    int threads, started, busy;
    unsigned generation;
    bool stop;
    void (*on_start)(void);
    em_task task;
    void *arg;
    size_t n;
    atomic_size_t next;
};

typedef struct worker_arg {
    em_pool *pool;
    int index;
} worker_arg;

static void run_pieces(em_pool *p, int worker)
{
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->task(p->arg, i, worker);
}

static void *worker_main(void *arg)
{
    worker_arg w = *(worker_arg *)arg;
    em_free(arg);
    em_pool *p = w.pool;
    if (p->on_start) p->on_start();
    unsigned seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->generation == seen) pthread_cond_wait(&p->work, &p->lock);
        if (p->stop) break;
        seen = p->generation;
        pthread_mutex_unlock(&p->lock);
        run_pieces(p, w.index);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0) pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool start_worker(em_pool *p, int index)
{
    worker_arg *w = em_alloc(sizeof *w);
    if (!w) return false;
    *w = (worker_arg){p, index};
    if (pthread_create(&p->thread[index - 1], NULL, worker_main, w)) {
        em_free(w);
        return false;
    }
    p->started++;
    return true;
}

em_status em_pool_create(em_pool **out, int threads, void (*on_start)(void), em_err *err)
{
    if (threads < 0 || threads > 1024)
        return em_fail(err, EM_INVAL, "%d threads asked for: 0 (all cores) to 1024 are possible",
                       threads);
    if (threads == 0) threads = em_cpu_count();
    em_pool *p = em_alloc(sizeof *p);
    if (!p) return em_fail(err, EM_NOMEM, "no memory for a pool of %d threads", threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->turn, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = threads;
    p->on_start = on_start;
    if (threads > 1 && !(p->thread = em_alloc_array((size_t)threads - 1, sizeof *p->thread)))
        goto fail;
    for (int i = 1; i < threads; i++)
        if (!start_worker(p, i)) goto fail;
    *out = p;
    return EM_OK;

fail:
    em_pool_destroy(&p);
    return em_fail(err, EM_NOMEM, "could not start %d threads", threads);
}

void em_pool_destroy(em_pool **pool)
{
    em_pool *p = *pool;
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++) pthread_join(p->thread[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->turn);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    em_free(p->thread);
    em_free(p);
    *pool = NULL;
}

int em_pool_threads(const em_pool *pool)
{
    return pool ? pool->threads : 1;
}

void em_parallel(em_pool *p, size_t n, em_task task, void *arg)
{
    if (!p) {
        for (size_t i = 0; i < n; i++) task(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->turn);
    if (p->on_start) p->on_start(); /* the caller may be any thread: settings are per thread */
    p->task = task;
    p->arg = arg;
    p->n = n;
    atomic_store(&p->next, 0);
    bool shared = n > 1 && p->started > 0;
    if (shared) {
        pthread_mutex_lock(&p->lock);
        p->busy = p->started;
        p->generation++;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    run_pieces(p, 0);
    if (shared) {
        pthread_mutex_lock(&p->lock);
        while (p->busy) pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->turn);
}

/* cgroup v2: "max 100000" or "200000 100000" (quota and period in microseconds). */
static int cgroup_cores(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    long quota = 0, period = 0;
    int n = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int em_cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = cgroup_cores();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
