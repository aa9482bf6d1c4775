/* A finished file PUT to an address: stored whole or a sentence, tried again when that may help. */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <time.h>

enum { SIZE = 3000000 };

static const char signature[] = "?X-Amz-Signature=5EcReT";

static int setup(void **state)
{
    if (harness_setup(state)) return -1;
    harness *h = *state;
    h->options.tries = 3;
    harness_media(state, "made.png", SIZE);
    return 0;
}

/* To PATH, which names the file "up". */
static em_status upload(void **state, const char *path, int *tries, em_err *err)
{
    harness *h = *state;
    char url[300];
    snprintf(url, sizeof url, "%s%s", harness_url(state, path), signature);
    return em_url_upload(url, tmpdir_path(state, "made.png"), &h->options, tries, err);
}

static void check_stored(void **state, const char *path, int want_tries)
{
    int tries = -1;
    em_err err = {0};
    em_status st = upload(state, path, &tries, &err);
    if (st) fail_msg("%s: %d, %s", path, st, err.msg);
    if (tries != want_tries) fail_msg("%s: %d tries", path, tries);
    const char *up = tmpdir_path(state, "up");
    if (!same_files(up, tmpdir_path(state, "made.png"))) fail_msg("%s: other bytes", path);
    unlink(up);
}

static void test_delivered(void **state)
{
    harness *h = *state;
    check_stored(state, "/-/ok/up", 1);
    check_stored(state, "/-/503,ok/up", 2);
    check_stored(state, "/-/429=0,500,ok/up", 3);
    check_stored(state, "/-/reset,ok/up", 2);
    check_stored(state, "/-/close,ok/up", 2);
    check_stored(state, "/-/mid,mid,ok/up", 3);
    check_stored(state, "/-/stall,ok/up", 2);
    check_stored(state, "/-/hop,hop,ok/up", 1);
    check_stored(state, "/-/garbage,ok/up", 2);
    check_stored(state, "/-/okendless/up", 1);
    assert_int_equal(net_server_counts(h->server).puts, 10);
    assert_null(strstr(h->log, "5EcReT"));
    assert_non_null(strstr(h->log, "try 2 of 3"));
}

static void test_refused(void **state)
{
    harness *h = *state;
    static const struct {
        const char *path;
        em_status status;
        unsigned asked;
        const char *says;
    } row[] = {
        {"/-/403/up", EM_EXPIRED, 1, "403"},
        {"/-/404/up", EM_EXPIRED, 1, "404"},
        {"/-/400/up", EM_NETWORK, 1, "400"},
        {"/-/503/up", EM_NETWORK, 3, "503"},
        {"/-/mid/up", EM_NETWORK, 3, NULL},
        {"/-/hop/up", EM_NETWORK, 6, "more than 5 redirects"},
        {"/-/to=http:%2f%2f127.0.0.2%2f/up", EM_NETWORK, 1, "127.0.0.2"},
        {"/-/302/up", EM_NETWORK, 1, "302"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_err err = {0};
        em_status st = upload(state, row[i].path, NULL, &err);
        if (st != row[i].status) fail_msg("%s: %d, %s", row[i].path, st, err.msg);
        if (row[i].says && !strstr(err.msg, row[i].says)) fail_msg("%s: %s", row[i].path, err.msg);
        if (strstr(err.msg, "5EcReT")) fail_msg("a secret: %s", err.msg);
        unsigned asked = net_server_asked(h->server, row[i].path);
        if (asked != row[i].asked) fail_msg("%s: asked %u times", row[i].path, asked);
    }
    assert_int_equal(net_server_counts(h->server).puts, 0);
    assert_int_equal(tmpdir_count(state), 1);
}

/* Known before anything is sent. */
static void test_hopeless(void **state)
{
    harness *h = *state;
    em_err err = {0};
    int tries = -1;
    const char *made = tmpdir_path(state, "made.png");
    assert_int_equal(em_url_upload("ftp://127.0.0.1/up", made, &h->options, &tries, &err),
                     EM_INVAL);
    char url[200];
    snprintf(url, sizeof url, "%s?Expires=1714564800&Signature=5EcReT",
             harness_url(state, "/-/ok/up"));
    assert_int_equal(em_url_upload(url, made, &h->options, &tries, &err), EM_EXPIRED);
    assert_non_null(strstr(err.msg, "2024-05-01"));
    assert_int_equal(em_url_upload(harness_url(state, "/-/ok/up"), tmpdir_path(state, "none"),
                                   &h->options, &tries, &err),
                     EM_IO);
    assert_int_equal(tries, 0);
    assert_int_equal(net_server_counts(h->server).connections, 0);
}

static void *stop_soon(void *stop)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    atomic_store((atomic_bool *)stop, true);
    return NULL;
}

static void test_cancel(void **state)
{
    harness *h = *state;
    atomic_bool stop = false;
    pthread_t thread;
    em_err err = {0};
    h->options.cancel = &stop;
    h->options.stall_ms = 60e3;
    h->options.backoff_ms = h->options.backoff_max_ms = 60e3;
    static const char *const paths[] = {"/-/stall/up", "/-/503/up"};
    for (size_t i = 0; i < 2; i++) {
        time_t start = time(NULL);
        atomic_store(&stop, false);
        assert_int_equal(pthread_create(&thread, NULL, stop_soon, &stop), 0);
        em_status st = upload(state, paths[i], NULL, &err);
        pthread_join(thread, NULL);
        if (st != EM_CANCELLED) fail_msg("%s: %d, %s", paths[i], st, err.msg);
        assert_true(time(NULL) - start < 5);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_delivered),
        TEST(test_refused),
        TEST(test_hopeless),
        TEST(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
