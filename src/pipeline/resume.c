#include "pipeline/resume.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/state_file.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const char *const kind = "EMRESUM1";

/* Numbers and blocks of the file. */
enum { STEP, STEPS, LIVE, ANCHORS, NUMBERS = ANCHORS + 2 * EM_TEACACHE_SLOTS };
enum { X, STATES, ANCHOR_X = STATES + EM_SAMPLER_STATES, BLOCKS = ANCHOR_X + EM_TEACACHE_SLOTS };
_Static_assert((int)NUMBERS <= (int)EM_STATE_NUMBERS, "the file holds fewer numbers");
_Static_assert((int)BLOCKS <= (int)EM_STATE_BLOCKS, "the file holds fewer blocks");

typedef enum work { IDLE, WRITE, STOP } work;

/*            save                the thread has written
 *   IDLE -----------> WRITE -----------------------------> IDLE -- close --> STOP */
struct em_resume {
    char *path; /* owned */
    unsigned char key[EM_SHA256_BYTES];
    int steps, states, anchors;
    em_log log;
    em_waypoint at;  /* the caller's */
    em_waypoint out; /* the thread's while it writes */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards `work` */
    pthread_cond_t turn;
    work work;
    bool warned; /* the thread's */
};

/* ---- waypoints ------------------------------------------------------------------------------- */

static size_t blocks_of(const em_resume_params *p)
{
    return 1 + (size_t)p->states + (size_t)p->anchors;
}

uint64_t em_resume_bytes(const em_resume_params *p)
{
    enum { WAYPOINTS = 2 }; /* the caller's and the thread's */
    return WAYPOINTS * (uint64_t)blocks_of(p) * p->count * sizeof(float);
}

static bool open_waypoint(em_waypoint *w, const em_resume_params *p)
{
    size_t values;
    if (!em_size_mul(&values, p->count, blocks_of(p))) return false;
    float *next = w->values = em_alloc_array(values, sizeof *w->values);
    if (!next) return false;
    w->count = p->count;
    w->x = next;
    for (int i = 0; i < p->states; i++) w->sampler.state[i] = next += p->count;
    for (int i = 0; i < EM_TEACACHE_SLOTS; i++) w->anchor[i].step = -1;
    for (int i = 0; i < p->anchors; i++) w->anchor[i].x = next += p->count;
    return true;
}

static void copy_values(float *to, const float *from, size_t count)
{
    memcpy(to, from, count * sizeof *to);
}

static void copy_waypoint(em_waypoint *to, const em_waypoint *from)
{
    to->sampler.step = from->sampler.step;
    to->sampler.live = from->sampler.live;
    copy_values(to->x, from->x, to->count);
    for (int i = 0; i < EM_SAMPLER_STATES; i++)
        if (to->sampler.live >> i & 1)
            copy_values(to->sampler.state[i], from->sampler.state[i], to->count);
    for (int i = 0; i < EM_TEACACHE_SLOTS; i++) {
        to->anchor[i].step = from->anchor[i].step;
        to->anchor[i].branch = from->anchor[i].branch;
        if (to->anchor[i].step >= 0) copy_values(to->anchor[i].x, from->anchor[i].x, to->count);
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

static em_state_block block(const float *x, size_t count, bool there)
{
    return there ? (em_state_block){x, count * sizeof *x} : (em_state_block){0};
}

static em_status write_waypoint(const em_resume *r, const em_waypoint *w, em_err *err)
{
    em_state_file f = {.kind = kind, .numbers = NUMBERS, .blocks = BLOCKS};
    memcpy(f.key, r->key, sizeof f.key);
    f.number[STEP] = w->sampler.step;
    f.number[STEPS] = r->steps;
    f.number[LIVE] = w->sampler.live;
    f.block[X] = block(w->x, w->count, true);
    for (int i = 0; i < EM_SAMPLER_STATES; i++)
        f.block[STATES + i] = block(w->sampler.state[i], w->count, w->sampler.live >> i & 1);
    for (int i = 0; i < EM_TEACACHE_SLOTS; i++) {
        f.number[ANCHORS + 2 * i] = w->anchor[i].step;
        f.number[ANCHORS + 2 * i + 1] = w->anchor[i].branch;
        f.block[ANCHOR_X + i] = block(w->anchor[i].x, w->count, w->anchor[i].step >= 0);
    }
    return em_state_write(r->path, &f, err);
}

static bool within(int64_t v, int64_t least, int64_t most)
{
    return v >= least && v <= most;
}

/* Exactly what write_waypoint writes for some waypoint of this request. */
static bool makes_sense(const em_resume *r, const em_state_file *f)
{
    size_t whole = r->at.count * sizeof(float);
    if (f->numbers != NUMBERS || f->blocks != BLOCKS || f->number[STEPS] != r->steps) return false;
    if (!within(f->number[STEP], 1, r->steps)) return false;
    if (!within(f->number[LIVE], 0, (1 << r->states) - 1)) return false;
    if (f->block[X].size_bytes != whole) return false;
    for (int i = 0; i < EM_SAMPLER_STATES; i++)
        if (f->block[STATES + i].size_bytes != (f->number[LIVE] >> i & 1 ? whole : 0)) return false;
    for (int i = 0; i < EM_TEACACHE_SLOTS; i++) {
        const int64_t *a = &f->number[ANCHORS + 2 * i];
        int64_t latest = i < r->anchors ? f->number[STEP] - 1 : -1;
        if (!within(a[0], -1, latest) || !within(a[1], 0, EM_BRANCHES - 1)) return false;
        if (f->block[ANCHOR_X + i].size_bytes != (a[0] >= 0 ? whole : 0)) return false;
    }
    return true;
}

static void take(em_waypoint *w, const em_state_file *f)
{
    w->sampler.step = (int)f->number[STEP];
    w->sampler.live = (unsigned)f->number[LIVE];
    copy_values(w->x, f->block[X].data, w->count);
    for (int i = 0; i < EM_SAMPLER_STATES; i++)
        if (f->block[STATES + i].size_bytes)
            copy_values(w->sampler.state[i], f->block[STATES + i].data, w->count);
    for (int i = 0; i < EM_TEACACHE_SLOTS; i++) {
        w->anchor[i].step = (int)f->number[ANCHORS + 2 * i];
        w->anchor[i].branch = (int)f->number[ANCHORS + 2 * i + 1];
        if (f->block[ANCHOR_X + i].size_bytes)
            copy_values(w->anchor[i].x, f->block[ANCHOR_X + i].data, w->count);
    }
}

bool em_resume_load(em_resume *r)
{
    em_state_file f = {0};
    em_err err = {0};
    size_t most = (size_t)BLOCKS * r->at.count * sizeof(float) + 4096; /* another's may be larger */
    if (access(r->path, F_OK) != 0) return false;
    em_status st = em_state_read(&f, r->path, kind, r->key, most, &err);
    if (!st && !makes_sense(r, &f))
        st = em_fail(&err, EM_FORMAT, "'%s' is not usable: it makes no sense", r->path);
    if (!st) take(&r->at, &f);
    em_state_close(&f);
    if (st == EM_MISMATCH)
        em_logf(&r->log, EM_LOG_WARN,
                "'%s' is of another request (other inputs, parameters or checkpoints): this one "
                "starts at the beginning",
                r->path);
    else if (st)
        em_logf(&r->log, EM_LOG_WARN, "%s; the request starts at the beginning", err.msg);
    return st == EM_OK;
}

void em_resume_discard(const char *resume_path)
{
    em_file_writer *w = NULL;
    if (!resume_path) return;
    unlink(resume_path);
    if (!em_file_writer_open(&w, resume_path, NULL)) em_file_writer_close(&w); /* left-overs go */
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void *writer(void *arg)
{
    em_resume *r = arg;
    pthread_mutex_lock(&r->lock);
    while (r->work != STOP) {
        if (r->work == IDLE) {
            pthread_cond_wait(&r->turn, &r->lock);
            continue;
        }
        pthread_mutex_unlock(&r->lock);
        em_err err = {0};
        if (write_waypoint(r, &r->out, &err) && !r->warned) {
            em_logf(&r->log, EM_LOG_WARN, "%s: should this run be killed, it starts over", err.msg);
            r->warned = true;
        }
        pthread_mutex_lock(&r->lock);
        r->work = IDLE;
        pthread_cond_broadcast(&r->turn);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Waits for the thread, then gives it something to do. */
static void hand_over(em_resume *r, work what)
{
    pthread_mutex_lock(&r->lock);
    while (r->work == WRITE) pthread_cond_wait(&r->turn, &r->lock);
    if (what == WRITE) copy_waypoint(&r->out, &r->at);
    r->work = what;
    pthread_cond_broadcast(&r->turn);
    pthread_mutex_unlock(&r->lock);
}

void em_resume_save(em_resume *r)
{
    hand_over(r, WRITE);
}

void em_resume_flush(em_resume *r)
{
    hand_over(r, IDLE);
}

/* ---- object ---------------------------------------------------------------------------------- */

em_waypoint *em_resume_at(em_resume *r)
{
    return &r->at;
}

em_status em_resume_open(em_resume **out, const em_resume_params *p, em_err *err)
{
    em_resume *r = em_alloc(sizeof *r);
    if (!r) goto no_memory;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->turn, NULL);
    memcpy(r->key, p->key, sizeof r->key);
    r->steps = p->steps;
    r->log = p->log;
    r->path = em_strdup(p->path);
    r->states = p->states;
    r->anchors = p->anchors;
    if (!r->path || !open_waypoint(&r->at, p) || !open_waypoint(&r->out, p)) goto no_memory;
    r->started = pthread_create(&r->thread, NULL, writer, r) == 0;
    if (!r->started) goto no_memory;
    *out = r;
    return EM_OK;

no_memory:
    em_resume_close(&r);
    return em_fail(err, EM_NOMEM, "no memory to note the steps in '%s'", p->path);
}

void em_resume_close(em_resume **resume)
{
    em_resume *r = *resume;
    if (!r) return;
    if (r->started) {
        hand_over(r, STOP);
        pthread_join(r->thread, NULL);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->turn);
    em_free(r->at.values);
    em_free(r->out.values);
    em_free(r->path);
    em_free(r);
    *resume = NULL;
}
