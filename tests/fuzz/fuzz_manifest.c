/* Any bytes as a job list. What is taken has jobs with a picture, a sound and a name each. */
#include "fuzz.h"

#include "batch/manifest.h"
#include "fuzz_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    em_manifest m = {0};
    em_err err = {0};
    em_params params = em_params_default();
    const em_manifest_options options = {.params = &params, .skip_invalid = size % 2};
    if (em_manifest_read(&m, fuzz_file(data, size), &options, &err)) {
        if (m.job || err.code == EM_OK || !err.msg[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < m.count; i++) {
        const em_batch_job *job = &m.job[i];
        if (job->problem.code) continue;
        if (!job->image || !job->audio || !job->name) abort();
        if (!*job->name || strchr(job->name, '/') || strlen(job->name) > EM_OUTPUT_NAME_BYTES)
            abort();
    }
    em_manifest_close(&m);
    return 0;
}
