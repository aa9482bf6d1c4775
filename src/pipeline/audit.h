/* Which model a checkpoint file belongs to, told by its names, and whether it is all there. */
#ifndef EM_PIPELINE_AUDIT_H
#define EM_PIPELINE_AUDIT_H

#include "models/bind.h"
#include "pipeline/engine.h"

typedef struct em_audit {
    em_model_kind kind; /* EM_MODEL_COUNT: none of ours, and then the rest is zero */
    em_bind_audit tensors;
    em_err
        verdict; /* code EM_OK: the model can be run from it; else what is wrong, in a sentence */
} em_audit;

/* The model that a checkpoint is of, told by tensors that it alone has; EM_MODEL_COUNT: none of
 * ours. *mark (may be NULL): that tensor. */
em_model_kind em_audit_kind(const em_ckpt *ckpt, const em_ckpt_tensor **mark);

void em_audit_close(em_audit *audit); /* {0} is allowed */

/* *out is the caller's: em_audit_close. Problems are lines in the log too (may be NULL). Drops
 * "wav2vec2." from names, as the engine does. Fails for want of memory alone. */
em_status em_audit_ckpt(em_audit *out, em_ckpt *ckpt, const em_log *log, em_err *err);

#endif
