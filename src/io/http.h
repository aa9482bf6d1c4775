/* What downloads and uploads have in common: one exchange with a server through libcurl, redirects
 * included, judged. Only for the files of this folder that talk to the network. */
#ifndef EM_IO_HTTP_H
#define EM_IO_HTTP_H

#include "io/fetch.h"

#include <curl/curl.h>

enum { EM_HTTP_REDIRECTS = 5, EM_HTTP_SHOWN = 240 };

/* One try. */
typedef struct em_http {
    const em_fetch_options *options; /* borrowed */
    const char *url;                 /* as it was given; borrowed */
    char *target;                    /* where redirects have led; owned, NULL: nowhere */
    int redirects;
    bool upload;
    bool plain;          /* the exchange at hand is http without TLS */
    bool refused;        /* an address was not allowed … */
    char refused_at[48]; /* … namely this one */
} em_http;

/* Once a process, before anything else here. */
void em_http_init(void);

/* Everything but what is sent and received. `h` must not move while `c` has it. */
void em_http_configure(em_http *h, CURL *c);
/* After a 3xx: points `c` at the next place; false: there is none, or it is not allowed, and *err
 * says so. */
bool em_http_redirect(em_http *h, CURL *c, long status, em_err *err);
void em_http_close(em_http *h);

/* Before trying: EM_INVAL for what is no address that may be tried, EM_EXPIRED for one whose own
 * date has passed. */
em_status em_http_precheck(const char *url, const em_fetch_options *options, em_err *err);

/* Why an exchange failed, as a sentence; *again: it may pass. `status` is the server's, 0: none. */
em_status em_http_explain(const em_http *h, CURLcode rc, long status, bool *again, em_err *err);

/* How long to wait before try number `next` (2, 3, …): drawn from [0, the back-off's bound), and
 * not less than the server asks for. `random` is any 32 bits. */
double em_http_pause_ms(const em_fetch_options *o, int next, double retry_after_ms,
                        uint32_t random);

uint32_t em_http_random(void);

#endif
