/* A file from an https address, through libcurl. The address comes from a job list and is hostile:
 * https alone, also after a redirect; certificates always checked; no credentials, cookies or
 * proxies of this machine; addresses of this machine and of private networks refused where the
 * socket is opened, so that no spelling and no name server gets around it; bytes counted as they
 * arrive. What is behind `?` is a secret and appears in no message. */
#ifndef EM_IO_FETCH_H
#define EM_IO_FETCH_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct em_fetch {
    const char *url, *path; /* path appears only when the file is whole */
    uint64_t max_bytes;
    double timeout_s;        /* of all of it; 0: ten minutes */
    bool allow_private;      /* 127.0.0.1, 10.0.0.0/8, … too */
    const atomic_bool *stop; /* when it becomes true: EM_CANCELLED; or NULL */
} em_fetch;

/* EM_NETWORK: not reached, refused, too large, too slow; EM_EXPIRED: 403, 404 or 410. */
em_status em_fetch_file(const em_fetch *f, em_err *err);

#endif
