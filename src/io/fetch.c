#include "io/fetch.h"

#include "io/file.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_S = 10, TIMEOUT_S = 600, SLOW_BYTES = 1000, SLOW_S = 30, REDIRECTS = 5 };

/* One transfer. */
typedef struct transfer {
    const em_fetch *f;
    char shown[160]; /* the address without its secret */
    em_file_writer *file;
    uint64_t bytes;
    em_err err;   /* what our callbacks found; curl reduces it to a number */
    bool refused; /* the address was one of a private network */
} transfer;

/* ---- addresses ------------------------------------------------------------------------------- */

/* Networks that are not the public internet; bits of the prefix. */
static const struct {
    uint32_t net;
    int bits;
} private_nets[] = {
    {0x00000000, 8},  /* this host */
    {0x0a000000, 8},  /* private */
    {0x64400000, 10}, /* shared between carriers */
    {0x7f000000, 8},  /* loopback */
    {0xa9fe0000, 16}, /* link-local, cloud metadata */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments */
    {0xc0a80000, 16}, /* private */
    {0xc6120000, 15}, /* benchmarks */
    {0xe0000000, 3},  /* multicast and above */
};

static bool is_private_v4(uint32_t a)
{
    for (size_t i = 0; i < sizeof private_nets / sizeof *private_nets; i++)
        if ((a ^ private_nets[i].net) >> (32 - private_nets[i].bits) == 0) return true;
    return false;
}

static uint32_t read_v4(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Of IPv6 only 2000::/3 is public; ::ffff:0:0/96, 64:ff9b::/96 and 2002::/16 wrap an IPv4 one. */
static bool is_private_v6(const uint8_t a[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
    if (!memcmp(a, mapped, 12) || !memcmp(a, nat64, 12)) return is_private_v4(read_v4(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02) return is_private_v4(read_v4(a + 2));
    return (a[0] & 0xe0) != 0x20;
}

static bool is_private(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return is_private_v4(ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr));
    if (a->sa_family == AF_INET6)
        return is_private_v6(((const struct sockaddr_in6 *)a)->sin6_addr.s6_addr);
    return true;
}

/* The one place that every connection passes, whatever the address was called. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    transfer *t = user;
    (void)purpose;
    if (!t->f->allow_private && is_private(&a->addr)) {
        t->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static size_t take_bytes(char *data, size_t one, size_t n, void *user)
{
    transfer *t = user;
    (void)one;
    if (n > t->f->max_bytes - t->bytes) {
        em_fail(&t->err, EM_NETWORK, "'%s' has more than %llu bytes", t->shown,
                (unsigned long long)t->f->max_bytes);
        return 0;
    }
    if (em_file_writer_write(t->file, t->bytes, data, n, &t->err)) return 0;
    t->bytes += n;
    return n;
}

static int look_at_stop(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const transfer *t = user;
    (void)a, (void)b, (void)c, (void)d;
    return t->f->stop && atomic_load(t->f->stop);
}

/* ---- the transfer ---------------------------------------------------------------------------- */

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void set_up(CURL *c, transfer *t)
{
    double timeout = t->f->timeout_s > 0 ? t->f->timeout_s : TIMEOUT_S;
    curl_easy_setopt(c, CURLOPT_URL, t->f->url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "echomimic");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_S);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(timeout * 1000));
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, look_at_stop);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
}

static em_status explain(const transfer *t, CURL *c, CURLcode code, em_err *err)
{
    long http = 0;
    if (t->err.code) return em_fail(err, t->err.code, "%s", t->err.msg);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return em_fail(err, EM_CANCELLED, "'%s': interrupted", t->shown);
    if (t->refused)
        return em_fail(
            err, EM_NETWORK,
            "'%s' is on this machine or in a private network: --allow_private permits it",
            t->shown);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
    if (http == 403 || http == 404 || http == 410)
        return em_fail(err, EM_EXPIRED,
                       "'%s': the server says %ld: a signed address may have expired", t->shown,
                       http);
    if (http >= 400) return em_fail(err, EM_NETWORK, "'%s': the server says %ld", t->shown, http);
    return em_fail(err, EM_NETWORK, "'%s' cannot be fetched: %s", t->shown,
                   curl_easy_strerror(code));
}

em_status em_fetch_file(const em_fetch *f, em_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    transfer t = {.f = f};
    size_t n = strcspn(f->url, "?#");
    em_status st = EM_OK;
    if (n >= sizeof t.shown) n = sizeof t.shown - 1;
    memcpy(t.shown, f->url, n);
    pthread_once(&once, global_init);
    CURL *c = curl_easy_init();
    if (!c) return em_fail(err, EM_NOMEM, "no memory to fetch '%s'", t.shown);
    st = em_file_writer_open(&t.file, f->path, err);
    if (!st) {
        set_up(c, &t);
        CURLcode code = curl_easy_perform(c);
        if (code != CURLE_OK) st = explain(&t, c, code, err);
    }
    if (!st) st = em_file_writer_commit(&t.file, err);
    em_file_writer_close(&t.file);
    curl_easy_cleanup(c);
    return st;
}
