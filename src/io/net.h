/* Which addresses a fetch may talk to.
 *
 * A job list comes from somebody else, and its addresses may lead into this machine or the networks
 * around it: services without passwords, a cloud's metadata. So only addresses of the public
 * internet are connected to, and others when the operator has named their network. The judgement is
 * on the address of the socket, after names, redirects and odd spellings have been resolved. */
#ifndef EM_IO_NET_H
#define EM_IO_NET_H

#include "base/status.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* A network as CIDR writes it; an address alone is a network of one. */
typedef struct em_net {
    unsigned char address[16]; /* network order; IPv4 in the first four */
    int family;                /* AF_INET or AF_INET6 */
    int bits;                  /* how many of them count */
} em_net;

/* "10.0.0.0/8", "fd00::/8", "127.0.0.1", "::1". EM_INVAL: it is none, or has bits set behind the
 * prefix. */
em_status em_net_parse(em_net *out, const char *text, em_err *err);

/* "10.0.0.0/8": into out (at least 50 bytes); returns out. */
const char *em_net_format(char out[50], const em_net *net);

/* Is it in one of them? IPv4 inside IPv6 (::ffff:a.b.c.d) counts as the IPv4 that it is. */
bool em_net_listed(const em_net *nets, size_t count, const struct sockaddr *address);

/* An ordinary address of the internet. False: loopback, private, shared, link-local, multicast,
 * documentation, reserved, cloud metadata, what embeds one of those (v4-mapped, NAT64, 6to4, …),
 * and every family but IPv4 and IPv6. */
bool em_net_public(const struct sockaddr *address);

#endif
