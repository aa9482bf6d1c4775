/* The pickle inside a PyTorch checkpoint, read without a Python and without making an object.
 *
 * A pickle is a program for a stack machine, and in Python its instructions may call anything. Here
 * the machine has tags instead of objects: numbers, strings, tuples, dictionaries, and the few
 * names that torch.save writes for a dictionary of tensors. There is nothing to call. Any other
 * instruction, and any other name, is refused with its place; nothing is skipped that could mean
 * something, and there is no second reader to fall back to.
 *
 *     {"w": rebuild_tensor(('storage', FloatStorage, '0', 'cpu', 12), 0, (3, 4), (4, 1), …)} */
#ifndef EM_IO_PICKLE_H
#define EM_IO_PICKLE_H

#include "base/dtype.h"
#include "base/status.h"
#include "io/safetensors.h"

#include <stddef.h>
#include <stdint.h>

#define EM_PICKLE_BYTES (64u << 20) /* at most */
#define EM_PICKLE_OPS 1000000       /* at most */
#define EM_PICKLE_INT_BYTES 16      /* of a long integer, at most */
#define EM_PICKLE_DEPTH 64          /* of open marks, at most */

/* Bytes that several tensors may share: a member "data/KEY" of the archive. */
typedef struct em_pickle_storage {
    em_dtype dtype;
    const char *key; /* key_bytes of UTF-8 without control characters, no NUL behind them */
    size_t key_bytes;
    uint64_t items;
    size_t at_bytes; /* of the instruction, for messages */
} em_pickle_storage;

/* Item (i, j, …) is item offset + i * stride[0] + j * stride[1] + … of the storage: that it is
 * inside is for the reader of the archive to check. */
typedef struct em_pickle_tensor {
    size_t storage; /* index */
    int ndim;
    int64_t dim[EM_TENSOR_DIMS], stride[EM_TENSOR_DIMS], offset; /* none negative */
    size_t at_bytes;
} em_pickle_tensor;

/* A name of the checkpoint. */
typedef struct em_pickle_item {
    const char *name; /* name_bytes of UTF-8 without control characters, no NUL behind them */
    size_t name_bytes;
    size_t tensor; /* index */
} em_pickle_item;

/* {0} is empty. All that the program mentions, and of the dictionary that it ends with (or the one
 * under "state_dict", "module" or "model" in it, however deep) what is a tensor. */
typedef struct em_pickle {
    em_pickle_storage *storage; /* owned, like the others */
    size_t storages;
    em_pickle_tensor *tensor;
    size_t tensors;
    em_pickle_item *item; /* sorted by name, no name twice */
    size_t items;
} em_pickle;

/* Names and keys point into the bytes, which stay the caller's and must outlive *out. `path` is for
 * messages. */
em_status em_pickle_parse(em_pickle *out, const void *data, size_t size_bytes, const char *path,
                          em_err *err);
void em_pickle_close(em_pickle *p); /* an empty one is allowed */

#endif
