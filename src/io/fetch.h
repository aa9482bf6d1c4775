/* Media behind addresses: downloads to files, several at once, on a thread of their own; and one
 * upload of a finished file.
 *
 *     em_fetcher_open     where it may go, how patient it is
 *     em_fetcher_add      each address; equal ones are fetched once
 *     em_fetcher_start    returns at once: the caller loads its models meanwhile
 *     em_fetcher_wait     blocks until one item has its verdict
 *     em_fetcher_close
 *
 * https with verified TLS; plain http only to an address inside a network of `allow`. Redirects,
 * five at most, are judged like the address itself. Failures that may pass are tried again: after a
 * pause that grows and is drawn at random, not before the server's Retry-After, and from where the
 * transfer broke off if the server proves by a strong ETag that the file is the same. An answer
 * that is no picture or no sound (a page that says sorry, with status 200) is refused by its first
 * bytes.
 *
 * The program ignores SIGPIPE: a server that goes away is a failed try.
 *
 * An address is shown in messages without its query: signatures are secrets. */
#ifndef EM_IO_FETCH_H
#define EM_IO_FETCH_H

#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "io/net.h"
#include "io/url.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct em_fetch_options {
    const em_net *allow; /* networks that are not public and permitted all the same; borrowed */
    size_t allow_count;
    int parallel;                /* transfers at once */
    int tries;                   /* of one item, the first included */
    double backoff_ms;           /* longest first pause; the next may be twice as long, … */
    double backoff_max_ms;       /* … but not longer than this */
    double retry_after_max_ms;   /* what a server may ask for at most */
    double connect_ms, stall_ms; /* per try: to connect; under 1 kB/s for so long (>= 1 s) */
    double total_ms;             /* per try */
    const char *ca_file;         /* certificates to trust, PEM; NULL: the system's; borrowed */
    uint64_t free_bytes;         /* stay free on the file system of the files */
    em_log log;                  /* told of each retry; called from the fetcher's thread */
    const atomic_bool *cancel;   /* everything ends with EM_CANCELLED soon; may be NULL */
} em_fetch_options;

em_fetch_options em_fetch_options_default(void);

typedef enum em_fetch_kind {
    EM_FETCH_IMAGE, /* JPEG, PNG or WebP */
    EM_FETCH_AUDIO  /* a sound file */
} em_fetch_kind;

/* Strings are copied. */
typedef struct em_fetch_request {
    const char *url;
    const char *path; /* of the file that it becomes: whole or not at all; its folder exists */
    uint64_t max_bytes;
    em_fetch_kind kind;
} em_fetch_request;

typedef struct em_fetch_result {
    const char *path; /* the file: of the first of equal requests; borrowed until close */
    uint64_t bytes;
    char sha256[EM_SHA256_HEX_BYTES]; /* of the content, hex */
    int tries;
} em_fetch_result;

typedef struct em_fetch_progress {
    size_t items, done, failed; /* different items; done and failed have their verdict */
    uint64_t bytes;             /* received by now */
} em_fetch_progress;

typedef struct em_fetcher em_fetcher;

/* The networks and the cancel flag are borrowed until close. */
em_status em_fetcher_open(em_fetcher **out, const em_fetch_options *options, em_err *err);
/* Before start. Handles of equal requests (same address, kind and bound) are equal. */
em_status em_fetcher_add(em_fetcher *f, const em_fetch_request *request, size_t *handle,
                         em_err *err);
em_status em_fetcher_start(em_fetcher *f, em_err *err);

/* EM_OK: the file is there. EM_EXPIRED: a signed address that is not valid any more, found by its
 * own date or by the server's refusal. EM_NETWORK: it cannot be had, or only from an address that
 * is not allowed, or more than max_bytes. EM_FORMAT: what came is no picture, no sound. EM_INVAL:
 * not an address that is fetched. EM_NOSPC, EM_IO: the file cannot be written. EM_CANCELLED. May be
 * asked again, in any order, from any thread. */
em_status em_fetcher_wait(em_fetcher *f, size_t handle, em_fetch_result *out, em_err *err);

void em_fetcher_progress(em_fetcher *f, em_fetch_progress *out);
/* Whatever has no verdict gets EM_CANCELLED; does not wait. */
void em_fetcher_cancel(em_fetcher *f);
/* Cancels and waits for the thread. Files that are complete stay, they are the caller's. */
void em_fetcher_close(em_fetcher **f);

/* PUTs the file to the address (https, or as above), with the same patience: what the server did
 * not confirm with 2xx is sent again from the start. Of the options it uses all but `parallel` and
 * `free_bytes`; *tries (may be NULL) says how many were needed, also of a failure. Blocks. */
em_status em_url_upload(const char *url, const char *path, const em_fetch_options *options,
                        int *tries, em_err *err);

#endif
