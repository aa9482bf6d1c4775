/* Messages from below the command line: the library prints nothing, it tells the caller. */
#ifndef EM_BASE_LOG_H
#define EM_BASE_LOG_H

typedef enum em_level { EM_LOG_DEBUG, EM_LOG_INFO, EM_LOG_WARN, EM_LOG_ERROR } em_level;

/* Borrowed for the lifetime of whatever it is given to. fn NULL, or a NULL em_log, means silence. fn may
 * be called from any thread; msg is one line without a newline, borrowed for the call. */
typedef struct em_log {
    void (*fn)(void *user, em_level level, const char *msg);
    void *user;
} em_log;

void em_logf(const em_log *log, em_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
