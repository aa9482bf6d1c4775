/* Several things can be wrong with a command line or a list, and people want to hear of all of them
 * at once: each problem is one line in the log, and the sentence that ends the call counts them.
 * One alone is that sentence, and is not said twice. */
#ifndef EM_BASE_PROBLEMS_H
#define EM_BASE_PROBLEMS_H

#include "base/log.h"
#include "base/status.h"

#include <stddef.h>

typedef struct em_problems {
    const em_log *log; /* borrowed; may be NULL */
    em_err first;
    size_t count;
} em_problems;

void em_problems_add(em_problems *p, em_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* What a callee found: its status and sentence. */
void em_problems_take(em_problems *p, const em_err *err);
/* EM_OK, or the first problem's status; with several, `what` says what has them: "the job list". */
em_status em_problems_end(const em_problems *p, const char *what, em_err *err);

#endif
