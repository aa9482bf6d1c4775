#include "cli/progress.h"

#include "base/str.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

em_progress_view em_progress_view_open(const em_options *o)
{
    return (em_progress_view){.quiet = o->quiet,
                              .json = o->log_json,
                              .terminal = isatty(STDERR_FILENO)};
}

static void show_json(const em_progress_view *v, const em_progress *p)
{
    json_t *o =
        json_pack("{s:s, s:s?, s:s, s:i, s:i, s:f, s:f}", "event", "progress", "job", v->job,
                  "stage", em_stage_name(p->stage), "done", p->done, "total", p->total,
                  "stage_seconds", p->stage_ms / 1e3, "remaining_seconds", p->remaining_ms / 1e3);
    json_dumpf(o, stderr, JSON_COMPACT | JSON_REAL_PRECISION(6));
    fputc('\n', stderr);
    json_decref(o);
}

/* "[2/7] video_002  denoise 3/8  12.1 s, about 34.0 s left" */
void em_progress_view_show(void *user, const em_progress *p)
{
    em_progress_view *v = user;
    char took[24], left[24];
    if (v->json) show_json(v, p);
    if (v->json || v->quiet) return;
    bool last = p->done == p->total;
    if (p->done == 0 && !v->terminal) return; /* a stage's first line says nothing yet */
    fprintf(stderr, v->terminal ? "\r\033[K" : "");
    if (v->count > 1) fprintf(stderr, "[%zu/%zu] ", v->index + 1, v->count);
    fprintf(stderr, "%s  %s %d/%d  %s", v->job ? v->job : "", em_stage_name(p->stage), p->done,
            p->total, em_format_seconds(took, p->stage_ms / 1e3));
    if (p->remaining_ms > 0)
        fprintf(stderr, ", about %s left", em_format_seconds(left, p->remaining_ms / 1e3));
    if (!v->terminal || last) fputc('\n', stderr);
    fflush(stderr);
}
