#include "io/url.h"

#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- shown ----------------------------------------------------------------------------------- */

static size_t scheme_length(const char *url)
{
    size_t n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && !strncmp(url + n, "://", 3) ? n + 3 : 0;
}

const char *em_url_public(char *out, size_t size, const char *url)
{
    size_t scheme = scheme_length(url), end = strcspn(url, "?#"), host = scheme;
    size_t authority = scheme + strcspn(url + scheme, "/?#");
    for (size_t i = scheme; i < authority; i++)
        if (url[i] == '@') host = i + 1;
    snprintf(out, size, "%.*s%.*s", (int)scheme, url, (int)(end - host), url + host);
    em_trim_utf8(out);
    for (unsigned char *p = (unsigned char *)out; *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
    return out;
}

em_url_scheme em_url_scheme_of(const char *url)
{
    if (!strncasecmp(url, "https://", 8)) return EM_URL_HTTPS;
    return strncasecmp(url, "http://", 7) ? EM_URL_OTHER : EM_URL_HTTP;
}

/* ---- query ----------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *p = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
    return p ? (int)(p - digits) : -1;
}

/* The value of a key, %XX decoded, cut to the room; names are compared without case. False: the
 * query does not have it. */
static bool query_value(char *out, size_t room, const char *url, const char *key)
{
    size_t key_length = strlen(key), n = 0;
    const char *p = strchr(url, '?');
    for (; p && *p && *p != '#'; p += strcspn(p, "&#")) {
        p++;
        if (!strncasecmp(p, key, key_length) && p[key_length] == '=') break;
    }
    if (!p || !*p || *p == '#') return false;
    for (p += key_length + 1; *p && *p != '&' && *p != '#' && n + 1 < room; p++) {
        bool coded = *p == '%' && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0;
        out[n++] = coded ? (char)(hex_digit(p[1]) * 16 + hex_digit(p[2])) : *p;
        p += coded ? 2 : 0;
    }
    out[n] = 0;
    return true;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* `n` digits at *p, which moves behind them; -1: something else stands there. */
static int read_digits(const char **p, int n)
{
    int value = 0;
    for (int i = 0; i < n; i++, (*p)++) {
        if (**p < '0' || **p > '9') return -1;
        value = value * 10 + (**p - '0');
    }
    return value;
}

/* 20240501T120000Z, 2024-05-01T12:00:00Z, 2024-05-01T12:00Z, 2024-05-01 */
static bool read_date(int64_t *out_s, const char *p)
{
    struct tm t = {0};
    int year = read_digits(&p, 4);
    if (*p == '-') p++;
    int month = read_digits(&p, 2);
    if (*p == '-') p++;
    t.tm_mday = read_digits(&p, 2);
    if (year < 1970 || month < 1 || month > 12 || t.tm_mday < 1 || t.tm_mday > 31) return false;
    if (*p == 'T' || *p == 't') {
        p++;
        t.tm_hour = read_digits(&p, 2);
        if (*p == ':') p++;
        t.tm_min = read_digits(&p, 2);
        if (*p == ':') p++;
        if (*p >= '0' && *p <= '9') t.tm_sec = read_digits(&p, 2);
    }
    if (t.tm_hour < 0 || t.tm_hour > 23 || t.tm_min < 0 || t.tm_min > 59 || t.tm_sec < 0)
        return false;
    t.tm_year = year - 1900;
    t.tm_mon = month - 1;
    *out_s = (int64_t)timegm(&t);
    return true;
}

static bool read_seconds(int64_t *out_s, const char *text)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 12 || text[n]) return false;
    *out_s = strtoll(text, NULL, 10);
    return true;
}

const char *em_url_time(char out[24], int64_t time_s)
{
    struct tm t;
    time_t at = (time_t)time_s;
    if (!gmtime_r(&at, &t) || !strftime(out, 24, "%Y-%m-%d %H:%M:%S UTC", &t))
        snprintf(out, 24, "an unknown time");
    return out;
}

/* ---- signatures ------------------------------------------------------------------------------ */

/* One row a kind of signature: it is there when the query has `mark`. It ends at `until` (a date or
 * seconds since 1970), or `seconds` after `since`. */
static const struct {
    const char *mark, *until, *since, *seconds;
} signatures[] = {
    {"X-Amz-Signature", NULL, "X-Amz-Date", "X-Amz-Expires"},
    {"X-Goog-Signature", NULL, "X-Goog-Date", "X-Goog-Expires"},
    {"x-oss-signature", NULL, "x-oss-date", "x-oss-expires"},
    {"Signature", "Expires", NULL, NULL}, /* AWS and Google version 2, CloudFront, OSS */
    {"sig", "se", NULL, NULL},            /* Azure */
    {"q-signature", "q-sign-time", NULL, NULL},
};
enum { SIGNATURES = sizeof signatures / sizeof *signatures };

static int find_signature(const char *url)
{
    char value[8];
    for (int i = 0; i < SIGNATURES; i++)
        if (query_value(value, sizeof value, url, signatures[i].mark)) return i;
    return -1;
}

bool em_url_signed(const char *url)
{
    return find_signature(url) >= 0;
}

bool em_url_expiry(int64_t *out_s, const char *url)
{
    int64_t begin, seconds;
    char value[64];
    int i = find_signature(url);
    if (i < 0) return false;
    if (signatures[i].until) {
        if (!query_value(value, sizeof value, url, signatures[i].until)) return false;
        const char *end = strchr(value, ';'); /* COS: begin;end */
        end = end ? end + 1 : value;
        return read_seconds(out_s, end) || read_date(out_s, end);
    }
    if (!query_value(value, sizeof value, url, signatures[i].since) || !read_date(&begin, value))
        return false;
    if (!query_value(value, sizeof value, url, signatures[i].seconds) ||
        !read_seconds(&seconds, value))
        return false;
    *out_s = begin + seconds;
    return true;
}
