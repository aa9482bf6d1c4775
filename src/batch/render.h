/* One portrait and one voice, from files to a finished file. */
#ifndef EM_BATCH_RENDER_H
#define EM_BATCH_RENDER_H

#include "base/log.h"
#include "base/status.h"

typedef struct em_render_job {
    const char *image_path, *audio_path, *output_path;
    const em_params *params;
    bool overwrite; /* else a whole video under the final name is left alone: *made is false */
    void (*progress)(void *user, const em_progress *p); /* may be NULL */
    void *user;
    const em_log *log;
} em_render_job;

/* Decodes both, says what will be cut, generates into a temporary beside output_path, reopens and
 * checks that, and gives it its name. Nothing is left under the final name after a failure. result
 * and made may be NULL. */
em_status em_render_run(em_engine *engine, const em_render_job *j, em_result *result, bool *made,
                        em_err *err);

#endif
