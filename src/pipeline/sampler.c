#include "pipeline/sampler.h"

#include "base/alloc.h"
#include "ops/ops.h"

#include <assert.h>
#include <math.h>

const em_solver *em_solver_get(em_sampler_kind kind)
{
    static const em_solver *const solvers[] = {
        [EM_SAMPLER_UNIPC] = &em_solver_unipc,
        [EM_SAMPLER_DPMPP] = &em_solver_dpmpp,
        [EM_SAMPLER_EULER] = &em_solver_euler,
    };
    assert((size_t)kind < sizeof solvers / sizeof *solvers);
    return solvers[kind];
}

em_status em_sampler_open(em_sampler **out, const em_solver *solver, int steps, double shift,
                          em_err *err)
{
    if (steps < 1 || !(shift > 0))
        return em_fail(err, EM_INVAL, "sampler %s: %d steps with shift %g; both must be positive",
                       solver->name, steps, shift);
    size_t count = (size_t)steps;
    em_sampler *s = em_alloc(sizeof *s);
    if (!s) goto fail;
    s->solver = solver;
    s->steps = steps;
    s->sigma = em_alloc_array(2 * count + 1, sizeof *s->sigma);
    if (!s->sigma) goto fail;
    s->timestep = s->sigma + count + 1;
    solver->schedule(s->sigma, s->timestep, steps, shift);
    *out = s;
    return EM_OK;

fail:
    em_sampler_close(&s);
    return em_fail(err, EM_NOMEM, "sampler %s: no memory for %d steps", solver->name, steps);
}

void em_sampler_close(em_sampler **s)
{
    if (!*s) return;
    em_free((*s)->sigma);
    em_free(*s);
    *s = NULL;
}

void em_sampler_begin(em_sampler *s, em_run *r, em_tensor x)
{
    s->step = 0;
    for (int i = 0; i < s->solver->states; i++) s->state[i] = em_run_keep(r, EM_F32, x.dim, x.ndim);
}

void em_sampler_step(em_sampler *s, em_run *r, em_tensor x, em_tensor v)
{
    assert(s->step < s->steps);
    em_mark m = em_run_mark(r);
    em_copy(r, x, s->solver->step(s, r, x, v));
    em_run_release(r, m);
    s->step++;
}

/* ---- over an interruption -------------------------------------------------------------------- */

static unsigned live_at(const em_sampler *s, int step)
{
    return s->solver->live && step < s->steps ? s->solver->live(step, s->steps) : 0;
}

void em_sampler_save(const em_sampler *s, em_run *r, em_sampler_saved *out)
{
    out->step = s->step;
    out->live = live_at(s, s->step);
    for (int i = 0; i < s->solver->states; i++)
        if (out->live >> i & 1) em_download(r, s->state[i], out->state[i]);
}

bool em_sampler_restore(em_sampler *s, em_run *r, const em_sampler_saved *from)
{
    if (from->step < 0 || from->step > s->steps || from->live != live_at(s, from->step))
        return false;
    s->step = from->step;
    for (int i = 0; i < s->solver->states; i++) {
        if (!(from->live >> i & 1)) continue;
        em_mark m = em_run_mark(r);
        em_copy(r, s->state[i],
                em_upload(r, from->state[i], EM_F32, s->state[i].dim, s->state[i].ndim));
        em_run_release(r, m);
    }
    return true;
}

/* ---- for solvers ----------------------------------------------------------------------------- */

double em_flow_shift(double sigma, double shift)
{
    return shift * sigma / (1 + (shift - 1) * sigma);
}

static double lambda(double sigma)
{
    return log1p(-sigma) - log(sigma);
}

double em_flow_h(const float *sigma)
{
    return lambda(sigma[1]) - lambda(sigma[0]);
}

/* The reference makes the grid with numpy's linspace, evaluated start + i * (delta / steps) in
 * double: any other order of operations moves some truncated timesteps by one. */
void em_flow_schedule(float *sigma, float *timestep, int steps, double shift, double sigma_max)
{
    double delta = -sigma_max / steps;
    for (int i = 0; i < steps; i++) {
        double s = em_flow_shift(i * delta + sigma_max, shift);
        sigma[i] = (float)s;
        timestep[i] = (float)trunc(1000 * s);
    }
    sigma[steps] = 0;
}

em_tensor em_flow_x0(em_run *r, em_tensor x, em_tensor v, float sigma)
{
    return em_lincomb(r, 2, (em_tensor[]){x, v}, (float[]){1, -sigma});
}

em_tensor em_flow_advance(em_run *r, double sigma, double sigma_next, em_tensor x, int n,
                          const em_tensor *x0, const double *w)
{
    em_tensor term[4] = {x};
    double q = sigma_next / sigma;
    float c[4] = {(float)q};
    assert(n <= 3);
    for (int i = 0; i < n; i++) {
        term[1 + i] = x0[i];
        c[1 + i] = (float)((1 - q) * w[i]);
    }
    return em_lincomb(r, 1 + n, term, c);
}
