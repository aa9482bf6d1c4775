/* "Flow_DPM++": DPM-Solver++(2M), arXiv 2211.01095, algorithm 2, in data prediction. */
#include "ops/ops.h"
#include "pipeline/sampler.h"

static void dpmpp_schedule(float *sigma, float *timestep, int steps, double shift)
{
    em_flow_schedule(sigma, timestep, steps, shift, 1.0);
}

/* D = x0 + (x0 - x0_prev) / (2 r),  r = h_prev / h. First order (D = x0) where nothing lies
 * behind (step 0), where λ_prev is -infinity because σ_prev = 1 (step 1: r is infinite), and at the
 * end, where λ' is infinite. */
static em_tensor dpmpp_step(em_sampler *s, em_run *r, em_tensor x, em_tensor v)
{
    const float *sigma = s->sigma + s->step;
    em_tensor prev = s->state[0], x0 = em_flow_x0(r, x, v, sigma[0]);
    double w[2] = {1, 0};
    if (s->step > 1 && s->step < s->steps - 1) {
        w[1] = -0.5 * em_flow_h(sigma) / em_flow_h(sigma - 1);
        w[0] = 1 - w[1];
    }
    em_tensor next =
        em_flow_advance(r, sigma[0], sigma[1], x, w[1] == 0 ? 1 : 2, (em_tensor[]){x0, prev}, w);
    em_copy(r, prev, x0);
    return next;
}

/* The last step, like the first two, is of order 1 and looks at nothing behind it; step 1 writes
 * what step 2 reads. */
static unsigned dpmpp_live(int step, int steps)
{
    return step > 1 && step < steps - 1;
}

const em_solver em_solver_dpmpp = {.name = "Flow_DPM++",
                                   .states = 1,
                                   .schedule = dpmpp_schedule,
                                   .step = dpmpp_step,
                                   .live = dpmpp_live};
