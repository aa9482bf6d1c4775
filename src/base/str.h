/* A growing byte string (NUL-terminated) for text that has no natural bound. */
#ifndef EM_BASE_STR_H
#define EM_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

/* {0} is an empty string. After a failed append `failed` is set and later appends do nothing, so
 * that a long text is built without a check a line and asked once at the end. */
typedef struct em_str {
    char *data; /* owned; NULL while nothing was appended */
    size_t len;
    size_t cap;
    bool failed;
} em_str;

void em_str_append(em_str *s, const char *text, size_t len);
void em_str_printf(em_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void em_str_free(em_str *s);
/* The text, "" while empty; borrowed until the next append. */
const char *em_str_text(const em_str *s);

/* How many letters must be typed, left out or changed to turn a into b; `-` and `_` count as one
 * letter, and so do capitals. For "did you mean": words of more than 63 bytes are simply far. */
size_t em_str_distance(const char *a, const char *b);

/* Whether the bytes are UTF-8: shortest forms, no surrogates, nothing above U+10FFFF. */
bool em_utf8_valid(const char *s, size_t len);

/* "3.2 GiB", "512 B": into out (at least 16 bytes); returns out. */
const char *em_format_bytes(char out[16], unsigned long long bytes);
/* "12.3 s", "4 min 05 s", "2 h 03 min": into out (at least 24 bytes); returns out. */
const char *em_format_seconds(char out[24], double seconds);

#endif
