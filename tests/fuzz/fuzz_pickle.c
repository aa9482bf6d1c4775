/* Any bytes as a pickle of tensors. What is taken is a list of names, sorted and distinct, of
 * tensors whose numbers are in range. */
#include "fuzz.h"

#include "io/pickle.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void require(bool ok)
{
    if (!ok) abort();
}

static bool inside(const void *p, size_t n, const uint8_t *data, size_t size)
{
    const uint8_t *b = p;
    return b >= data && b <= data + size && n <= (size_t)(data + size - b);
}

static void check_item(const em_pickle *p, size_t i, const uint8_t *data, size_t size)
{
    const em_pickle_item *it = &p->item[i];
    require(it->tensor < p->tensors && it->name_bytes <= EM_TENSOR_NAME_BYTES);
    require(inside(it->name, it->name_bytes, data, size));
    if (i == 0) return;
    const em_pickle_item *before = it - 1;
    size_t n = before->name_bytes < it->name_bytes ? before->name_bytes : it->name_bytes;
    int order = memcmp(before->name, it->name, n);
    require(order < 0 || (order == 0 && before->name_bytes < it->name_bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    em_pickle p = {0};
    em_err err = {0};
    if (em_pickle_parse(&p, data, size, "input", &err)) {
        require(!p.item && !p.tensor && !p.storage && err.code != EM_OK && err.msg[0]);
        return 0;
    }
    require(p.items > 0);
    for (size_t i = 0; i < p.storages; i++)
        require(p.storage[i].dtype < EM_DTYPE_COUNT && p.storage[i].items <= INT64_MAX &&
                inside(p.storage[i].key, p.storage[i].key_bytes, data, size));
    for (size_t i = 0; i < p.tensors; i++) {
        const em_pickle_tensor *t = &p.tensor[i];
        require(t->storage < p.storages && t->ndim >= 0 && t->ndim <= EM_TENSOR_DIMS);
        require(t->offset >= 0);
        for (int d = 0; d < t->ndim; d++) require(t->dim[d] >= 0 && t->stride[d] >= 0);
    }
    for (size_t i = 0; i < p.items; i++) check_item(&p, i, data, size);
    em_pickle_close(&p);
    return 0;
}
