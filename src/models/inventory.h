/* Every tensor of a model's checkpoint, as its walk lists them, and a synthetic file of them.
 *
 *     em_inventory inv = {0};
 *     em_binder *walk = NULL;
 *     st = em_binder_open_visit(&walk, em_inventory_item, &inv, err);
 *     if (!st) {
 *         em_umt5_visit(walk, &cfg);
 *         st = em_binder_finish(&walk, err);
 *     }
 *     if (!st) st = em_inventory_synthesize(&inv, "t5", 1, EM_BF16, "t5.safetensors", pool, err);
 *     em_inventory_close(&inv); */
#ifndef EM_MODELS_INVENTORY_H
#define EM_MODELS_INVENTORY_H

#include "base/thread.h"
#include "io/safetensors.h"
#include "models/bind.h"

/* {0} is empty. */
typedef struct em_inventory {
    em_safetensors_spec *spec; /* owned, and so are the names; dtype F32 */
    size_t count, cap;
} em_inventory;

/* For em_binder_open_visit; `inventory` is the em_inventory that the tensor is appended to. */
em_status em_inventory_item(void *inventory, const em_bind_item *it, em_err *err);
void em_inventory_close(em_inventory *inv);

/* Writes the values of base/synthetic.h under the final name `path`, all or nothing, on all threads
 * of the pool (NULL: on this one). `model` is the first part of the streams' names. A path that
 * ends in .pth or .bin gets PyTorch's format, any other safetensors. */
em_status em_inventory_synthesize(const em_inventory *inv, const char *model, uint64_t seed,
                                  em_dtype dtype, const char *path, em_pool *pool, em_err *err);

#endif
