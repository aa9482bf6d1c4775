#include "base/problems.h"

#include <stdarg.h>

void em_problems_take(em_problems *p, const em_err *err)
{
    if (p->count++ == 0) {
        p->first = *err;
        return;
    }
    if (p->count == 2) em_logf(p->log, EM_LOG_ERROR, "%s", p->first.msg);
    em_logf(p->log, EM_LOG_ERROR, "%s", err->msg);
}

void em_problems_add(em_problems *p, em_status code, const char *fmt, ...)
{
    em_err e = {0};
    va_list ap;
    va_start(ap, fmt);
    em_vfail(&e, code, fmt, ap);
    va_end(ap);
    em_problems_take(p, &e);
}

em_status em_problems_end(const em_problems *p, const char *what, em_err *err)
{
    if (!p->count) return EM_OK;
    if (p->count == 1) return em_fail(err, p->first.code, "%s", p->first.msg);
    return em_fail(err, p->first.code, "%s has %zu problems; the first: %s", what, p->count,
                   p->first.msg);
}
