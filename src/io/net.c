#include "io/net.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- networks -------------------------------------------------------------------------------- */

/* Do the first `bits` bits agree? */
static bool same_prefix(const unsigned char *a, const unsigned char *b, int bits)
{
    int whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, (size_t)whole) != 0) return false;
    return !rest || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

static bool clear_behind(const unsigned char *a, int bits, int length)
{
    for (int i = bits; i < length; i++)
        if (a[i / 8] >> (7 - i % 8) & 1) return false;
    return true;
}

/* ::ffff:a.b.c.d */
static bool is_mapped(const unsigned char a[16])
{
    static const unsigned char prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a, prefix, sizeof prefix) == 0;
}

em_status em_net_parse(em_net *out, const char *text, em_err *err)
{
    em_net n = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
    const char *slash = strchr(text, '/');
    int length = n.family == AF_INET6 ? 128 : 32;
    char host[INET6_ADDRSTRLEN];
    snprintf(host, sizeof host, "%.*s", (int)(slash ? slash - text : (long)strlen(text)), text);
    n.bits = length;
    if (slash) {
        size_t digits = strspn(slash + 1, "0123456789");
        bool number = digits && digits <= 3 && !slash[1 + digits];
        n.bits = number ? (int)strtol(slash + 1, NULL, 10) : -1;
    }
    if (inet_pton(n.family, host, n.address) != 1 || n.bits < 0 || n.bits > length)
        return em_fail(err, EM_INVAL,
                       "'%.60s' is no network: expected an address and the bits that count, as in "
                       "10.0.0.0/8 or fd00::/8",
                       text);
    if (!clear_behind(n.address, n.bits, length))
        return em_fail(err, EM_INVAL, "'%.60s': the address has bits set behind its first %d", text,
                       n.bits);
    if (n.family == AF_INET6 && n.bits >= 96 && is_mapped(n.address)) {
        memmove(n.address, n.address + 12, 4);
        memset(n.address + 4, 0, 12);
        n.family = AF_INET;
        n.bits -= 96;
    }
    *out = n;
    return EM_OK;
}

const char *em_net_format(char out[50], const em_net *net)
{
    char host[INET6_ADDRSTRLEN] = "?";
    inet_ntop(net->family, net->address, host, sizeof host);
    snprintf(out, 50, "%s/%d", host, net->bits);
    return out;
}

/* The bytes of the address, a mapped one as IPv4; the family, or AF_UNSPEC. */
static int read_address(unsigned char out[16], const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        memcpy(out, &v4.sin_addr, 4);
        return AF_INET;
    }
    if (address->sa_family != AF_INET6) return AF_UNSPEC;
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    memcpy(out, &v6.sin6_addr, 16);
    if (!is_mapped(out)) return AF_INET6;
    memmove(out, out + 12, 4);
    return AF_INET;
}

bool em_net_listed(const em_net *nets, size_t count, const struct sockaddr *address)
{
    unsigned char a[16];
    int family = read_address(a, address);
    if (family == AF_UNSPEC) return false;
    for (size_t i = 0; i < count; i++)
        if (nets[i].family == family && same_prefix(nets[i].address, a, nets[i].bits)) return true;
    return false;
}

/* ---- what is public -------------------------------------------------------------------------- */

static bool in_table(const unsigned char *a, const em_net *table, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (same_prefix(table[i].address, a, table[i].bits)) return true;
    return false;
}

static bool public_v4(const unsigned char *a)
{
    static const em_net closed[] = {
        {.address = {0}, .bits = 8},                 /* this network; 0.0.0.0 is this machine */
        {.address = {10}, .bits = 8},                /* private */
        {.address = {100, 64}, .bits = 10},          /* carrier-grade NAT; a cloud's metadata */
        {.address = {127}, .bits = 8},               /* loopback */
        {.address = {168, 63, 129, 16}, .bits = 32}, /* a cloud's host */
        {.address = {169, 254}, .bits = 16},         /* link-local; metadata */
        {.address = {172, 16}, .bits = 12},          /* private */
        {.address = {192, 0, 0}, .bits = 24},        /* protocol assignments; metadata */
        {.address = {192, 0, 2}, .bits = 24},        /* documentation */
        {.address = {192, 88, 99}, .bits = 24},      /* 6to4 relays */
        {.address = {192, 168}, .bits = 16},         /* private */
        {.address = {198, 18}, .bits = 15},          /* benchmarks */
        {.address = {198, 51, 100}, .bits = 24},     /* documentation */
        {.address = {203, 0, 113}, .bits = 24},      /* documentation */
        {.address = {224}, .bits = 4},               /* multicast */
        {.address = {240}, .bits = 4},               /* reserved, broadcast */
    };
    return !in_table(a, closed, sizeof closed / sizeof *closed);
}

static bool public_v6(const unsigned char *a)
{
    static const em_net global = {.address = {0x20}, .bits = 3};
    static const em_net nat64 = {.address = {0x00, 0x64, 0xff, 0x9b}, .bits = 96};
    static const em_net six_to_four = {.address = {0x20, 0x02}, .bits = 16};
    static const em_net closed[] = {
        {.address = {0x20, 0x01, 0x00}, .bits = 23},       /* protocol assignments, Teredo */
        {.address = {0x20, 0x01, 0x0d, 0xb8}, .bits = 32}, /* documentation */
        {.address = {0x3f, 0xff, 0x00}, .bits = 20},       /* documentation */
    };
    static const unsigned char isatap[4] = {0x00, 0x00, 0x5e, 0xfe};
    if (same_prefix(nat64.address, a, nat64.bits)) return public_v4(a + 12);
    if (!same_prefix(global.address, a, global.bits)) return false;
    if (same_prefix(six_to_four.address, a, six_to_four.bits)) return public_v4(a + 2);
    if ((a[8] & 0xfd) == isatap[0] && !memcmp(a + 9, isatap + 1, 3)) return public_v4(a + 12);
    return !in_table(a, closed, sizeof closed / sizeof *closed);
}

bool em_net_public(const struct sockaddr *address)
{
    unsigned char a[16];
    int family = read_address(a, address);
    if (family == AF_INET) return public_v4(a);
    return family == AF_INET6 && public_v6(a);
}
