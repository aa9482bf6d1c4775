/* PyTorch files as torch.save writes them: stored members aligned to 64 bytes, sizes behind the
 * bytes, zip64 where 32 bits do not reach, one storage a tensor. */
#ifndef EM_IO_PTH_WRITER_H
#define EM_IO_PTH_WRITER_H

#include "io/safetensors.h"

typedef struct em_pth_writer em_pth_writer;

/* Writes everything but the tensors' bytes and claims the file's full size. Nothing has the final
 * name until commit. Tensors are stored in the order of the specs. */
em_status em_pth_create(em_pth_writer **out, const char *path, const em_safetensors_spec *specs,
                        size_t count, em_err *err);

/* size_bytes bytes of tensor specs[i], from offset_bytes of it on. Every byte exactly once, in any
 * order, from any number of threads. */
em_status em_pth_write(em_pth_writer *w, size_t i, size_t offset_bytes, const void *data,
                       size_t size_bytes, em_err *err);

/* Refused while bytes of any tensor are missing. The writer is closed either way. */
em_status em_pth_commit(em_pth_writer **w, em_err *err);
void em_pth_writer_close(em_pth_writer **w); /* without commit: nothing is left */

#endif
