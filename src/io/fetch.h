/* One https download to a file: verified TLS, bounded in bytes and time, a few polite retries.
 * Addresses inside private networks are refused on the real socket, whatever the URL said. The
 * query string of a URL is a secret and never appears in a message. */
#ifndef EM_IO_FETCH_H
#define EM_IO_FETCH_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct em_fetch_limits {
    size_t max_bytes;          /* of the body */
    bool allow_private;        /* addresses of this machine and of private networks too */
    const atomic_bool *cancel; /* borrowed; may be NULL */
} em_fetch_limits;

/* Writes the body to `path` (complete or not at all). EM_NETWORK: it cannot be had; EM_EXPIRED: the
 * server says 403, 404 or 410 (a signed address that has expired looks like that); EM_INVAL: not an
 * https address, or a build without libcurl (EM_NET=OFF); EM_CANCELLED. */
em_status em_fetch(const char *url, const char *path, const em_fetch_limits *limits, em_err *err);

/* The address without its query and fragment, for messages: into out; returns out. */
static inline const char *em_url_public(char *out, size_t size, const char *url)
{
    snprintf(out, size, "%.*s", (int)strcspn(url, "?#"), url);
    return out;
}

#endif
