/* safetensors: named tensors in one file.
 *
 *     8 bytes   N, little-endian
 *     N bytes   JSON: {"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [BEGIN, END]}, …}
 *     the rest  the tensors' bytes; offsets count from here
 *
 * The reader takes a file only if it is whole and says nothing twice: every byte after the header
 * belongs to exactly one tensor, in order, and sizes, dtypes and offsets agree. A file that another
 * program would read differently is refused with the file, the tensor and the rule.
 */
#ifndef EM_IO_SAFETENSORS_H
#define EM_IO_SAFETENSORS_H

#include "base/dtype.h"
#include "base/status.h"
#include "io/file.h"

#include <stddef.h>
#include <stdint.h>

#define EM_TENSOR_DIMS 8                           /* at most */
#define EM_TENSOR_NAME_BYTES 512                   /* at most, without the NUL */
#define EM_SAFETENSORS_TENSORS 1000000             /* at most */
#define EM_SAFETENSORS_HEADER_BYTES (16u << 20)    /* at most, unless the caller says more … */
#define EM_SAFETENSORS_HEADER_BYTES_MAX 100000000u /* … which the format caps */

typedef struct em_safetensors_entry {
    const char *name; /* borrowed from the file */
    em_dtype dtype;
    int ndim; /* 0 is a scalar */
    int64_t dim[EM_TENSOR_DIMS];
    const void *data;  /* borrowed from the map */
    size_t size_bytes; /* may be 0 */
} em_safetensors_entry;

/* ---- reading ---- */

typedef struct em_safetensors em_safetensors;

/* Maps and checks a file. header_cap_bytes 0 means EM_SAFETENSORS_HEADER_BYTES. */
em_status em_safetensors_open(em_safetensors **out, const char *path, size_t header_cap_bytes,
                              em_err *err);
/* The same over bytes that stay the caller's and must outlive *out; `path` is for messages. */
em_status em_safetensors_parse(em_safetensors **out, const void *data, size_t size_bytes,
                               const char *path, size_t header_cap_bytes, em_err *err);
void em_safetensors_close(em_safetensors **file);

const char *em_safetensors_path(const em_safetensors *file);
const em_map *
em_safetensors_map(const em_safetensors *file); /* borrowed; closed where it was parsed */
size_t em_safetensors_count(const em_safetensors *file);
/* In the order of their bytes; borrowed until em_safetensors_close. */
const em_safetensors_entry *em_safetensors_at(const em_safetensors *file, size_t i);

/* ---- writing ---- */

typedef struct em_safetensors_spec {
    const char *name; /* borrowed for the call */
    em_dtype dtype;
    int ndim;
    int64_t dim[EM_TENSOR_DIMS];
} em_safetensors_spec;

typedef struct em_safetensors_writer em_safetensors_writer;

/* Writes the header for all tensors at once (wide types first, then by name, so that every tensor
 * is aligned to its type) and claims the file's full size. Nothing has the final name until
 * commit. */
em_status em_safetensors_create(em_safetensors_writer **out, const char *path,
                                const em_safetensors_spec *specs, size_t count, em_err *err);

/* size_bytes bytes of tensor specs[i], from offset_bytes of it on. Every byte exactly once, in any
 * order, from any number of threads. */
em_status em_safetensors_write(em_safetensors_writer *w, size_t i, size_t offset_bytes,
                               const void *data, size_t size_bytes, em_err *err);

/* Refused while bytes of any tensor are missing. The writer is closed either way. */
em_status em_safetensors_commit(em_safetensors_writer **w, em_err *err);
void em_safetensors_writer_close(em_safetensors_writer **w); /* without commit: nothing is left */

#endif
