/* Any bytes as the pickle of an otherwise good PyTorch file with three storages. Every byte of
 * every tensor that is taken can be read. */
#include "fuzz.h"

#include "../unit/torch_file.h"
#include "io/pth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char zeros[64];
    unsigned seen = 0;
    em_pth *f = NULL;
    em_err err = {0};
    torch_file t = {0};
    torch_member(&t, "m/data.pkl", data, size);
    torch_member(&t, "m/data/0", zeros, 48);
    torch_member(&t, "m/data/1", zeros, 8);
    torch_member(&t, "m/data/2", zeros, 0);
    torch_finish(&t, size % 2);
    if (em_pth_parse(&f, t.data, t.size, "input", &err)) {
        if (f || err.code == EM_OK || !err.msg[0]) abort();
        torch_free(&t);
        return 0;
    }
    for (size_t i = 0; i < em_pth_count(f); i++) {
        const em_pth_entry *e = em_pth_at(f, i);
        size_t bytes = em_dtype_bytes(e->dtype);
        for (int d = 0; d < e->ndim; d++) bytes *= (size_t)e->dim[d];
        if (bytes != e->size_bytes || !e->name) abort();
        for (size_t k = 0; k < bytes; k++) seen += ((const unsigned char *)e->data)[k];
    }
    if (seen) abort(); /* the storages are zeros */
    em_pth_close(&f);
    torch_free(&t);
    return 0;
}
