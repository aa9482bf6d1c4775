/* Progress on standard error: one line that rewrites itself on a terminal, plain lines elsewhere,
 * or JSON lines. */
#ifndef EM_CLI_PROGRESS_H
#define EM_CLI_PROGRESS_H

#include "cli/options.h"

typedef struct em_progress_view {
    bool quiet, json, terminal;
    const char *job; /* name shown in front; borrowed */
    size_t index, count;
} em_progress_view;

em_progress_view em_progress_view_open(const em_options *o);
/* For em_sink and em_render_job; user is the view. */
void em_progress_view_show(void *user, const em_progress *p);

#endif
