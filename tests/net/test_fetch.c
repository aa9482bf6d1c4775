/* One address after another against a server that misbehaves: the verdict, how often the server was
 * asked, the sentence, and that nothing half-done is left. */
#include "base/alloc.h"
#include "harness.h"
#include "io/file.h"

#include <time.h>

enum { SIZE = 300000, MOST = 1 << 20 };

static const char secret[] = "5EcReT";

typedef struct verdict {
    const char *path; /* of a.png or a.wav, SIZE bytes each */
    em_status status;
    unsigned asked; /* requests that the server saw */
    const char *says;
} verdict;

static int setup(void **state)
{
    if (harness_setup(state)) return -1;
    harness_media(state, "a.png", SIZE);
    harness_media(state, "a.wav", SIZE);
    return 0;
}

static void hash_file(char hex[EM_SHA256_HEX_BYTES], const char *path)
{
    em_sha256 hash;
    unsigned char sum[EM_SHA256_BYTES];
    char *data = NULL;
    size_t n = 0;
    em_err err = {0};
    assert_ok(em_file_read(&data, &n, path, 64 << 20, &err), err);
    em_sha256_start(&hash);
    em_sha256_add(&hash, data, n);
    em_sha256_end(&hash, sum);
    em_sha256_hex(hex, sum);
    em_free(data);
}

static void check_file(void **state, const verdict *v, const em_fetch_result *r)
{
    char hex[EM_SHA256_HEX_BYTES];
    const char *name = strstr(v->path, ".wav") ? "a.wav" : "a.png";
    if (r->bytes != SIZE || strlen(r->sha256) != 64 || r->tries < 1)
        fail_msg("%s: %llu bytes, %d tries", v->path, (unsigned long long)r->bytes, r->tries);
    if (!same_files(r->path, tmpdir_path(state, name))) fail_msg("%s: other bytes", v->path);
    hash_file(hex, r->path);
    assert_string_equal(r->sha256, hex);
}

static void check_row(void **state, const verdict *v)
{
    harness *h = *state;
    char url[500];
    em_fetch_result r = {0};
    em_err err = {0};
    const char *got = tmpdir_path(state, "got-0");
    h->log[h->log_bytes = 0] = 0;
    snprintf(url, sizeof url, "%s?X-Amz-Security-Token=%s", harness_url(state, v->path), secret);
    harness_open(state);
    harness_add(state, 0, url, MOST);
    harness_start(state);
    em_status st = em_fetcher_wait(h->fetcher, h->handle[0], &r, &err);
    if (st != v->status) fail_msg("%s: status %d, %s", v->path, st, err.msg);
    if (v->says && !strstr(err.msg, v->says)) fail_msg("%s: says %s", v->path, err.msg);
    if (strstr(err.msg, secret) || strstr(h->log, secret)) fail_msg("%s: a secret", v->path);
    unsigned asked = net_server_asked(h->server, v->path);
    if (asked != v->asked) fail_msg("%s: asked %u times, %u expected", v->path, asked, v->asked);
    if (!st) check_file(state, v, &r);
    em_fetcher_close(&h->fetcher);
    assert_int_equal(is_there(got), st == EM_OK);
    unlink(got);
    if (tmpdir_count(state) != 2) fail_msg("%s: something is left in the folder", v->path);
}

static void check_rows(void **state, const verdict *row, size_t count)
{
    for (size_t i = 0; i < count; i++) check_row(state, &row[i]);
}
#define CHECK_ROWS(state, rows) check_rows(state, rows, sizeof(rows) / sizeof *(rows))

static void test_good(void **state)
{
    static const verdict row[] = {
        {"/-/ok/a.png", EM_OK, 1, NULL},
        {"/s/ok/a.wav", EM_OK, 1, NULL},
        {"/-/chunked/a.png", EM_OK, 1, NULL},
        {"/-/hop,hop,hop,hop,hop,ok/a.png", EM_OK, 6, NULL},
        {"/-/to=%2f-%2fok%2fa.wav/a.wav", EM_OK, 1, NULL},
    };
    CHECK_ROWS(state, row);
}

/* Once or twice wrong, then right. */
static void test_passing(void **state)
{
    static const verdict row[] = {
        {"/-/close,ok/a.png", EM_OK, 2, NULL},
        {"/-/reset,ok/a.png", EM_OK, 2, NULL},
        {"/-/garbage,ok/a.png", EM_OK, 2, NULL},
        {"/-/cut,ok/a.png", EM_OK, 2, NULL},
        {"/-/tear,ok/a.wav", EM_OK, 2, NULL},
        {"/-/over,ok/a.png", EM_OK, 2, NULL},
        {"/-/under,ok/a.png", EM_OK, 2, NULL},
        {"/s/under,ok/a.wav", EM_OK, 2, NULL},
        {"/-/lastless,ok/a.png", EM_OK, 2, NULL},
        {"/-/badchunk,ok/a.png", EM_OK, 2, NULL},
        {"/-/empty,ok/a.png", EM_OK, 2, NULL},
        {"/-/408,429,500,502,ok/a.png", EM_OK, 5, NULL},
        {"/-/503,504,522,524,ok/a.png", EM_OK, 5, NULL},
        {"/-/429=0,ok/a.png", EM_OK, 2, NULL},
        {"/-/hop,503,hop,ok/a.png", EM_OK, 4, NULL},
    };
    CHECK_ROWS(state, row);
}

/* For good at the first answer. */
static void test_final(void **state)
{
    static const verdict row[] = {
        {"/-/400/a.png", EM_NETWORK, 1, "answers 400"},
        {"/-/403/a.png", EM_NETWORK, 1, "403: access is denied"},
        {"/-/404/a.png", EM_NETWORK, 1, "404: nothing is there"},
        {"/-/410/a.png", EM_NETWORK, 1, "410: nothing is there"},
        {"/-/501/a.png", EM_NETWORK, 1, "answers 501"},
        {"/-/204/a.png", EM_NETWORK, 1, "answers 204"},
        {"/-/206/a.png", EM_NETWORK, 1, "answers 206"},
        {"/-/304/a.png", EM_NETWORK, 1, "answers 304"},
        {"/-/html/a.png", EM_FORMAT, 1, "is an HTML page"},
        {"/-/html/a.wav", EM_FORMAT, 1, "is an HTML page"},
        {"/-/200/a.png", EM_FORMAT, 1, "is XML text"},
        {"/-/gzip/a.png", EM_FORMAT, 1, "comes compressed (gzip)"},
        {"/-/gzip2/a.png", EM_FORMAT, 1, "comes compressed (gzip)"},
        {"/-/tegzip/a.png", EM_FORMAT, 1, "comes compressed (gzip)"},
        {"/-/huge/a.png", EM_NETWORK, 1, "larger than the 1.0 MiB"},
        {"/-/endless/a.png", EM_NETWORK, 1, "larger than the 1.0 MiB"},
        {"/-/hopendless/a.png", EM_NETWORK, 1, "redirect does not end"},
        {"/-/hop/a.png", EM_NETWORK, 6, "more than 5 redirects"},
        {"/-/to=file:%2f%2f%2fetc%2fpasswd/a.png", EM_NETWORK, 1, "no https address"},
        {"/-/to=gopher:%2f%2f127.0.0.1%2f/a.png", EM_NETWORK, 1, "no https address"},
        {"/-/to=http:%2f%2f127.0.0.2%2fx/a.png", EM_NETWORK, 1, "127.0.0.2 by plain http"},
        {"/-/to=https:%2f%2f127.0.0.2%2fx/a.png", EM_NETWORK, 1, "127.0.0.2, which is no public"},
    };
    CHECK_ROWS(state, row);
}

/* A fault that never passes: five tries. */
static void test_stubborn(void **state)
{
    static const verdict row[] = {
        {"/-/close/a.png", EM_NETWORK, 5, "returned nothing"},
        {"/-/tear/a.png", EM_NETWORK, 5, "receiving data"},
        {"/-/cut/a.png", EM_NETWORK, 5, "partial file"},
        {"/-/under/a.png", EM_FORMAT, 5, "is cut short"},
        {"/-/empty/a.wav", EM_FORMAT, 5, "is empty"},
        {"/-/503/a.png", EM_NETWORK, 5, "answers 503"},
        {"/-/429=1/a.png", EM_NETWORK, 5, "answers 429"},
    };
    CHECK_ROWS(state, row);
}

/* Slow ones cost a second each, so there are few; a server may not hold us for ever. */
static void test_slow(void **state)
{
    static const verdict row[] = {
        {"/s/stall,ok/a.png", EM_OK, 2, NULL},
        {"/-/loris,ok/a.png", EM_OK, 2, NULL},
        {"/-/drip,ok/a.png", EM_OK, 2, NULL},
        {"/-/headers,ok/a.png", EM_OK, 2, NULL},
    };
    CHECK_ROWS(state, row);
}

/* A signed address whose time is over is not even tried; one that is refused has expired. */
static void test_expired(void **state)
{
    harness *h = *state;
    static const struct {
        const char *query;
        em_status status;
        unsigned asked;
        const char *says;
    } row[] = {
        {"X-Amz-Date=20240501T110000Z&X-Amz-Expires=3600&X-Amz-Signature=5EcReT", EM_EXPIRED, 0,
         "expired at 2024-05-01 12:00:00 UTC"},
        {"Expires=1714564800&Signature=5EcReT", EM_EXPIRED, 0,
         "expired at 2024-05-01 12:00:00 UTC"},
        {"se=2024-05-01T12%3A00%3A00Z&sig=5EcReT", EM_EXPIRED, 0,
         "expired at 2024-05-01 12:00:00 UTC"},
        {"Expires=99999999999&Signature=5EcReT", EM_EXPIRED, 1, "answers 403"},
        {"Policy=x&Signature=5EcReT", EM_EXPIRED, 1, "has expired, or was never valid"},
        {"Expires=1714564800", EM_NETWORK, 1, "access is denied"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char path[40], url[400];
        em_fetch_result r;
        em_err err = {0};
        snprintf(path, sizeof path, "/%zu/403/a.png", i);
        snprintf(url, sizeof url, "%s?%s", harness_url(state, path), row[i].query);
        em_status st = harness_fetch(state, url, MOST, &r, &err);
        if (st != row[i].status || !strstr(err.msg, row[i].says) || strstr(err.msg, secret))
            fail_msg("%s: %s", row[i].query, err.msg);
        assert_int_equal(net_server_asked(h->server, path), row[i].asked);
    }
    /* A minute over: our clock may be wrong, so the server decides, and is believed. */
    char url[200];
    em_fetch_result r;
    em_err err = {0};
    snprintf(url, sizeof url, "%s?Signature=a&Expires=%lld", harness_url(state, "/m/403/a.png"),
             (long long)time(NULL) - 60);
    assert_int_equal(harness_fetch(state, url, MOST, &r, &err), EM_EXPIRED);
    assert_non_null(strstr(err.msg, "the signature expired at"));
    assert_int_equal(net_server_asked(h->server, "/m/403/a.png"), 1);
}

/* From where it broke off, if a strong ETag proves that it is the same file; else from the
 * start. */
static void test_resume(void **state)
{
    harness *h = *state;
    static const struct {
        const char *path;
        unsigned ranges; /* answered with a part */
        double bytes;    /* sent by the server, in files */
    } row[] = {
        {"/s/cut,ok/a.png", 1, 1},
        {"/s/tear,tear,tear,ok/a.wav", 3, 1.9}, /* a reset takes along what is on its way */
        {"/s/over,ok/a.png", 0, 2}, /* all was there already: nothing to ask for but all of it */
        {"/s/cut,503,ok/a.png", 1, 1},
        {"/s/lastless,ok/a.png", 1, 1},
        {"/w/cut,ok/a.png", 0, 1.5},
        {"/we/cut,ok/a.png", 0, 1.5}, /* even if the server would: we do not ask */
        {"/v/cut,ok/a.png", 0, 1.5},
        {"/-/cut,ok/a.png", 0, 1.5},
        {"/si/cut,ok/a.png", 0, 1.5},
        {"/sp/cut,ok/a.png", 1, 2}, /* the other part that is sent instead is thrown away */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_fetch_result r = {0};
        em_err err = {0};
        net_counts before = net_server_counts(h->server);
        assert_ok(harness_fetch(state, harness_url(state, row[i].path), MOST, &r, &err), err);
        net_counts after = net_server_counts(h->server);
        const char *name = strstr(row[i].path, ".wav") ? "a.wav" : "a.png";
        const char *got = tmpdir_path(state, "got-0");
        if (!same_files(got, tmpdir_path(state, name))) fail_msg("%s: other bytes", row[i].path);
        char hex[EM_SHA256_HEX_BYTES];
        hash_file(hex, got);
        assert_string_equal(r.sha256, hex); /* over all the tries */
        if (after.ranges - before.ranges != row[i].ranges)
            fail_msg("%s: %d parts", row[i].path, (int)(after.ranges - before.ranges));
        double files = (double)(after.body_bytes - before.body_bytes) / SIZE;
        if (files > row[i].bytes + 0.01) fail_msg("%s: sent %.2f files", row[i].path, files);
        unlink(got);
    }
}

/* The same address twice is fetched once; another query may be another file. */
static void test_equal_requests(void **state)
{
    harness *h = *state;
    em_err err = {0};
    em_fetch_result a, b;
    harness_open(state);
    harness_add(state, 0, harness_url(state, "/-/ok/a.png?sig=1"), MOST);
    harness_add(state, 1, harness_url(state, "/-/ok/a.png?sig=1"), MOST);
    harness_add(state, 2, harness_url(state, "/-/ok/a.png?sig=2"), MOST);
    assert_int_equal(h->handle[0], h->handle[1]);
    assert_int_not_equal(h->handle[0], h->handle[2]);
    harness_start(state);
    assert_ok(em_fetcher_wait(h->fetcher, h->handle[1], &a, &err), err);
    assert_ok(em_fetcher_wait(h->fetcher, h->handle[2], &b, &err), err);
    assert_string_equal(a.path, tmpdir_path(state, "got-0"));
    assert_string_equal(a.sha256, b.sha256);
    assert_ok(em_fetcher_wait(h->fetcher, h->handle[0], &b, &err), err); /* again */
    assert_int_equal(net_server_asked(h->server, "/-/ok/a.png"), 2);
    em_fetch_progress p;
    em_fetcher_progress(h->fetcher, &p);
    assert_int_equal(p.items, 2);
    assert_int_equal(p.done, 2);
    assert_int_equal(p.failed, 0);
    assert_int_equal(p.bytes, 2 * SIZE);
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

/* By the flag, by the call, by close: what hangs is let go at once, what was there stays. */
static void test_cancel(void **state)
{
    harness *h = *state;
    atomic_bool stop = false;
    h->options.cancel = &stop;
    h->options.stall_ms = 60e3;
    for (int how = 0; how < 3; how++) {
        em_err err = {0};
        em_fetch_result r = {0};
        struct timespec start;
        atomic_store(&stop, false);
        harness_open(state);
        harness_add(state, 0, harness_url(state, "/-/ok/a.png"), MOST);
        harness_add(state, 1, harness_url(state, "/-/stall/a.png"), MOST);
        for (size_t i = 2; i < 30; i++) {
            char path[40];
            snprintf(path, sizeof path, "/%zu/stall/a.png", i);
            harness_add(state, i, harness_url(state, path), MOST);
        }
        harness_start(state);
        assert_ok(em_fetcher_wait(h->fetcher, h->handle[0], &r, &err), err);
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (how == 0) atomic_store(&stop, true);
        if (how == 1) em_fetcher_cancel(h->fetcher);
        if (how < 2)
            for (size_t i = 1; i < 30; i++)
                assert_int_equal(em_fetcher_wait(h->fetcher, h->handle[i], &r, &err), EM_CANCELLED);
        em_fetcher_close(&h->fetcher);
        if (seconds_since(&start) > 5) fail_msg("%.1f s to stop", seconds_since(&start));
        assert_true(is_there(tmpdir_path(state, "got-0")));
        unlink(tmpdir_path(state, "got-0"));
        assert_int_equal(tmpdir_count(state), 2);
    }
}

/* Never started, nothing added. */
static void test_idle(void **state)
{
    harness *h = *state;
    em_err err = {0};
    harness_open(state);
    harness_add(state, 0, harness_url(state, "/-/ok/a.png"), MOST);
    em_fetcher_close(&h->fetcher);
    assert_ok(em_fetcher_open(&h->fetcher, &h->options, &err), err);
    harness_start(state);
    em_fetcher_close(&h->fetcher);
    assert_null(h->fetcher);
    em_fetcher_close(&h->fetcher);
    assert_int_equal(net_server_counts(h->server).connections, 0);
}

/* The disk: room that must stay free, a folder that is not there. */
static void test_no_room(void **state)
{
    harness *h = *state;
    em_err err = {0};
    em_fetch_result r;
    h->options.free_bytes = UINT64_MAX / 2;
    assert_int_equal(harness_fetch(state, harness_url(state, "/-/ok/a.png"), MOST, &r, &err),
                     EM_NOSPC);
    assert_int_equal(net_server_asked(h->server, "/-/ok/a.png"), 0);
    assert_non_null(strstr(err.msg, "no room"));
    h->options.free_bytes = 0;
    harness_open(state);
    const em_fetch_request q = {harness_url(state, "/-/ok/a.png"), "/nowhere/at/all", MOST,
                                EM_FETCH_IMAGE};
    assert_ok(em_fetcher_add(h->fetcher, &q, &h->handle[0], &err), err);
    harness_start(state);
    assert_int_equal(em_fetcher_wait(h->fetcher, h->handle[0], &r, &err), EM_IO);
}

/* The n-th allocation fails, once or for good: a clean status, and the next fetch works. */
static void test_no_memory(void **state)
{
    harness *h = *state;
    const char *url = harness_url(state, "/s/cut,ok/a.png");
    for (int sticky = 0; sticky < 2; sticky++) {
        int failures = 0;
        for (uint64_t n = 1; n < 60; n++) {
            em_err err = {0};
            em_fetch_result r;
            em_fetcher *f = NULL;
            size_t handle;
            const em_fetch_request q = {url, tmpdir_path(state, "got"), MOST, EM_FETCH_IMAGE};
            em_alloc_fail_at(n, sticky);
            em_status st = em_fetcher_open(&f, &h->options, &err);
            if (!st) st = em_fetcher_add(f, &q, &handle, &err);
            if (!st) st = em_fetcher_start(f, &err);
            if (!st) st = em_fetcher_wait(f, handle, &r, &err);
            em_alloc_fail_at(0, false);
            em_fetcher_close(&f);
            if (st && st != EM_NOMEM) fail_msg("allocation %d: %d, %s", (int)n, st, err.msg);
            assert_int_equal(is_there(q.path), st == EM_OK);
            failures += st != EM_OK;
            unlink(q.path);
            assert_int_equal(tmpdir_count(state), 2);
        }
        if (failures < 8 || failures > 50) fail_msg("%d allocations", failures);
    }
}

/* What no server is asked for. */
static void test_no_address(void **state)
{
    harness *h = *state;
    static const char *const bad[] = {
        "ftp://127.0.0.1/a.png",  "file:///etc/passwd",           "a.png", "",
        "https://exa mple/a.png", "https://127.0.0.1:99999/a.png"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        em_err err = {0};
        em_fetch_result r;
        em_status st = harness_fetch(state, bad[i], MOST, &r, &err);
        if (st != EM_INVAL) fail_msg("'%s': %d, %s", bad[i], st, err.msg);
    }
    em_err err = {0};
    em_fetch_result r;
    h->options.allow_count = 0;
    assert_int_equal(harness_fetch(state, harness_url(state, "/-/ok/a.png"), MOST, &r, &err),
                     EM_INVAL);
    assert_non_null(strstr(err.msg, "--allow_private"));
    assert_int_equal(net_server_counts(h->server).connections, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_good),      TEST(test_passing), TEST(test_final),   TEST(test_stubborn),
        TEST(test_slow),      TEST(test_expired), TEST(test_resume),  TEST(test_equal_requests),
        TEST(test_cancel),    TEST(test_idle),    TEST(test_no_room), TEST(test_no_address),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
