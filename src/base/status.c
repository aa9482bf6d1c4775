#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#undef em_fail /* what the analyser sees instead */
#undef em_fail_errno

const char *em_status_text(em_status code)
{
    static const char *const text[] = {
#define X(name, text) [EM_##name] = text,
        EM_STATUS_MAP(X)
#undef X
    };
    return (size_t)code < sizeof text / sizeof *text ? text[code] : "unknown status";
}

/* vsnprintf may cut a multi-byte character in half: drop the half. */
void em_trim_utf8(char *s)
{
    size_t n = strlen(s), i = n;
    while (i > 0 && n - i < 4 && ((unsigned char)s[i - 1] & 0xC0) == 0x80) i--;
    if (i == 0 || (unsigned char)s[i - 1] < 0xC0) return;
    unsigned char lead = (unsigned char)s[i - 1];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (n - (i - 1) < need) s[i - 1] = 0;
}

em_status em_vfail(em_err *err, em_status code, const char *fmt, va_list ap)
{
    if (!err) return code;
    err->code = code;
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    if (n >= (int)sizeof err->msg) em_trim_utf8(err->msg);
    return code;
}

em_status em_fail(em_err *err, em_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(err, code, fmt, ap);
    va_end(ap);
    return code;
}

static em_status status_of_errno(int e)
{
    if (e == ENOSPC || e == EDQUOT) return EM_NOSPC;
    if (e == ENOMEM) return EM_NOMEM;
    return EM_IO;
}

em_status em_fail_errno(em_err *err, int errno_value, const char *fmt, ...)
{
    em_status code = status_of_errno(errno_value);
    if (!err) return code;
    va_list ap;
    va_start(ap, fmt);
    em_vfail(err, code, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", strerror(errno_value));
    return code;
}

em_status em_err_prefix(em_err *err, const char *fmt, ...)
{
    if (!err) return EM_INVAL;
    char head[sizeof err->msg], tail[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, err->msg, sizeof tail);
    return em_fail(err, err->code, "%s: %s", head, tail);
}
