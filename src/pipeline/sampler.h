/* Solvers of the flow ODE dx/dσ = v(x, σ), from σ near 1 (noise) to σ = 0 (data).
 *
 * Along a straight path x = (1 - σ) x0 + σ noise, so that a velocity v predicts x0 = x - σ v. The
 * multistep solvers work on x0: DPM-Solver++ (arXiv 2211.01095) and UniPC (arXiv 2302.04867), with
 * α = 1 - σ and λ = log(α / σ). Their common step from σ to σ' is
 *
 *     x' = (σ'/σ) x - α' (e^-h - 1) D,    h = λ' - λ,    D a weighted mean of x0 predictions,
 *
 * and as α' e^-h = α σ'/σ, here simply
 *
 *     x' = (σ'/σ) x + (1 - σ'/σ) D:
 *
 * no logarithm, hence no infinity at σ = 1 or σ' = 0. λ enters only where predictions are
 * extrapolated.
 *
 * Coefficients are made on the host in double from the float32 sigmas; latents stay float32.
 * Neither the first noise nor the model's input is scaled. */
#ifndef EM_PIPELINE_SAMPLER_H
#define EM_PIPELINE_SAMPLER_H

#include "echomimic.h" /* em_sampler_kind */
#include "ops/run.h"

typedef struct em_sampler em_sampler;

/* One solver. */
typedef struct em_solver {
    const char *name; /* what --sampler_name calls it */
    int states;       /* tensors of x's shape that steps hand on, at most EM_SAMPLER_STATES */
    /* sigma (steps + 1), the last one 0; timestep (steps): what the model is told */
    void (*schedule)(float *sigma, float *timestep, int steps, double shift);
    /* One step from s->step; returns the new x in scratch and updates s->state. */
    em_tensor (*step)(em_sampler *s, em_run *r, em_tensor x, em_tensor v);
    /* Bit i: state[i] is read by step `step` (0 .. steps - 1) or a later one before it is written
     * again. NULL: no state is. */
    unsigned (*live)(int step, int steps);
} em_solver;

extern const em_solver em_solver_unipc, em_solver_dpmpp, em_solver_euler;

const em_solver *em_solver_get(em_sampler_kind kind);

enum { EM_SAMPLER_STATES = 3 };

/* Everything a step depends on besides x and v is `step` and `state`: em_sampler_save and
 * em_sampler_restore carry them over an interruption. */
struct em_sampler {
    const em_solver *solver;
    int steps;
    int step;        /* the next one to take */
    float *sigma;    /* (steps + 1), owned */
    float *timestep; /* (steps), inside sigma's block */
    /* F32 in the run's arena, undefined until a step wrote it */
    em_tensor state[EM_SAMPLER_STATES];
};

/* shift s maps σ to s σ / (1 + (s - 1) σ): larger values spend more steps near the noise.
 * steps >= 1, shift > 0. *out is owned by the caller: em_sampler_close. */
em_status em_sampler_open(em_sampler **out, const em_solver *solver, int steps, double shift,
                          em_err *err);
void em_sampler_close(em_sampler **s);

/* Step 0 of latents of x's shape. State is kept in the run's arena and goes with its release; steps
 * allocate nothing else. A sampler may begin again, on any run. */
void em_sampler_begin(em_sampler *s, em_run *r, em_tensor x);

/* x := the solver's next x, given the velocity v at (x, sigma[step]). x and v F32 of one shape.
 * Leaves no scratch behind. */
void em_sampler_step(em_sampler *s, em_run *r, em_tensor x, em_tensor v);

/* A sampler between two steps as plain data. */
typedef struct em_sampler_saved {
    int step;                        /* the next one to take */
    unsigned live;                   /* bit i: state[i] holds something that is still to be read */
    float *state[EM_SAMPLER_STATES]; /* of x's count each, in host memory, borrowed */
} em_sampler_saved;

/* What the rest of the steps depends on: `step`, `live`, and the values of live states. */
void em_sampler_save(const em_sampler *s, em_run *r, em_sampler_saved *out);
/* Goes on from there; only after em_sampler_begin. False, and the sampler stands where it stood,
 * when this is no place of its solver: another step than there is, or other states than it
 * reads. */
bool em_sampler_restore(em_sampler *s, em_run *r, const em_sampler_saved *from);

/* ---- for solvers ----------------------------------------------------------------------------- */

/* The multistep solvers' grid: sigma_max (1 - i/steps), shifted, then 0; timesteps are 1000 σ,
 * truncated. */
void em_flow_schedule(float *sigma, float *timestep, int steps, double shift, double sigma_max);
double em_flow_shift(double sigma, double shift);
/* h = λ(sigma[1]) - λ(sigma[0]), λ = log((1 - σ) / σ); both within (0, 1). */
double em_flow_h(const float *sigma);

/* x0 = x - σ v */
em_tensor em_flow_x0(em_run *r, em_tensor x, em_tensor v, float sigma);

/* x' = q x + (1 - q) sum_i w[i] x0[i],  q = sigma_next / sigma,  n <= 3 */
em_tensor em_flow_advance(em_run *r, double sigma, double sigma_next, em_tensor x, int n,
                          const em_tensor *x0, const double *w);

#endif
