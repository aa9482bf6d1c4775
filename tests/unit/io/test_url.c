/* What of an address may be shown, and when its signature ends. */
#include "io/url.h"

#include "../test.h"

#include <stdio.h>
#include <string.h>

static void test_public(void **state)
{
    (void)state;
    static const struct {
        const char *url, *shown;
    } row[] = {
        {"https://a.example/x/y.png", "https://a.example/x/y.png"},
        {"https://a.example/x.png?X-Amz-Signature=secret", "https://a.example/x.png"},
        {"https://a.example/x.png#secret", "https://a.example/x.png"},
        {"https://a.example?secret", "https://a.example"},
        {"https://user:secret@a.example/x", "https://a.example/x"},
        {"https://secret@secret@a.example:8443/x@y", "https://a.example:8443/x@y"},
        {"https://secret@a.example?b@c", "https://a.example"},
        {"https://secret@", "https://"},
        {"https://se\\cret@a.example/x", "https://a.example/x"},
        {"https://a.example/\x1b[2J\nok\x7f", "https://a.example/?[2J?ok?"},
        {"", ""},
        {"nonsense", "nonsense"},
    };
    char out[80];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        assert_string_equal(em_url_public(out, sizeof out, row[i].url), row[i].shown);
    assert_string_equal(em_url_public(out, 12, "https://a.example/x"), "https://a.e");
    assert_string_equal(em_url_public(out, 12, "https://a.\xc3\xa9/x"), "https://a.");
}

static void test_scheme(void **state)
{
    (void)state;
    assert_int_equal(em_url_scheme_of("https://a"), EM_URL_HTTPS);
    assert_int_equal(em_url_scheme_of("HTTPS://a"), EM_URL_HTTPS);
    assert_int_equal(em_url_scheme_of("http://a"), EM_URL_HTTP);
    assert_int_equal(em_url_scheme_of("https:/a"), EM_URL_OTHER);
    assert_int_equal(em_url_scheme_of("httpss://a"), EM_URL_OTHER);
    assert_int_equal(em_url_scheme_of("file:///etc/passwd"), EM_URL_OTHER);
    assert_int_equal(em_url_scheme_of(" https://a"), EM_URL_OTHER);
    assert_int_equal(em_url_scheme_of("a/b.png"), EM_URL_OTHER);
}

/* 2024-05-01 12:00:00 UTC is 1714564800. */
static void test_expiry(void **state)
{
    (void)state;
    enum { NOON = 1714564800, MIDNIGHT = NOON - 43200 };
    static const struct {
        const char *query;
        int is_signed;
        int64_t expiry; /* 0: it does not say */
    } row[] = {
        {"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20240501T110000Z&X-Amz-Expires=3600"
         "&X-Amz-SignedHeaders=host&X-Amz-Signature=ab",
         1, NOON},
        {"x-amz-date=20240501T110000Z&x-amz-expires=3600&x-amz-signature=ab", 1, NOON},
        {"X-Goog-Date=20240501T110000Z&X-Goog-Expires=3600&X-Goog-Signature=ab", 1, NOON},
        {"x-oss-signature=a&x-oss-date=20240501T110000Z&x-oss-expires=3600", 1, NOON},
        {"AWSAccessKeyId=a&Signature=b%2Fc&Expires=1714564800", 1, NOON},
        {"GoogleAccessId=a&Expires=1714564800&Signature=b", 1, NOON},
        {"sv=2022-11-02&se=2024-05-01T12%3A00%3A00Z&sr=b&sp=r&sig=x%3D", 1, NOON},
        {"se=2024-05-01T12:00Z&sig=x", 1, NOON},
        {"se=2024-05-01&sig=x", 1, MIDNIGHT},
        {"se=2024-05-01T12%3a00%3a00.0000000Z&sig=x", 1, NOON},
        {"q-sign-algorithm=sha1&q-sign-time=1714561200%3B1714564800&q-signature=a", 1, NOON},
        {"q-sign-time=1714561200;1714564800&q-signature=a", 1, NOON},
        /* signed, but silent or odd about its end */
        {"Policy=e30_&Signature=b&Key-Pair-Id=c", 1, 0},
        {"X-Amz-Signature=ab&X-Amz-Date=20240501T110000Z", 1, 0},
        {"X-Amz-Signature=ab&X-Amz-Date=tomorrow&X-Amz-Expires=3600", 1, 0},
        {"X-Amz-Signature=ab&X-Amz-Date=20240501T110000Z&X-Amz-Expires=-5", 1, 0},
        {"X-Amz-Signature=ab&X-Amz-Date=20240501T110000Z&X-Amz-Expires=99999999999999999999", 1, 0},
        {"Signature=a&Expires=1e9", 1, 0},
        {"se=2024-13-01&sig=x", 1, 0},
        {"se=2024-05-01T25:00Z&sig=x", 1, 0},
        {"se=%&sig=%", 1, 0},
        /* not signed: a word that looks like it means something else */
        {"Expires=1714564800", 0, 0},
        {"X-Amz-Date=20240501T110000Z&X-Amz-Expires=3600", 0, 0},
        {"msig=a&se=2024-05-01", 0, 0},
        {"a=1#sig=a&se=2024-05-01", 0, 0},
        {"signature", 0, 0},
        {"", 0, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char url[400];
        int64_t at = 0;
        snprintf(url, sizeof url, "https://a.example/sig=1/x.png?%s", row[i].query);
        if (em_url_signed(url) != row[i].is_signed) fail_msg("signed? %s", row[i].query);
        bool says = em_url_expiry(&at, url);
        if (says != (row[i].expiry != 0) || at != row[i].expiry)
            fail_msg("%s: %lld", row[i].query, (long long)at);
    }
    assert_false(em_url_signed("https://a.example/x.png"));
}

static void test_time(void **state)
{
    (void)state;
    char out[24];
    assert_string_equal(em_url_time(out, 1714564800), "2024-05-01 12:00:00 UTC");
    assert_string_equal(em_url_time(out, 0), "1970-01-01 00:00:00 UTC");
    assert_string_equal(em_url_time(out, 999999999999), "an unknown time");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public),
        cmocka_unit_test(test_scheme),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
