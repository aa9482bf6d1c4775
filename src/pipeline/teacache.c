#include "pipeline/teacache.h"

#include <math.h>

em_teacache em_teacache_begin(em_teacache_mode mode, double threshold, int skip_start, int steps)
{
    int skip = skip_start < steps ? skip_start : steps;
    return (em_teacache){
        .mode = mode,
        .threshold = threshold,
        .skip_start = skip > 1 ? skip : 1,
        .period = steps,
    };
}

/* mean|e0 - prev| / mean|prev| (the paper's relative L1 distance) */
static double relative_l1(const float *e0, const float *prev, size_t n)
{
    double change = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        change += fabs((double)e0[i] - (double)prev[i]);
        size += fabs((double)prev[i]);
    }
    return change / size;
}

/* From the embedding's distance to the output's: the polynomial that TeaCache's authors fitted for
 * Wan 2.1 1.3B. Negative at 0 and for large d. */
static double rescale(double d)
{
    static const double c[] = {-5.21862437e+04, 9.23041404e+03, -5.28275948e+02, 1.36987616e+01,
                               -4.99875664e-02};
    double y = 0;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) y = y * d + c[i];
    return y;
}

bool em_teacache_decide(em_teacache *t, const float *e0, size_t n)
{
    if (t->count == t->period) t->count = 0;
    bool compute = t->count < t->skip_start;
    if (!compute) {
        t->distance += rescale(relative_l1(e0, t->e0, n));
        compute = !(t->distance < t->threshold); /* so that a NaN computes */
    }
    if (compute) t->distance = 0;
    t->e0 = e0;
    t->count++;
    return compute;
}

void em_teacache_step(em_teacache *t, em_step_plan *step, const float *e0, size_t n)
{
    if (t->mode == EM_TEACACHE_OFF) return;
    bool per_branch = t->mode == EM_TEACACHE_BRANCH;
    bool compute = per_branch && em_teacache_decide(t, e0, n);
    for (int b = 0; b < EM_BRANCHES; b++) {
        em_forward *f = &step->forward[b];
        if (f->kind == EM_FORWARD_NONE) continue;
        if (!per_branch) compute = em_teacache_decide(t, e0, n);
        f->kind = compute ? EM_FORWARD_COMPUTE : EM_FORWARD_REUSE;
        f->slot = per_branch ? b : 0;
    }
}

void em_teacache_plan(em_teacache *t, em_step_plan *plan, int steps, const float *e0, size_t n)
{
    for (int i = 0; i < steps; i++) em_teacache_step(t, &plan[i], e0 + (size_t)i * n, n);

    bool read_later[EM_TEACACHE_SLOTS] = {false};
    for (int i = steps - 1; i >= 0; i--) {
        for (int b = EM_BRANCHES - 1; b >= 0; b--) {
            em_forward *f = &plan[i].forward[b];
            if (f->slot == EM_NO_SLOT) continue;
            int slot = f->slot;
            if (f->kind == EM_FORWARD_COMPUTE && !read_later[slot]) f->slot = EM_NO_SLOT;
            read_later[slot] = f->kind == EM_FORWARD_REUSE;
        }
    }
}

bool em_teacache_reads(const em_step_plan *plan, int steps, int from, int slot)
{
    for (int i = from; i < steps; i++)
        for (int b = 0; b < EM_BRANCHES; b++) {
            const em_forward *f = &plan[i].forward[b];
            if (f->kind != EM_FORWARD_NONE && f->slot == slot) return f->kind == EM_FORWARD_REUSE;
        }
    return false;
}
