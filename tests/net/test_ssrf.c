/* Addresses that lead into this machine or its networks, in every spelling we know: no socket is
 * made, no connection tried. This program's own connect, socket and getaddrinfo stand in front of
 * the C library's, also for libcurl: they count, nothing leaves the machine, and names ending in
 * .test mean what a test wants them to mean. */
#include "harness.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum { MOST = 1 << 20 };

#define IN_FRONT __attribute__((visibility("default")))

static atomic_int sockets, connects, resolutions;
static atomic_int server_port; /* the one place that may be connected to */
static atomic_int rebinds;     /* how often rebind.test was asked for */

IN_FRONT int connect(int fd, const struct sockaddr *a, socklen_t n)
{
    static int (*next)(int, const struct sockaddr *, socklen_t);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)a;
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "connect");
    if (a->sa_family != AF_INET && a->sa_family != AF_INET6) return next(fd, a, n);
    if (a->sa_family == AF_INET && ntohl(v4->sin_addr.s_addr) == INADDR_LOOPBACK &&
        ntohs(v4->sin_port) == atomic_load(&server_port))
        return next(fd, a, n);
    atomic_fetch_add(&connects, 1);
    errno = ECONNREFUSED;
    return -1;
}

IN_FRONT int socket(int family, int type, int protocol)
{
    static int (*next)(int, int, int);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "socket");
    if ((type & 15) == SOCK_STREAM && (family == AF_INET || family == AF_INET6))
        atomic_fetch_add(&sockets, 1);
    return next(family, type, protocol);
}

/* What the names mean. */
static const char *const names[][3] = {
    {"localhost", "127.0.0.1", "::1"},
    {"localhost.", "127.0.0.1", "::1"},
    {"inside.test", "10.1.2.3", NULL},
    {"metadata.test", "169.254.169.254", "fd00:ec2::254"},
    {"mapped.test", "::ffff:192.168.0.1", NULL},
    {"nat64.test", "64:ff9b::a00:1", NULL},
    {"public.test", "8.8.8.8", "2001:4860:4860::8888"},
    {"mixed.test", "127.0.0.1", "8.8.8.8"},
};

IN_FRONT int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                         struct addrinfo **out)
{
    typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    static resolver *next;
    struct addrinfo numeric = hints ? *hints : (struct addrinfo){0};
    const char *meant[2] = {NULL, NULL};
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    atomic_fetch_add(&resolutions, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcasecmp(node, names[i][0])) meant[0] = names[i][1], meant[1] = names[i][2];
    if (!strcmp(node, "rebind.test"))
        meant[0] = atomic_fetch_add(&rebinds, 1) ? "127.0.0.1" : "8.8.8.8";
    if (!meant[0]) meant[0] = node; /* a number, or nothing */
    numeric.ai_flags |= AI_NUMERICHOST;
    numeric.ai_family = AF_UNSPEC;
    int rc = next(meant[0], service, &numeric, out);
    if (!rc && meant[1] && next(meant[1], service, &numeric, &(*out)->ai_next))
        (*out)->ai_next = NULL;
    return rc;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static int setup(void **state)
{
    if (harness_setup(state)) return -1;
    harness *h = *state;
    h->options.tries = 2;
    atomic_store(&server_port, net_server_port(h->server));
    return 0;
}

/* Refused, and by whom: the socket callback names the address that it saw. */
static void check_refused(void **state, const char *url, bool at_socket)
{
    em_fetch_result r;
    em_err err = {0};
    int socket_count = atomic_load(&sockets), connect_count = atomic_load(&connects);
    em_status st = harness_fetch(state, url, MOST, &r, &err);
    if (st != EM_NETWORK && st != EM_INVAL) fail_msg("%s: %d, %s", url, st, err.msg);
    if (at_socket && !strstr(err.msg, "which is no public address: refused"))
        fail_msg("%s: %s", url, err.msg);
    if (atomic_load(&sockets) != socket_count) fail_msg("%s: a socket was made", url);
    if (atomic_load(&connects) != connect_count) fail_msg("%s: a connection was tried", url);
}

static void test_spellings(void **state)
{
    harness *h = *state;
    static const char *const hosts[] = {
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0177.0.0.0x1",
        "0",
        "0.0.0.0",
        "0x0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a00:1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2002:a00:1::1]",
        "[2001:0:53aa:64c::1]",
        "[2600::5efe:10.0.0.1]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[100::1]",
        "[2001:db8::1]",
        "[5f00::1]",
        "10.0.0.1",
        "10.255.255.255",
        "012.0.0.1",
        "0xa000001",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "169.254.170.2",
        "168.63.129.16",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "localhost",
        "LocalHost",
        "localhost.",
        "inside.test",
        "metadata.test",
        "mapped.test",
        "nat64.test",
        "user:pass@127.0.0.1",
        "8.8.8.8@127.0.0.1",
        "public.test@localhost",
        "8.8.8.8:443@10.0.0.1",
        "127.0.0.1#@public.test",
        "127.0.0.1?@public.test",
        "%31%32%37.0.0.1",
        "127.0.0.1%2f@localhost",
    };
    h->options.allow_count = 0;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char url[200];
        bool port = !strpbrk(hosts[i], "#?");
        snprintf(url, sizeof url, port ? "https://%s:%d/" : "https://%s", hosts[i],
                 net_server_port(h->server));
        check_refused(state, url, true);
    }
    assert_int_equal(net_server_counts(h->server).connections, 0);
    print_message("%zu spellings refused\n", sizeof hosts / sizeof *hosts);
}

/* 127.0.0.1 with full stops that IDNA takes for dots. */
#define IDEOGRAPHIC "https://127\xe3\x80\x82\060\xe3\x80\x82\060\xe3\x80\x82\061/"

/* Refused before or after the parser; what matters is that nothing is connected to. */
static void test_odd_ones(void **state)
{
    harness *h = *state;
    static const char *const urls[] = {
        "http://127.0.0.1/",
        "http://8.8.8.8/",
        "HTTP://public.test/",
        "ftp://127.0.0.1/",
        "ftps://127.0.0.1/",
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "dict://127.0.0.1:6379/info",
        "ldap://127.0.0.1/",
        "smb://127.0.0.1/share",
        "tftp://127.0.0.1/x",
        "telnet://127.0.0.1/",
        "scp://127.0.0.1/x",
        "sftp://127.0.0.1/x",
        "imap://127.0.0.1/",
        "mqtt://127.0.0.1/",
        "rtsp://127.0.0.1/",
        "jar:https://127.0.0.1!/",
        "data:text/plain,x",
        "//127.0.0.1/",
        "127.0.0.1/x",
        "https:",
        "https:127.0.0.1",
        "https:/127.0.0.1/",
        "https://",
        "https:///127.0.0.1/",
        "https://public.test\\@127.0.0.1/",
        "https://[::1",
        "https://127.0.0.1:0x50/",
        "https://127.0.0.1:65536/",
        "https://127.0.0.1 /",
        "https://127.0.0.1\t/",
        "https://127.0.0.1\n.public.test/",
        "https://1.2.3.4.5.6/",
        "https://127.0.0.1./",
        "https://256.256.256.256/",
        "https://127.0.0.0x100000001/",
        "https://4294967297/",
        "https://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.\xe2\x93\xaa.\xe2\x93\xaa.\xe2\x91\xa0/",
        IDEOGRAPHIC,
        "https://nowhere.test/",
        "https://%00127.0.0.1/",
        "https://[::1%00]/",
        "https://[127.0.0.1]/",
        "https://[fe80::1%lo]/",
    };
    h->options.allow_count = 0;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) check_refused(state, urls[i], false);
    assert_int_equal(net_server_counts(h->server).connections, 0);
    print_message("%zu odd ones refused\n", sizeof urls / sizeof *urls);
}

/* A server that is allowed sends us on: to what is not. */
static void test_redirects(void **state)
{
    harness *h = *state;
    static const char *const where[] = {
        "https:%2f%2f127.0.0.2%2fx",
        "https:%2f%2f10.0.0.1%2f",
        "https:%2f%2f[::1]:22%2f",
        "https:%2f%2f[::1]%2f",
        "https:%2f%2f[::ffff:10.0.0.1]%2f",
        "https:%2f%2finside.test%2f",
        "https:%2f%2f169.254.169.254%2flatest%2fmeta-data",
        "https:%2f%2f2852039166%2f",
        "http:%2f%2f127.0.0.2%2f",
        "http:%2f%2f8.8.8.8%2f",
        "http:%2f%2fpublic.test%2f",
        "file:%2f%2f%2fetc%2fpasswd",
        "gopher:%2f%2f127.0.0.1%2f",
        "ftp:%2f%2f127.0.0.1%2f",
        "dict:%2f%2f127.0.0.1%2f",
        "%2f%2f127.0.0.2%2fx",
        "%2f%2finside.test%2f",
        "scp:%2f%2f127.0.0.1%2fx",
    };
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        char path[200];
        em_fetch_result r;
        em_err err = {0};
        snprintf(path, sizeof path, "/-/to=%s/a.png", where[i]);
        int before = atomic_load(&sockets);
        em_status st = harness_fetch(state, harness_url(state, path), MOST, &r, &err);
        if (st != EM_NETWORK) fail_msg("%s: %d, %s", where[i], st, err.msg);
        if (!strstr(err.msg, "no https address") && !strstr(err.msg, "no public address") &&
            !strstr(err.msg, "by plain http"))
            fail_msg("%s: %s", where[i], err.msg);
        assert_int_equal(net_server_asked(h->server, path), 1);
        assert_int_equal(atomic_load(&sockets), before + 1); /* the server's own */
    }
    assert_int_equal(atomic_load(&connects), 0);
}

/* A name that means something else the second time; one that means both. */
static void test_names_that_change(void **state)
{
    em_fetch_result r;
    em_err err = {0};
    harness *h = *state;
    h->options.allow_count = 0;
    h->options.tries = 1;
    atomic_store(&connects, 0);
    assert_int_equal(harness_fetch(state, "https://rebind.test/", MOST, &r, &err), EM_NETWORK);
    assert_int_equal(atomic_load(&connects), 1); /* so the counting works, and public is let out */
    check_refused(state, "https://rebind.test/", true);
    atomic_store(&connects, 0);
    assert_int_equal(harness_fetch(state, "https://mixed.test/", MOST, &r, &err), EM_NETWORK);
    assert_int_equal(atomic_load(&connects), 1);
    assert_int_equal(harness_fetch(state, "https://public.test/", MOST, &r, &err), EM_NETWORK);
    assert_int_equal(atomic_load(&connects), 3);
    atomic_store(&connects, 0);
}

/* The environment of whoever started us does not decide where we connect to. */
static void test_no_proxy_from_outside(void **state)
{
    harness *h = *state;
    static const char *const variables[] = {"https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy",
                                            "ALL_PROXY"};
    char inside[64];
    snprintf(inside, sizeof inside, "http://127.0.0.1:%d", net_server_port(h->server));
    const char *const proxies[] = {inside, "http://8.8.8.8:3128"};
    h->options.allow_count = 0;
    for (size_t p = 0; p < 2; p++) {
        for (size_t i = 0; i < 5; i++) setenv(variables[i], proxies[p], 1);
        check_refused(state, "https://10.0.0.1/", true);
        check_refused(state, "https://inside.test/", true);
    }
    for (size_t i = 0; i < 5; i++) unsetenv(variables[i]);
    assert_int_equal(net_server_counts(h->server).connections, 0);
}

/* An upload is judged the same. */
static void test_upload(void **state)
{
    harness *h = *state;
    static const char *const urls[] = {"https://127.0.0.1/", "https://[::ffff:10.0.0.1]/",
                                       "https://metadata.test/", "file:///tmp/x",
                                       "http://127.0.0.2/"};
    harness_media(state, "a.png", 1000);
    const char *file = tmpdir_path(state, "a.png");
    for (size_t i = 0; i < 5; i++) {
        em_err err = {0};
        int before = atomic_load(&sockets), tries = -1;
        h->options.allow_count = i == 4; /* by plain http: but only to 127.0.0.1 */
        em_status st = em_url_upload(urls[i], file, &h->options, &tries, &err);
        if (st != EM_NETWORK && st != EM_INVAL) fail_msg("%s: %d, %s", urls[i], st, err.msg);
        assert_int_equal(atomic_load(&sockets), before);
    }
    assert_int_equal(atomic_load(&connects), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_spellings),
        TEST(test_odd_ones),
        TEST(test_redirects),
        TEST(test_names_that_change),
        TEST(test_no_proxy_from_outside),
        TEST(test_upload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
