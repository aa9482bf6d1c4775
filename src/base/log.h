/* Messages from below the command line: the library prints nothing, it tells the caller. */
#ifndef EM_BASE_LOG_H
#define EM_BASE_LOG_H

#include "echomimic.h" /* em_level, em_log: part of the public interface */

/* log may be NULL. A line longer than a kilobyte is cut. */
void em_logf(const em_log *log, em_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
