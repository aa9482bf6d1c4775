/* Which addresses are public, and networks as CIDR writes them. */
#include "io/net.h"

#include "../test.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

typedef union any_address {
    struct sockaddr a;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} any_address;

static any_address address(const char *text)
{
    any_address x;
    memset(&x, 0, sizeof x);
    if (inet_pton(AF_INET, text, &x.v4.sin_addr) == 1) {
        x.v4.sin_family = AF_INET;
    } else {
        if (inet_pton(AF_INET6, text, &x.v6.sin6_addr) != 1) fail_msg("no address: %s", text);
        x.v6.sin6_family = AF_INET6;
    }
    return x;
}

/* The first and the last address of each closed range, and their neighbours outside. */
static void test_edges(void **state)
{
    (void)state;
    static const char *const closed[] = {
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.0.255",
        "192.0.2.0",
        "192.0.2.255",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.255",
        "224.0.0.0",
        "239.255.255.255",
        "240.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2002:c0a8:1::1",
        "2600::5efe:10.0.0.1",
        "2600::200:5efe:127.0.0.1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff00::1",
        "ff02::1",
        "ffff::1",
        "1fff:ffff::1",
    };
    static const char *const open[] = {
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2002:808:808::1",
        "2600::5efe:8.8.8.8",
        "2000::1",
        "3ffe::1",
        "3fff:1000::1",
    };
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        any_address x = address(closed[i]);
        if (em_net_public(&x.a)) fail_msg("%s counts as public", closed[i]);
    }
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        any_address x = address(open[i]);
        if (!em_net_public(&x.a)) fail_msg("%s does not count as public", open[i]);
    }
    const struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
    assert_false(em_net_public((const struct sockaddr *)&local));
}

static void test_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text, *shown; /* NULL: refused */
    } row[] = {
        {"10.0.0.0/8", "10.0.0.0/8"},
        {"127.0.0.1", "127.0.0.1/32"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"192.168.1.128/25", "192.168.1.128/25"},
        {"::1", "::1/128"},
        {"fd00::/8", "fd00::/8"},
        {"::/0", "::/0"},
        {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
        {"", NULL},
        {"10.0.0.0/33", NULL},
        {"10.0.0.0/-1", NULL},
        {"10.0.0.0/", NULL},
        {"10.0.0.0/8x", NULL},
        {"10.0.0.0/08000", NULL},
        {"10.0.0.1/8", NULL},
        {"10/8", NULL},
        {"010.0.0.0/8", NULL},
        {"fd00::1/8", NULL},
        {"fd00::/129", NULL},
        {"fe80::1%lo", NULL},
        {"localhost", NULL},
        {"/8", NULL},
        {"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee/64", NULL},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_net n = {0};
        em_err err = {0};
        char shown[50];
        em_status st = em_net_parse(&n, row[i].text, &err);
        if (st != (row[i].shown ? EM_OK : EM_INVAL)) fail_msg("'%s': %s", row[i].text, err.msg);
        if (row[i].shown) assert_string_equal(em_net_format(shown, &n), row[i].shown);
        if (!row[i].shown) assert_non_null(strstr(err.msg, row[i].text[0] ? "'" : "''"));
    }
}

static void test_listed(void **state)
{
    (void)state;
    em_net nets[3];
    em_err err = {0};
    assert_ok(em_net_parse(&nets[0], "127.0.0.0/9", &err), err);
    assert_ok(em_net_parse(&nets[1], "fd00:1::/33", &err), err);
    assert_ok(em_net_parse(&nets[2], "192.168.7.7", &err), err);
    static const struct {
        const char *text;
        bool in;
    } row[] = {
        {"127.0.0.1", true},        {"127.127.255.255", true},     {"127.128.0.0", false},
        {"126.255.255.255", false}, {"192.168.7.7", true},         {"192.168.7.6", false},
        {"::ffff:127.0.0.1", true}, {"::ffff:192.168.7.8", false}, {"fd00:1::5", true},
        {"fd00:1:7fff::", true},    {"fd00:1:8000::", false},      {"::1", false},
        {"7f00::", false},          {"64:ff9b::7f00:1", false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        any_address x = address(row[i].text);
        if (em_net_listed(nets, 3, &x.a) != row[i].in) fail_msg("%s", row[i].text);
        assert_false(em_net_listed(nets, 0, &x.a));
    }
    const struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
    const em_net nothing = {0};
    assert_false(em_net_listed(&nothing, 1, (const struct sockaddr *)&local));
    em_net all;
    assert_ok(em_net_parse(&all, "0.0.0.0/0", &err), err);
    any_address six = address("fd00::1"), four = address("10.1.2.3");
    assert_false(em_net_listed(&all, 1, &six.a));
    assert_true(em_net_listed(&all, 1, &four.a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
