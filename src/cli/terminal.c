#include "cli/terminal.h"

#include "base/str.h"
#include "base/time.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAUSE_MS = 1000 }; /* between two lines of progress where each is a line of its own */

void em_terminal_open(em_terminal *t, bool quiet, bool json)
{
    *t = (em_terminal){.quiet = quiet};
    if (json)
        t->mode = EM_TERMINAL_JSON;
    else if (isatty(STDERR_FILENO))
        t->mode = EM_TERMINAL_REWRITES;
    pthread_mutex_init(&t->lock, NULL);
}

/* Clears the rewritten line, so that another can take its place. */
static void wipe(em_terminal *t)
{
    if (t->drawn) fprintf(stderr, "\r%*s\r", t->drawn, "");
    t->drawn = 0;
}

void em_terminal_close(em_terminal *t)
{
    wipe(t);
    fflush(stderr);
    pthread_mutex_destroy(&t->lock);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void print_json_text(const char *s)
{
    fputc('"', stderr);
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(stderr, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(stderr, "\\u%04x", *p);
        else
            fputc(*p, stderr);
    }
    fputc('"', stderr);
}

static void print_message(void *user, em_level level, const char *msg)
{
    static const char *const word[] = {"debug", "info", "warning", "error"};
    em_terminal *t = user;
    if (level == EM_LOG_DEBUG || (t->quiet && level < EM_LOG_WARN)) return;
    pthread_mutex_lock(&t->lock);
    wipe(t);
    if (t->mode == EM_TERMINAL_JSON) {
        fprintf(stderr, "{\"level\": \"%s\", \"message\": ", word[level]);
        print_json_text(msg);
        fprintf(stderr, "}\n");
    } else if (level == EM_LOG_INFO) {
        fprintf(stderr, "%s\n", msg);
    } else {
        fprintf(stderr, "%s: %s\n", word[level], msg);
    }
    fflush(stderr);
    pthread_mutex_unlock(&t->lock);
}

em_log em_terminal_log(em_terminal *t)
{
    return (em_log){print_message, t};
}

void em_terminal_say(em_terminal *t, em_level level, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    print_message(t, level, line);
}

/* ---- progress -------------------------------------------------------------------------------- */

void em_terminal_job(em_terminal *t, int lane, size_t position, size_t count, const char *name)
{
    char *job = t->job[lane];
    pthread_mutex_lock(&t->lock);
    job[0] = t->doing[lane][0] = 0;
    if (count > 1) snprintf(job, sizeof t->job[lane], "[%zu/%zu %.40s] ", position, count, name);
    t->said_ms = 0;
    pthread_mutex_unlock(&t->lock);
}

static int columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

/* Every lane's part side by side, each as wide as an equal share of the screen. */
static void draw(em_terminal *t)
{
    static const char between[] = " | ";
    int parts = 0, room = columns() - 1;
    for (int i = 0; i < EM_LANES_MAX; i++) parts += t->doing[i][0] != 0;
    wipe(t);
    int share = parts > 1 ? (room - (parts - 1) * 3) / parts : room;
    for (int i = 0; i < EM_LANES_MAX; i++) {
        if (!t->doing[i][0] || share < 1) continue;
        t->drawn += fprintf(stderr, "%s%.*s", t->drawn ? between : "", share, t->doing[i]);
    }
    fflush(stderr);
}

static void print_json_progress(const char *job, const em_progress *p)
{
    fprintf(stderr, "{\"job\": ");
    print_json_text(job);
    fprintf(stderr,
            ", \"stage\": \"%s\", \"done\": %d, \"total\": %d, \"stage_seconds\": %.3f, "
            "\"seconds_left\": ",
            em_stage_name(p->stage), p->done, p->total, p->stage_ms / 1000);
    if (p->remaining_ms < 0)
        fprintf(stderr, "null}\n");
    else
        fprintf(stderr, "%.1f}\n", p->remaining_ms / 1000);
}

static void describe(char *line, size_t room, const char *job, const em_progress *p)
{
    char spent[24], left[24];
    int n = snprintf(line, room, "%s%-7s %d/%d  %s", job, em_stage_name(p->stage), p->done,
                     p->total, em_format_seconds(spent, p->stage_ms / 1000));
    if (p->remaining_ms >= 0 && n > 0 && (size_t)n < room)
        snprintf(line + n, room - (size_t)n, ", about %s left",
                 em_format_seconds(left, p->remaining_ms / 1000));
}

/* A step of the transformer and the end of a stage are always worth a line, the many small chunks
 * of the decoder are not. */
static bool worth_a_line(const em_terminal *t, const em_progress *p)
{
    if (p->done == 0) return false;
    return p->done == p->total || p->stage == EM_STAGE_DENOISE ||
           em_now_ms() - t->said_ms >= PAUSE_MS;
}

void em_terminal_progress(em_terminal *t, int lane, const em_progress *p)
{
    char line[sizeof t->doing[lane]];
    if (t->quiet) return;
    pthread_mutex_lock(&t->lock);
    describe(line, sizeof line, t->job[lane], p);
    memcpy(t->doing[lane], line, sizeof line);
    if (t->mode == EM_TERMINAL_JSON) {
        print_json_progress(t->job[lane], p);
    } else if (t->mode == EM_TERMINAL_REWRITES) {
        draw(t);
    } else if (worth_a_line(t, p)) {
        fprintf(stderr, "%s\n", line);
        t->said_ms = em_now_ms();
    }
    pthread_mutex_unlock(&t->lock);
}
