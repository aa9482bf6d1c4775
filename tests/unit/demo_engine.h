/* An engine on the demo model, for tests of whole requests that look at its frames. */
#ifndef EM_TEST_DEMO_ENGINE_H
#define EM_TEST_DEMO_ENGINE_H

#include "pipeline/engine.h"

#include "test.h"

static inline em_engine_params demo_engine_params(const char *device, em_memory_mode mode)
{
    em_engine_params p = em_engine_params_default();
    p.model_name = EM_TEST_DATA "/../share/demo-model";
    p.wav2vec_model_dir = EM_TEST_DATA "/../share/demo-model/wav2vec2";
    p.device = device;
    p.threads = 2;
    p.memory_mode = mode;
    return p;
}

/* To every forecast the process weighs the same, whatever earlier tests left in it. */
static inline em_engine *demo_engine_open(const em_engine_params *p)
{
    em_err err = {0};
    em_engine *e = NULL;
    assert_ok(em_engine_open(&e, p, &err), err);
    e->base_bytes = (uint64_t)64 << 20;
    return e;
}

#endif
