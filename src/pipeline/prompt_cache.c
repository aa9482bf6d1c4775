#include "pipeline/prompt_cache.h"

#include "base/alloc.h"

#include <string.h>

struct em_prompt_cache {
    em_prompt entry[EM_PROMPT_CACHE_ENTRIES];
    int next; /* the oldest entry, or the first empty one */
};

em_status em_prompt_cache_open(em_prompt_cache **out, em_err *err)
{
    em_prompt_cache *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "no memory for encoded prompts");
    *out = c;
    return EM_OK;
}

static void drop(em_prompt *p)
{
    em_free(p->text);
    em_free(p->ids);
    em_free(p->rows);
    *p = (em_prompt){0};
}

void em_prompt_cache_close(em_prompt_cache **cache)
{
    if (!*cache) return;
    for (int i = 0; i < EM_PROMPT_CACHE_ENTRIES; i++) drop(&(*cache)->entry[i]);
    em_free(*cache);
    *cache = NULL;
}

em_prompt *em_prompt_cache_find(em_prompt_cache *c, const char *text)
{
    for (int i = 0; i < EM_PROMPT_CACHE_ENTRIES; i++)
        if (c->entry[i].text && !strcmp(c->entry[i].text, text)) return &c->entry[i];
    return NULL;
}

em_status em_prompt_cache_add(em_prompt **out, em_prompt_cache *c, const char *text,
                              const int32_t *ids, int64_t n, int64_t dim, em_err *err)
{
    size_t values;
    em_prompt p = {.n = n};
    p.text = em_strdup(text);
    p.ids = em_alloc_array((size_t)n, sizeof *p.ids);
    if (em_size_mul(&values, (size_t)n, (size_t)dim))
        p.rows = em_alloc_array(values, sizeof *p.rows);
    if (!p.text || !p.ids || !p.rows) {
        drop(&p);
        return em_fail(err, EM_NOMEM, "no memory for a prompt of %lld tokens", (long long)n);
    }
    memcpy(p.ids, ids, (size_t)n * sizeof *ids);
    drop(&c->entry[c->next]);
    c->entry[c->next] = p;
    *out = &c->entry[c->next];
    c->next = (c->next + 1) % EM_PROMPT_CACHE_ENTRIES;
    return EM_OK;
}
