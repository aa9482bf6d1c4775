/* Two hundred addresses, a fifth of them faulty in every way the server knows: each gets the
 * right verdict, the server sends at most twice what the files hold, and memory does not grow
 * with them. */
#include "harness.h"

enum { URLS = 200, FILES = 20, MOST = 4 << 20, RSS_MOST = 64 << 20 };

/* A fault, its verdict, a word of the sentence. Every fifth address has the next one. */
static const struct {
    const char *where; /* TRAITS/STEPS */
    em_status status;
    const char *says;
} fault[] = {
    {"s/reset,ok", EM_OK, NULL},
    {"s/tear,ok", EM_OK, NULL},
    {"s/stall,ok", EM_OK, NULL},
    {"s/cut,tear,ok", EM_OK, NULL},
    {"-/cut,ok", EM_OK, NULL},
    {"-/over,ok", EM_OK, NULL},
    {"-/under,ok", EM_OK, NULL},
    {"w/lastless,ok", EM_OK, NULL},
    {"-/429=1,ok", EM_OK, NULL},
    {"s/429=1,503=1,cut,ok", EM_OK, NULL},
    {"-/503,503,503,ok", EM_OK, NULL},
    {"-/500,502,504,ok", EM_OK, NULL},
    {"-/503", EM_NETWORK, "answers 503"},
    {"-/hop", EM_NETWORK, "more than 5 redirects"},
    {"-/hop,hop,ok", EM_OK, NULL},
    {"-/403", EM_EXPIRED, "expired, or was never valid"},
    {"gone/ok", EM_EXPIRED, "the signature expired at 2024-05-01"},
    {"-/404", EM_EXPIRED, "expired, or was never valid"},
    {"-/html", EM_FORMAT, "an HTML page"},
    {"-/200", EM_FORMAT, "XML text"},
    {"-/gzip", EM_FORMAT, "comes compressed"},
    {"-/tegzip", EM_FORMAT, "comes compressed"},
    {"-/loris,ok", EM_OK, NULL},
    {"-/drip,ok", EM_OK, NULL},
    {"-/close,close,ok", EM_OK, NULL},
    {"-/garbage,ok", EM_OK, NULL},
    {"-/empty,ok", EM_OK, NULL},
    {"-/badchunk,ok", EM_OK, NULL},
    {"-/headers,ok", EM_OK, NULL},
    {"-/huge", EM_NETWORK, "larger than"},
    {"-/endless", EM_NETWORK, "larger than"},
    {"-/to=http:%2f%2f127.0.0.2%2fa.png", EM_NETWORK, "127.0.0.2"},
    {"-/to=file:%2f%2f%2fetc%2fpasswd", EM_NETWORK, "no https address"},
    {"v/tear,ok", EM_OK, NULL},
    {"sp/cut,ok", EM_OK, NULL},
    {"si/cut,ok", EM_OK, NULL},
    {"-/408,ok", EM_OK, NULL},
    {"-/522,524,ok", EM_OK, NULL},
    {"-/reset,reset,reset,reset,reset", EM_NETWORK, NULL},
    {"s/stall,tear,ok", EM_OK, NULL},
};
enum { FAULTS = sizeof fault / sizeof *fault };
_Static_assert((int)FAULTS * 5 == (int)URLS, "a fifth of them");

/* A line of /proc/self/status in bytes. */
static uint64_t memory(const char *key)
{
    char line[200];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) sscanf(line + strlen(key), ": %llu", &kib);
    if (f) fclose(f);
    return kib * 1024;
}

static void reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) fputs("5", f);
    if (f) fclose(f);
}

static size_t file_size(size_t i)
{
    return i % 2 ? 900000 + 7919 * i : 150000 + 6733 * i;
}

/* The i-th address; its file is among the FILES. The signature says when it ends. */
static void make_url(void **state, size_t i, char *url, size_t room)
{
    harness *h = *state;
    bool bad = i % 5 == 2, gone = bad && !strncmp(fault[i / 5].where, "gone", 4);
    snprintf(url, room, "http://127.0.0.1:%d/%s/%zu/f%zu.%s?Expires=%s&Signature=5EcReT%zu",
             net_server_port(h->server), bad ? fault[i / 5].where : "s/ok", i, i % FILES,
             i % 2 ? "wav" : "png", gone ? "1714564800" : "99999999999", i);
}

static void check_one(void **state, size_t i, uint64_t *ideal)
{
    harness *h = *state;
    em_fetch_result r = {0};
    em_err err = {0};
    char name[32];
    em_status want = i % 5 == 2 ? fault[i / 5].status : EM_OK;
    const char *what = i % 5 == 2 ? fault[i / 5].where : "s/ok";
    const char *says = i % 5 == 2 ? fault[i / 5].says : NULL;
    em_status st = em_fetcher_wait(h->fetcher, h->handle[i], &r, &err);
    if (st != want) fail_msg("%zu, %s: status %d: %s", i, what, st, err.msg);
    if (says && !strstr(err.msg, says)) fail_msg("%zu, %s: %s", i, what, err.msg);
    if (strstr(err.msg, "5EcReT")) fail_msg("a secret: %s", err.msg);
    snprintf(name, sizeof name, "f%zu.%s", i % FILES, i % 2 ? "wav" : "png");
    if (!st && !same_files(r.path, tmpdir_path(state, name))) fail_msg("%zu: other bytes", i);
    if (!st) *ideal += r.bytes;
    if (!st) unlink(r.path);
}

static void test_chaos(void **state)
{
    harness *h = *state;
    uint64_t ideal = 0;
    em_fetch_progress p;
    for (size_t i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%zu.%s", i, i % 2 ? "wav" : "png");
        harness_media(state, name, file_size(i));
    }
    h->options.retry_after_max_ms = 2000;
    harness_open(state);
    for (size_t i = 0; i < URLS; i++) {
        char url[400];
        make_url(state, i, url, sizeof url);
        harness_add(state, i, url, MOST);
    }
    reset_peak();
    uint64_t before = memory("VmRSS");
    harness_start(state);
    for (size_t i = 0; i < URLS; i++) check_one(state, i, &ideal);
    uint64_t grown = memory("VmHWM") - before;
    em_fetcher_progress(h->fetcher, &p);
    assert_int_equal(p.done + p.failed, URLS);
    em_fetcher_close(&h->fetcher);
    net_counts c = net_server_counts(h->server);
    double ratio = (double)c.body_bytes / (double)ideal;
    print_message("%llu requests on %llu connections, %llu parts; %.1f MB sent, %.2f times the "
                  "ideal; memory +%.1f MiB\n",
                  (unsigned long long)c.requests, (unsigned long long)c.connections,
                  (unsigned long long)c.ranges, (double)c.body_bytes / 1e6, ratio,
                  (double)grown / (1 << 20));
    if (ratio > 2) fail_msg("%.2f times the ideal", ratio);
    if (c.ranges < 5) fail_msg("only %d transfers went on where they broke off", (int)c.ranges);
    if (strstr(h->log, "5EcReT")) fail_msg("a secret in the log");
    assert_int_equal(tmpdir_count(state), FILES);
#ifndef __SANITIZE_ADDRESS__ /* its shadow memory is not ours */
    if (grown > RSS_MOST) fail_msg("memory grew by %llu bytes", (unsigned long long)grown);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chaos, harness_setup, harness_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
