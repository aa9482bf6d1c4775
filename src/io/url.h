/* What an address says about itself, and how much of it may be shown. */
#ifndef EM_IO_URL_H
#define EM_IO_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The part that may be shown: without query and fragment (signatures), without user and password,
 * control characters replaced, cut to the room. Into out; returns out. */
const char *em_url_public(char *out, size_t size, const char *url);

typedef enum em_url_scheme { EM_URL_OTHER, EM_URL_HTTP, EM_URL_HTTPS } em_url_scheme;

em_url_scheme em_url_scheme_of(const char *url);

/* A query that grants access for a while: AWS and Google (versions 2 and 4), Azure SAS, CloudFront,
 * OSS, COS. */
bool em_url_signed(const char *url);

/* When that ends, in seconds since 1970: true if the address says so itself. */
bool em_url_expiry(int64_t *out_s, const char *url);

/* "2024-05-01 12:00:00 UTC": into out (at least 24 bytes); returns out. */
const char *em_url_time(char out[24], int64_t time_s);

#endif
