/* One file on its way here, over as many tries as it takes. Only for fetch.c. */
#ifndef EM_IO_FETCH_ITEM_H
#define EM_IO_FETCH_ITEM_H

#include "io/file.h"
#include "io/http.h"
#include "io/media_sniff.h"

typedef struct em_fetch_item {
    char *url, *path; /* owned */
    uint64_t max_bytes;
    em_fetch_kind kind;
    int tries;

    /* What is here already. The file stays open between tries only when the next one can go on
     * where this one broke off: with a strong validator. */
    em_file_writer *file;
    em_sha256 hash;
    uint64_t have_bytes, total_bytes; /* total: 0 is unknown */
    char etag[128];                   /* a strong one, with its quotes; "" is none */
    bool sniffed;
    em_media_kind media;     /* then: what it is */
    unsigned char head[512]; /* the first bytes */
    atomic_ullong *received; /* counts every byte of a body; borrowed */

    /* One try. */
    CURL *easy; /* borrowed */
    em_http http;
    struct curl_slist *headers; /* owned */
    bool asked_range;
    uint64_t passed_bytes; /* of redirects */
    bool body;             /* the answer was accepted: what follows is the file */
    bool again;            /* what `err` says may pass */
    em_err err;            /* why we stopped it */
} em_fetch_item;

/* Sets the handle up for a try. EM_NOSPC: not even begun. */
em_status em_fetch_item_begin(em_fetch_item *it, CURL *c, const em_fetch_options *o, em_err *err);

typedef enum em_fetch_step {
    EM_FETCH_FINISHED,   /* the file is under its name */
    EM_FETCH_REDIRECTED, /* `c` points elsewhere: let it run again */
    EM_FETCH_AGAIN,      /* failed, may pass; *err says how */
    EM_FETCH_FAILED      /* for good */
} em_fetch_step;

/* After the exchange. *retry_after_ms is the server's wish, 0: none. */
em_fetch_step em_fetch_item_end(em_fetch_item *it, CURL *c, CURLcode rc, double *retry_after_ms,
                                em_err *err);

/* Drops what is half done. */
void em_fetch_item_abandon(em_fetch_item *it);
void em_fetch_item_close(em_fetch_item *it);

#endif
