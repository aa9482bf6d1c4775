/* A build without libcurl says so, address by address, and shows no signature. */
#include "io/fetch.h"

#include "../test.h"

#include <string.h>

static void test_says_so(void **state)
{
    (void)state;
    em_fetcher *f = NULL;
    em_err err = {0};
    em_fetch_result r;
    size_t a = 9, b = 9;
    int tries = -1;
    const em_fetch_options o = em_fetch_options_default();
    const em_fetch_request one = {"https://a.example/1.png?sig=5EcReT", "/tmp/x", 1,
                                  EM_FETCH_IMAGE};
    const em_fetch_request two = {"https://a.example/2.wav", "/tmp/y", 1, EM_FETCH_AUDIO};
    assert_ok(em_fetcher_open(&f, &o, &err), err);
    assert_ok(em_fetcher_add(f, &one, &a, &err), err);
    assert_ok(em_fetcher_add(f, &two, &b, &err), err);
    assert_ok(em_fetcher_start(f, &err), err);
    assert_int_equal(em_fetcher_wait(f, b, &r, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "2.wav"));
    assert_int_equal(em_fetcher_wait(f, a, &r, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "1.png"));
    assert_non_null(strstr(err.msg, "EM_NET"));
    assert_null(strstr(err.msg, "5EcReT"));
    em_fetcher_close(&f);
    assert_null(f);
    em_fetcher_close(&f);
    assert_int_equal(em_url_upload(one.url, "/tmp/x", &o, &tries, &err), EM_INVAL);
    assert_int_equal(tries, 0);
    assert_null(strstr(err.msg, "5EcReT"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
