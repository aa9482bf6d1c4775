/* Encoded prompts: jobs of a batch mostly share one, and the text encoder is the largest model. */
#ifndef EM_PIPELINE_PROMPT_CACHE_H
#define EM_PIPELINE_PROMPT_CACHE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Lives in the cache; borrowed until the cache is closed or the entry is pushed out by newer
 * ones. */
typedef struct em_prompt {
    char *text;
    int32_t *ids; /* with the end token */
    int64_t n;
    float *rows; /* (n, dim): the encoder's output, once `encoded` */
    bool encoded;
} em_prompt;

typedef struct em_prompt_cache em_prompt_cache;

enum { EM_PROMPT_CACHE_ENTRIES = 16 }; /* of at most 512 rows of 4096 floats: 8 MiB each */

em_status em_prompt_cache_open(em_prompt_cache **out, em_err *err);
void em_prompt_cache_close(em_prompt_cache **c);
/* The entry of this text, or NULL. */
em_prompt *em_prompt_cache_find(em_prompt_cache *c, const char *text);
/* A new entry with room for n rows of dim values; ids are copied. The oldest one goes when all are
 * taken. */
em_status em_prompt_cache_add(em_prompt **out, em_prompt_cache *c, const char *text,
                              const int32_t *ids, int64_t n, int64_t dim, em_err *err);

#endif
