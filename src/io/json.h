/* JSON, strictly: jansson (UTF-8 checked, 64-bit integers, no duplicate keys, limited depth) and
 * getters that write the sentence: file, key, what was expected, what was found.
 */
#ifndef EM_IO_JSON_H
#define EM_IO_JSON_H

#include "base/status.h"
#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* jansson allocates through em_alloc from here on. Once per process is enough, more does no harm;
 * for code that builds documents by jansson's own calls. */
void em_json_setup(void);

/* *out is owned: json_decref. A document is an object or an array. `source` is for messages. */
em_status em_json_parse(json_t **out, const char *text, size_t size_bytes, const char *source,
                        em_err *err);
em_status em_json_load(json_t **out, const char *path, size_t max_bytes, em_err *err);

/* "an object", "a string", "an integer", …; for messages. */
const char *em_json_kind(const json_t *value);

/* The getters below read obj[key]. An absent key, and null, leave *out as it is: set the fallback
 * first; em_json_has tells. A wrong type or a value out of range is EM_FORMAT, *out untouched.
 * `source` names file and place: "'config.json'", "'jobs.json' item 3". */
bool em_json_has(const json_t *obj, const char *key); /* present and not null */
em_status em_json_get_int(int64_t *out, const json_t *obj, const char *key, int64_t min,
                          int64_t max, const char *source, em_err *err);
em_status em_json_get_double(double *out, const json_t *obj, const char *key, double min,
                             double max, const char *source, em_err *err); /* integers too */
em_status em_json_get_bool(bool *out, const json_t *obj, const char *key, const char *source,
                           em_err *err);
/* *out is borrowed from obj. */
em_status em_json_get_string(const char **out, const json_t *obj, const char *key,
                             const char *source, em_err *err);
/* An array of exactly n integers. */
em_status em_json_get_ints(int64_t *out, size_t n, const json_t *obj, const char *key, int64_t min,
                           int64_t max, const char *source, em_err *err);

/* A value as a command line would have it: a scalar's text, or a list's with spaces between them
 * ("512 512"). False for null, objects, empty lists and lists of lists: *out is of no use then. */
bool em_json_words(em_str *out, const json_t *value);

#endif
