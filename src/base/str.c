#include "base/str.h"

#include "base/alloc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool reserve(em_str *s, size_t extra)
{
    size_t need;
    if (s->failed || !em_size_add(&need, s->len, extra) || !em_size_add(&need, need, 1)) {
        s->failed = true;
        return false;
    }
    if (need <= s->cap) return true;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < need && em_size_mul(&cap, cap, 2)) continue;
    char *p = cap < need ? NULL : em_realloc_array(s->data, cap, 1);
    if (!p) {
        s->failed = true;
        return false;
    }
    s->data = p;
    s->cap = cap;
    return true;
}

void em_str_append(em_str *s, const char *text, size_t len)
{
    if (!reserve(s, len)) return;
    memcpy(s->data + s->len, text, len);
    s->len += len;
    s->data[s->len] = 0;
}

void em_str_printf(em_str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(s, (size_t)n)) {
        s->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(s->data + s->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)n;
}

void em_str_free(em_str *s)
{
    em_free(s->data);
    *s = (em_str){0};
}

const char *em_str_text(const em_str *s)
{
    return s->data ? s->data : "";
}

static char folded(char c)
{
    if (c == '_') return '-';
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Levenshtein's distance; row[j] is that of what was read of a to the first j letters of b. */
size_t em_str_distance(const char *a, const char *b)
{
    enum { MOST = 63 };
    size_t row[MOST + 1], n = strlen(a), m = strlen(b);
    if (n > MOST || m > MOST) return n + m;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0]++;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (folded(a[i - 1]) != folded(b[j - 1]));
            if (best > row[j] + 1) best = row[j] + 1;
            if (best > row[j - 1] + 1) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

const char *em_format_bytes(char out[16], unsigned long long bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= (u ? 1023.95 : 1024) && u < 6) { /* what would be printed as 1024.0 */
        v /= 1024;
        u++;
    }
    snprintf(out, 16, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return out;
}

const char *em_format_seconds(char out[24], double seconds)
{
    if (!(seconds < 3.6e12)) seconds = 3.6e12; /* and NaN: the casts below must fit */
    if (seconds < 59.95) {
        snprintf(out, 24, "%.1f s", seconds);
    } else if (seconds < 3600) {
        int whole = seconds < 60 ? 60 : (int)seconds;
        snprintf(out, 24, "%d min %02d s", whole / 60, whole % 60);
    } else {
        double hours = floor(seconds / 3600);
        snprintf(out, 24, "%.0f h %02d min", hours, (int)((seconds - hours * 3600) / 60));
    }
    return out;
}

/* How many bytes follow the first one of a character, and the least that the second may be; 0 is
 * no first byte. The second byte's range is where long forms, surrogates and too much show. */
static size_t utf8_tail(unsigned char lead, unsigned char *least, unsigned char *most)
{
    *least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    *most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) return 1;
    if (lead >= 0xe0 && lead <= 0xef) return 2;
    return lead >= 0xf0 && lead <= 0xf4 ? 3 : 0;
}

bool em_utf8_valid(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + len;
    while (p < end) {
        unsigned char least, most;
        if (*p < 0x80) {
            p++;
            continue;
        }
        size_t n = utf8_tail(*p, &least, &most);
        if (n == 0 || (size_t)(end - p) <= n || p[1] < least || p[1] > most) return false;
        for (size_t i = 2; i <= n; i++)
            if ((p[i] & 0xc0) != 0x80) return false;
        p += n + 1;
    }
    return true;
}
