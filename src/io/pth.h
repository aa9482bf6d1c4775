/* PyTorch's own files, .pth and .bin: a zip archive of stored members, a pickle that names tensors,
 * and their bytes.
 *
 *     TOP/data.pkl                           which tensors: names, shapes, strides (io/pickle.h)
 *     TOP/data/0  TOP/data/1 …               their bytes, each aligned to 64
 *     TOP/byteorder  TOP/version  TOP/.*     not in every file; held against what we read
 *
 * Tensors that lie in their storage as they are read (row-major, without gaps) stay in the map;
 * others are copied, at most as many bytes as the file has and 64 MiB. Every storage and every
 * tensor of the pickle is checked, whether a model will ask for it or not.
 */
#ifndef EM_IO_PTH_H
#define EM_IO_PTH_H

#include "io/safetensors.h"
#include "io/zip.h"

#define EM_PTH_SPARE_COPY_BYTES (64u << 20)

typedef em_safetensors_entry em_pth_entry; /* data: borrowed from the file, until it is closed */
typedef struct em_pth em_pth;

/* Maps and checks a file. */
em_status em_pth_open(em_pth **out, const char *path, em_err *err);
/* The same over bytes that stay the caller's and must outlive *out; `path` is for messages. */
em_status em_pth_parse(em_pth **out, const void *data, size_t size_bytes, const char *path,
                       em_err *err);
void em_pth_close(em_pth **file);

const char *em_pth_path(const em_pth *file);
const em_map *em_pth_map(const em_pth *file); /* borrowed; closed where it was parsed */
size_t em_pth_count(const em_pth *file);
const em_pth_entry *em_pth_at(const em_pth *file, size_t i); /* sorted by name */
const em_zip *em_pth_archive(const em_pth *file);            /* borrowed; for em_zip_check */

#endif
