/* em_url_upload of fetch.h. */
#include "base/alloc.h"
#include "io/file.h"
#include "io/http.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 100, ANSWER_BYTES = 1 << 20 };

typedef struct upload {
    em_http http;
    int fd;
    uint64_t size_bytes, at_bytes, answer_bytes;
    em_err err; /* why we stopped it */
} upload;

/* ---- callbacks ------------------------------------------------------------------------------- */

static size_t on_read(char *out, size_t one, size_t n, void *user)
{
    upload *u = user;
    ssize_t got;
    do {
        got = pread(u->fd, out, one * n, (off_t)u->at_bytes);
    } while (got < 0 && errno == EINTR);
    if (got < 0 || (got == 0 && u->at_bytes < u->size_bytes)) {
        em_fail_errno(&u->err, got < 0 ? errno : EIO, "cannot read what is to be uploaded");
        return CURL_READFUNC_ABORT;
    }
    u->at_bytes += (uint64_t)got;
    return (size_t)got;
}

static int on_seek(void *user, curl_off_t offset, int origin)
{
    upload *u = user;
    if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
    u->at_bytes = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* Nobody reads it, and it may not go on for ever. */
static size_t on_answer(char *data, size_t one, size_t n, void *user)
{
    upload *u = user;
    (void)data, (void)one; /* always 1 */
    u->answer_bytes += n;
    return u->answer_bytes <= ANSWER_BYTES ? n : 0;
}

static bool cancelled(const em_fetch_options *o)
{
    return o->cancel && atomic_load(o->cancel);
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return cancelled(((upload *)user)->http.options);
}

/* ---- one try --------------------------------------------------------------------------------- */

/* A version 2 signature covers the type, and was made without one; Azure wants to know what it is
 * to make of it. "Expect" only costs a pause. */
static struct curl_slist *make_headers(const char *url)
{
    const char *host = strstr(url, ".blob.core.");
    bool azure = host && host < url + strcspn(url, "?");
    bool v2 = strstr(url, "&Signature=") || strstr(url, "?Signature=");
    const char *const lines[] = {"Expect:", v2 ? NULL : "Content-Type: video/mp4",
                                 azure ? "x-ms-blob-type: BlockBlob" : NULL};
    struct curl_slist *list = NULL;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct curl_slist *longer = lines[i] ? curl_slist_append(list, lines[i]) : list;
        if (!longer) {
            curl_slist_free_all(list);
            return NULL;
        }
        list = longer;
    }
    return list;
}

static void configure(upload *u, CURL *c, struct curl_slist *headers)
{
    em_http_configure(&u->http, c);
    curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)u->size_bytes);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, u);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, u);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, u);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, u);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
}

/* Until the server has answered, redirects followed. */
static em_status exchange(upload *u, CURL *c, bool *again, double *retry_after_ms, em_err *err)
{
    for (;;) {
        char shown[EM_HTTP_SHOWN];
        long status = 0;
        curl_off_t after_s = 0;
        u->at_bytes = u->answer_bytes = 0;
        CURLcode rc = curl_easy_perform(c);
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &after_s);
        *retry_after_ms = after_s > 0 ? (double)after_s * 1000 : 0;
        if ((rc == CURLE_OK || rc == CURLE_WRITE_ERROR) && status >= 200 && status < 300)
            return EM_OK;
        if (u->err.code) return em_fail(err, u->err.code, "%s", u->err.msg);
        if (rc == CURLE_ABORTED_BY_CALLBACK)
            return em_fail(err, EM_CANCELLED, "'%s': interrupted",
                           em_url_public(shown, sizeof shown, u->http.url));
        if (rc != CURLE_OK || status < 300 || status >= 400)
            return em_http_explain(&u->http, rc, status, again, err);
        if (!em_http_redirect(&u->http, c, status, err)) return err ? err->code : EM_NETWORK;
    }
}

static em_status try_once(upload *u, bool *again, double *retry_after_ms, em_err *err)
{
    CURL *c = curl_easy_init();
    struct curl_slist *headers = make_headers(u->http.url);
    em_status st = c && headers ? EM_OK : em_fail(err, EM_NOMEM, "no memory for an upload");
    *again = false;
    if (!st) {
        configure(u, c, headers);
        st = exchange(u, c, again, retry_after_ms, err);
    }
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    em_http_close(&u->http);
    return st;
}

/* In slices, so that a cancel is heard. */
static void sleep_ms(const em_fetch_options *o, double ms)
{
    for (; ms > 0 && !cancelled(o); ms -= SLICE_MS) {
        double now = ms < SLICE_MS ? ms : SLICE_MS;
        nanosleep(&(struct timespec){.tv_nsec = (long)(now * 1e6)}, NULL);
    }
}

static em_status open_file(upload *u, const char *path, em_err *err)
{
    struct stat info;
    u->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (u->fd < 0 || fstat(u->fd, &info) != 0)
        return em_fail_errno(err, errno, "cannot read '%s'", path);
    u->size_bytes = (uint64_t)info.st_size;
    return EM_OK;
}

em_status em_url_upload(const char *url, const char *path, const em_fetch_options *options,
                        int *tries, em_err *err)
{
    char shown[EM_HTTP_SHOWN];
    upload u = {.fd = -1};
    em_err e = {0};
    bool again = true;
    int n = 0;
    em_http_init();
    em_status st = em_http_precheck(url, options, &e);
    if (!st) st = open_file(&u, path, &e);
    bool open = !st;
    while (open && again && n < options->tries) {
        double retry_after_ms = 0;
        n++;
        u.err = (em_err){0};
        u.http = (em_http){.options = options, .url = url, .upload = true};
        st = try_once(&u, &again, &retry_after_ms, &e);
        if (!st) break;
        if (!again || n == options->tries) break;
        double ms = em_http_pause_ms(options, n + 1, retry_after_ms, em_http_random());
        em_logf(&options->log, EM_LOG_INFO, "%s; try %d of %d in %.1f s", e.msg, n + 1,
                options->tries, ms / 1000);
        sleep_ms(options, ms);
        if (cancelled(options)) {
            st = em_fail(&e, EM_CANCELLED, "'%s': interrupted",
                         em_url_public(shown, sizeof shown, url));
            break;
        }
    }
    if (u.fd >= 0) close(u.fd);
    if (tries) *tries = n;
    return st ? em_fail(err, e.code, "%s", e.msg) : EM_OK;
}
