/* A fetcher and a server on loopback, in a folder of their own. */
#ifndef EM_TEST_NET_HARNESS_H
#define EM_TEST_NET_HARNESS_H

#include "io/fetch.h"

#include "../unit/test.h"
#include "../unit/tmpdir.h"
#include "server.h"

enum { HARNESS_URLS = 512 };

typedef struct harness {
    tmpdir dir; /* first: the tmpdir functions take the whole for it */
    net_server *server;
    em_net loopback;
    em_fetch_options options; /* quick, and allowed on loopback */
    char log[64 << 10];       /* what it said, a line each */
    size_t log_bytes;
    size_t handle[HARNESS_URLS];
    em_fetcher *fetcher;
} harness;

static inline void harness_log(void *user, em_level level, const char *msg)
{
    harness *h = user; /* one thread writes; it is read when that has ended */
    (void)level;
    int n = snprintf(h->log + h->log_bytes, sizeof h->log - h->log_bytes, "%s\n", msg);
    if (n > 0 && (size_t)n < sizeof h->log - h->log_bytes) h->log_bytes += (size_t)n;
}

static inline int harness_setup(void **state)
{
    harness *h = calloc(1, sizeof *h);
    em_err err = {0};
    if (!h) return -1;
    snprintf(h->dir.path, sizeof h->dir.path, "/tmp/em-test-XXXXXX");
    *state = h;
    if (!mkdtemp(h->dir.path)) return -1;
    h->server = net_server_start(h->dir.path, "127.0.0.1");
    if (!h->server || em_net_parse(&h->loopback, "127.0.0.1/32", &err)) return -1;
    h->options = em_fetch_options_default();
    h->options.allow = &h->loopback;
    h->options.allow_count = 1;
    h->options.backoff_ms = 20;
    h->options.backoff_max_ms = 100;
    h->options.retry_after_max_ms = 300;
    h->options.connect_ms = 2000;
    h->options.stall_ms = 1000;
    h->options.total_ms = 20e3;
    h->options.free_bytes = 1 << 20;
    h->options.log = (em_log){harness_log, h};
    return 0;
}

static inline int harness_teardown(void **state)
{
    harness *h = *state;
    em_fetcher_close(&h->fetcher);
    net_server_stop(&h->server);
    return tmpdir_teardown(state);
}

/* "http://127.0.0.1:PORT" and the path. */
static inline const char *harness_url(void **state, const char *path)
{
    harness *h = *state;
    char **url = &h->dir.paths[h->dir.path_count++];
    if (h->dir.path_count > TMPDIR_PATHS) abort();
    if (asprintf(url, "http://127.0.0.1:%d%s", net_server_port(h->server), path) < 0) abort();
    return *url;
}

/* ROOT/NAME: a file that looks like a picture (.png) or a sound (.wav), the rest is noise. */
static inline void harness_media(void **state, const char *name, size_t size_bytes)
{
    static const unsigned char end[12] = "\0\0\0\0IEND\xae\x42\x60\x82";
    unsigned char *data = malloc(size_bytes);
    uint32_t x = 12345;
    if (!data || size_bytes < 64) abort();
    for (size_t i = 0; i < size_bytes; i++)
        data[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
    for (const char *p = name; *p; p++) data[40 + (p - name) % 16] ^= (unsigned char)*p;
    if (strstr(name, ".png")) {
        uint32_t n = (uint32_t)size_bytes - 8 - 12 - 12;
        memcpy(data, "\x89PNG\r\n\x1a\n", 8);
        for (int i = 0; i < 4; i++) data[8 + i] = (unsigned char)(n >> (24 - 8 * i));
        memcpy(data + 12, "IHDR", 4);
        memcpy(data + size_bytes - 12, end, 12);
    } else {
        uint32_t n = (uint32_t)size_bytes - 8;
        memcpy(data, "RIFF", 4);
        for (int i = 0; i < 4; i++) data[4 + i] = (unsigned char)(n >> (8 * i));
        memcpy(data + 8, "WAVE", 4);
    }
    tmpdir_write(state, name, data, size_bytes);
    free(data);
}

static inline void harness_open(void **state)
{
    harness *h = *state;
    em_err err = {0};
    em_fetcher_close(&h->fetcher);
    assert_ok(em_fetcher_open(&h->fetcher, &h->options, &err), err);
}

static inline em_fetch_kind harness_kind(const char *url)
{
    return strstr(url, ".wav") ? EM_FETCH_AUDIO : EM_FETCH_IMAGE;
}

/* Becomes DIR/got-I. */
static inline void harness_add(void **state, size_t i, const char *url, uint64_t max_bytes)
{
    harness *h = *state;
    em_err err = {0};
    char name[32];
    snprintf(name, sizeof name, "got-%zu", i);
    const em_fetch_request q = {url, tmpdir_path(state, name), max_bytes, harness_kind(url)};
    assert_ok(em_fetcher_add(h->fetcher, &q, &h->handle[i], &err), err);
}

static inline void harness_start(void **state)
{
    harness *h = *state;
    em_err err = {0};
    assert_ok(em_fetcher_start(h->fetcher, &err), err);
}

/* One address alone, to its verdict; the fetcher is closed again. */
static inline em_status harness_fetch(void **state, const char *url, uint64_t max_bytes,
                                      em_fetch_result *r, em_err *err)
{
    harness *h = *state;
    harness_open(state);
    harness_add(state, 0, url, max_bytes);
    harness_start(state);
    em_status st = em_fetcher_wait(h->fetcher, h->handle[0], r, err);
    em_fetcher_close(&h->fetcher);
    return st;
}

static inline bool same_files(const char *a, const char *b)
{
    char one[16 << 10], two[16 << 10];
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    size_t n = f && g;
    bool same = n;
    while (same && n) {
        n = fread(one, 1, sizeof one, f);
        same = fread(two, 1, sizeof two, g) == n && !memcmp(one, two, n);
    }
    if (f) fclose(f);
    if (g) fclose(g);
    return same;
}

static inline bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

#endif
