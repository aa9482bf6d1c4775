#include "io/http.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

enum {
    SLOW_BYTES = 1000,  /* a second: less is a stall */
    CLOCK_SLACK_S = 300 /* our clock may be wrong by so much */
};

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void em_http_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
}

/* ---- where it may go ------------------------------------------------------------------------- */

static void note_refused(em_http *h, const struct sockaddr *a)
{
    const void *at = &((const struct sockaddr_in *)(const void *)a)->sin_addr;
    if (a->sa_family == AF_INET6) at = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    h->refused = true;
    if (a->sa_family != AF_INET && a->sa_family != AF_INET6)
        snprintf(h->refused_at, sizeof h->refused_at, "no internet address");
    else
        inet_ntop(a->sa_family, at, h->refused_at, sizeof h->refused_at);
}

/* The one place where sockets are made: what is not allowed gets none. */
static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    em_http *h = user;
    const em_fetch_options *o = h->options;
    (void)purpose;
    bool listed = em_net_listed(o->allow, o->allow_count, &a->addr);
    if (!listed && (h->plain || !em_net_public(&a->addr))) {
        note_refused(h, &a->addr);
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

em_status em_http_precheck(const char *url, const em_fetch_options *options, em_err *err)
{
    char shown[EM_HTTP_SHOWN], when[24];
    int64_t expiry;
    em_url_scheme scheme = em_url_scheme_of(url);
    em_url_public(shown, sizeof shown, url);
    if (scheme == EM_URL_OTHER) return em_fail(err, EM_INVAL, "'%s' is no https address", shown);
    if (scheme == EM_URL_HTTP && !options->allow_count)
        return em_fail(err, EM_INVAL,
                       "'%s' is not https: plain http is for networks that --allow_private names",
                       shown);
    if (em_url_expiry(&expiry, url) && expiry + CLOCK_SLACK_S < (int64_t)time(NULL))
        return em_fail(err, EM_EXPIRED,
                       "'%s': the signature expired at %s: a new signed address is needed", shown,
                       em_url_time(when, expiry));
    return EM_OK;
}

/* ---- one exchange ---------------------------------------------------------------------------- */

void em_http_configure(em_http *h, CURL *c)
{
    const em_fetch_options *o = h->options;
    const char *url = h->target ? h->target : h->url;
    h->plain = em_url_scheme_of(url) == EM_URL_HTTP;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, h->plain ? "http" : "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L); /* em_http_redirect judges each */
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_USERAGENT, "echomimic"); /* some servers refuse who has none */
    if (o->ca_file) curl_easy_setopt(c, CURLOPT_CAINFO, o->ca_file);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L); /* never wait for a name that nobody answers */
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_ms);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)o->total_ms);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)(o->stall_ms / 1000 + 0.5));
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, h);
}

bool em_http_redirect(em_http *h, CURL *c, long status, em_err *err)
{
    char shown[EM_HTTP_SHOWN];
    char *next = NULL;
    em_url_public(shown, sizeof shown, h->url);
    curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &next);
    em_url_scheme scheme = next ? em_url_scheme_of(next) : EM_URL_OTHER;
    if (!next || (h->upload && status != 307 && status != 308)) {
        em_fail(err, EM_NETWORK, "'%s': the server answers %ld", shown, status);
    } else if (++h->redirects > EM_HTTP_REDIRECTS) {
        em_fail(err, EM_NETWORK, "'%s': more than %d redirects", shown, EM_HTTP_REDIRECTS);
    } else if (scheme == EM_URL_OTHER || (scheme == EM_URL_HTTP && !h->plain)) {
        em_fail(err, EM_NETWORK, "'%s' redirects to what is no https address: refused", shown);
    } else {
        char *own = em_strdup(next);
        if (!own) return em_fail(err, EM_NOMEM, "'%s': out of memory", shown), false;
        em_free(h->target);
        h->target = own;
        em_http_configure(h, c);
        return true;
    }
    return false;
}

void em_http_close(em_http *h)
{
    em_free(h->target);
    h->target = NULL;
}

/* ---- why it failed --------------------------------------------------------------------------- */

static bool passing_status(long status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504 || status == 522 || status == 524;
}

static bool passing_code(CURLcode rc)
{
    return rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_CONNECT ||
           rc == CURLE_OPERATION_TIMEDOUT || rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR ||
           rc == CURLE_PARTIAL_FILE || rc == CURLE_GOT_NOTHING || rc == CURLE_SSL_CONNECT_ERROR ||
           rc == CURLE_WEIRD_SERVER_REPLY || rc == CURLE_UNSUPPORTED_PROTOCOL ||
           rc == CURLE_HTTP2 || rc == CURLE_HTTP2_STREAM;
}

static em_status explain_status(const em_http *h, long status, const char *shown, em_err *err)
{
    char when[24];
    int64_t expiry;
    bool denied = status == 401 || status == 403 || status == 404 || status == 410;
    if (!denied) return em_fail(err, EM_NETWORK, "'%s': the server answers %ld", shown, status);
    if (!em_url_signed(h->url))
        return em_fail(err, EM_NETWORK, "'%s': the server answers %ld: %s", shown, status,
                       status == 404 || status == 410 ? "nothing is there" : "access is denied");
    if (em_url_expiry(&expiry, h->url) && expiry <= (int64_t)time(NULL))
        return em_fail(err, EM_EXPIRED,
                       "'%s': the server answers %ld: the signature expired at %s: a new signed "
                       "address is needed",
                       shown, status, em_url_time(when, expiry));
    return em_fail(err, EM_EXPIRED,
                   "'%s': the server answers %ld: the signed address has expired, or was never "
                   "valid",
                   shown, status);
}

em_status em_http_explain(const em_http *h, CURLcode rc, long status, bool *again, em_err *err)
{
    char shown[EM_HTTP_SHOWN];
    em_url_public(shown, sizeof shown, h->url);
    *again = false;
    if (h->refused && h->plain && rc != CURLE_OK && status < 400)
        return em_fail(err, EM_NETWORK,
                       "'%s' leads to %s by plain http: that is for networks that --allow_private "
                       "names",
                       shown, h->refused_at);
    if (h->refused && rc != CURLE_OK && status < 400)
        return em_fail(err, EM_NETWORK,
                       "'%s' leads to %s, which is no public address: refused (--allow_private "
                       "NETWORK permits it)",
                       shown, h->refused_at);
    if (status >= 400 || rc == CURLE_OK) {
        *again = passing_status(status);
        return explain_status(h, status, shown, err);
    }
    *again = passing_code(rc);
    if (rc == CURLE_URL_MALFORMAT) return em_fail(err, EM_INVAL, "'%s' is no valid address", shown);
    if (rc == CURLE_OUT_OF_MEMORY) return em_fail(err, EM_NOMEM, "'%s': out of memory", shown);
    return em_fail(err, EM_NETWORK, "'%s': %s", shown, curl_easy_strerror(rc));
}

/* ---- patience -------------------------------------------------------------------------------- */

double em_http_pause_ms(const em_fetch_options *o, int next, double retry_after_ms, uint32_t random)
{
    double bound = o->backoff_ms;
    for (int i = 2; i < next && bound < o->backoff_max_ms; i++) bound *= 2;
    if (bound > o->backoff_max_ms) bound = o->backoff_max_ms;
    double pause = bound * (random / 4294967296.0);
    if (retry_after_ms > o->retry_after_max_ms) retry_after_ms = o->retry_after_max_ms;
    return pause > retry_after_ms ? pause : retry_after_ms;
}

uint32_t em_http_random(void)
{
    uint32_t x = 0;
    if (getrandom(&x, sizeof x, 0) != (ssize_t)sizeof x) x = (uint32_t)time(NULL) * 2654435761u;
    return x;
}
