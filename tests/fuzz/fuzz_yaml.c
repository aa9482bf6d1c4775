/* Any bytes as a config.yaml. What is taken is an object, at most as deep as the reader says. */
#include "fuzz.h"

#include "io/yaml.h"

#include <stdlib.h>

static int depth(const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;
    int most = 0;
    json_object_foreach((json_t *)v, key, item)
    {
        int n = depth(item);
        if (n > most) most = n;
    }
    json_array_foreach(v, i, item)
    {
        int n = depth(item);
        if (n > most) most = n;
    }
    return most + (json_is_object(v) || json_is_array(v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *doc = NULL;
    em_err err = {0};
    if (em_yaml_parse(&doc, (const char *)data, size, "input", &err)) {
        if (doc || err.code == EM_OK || !err.msg[0]) abort();
        return 0;
    }
    if (!json_is_object(doc) || depth(doc) > EM_YAML_DEPTH) abort();
    json_decref(doc);
    return 0;
}
