#include "io/fetch.h"

#include "io/file.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 4, CONNECT_SECONDS = 10, TOTAL_SECONDS = 600, SLOW_BYTES = 1000, SLOW_SECONDS = 30 };

typedef struct transfer {
    em_file_writer *file;
    const em_fetch_limits *limits;
    size_t received;
    bool too_large;
    bool refused; /* by address */
    em_err err;
} transfer;

/* ---- callbacks ------------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    transfer *t = user;
    if (n > t->limits->max_bytes - t->received) {
        t->too_large = true;
        return 0;
    }
    if (em_file_writer_write(t->file, t->received, data, n, &t->err)) return 0;
    t->received += n;
    return n * one;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const transfer *t = user;
    (void)a, (void)b, (void)c, (void)d;
    return t->limits->cancel && atomic_load(t->limits->cancel);
}

/* Loopback, private, link-local, shared, multicast and reserved ranges. */
static bool is_private_v4(uint32_t a)
{
    static const struct {
        uint32_t net, mask;
    } ranges[] = {
        {0x00000000, 0xff000000}, {0x0a000000, 0xff000000}, {0x64400000, 0xffc00000},
        {0x7f000000, 0xff000000}, {0xa9fe0000, 0xffff0000}, {0xac100000, 0xfff00000},
        {0xc0000000, 0xffffff00}, {0xc0a80000, 0xffff0000}, {0xc6120000, 0xfffe0000},
        {0xe0000000, 0xe0000000},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if ((a & ranges[i].mask) == ranges[i].net) return true;
    return false;
}

static uint32_t load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_private_v6(const unsigned char a[16])
{
    static const unsigned char zeros[12], nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (!memcmp(a, mapped, 12) || !memcmp(a, nat64, 12)) return is_private_v4(load_be32(a + 12));
    if (!memcmp(a, zeros, 12)) return true; /* ::, ::1, ::a.b.c.d */
    if (a[0] == 0x20 && a[1] == 0x02) return is_private_v4(load_be32(a + 2)); /* 6to4 */
    return (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && a[1] >= 0x80) || a[0] == 0xff;
}

/* The real address, after names, redirects and odd spellings have been resolved. */
static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    transfer *t = user;
    (void)purpose;
    bool refused = true;
    if (a->family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, &a->addr, sizeof v4);
        refused = is_private_v4(ntohl(v4.sin_addr.s_addr));
    } else if (a->family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, &a->addr, sizeof v6);
        refused = is_private_v6(v6.sin6_addr.s6_addr);
    }
    refused = refused && !t->limits->allow_private;
    t->refused = t->refused || refused;
    return refused ? CURL_SOCKET_BAD : socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- one try --------------------------------------------------------------------------------- */

static void configure(CURL *c, const char *url, transfer *t)
{
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)TOTAL_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_SECONDS);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, t);
}

static em_status explain(const transfer *t, CURLcode rc, long http, const char *shown, em_err *err)
{
    if (t->err.code) return em_fail(err, t->err.code, "%s", t->err.msg);
    if (rc == CURLE_ABORTED_BY_CALLBACK)
        return em_fail(err, EM_CANCELLED, "'%s': interrupted", shown);
    if (t->too_large)
        return em_fail(err, EM_NETWORK, "'%s' is larger than the %zu bytes that are allowed", shown,
                       t->limits->max_bytes);
    if (t->refused)
        return em_fail(err, EM_NETWORK,
                       "'%s' leads to a private address: refused (--allow_private permits it)",
                       shown);
    if (http == 403 || http == 404 || http == 410)
        return em_fail(err, EM_EXPIRED,
                       "'%s': the server answers %ld: the address has expired, or was never valid",
                       shown, http);
    if (http >= 400) return em_fail(err, EM_NETWORK, "'%s': the server answers %ld", shown, http);
    return em_fail(err, EM_NETWORK, "'%s': %s", shown, curl_easy_strerror(rc));
}

static bool worth_retrying(const transfer *t, CURLcode rc, long http)
{
    if (t->err.code || t->too_large || t->refused || rc == CURLE_ABORTED_BY_CALLBACK) return false;
    if (http >= 400) return http == 408 || http == 429 || http >= 500;
    return rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_CONNECT ||
           rc == CURLE_OPERATION_TIMEDOUT || rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR ||
           rc == CURLE_PARTIAL_FILE || rc == CURLE_GOT_NOTHING;
}

/* *again: the failure may pass. */
static em_status try_once(const char *url, const char *path, const em_fetch_limits *limits,
                          bool *again, em_err *err)
{
    char shown[256];
    transfer t = {.limits = limits};
    long http = 0;
    *again = false;
    CURL *c = curl_easy_init();
    if (!c) return em_fail(err, EM_NOMEM, "no memory for a download");
    em_status st = em_file_writer_open(&t.file, path, err);
    if (!st) {
        configure(c, url, &t);
        CURLcode rc = curl_easy_perform(c);
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
        if (rc == CURLE_OK) {
            st = em_file_writer_commit(&t.file, err);
        } else {
            *again = worth_retrying(&t, rc, http);
            st = explain(&t, rc, http, em_url_public(shown, sizeof shown, url), err);
        }
    }
    em_file_writer_close(&t.file);
    curl_easy_cleanup(c);
    return st;
}

em_status em_fetch(const char *url, const char *path, const em_fetch_limits *limits, em_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char shown[256];
    bool again = true;
    em_status st = EM_OK;
    pthread_once(&once, global_init);
    if (strncasecmp(url, "https://", 8))
        return em_fail(err, EM_INVAL, "'%s' is not an https address",
                       em_url_public(shown, sizeof shown, url));
    for (int i = 0; i < TRIES && again; i++) {
        if (i) nanosleep(&(struct timespec){.tv_sec = 1 << (i - 1)}, NULL);
        st = try_once(url, path, limits, &again, err);
    }
    return st;
}
