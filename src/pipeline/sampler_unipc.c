/* "Flow_Unipc": UniPC of order 2, B(h) = e^h - 1 ("bh2"), arXiv 2302.04867, in data prediction.
 *
 * A step with the velocity at (x_k, σ_k), x_k being what the predictor of step k - 1 gave:
 *
 *     x0_k  = x_k - σ_k v                                 from the uncorrected sample
 *     x_k^c = UniC(x_{k-1}^c; x0_{k-1}, x0_{k-2}, x0_k)   the step into σ_k again, its end known
 *     x_k+1 = UniP(x_k^c; x0_k, x0_{k-1}) */
#include "ops/ops.h"
#include "pipeline/sampler.h"

#include <math.h>

/* What a step keeps: x0 of even and of odd steps, and the last corrected sample. */
enum { STATE_SAMPLE = 2, STATES };

static void unipc_schedule(float *sigma, float *timestep, int steps, double shift)
{
    em_flow_schedule(sigma, timestep, steps, shift, 0.999f); /* the training grid ends there */
}

/* The order of step k: it grows from 1, and the last step is of order 1. */
static int order_at(int step, int steps)
{
    return step == 0 || step == steps - 1 ? 1 : 2;
}

/* r_1 = (λ_{k-1} - λ_k) / h < 0: where x0_{k-1} lies, in units of the step from sigma[0] on. */
static double r1_at(const float *sigma)
{
    return -em_flow_h(sigma - 1) / em_flow_h(sigma);
}

/* UniP, from sigma[0] to sigma[1]: D = x0 + ρ (x0_prev - x0) / r_1, ρ = 1/2 at order 2. */
static em_tensor predict(em_run *r, const float *sigma, int order, em_tensor x, em_tensor x0,
                         em_tensor x0_prev)
{
    if (order == 1) return em_flow_advance(r, sigma[0], sigma[1], x, 1, &x0, (double[]){1});
    double w = 0.5 / r1_at(sigma);
    return em_flow_advance(r, sigma[0], sigma[1], x, 2, (em_tensor[]){x0, x0_prev},
                           (double[]){1 - w, w});
}

/* ρ of UniC at order 2 solves the system of the paper's theorem 3.1, with h -> -h for data
 * prediction:
 *
 *     | 1    1 | |ρ_1|   |  φ_2 / B |     B = e^-h - 1,  φ_2 = B / -h - 1,  φ_3 = φ_2 / -h - 1/2
 *     | r_1  1 | |ρ_2| = | 2φ_3 / B | */
static void corrector_weights(double h, double r1, double rho[2])
{
    double b = expm1(-h), phi2 = b / -h - 1, phi3 = phi2 / -h - 0.5;
    rho[0] = (phi2 - 2 * phi3) / b / (1 - r1);
    rho[1] = phi2 / b - rho[0];
}

/* UniC, from sigma[0] to sigma[1], where the model has been by now:
 *
 *     D = x0 + ρ_1 (x0_prev - x0) / r_1 + ρ_2 (x0_end - x0)
 *
 * At order 1 the middle term is absent and ρ_2 = 1/2. */
static em_tensor correct(em_run *r, const float *sigma, int order, em_tensor x, em_tensor x0,
                         em_tensor x0_prev, em_tensor x0_end)
{
    if (order == 1)
        return em_flow_advance(r, sigma[0], sigma[1], x, 2, (em_tensor[]){x0, x0_end},
                               (double[]){0.5, 0.5});
    double r1 = r1_at(sigma), rho[2];
    corrector_weights(em_flow_h(sigma), r1, rho);
    double w_prev = rho[0] / r1, w_end = rho[1];
    return em_flow_advance(r, sigma[0], sigma[1], x, 3, (em_tensor[]){x0, x0_prev, x0_end},
                           (double[]){1 - w_prev - w_end, w_prev, w_end});
}

static em_tensor unipc_step(em_sampler *s, em_run *r, em_tensor x, em_tensor v)
{
    int k = s->step;
    const float *sigma = s->sigma + k;
    em_tensor before = s->state[(k + 1) % 2]; /* x0_{k-1} */
    em_tensor here = s->state[k % 2];         /* x0_{k-2}, and x0_k in the end */
    em_tensor x0 = em_flow_x0(r, x, v, sigma[0]);
    if (k > 0)
        x = correct(r, sigma - 1, order_at(k - 1, s->steps), s->state[STATE_SAMPLE], before, here,
                    x0);
    em_tensor next = predict(r, sigma, order_at(k, s->steps), x, x0, before);
    em_copy(r, here, x0);
    em_copy(r, s->state[STATE_SAMPLE], x);
    return next;
}

/* The corrector of step k looks at the sample and at x0 of step k - 1, and, at order 2, of step
 * k - 2 too. */
static unsigned unipc_live(int step, int steps)
{
    if (step == 0) return 0;
    unsigned live = 1u << STATE_SAMPLE | 1u << (step - 1) % 2;
    return order_at(step - 1, steps) == 2 ? live | 1u << step % 2 : live;
}

const em_solver em_solver_unipc = {.name = "Flow_Unipc",
                                   .states = STATES,
                                   .schedule = unipc_schedule,
                                   .step = unipc_step,
                                   .live = unipc_live};
