#include "base/log.h"

#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

void em_logf(const em_log *log, em_level level, const char *fmt, ...)
{
    if (!log || !log->fn) return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof line) em_trim_utf8(line);
    log->fn(log->user, level, line);
}
