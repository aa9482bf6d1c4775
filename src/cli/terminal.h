/* What a person, or a program, sees of a run: messages and progress, on stderr. On a terminal the
 * progress is one line that is rewritten, with a part for every job that is worked on; elsewhere
 * each step is a line; with --log_json everything is a JSON object a line. */
#ifndef EM_CLI_TERMINAL_H
#define EM_CLI_TERMINAL_H

#include "echomimic.h"

#include <pthread.h>
#include <stdio.h>

typedef enum em_terminal_mode {
    EM_TERMINAL_LINES,
    EM_TERMINAL_REWRITES,
    EM_TERMINAL_JSON,
} em_terminal_mode;

typedef struct em_terminal {
    em_terminal_mode mode;
    bool quiet;                    /* warnings and errors only */
    pthread_mutex_t lock;          /* messages come from any thread */
    char job[EM_LANES_MAX][80];    /* "[1/2 ada] ": of the jobs that are worked on at once */
    char doing[EM_LANES_MAX][256]; /* what is on the screen of each; empty: nothing */
    int drawn;                     /* columns of the line that is on the screen */
    double said_ms;                /* when the last line of progress was printed */
} em_terminal;

void em_terminal_open(em_terminal *t, bool quiet, bool json);
void em_terminal_close(em_terminal *t); /* leaves the cursor on a fresh line */

em_log em_terminal_log(em_terminal *t); /* t must outlive its user */
void em_terminal_say(em_terminal *t, em_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Which job the progress of a lane that follows belongs to; count 0: none, its part of the line is
 * free. */
void em_terminal_job(em_terminal *t, int lane, size_t position, size_t count, const char *name);
void em_terminal_progress(em_terminal *t, int lane, const em_progress *p);

#endif
