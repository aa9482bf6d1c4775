/* What a checkpoint is, in 64 letters: so that a record of work can name the weights that made
 * it. */
#ifndef EM_IO_FINGERPRINT_H
#define EM_IO_FINGERPRINT_H

#include "base/hash.h"
#include "io/ckpt.h"

#define EM_FINGERPRINT_EDGE_BYTES 65536

/* SHA-256, in hexadecimal, over all tensors in the order of their names. Of each:
 *
 *     name  NUL  dtype ("BF16")  NUL  number of dimensions  dimensions  first and last 64 KiB
 *
 * numbers as 64 bits, little-endian; a tensor of 64 KiB and less enters once, whole. The same
 * weights have the same fingerprint in .pth, .safetensors and shards, and reading it takes a second
 * where the file takes minutes: it tells checkpoints apart, it does not find a changed byte in the
 * middle (that is em_ckpt_verify). Names as they are now: after em_ckpt_strip_prefix others. */
void em_ckpt_fingerprint(const em_ckpt *ckpt, char out[EM_SHA256_HEX_BYTES]);

/* What is hashed of a tensor before its bytes: name to dimensions. */
void em_ckpt_hash_heading(em_sha256 *h, const em_ckpt_tensor *tensor);

#endif
