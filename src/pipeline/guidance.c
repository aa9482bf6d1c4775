#include "pipeline/guidance.h"

#include "ops/ops.h"

void em_guidance_plan(em_step_plan *plan, int steps, double guidance_scale, double cfg_skip_ratio)
{
    for (int i = 0; i < steps; i++) {
        bool guided = guidance_scale > 1 && !(i >= steps * (1 - cfg_skip_ratio));
        em_forward *f = plan[i].forward;
        f[EM_BRANCH_AUDIO] = (em_forward){EM_FORWARD_COMPUTE, EM_NO_SLOT};
        f[EM_BRANCH_SILENT] =
            (em_forward){guided ? EM_FORWARD_COMPUTE : EM_FORWARD_NONE, EM_NO_SLOT};
    }
}

em_tensor em_guidance_combine(em_run *r, em_tensor c, em_tensor u, double scale)
{
    return em_lincomb(r, 2, (em_tensor[]){c, u}, (float[]){(float)scale, (float)(1 - scale)});
}
