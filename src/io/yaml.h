/* YAML, as far as a configuration needs it, read into jansson's values so that io/json.h's getters
 * and their sentences serve both.
 *
 * Taken: one document of maps, lists and scalars, at most 1 MiB and 8 levels deep. Refused by line:
 * aliases, anchors, tags, merge keys, duplicate keys, keys that are not scalars, further documents.
 * Unquoted scalars: null, Null, NULL, ~ and nothing are null; true and false in their three
 * spellings are booleans; decimal integers without leading zeros and decimal fractions are numbers;
 * all else is text, yes, no, on and off too (they are values of our flags).
 */
#ifndef EM_IO_YAML_H
#define EM_IO_YAML_H

#include "base/status.h"

#include <jansson.h>
#include <stddef.h>

#define EM_YAML_BYTES (1u << 20) /* at most */
#define EM_YAML_DEPTH 8          /* at most */

/* *out is an object, owned: json_decref. `source` is for messages. */
em_status em_yaml_parse(json_t **out, const char *text, size_t size_bytes, const char *source,
                        em_err *err);
em_status em_yaml_load(json_t **out, const char *path, em_err *err);

#endif
