/* Any bytes as a safetensors file. What is taken must keep the reader's promise: every byte after
 * the header belongs to exactly one tensor, inside the file. */
#include "fuzz.h"

#include "io/safetensors.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    em_safetensors *f = NULL;
    em_err err = {0};
    if (em_safetensors_parse(&f, data, size, "input", 0, &err)) {
        require(!f && err.code != EM_OK && err.msg[0]);
        return 0;
    }
    const uint8_t *next = em_safetensors_count(f) ? em_safetensors_at(f, 0)->data : data + size;
    for (size_t i = 0; i < em_safetensors_count(f); i++) {
        const em_safetensors_entry *e = em_safetensors_at(f, i);
        size_t bytes = em_dtype_bytes(e->dtype);
        for (int d = 0; d < e->ndim; d++) bytes *= (size_t)e->dim[d];
        require(e->data == next && e->size_bytes == bytes);
        next += bytes;
    }
    require(next == data + size);
    em_safetensors_close(&f);
    return 0;
}
