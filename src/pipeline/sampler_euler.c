/* "Flow": Euler's method, on the grid of diffusers' FlowMatchEulerDiscreteScheduler. */
#include "ops/ops.h"
#include "pipeline/sampler.h"

enum { TRAIN_STEPS = 1000 };

/* A training sigma, shifted in float32 as the scheduler's constructor does. */
static double train_sigma(int step, double shift)
{
    float sigma = (float)step / TRAIN_STEPS;
    return (float)shift * sigma / (1 + (float)(shift - 1) * sigma);
}

/* The shift counts twice: it fixes the ends of the training grid, and it is applied to the linspace
 * of timesteps between them. Both ends are included; timesteps are not truncated. */
static void euler_schedule(float *sigma, float *timestep, int steps, double shift)
{
    double first = TRAIN_STEPS * train_sigma(TRAIN_STEPS, shift);
    double last = TRAIN_STEPS * train_sigma(1, shift);
    double delta = steps > 1 ? (last - first) / (steps - 1) : 0;
    for (int i = 0; i < steps; i++) {
        double t = i > 0 && i == steps - 1 ? last : i * delta + first;
        sigma[i] = (float)em_flow_shift(t / TRAIN_STEPS, shift);
        timestep[i] = sigma[i] * TRAIN_STEPS;
    }
    sigma[steps] = 0;
}

/* x' = x + (σ' - σ) v */
static em_tensor euler_step(em_sampler *s, em_run *r, em_tensor x, em_tensor v)
{
    float d_sigma = s->sigma[s->step + 1] - s->sigma[s->step];
    return em_lincomb(r, 2, (em_tensor[]){x, v}, (float[]){1, d_sigma});
}

const em_solver em_solver_euler = {.name = "Flow", .schedule = euler_schedule, .step = euler_step};
