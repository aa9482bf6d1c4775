/* How a function says that it failed: a code and one sentence.
 *
 * A fallible function returns em_status and takes an `em_err *` last. The code is for the program,
 * the sentence for the person: which file, tensor or flag, what was expected, what was found, what
 * to do.
 */
#ifndef EM_BASE_STATUS_H
#define EM_BASE_STATUS_H

#include "echomimic.h" /* em_status, em_err: part of the public interface */

#include <stdarg.h>

/* Writes code and sentence into *err (err may be NULL) and returns code, so that `return
 * em_fail(…)` reads as one step. A message that does not fit is cut at a UTF-8 boundary. */
em_status em_fail(em_err *err, em_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
em_status em_vfail(em_err *err, em_status code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* Drops a multi-byte character that the end of s cuts in half. */
void em_trim_utf8(char *s);

/* The same with ": <strerror(errno_value)>" appended; ENOSPC and EDQUOT become EM_NOSPC, ENOMEM
 * EM_NOMEM, everything else EM_IO. */
em_status em_fail_errno(em_err *err, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* clang-tidy's analyser reads one file at a time and would try what happens when these return
 * EM_OK. It is told what they return; `code` is evaluated twice then, as only the analyser sees. */
#ifdef __clang_analyzer__
#define em_fail(err, code, ...) ((void)(em_fail)((err), (code), __VA_ARGS__), (code))
#define em_fail_errno(err, e, ...) ((void)(em_fail_errno)((err), (e), __VA_ARGS__), EM_IO)
#endif

/* Puts "context: " in front of a sentence that a callee wrote; returns err->code. */
em_status em_err_prefix(em_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
