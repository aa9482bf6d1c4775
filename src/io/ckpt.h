/* A checkpoint as models see it: names to tensors, whatever file they come from: safetensors,
 * PyTorch's zip files (.pth, .bin), or an index (.index.json) with the shards that it names. Which
 * it is, is told by the content, never by the name. */
#ifndef EM_IO_CKPT_H
#define EM_IO_CKPT_H

#include "base/dtype.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/thread.h"
#include "io/file.h"
#include "io/safetensors.h"

#include <stddef.h>
#include <stdint.h>

typedef struct em_ckpt em_ckpt;

typedef struct em_ckpt_tensor {
    const char *name; /* this and the pointers below: borrowed until em_ckpt_close */
    em_dtype dtype;
    int ndim;
    int64_t dim[EM_TENSOR_DIMS];
    /* row-major, aligned for dtype; mapped from the file (a copy where that is not) */
    const void *data;
    size_t size_bytes;
    const char *file;    /* path, for messages */
    em_file_place place; /* of data; nowhere: it is a copy */
} em_ckpt_tensor;

em_status em_ckpt_create(em_ckpt **out, em_err *err); /* empty: for em_ckpt_overlay */
/* Nothing of the tensors is read: headers and directories alone. */
em_status em_ckpt_open(em_ckpt **out, const char *path, em_err *err);

/* Lays a file over what is there: name by name the later file wins (Flash transformer over the
 * base). This and em_ckpt_strip_prefix invalidate the em_ckpt_tensor pointers handed out before,
 * not the bytes. */
em_status em_ckpt_overlay(em_ckpt *ckpt, const char *path, em_err *err);

/* Drops `prefix` from every name that starts with it ("wav2vec2." in files of pre-training). Two
 * names that become one are refused, nothing is changed then. */
em_status em_ckpt_strip_prefix(em_ckpt *ckpt, const char *prefix, em_err *err);

void em_ckpt_close(em_ckpt **ckpt);

/* Reads everything, on all threads of the pool (NULL: on this one), and drops the pages again: the
 * archives' CRCs must hold. *out: SHA-256, in hexadecimal, over all tensors in the order of their
 * names, each by name NUL dtype NUL number of dimensions, dimensions (as in io/fingerprint.h), and
 * the 32 bytes of the SHA-256 of its bytes. */
em_status em_ckpt_verify(const em_ckpt *ckpt, em_pool *pool, char out[EM_SHA256_HEX_BYTES],
                         em_err *err);

const em_ckpt_tensor *em_ckpt_find(const em_ckpt *ckpt, const char *name); /* NULL if absent */
size_t em_ckpt_count(const em_ckpt *ckpt);
const em_ckpt_tensor *em_ckpt_at(const em_ckpt *ckpt, size_t i); /* sorted by name */

#endif
