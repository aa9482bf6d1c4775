/* A small file that the program writes for itself and reads back in another life: numbers and
 * blocks of bytes that belong to one key.
 *
 *      0    8   kind: eight letters, the version among them
 *      8    4   n: how many numbers
 *     12    4   b: how many blocks
 *     16   32   key: a digest of all that the content belongs to
 *     48   8n   the numbers, signed
 *      .   8b   sizes of the blocks in bytes
 *      .    .   the blocks, each padded with zeros to a multiple of 8
 *      .   32   SHA-256 of everything before
 *
 * Little-endian. Written all or nothing (io/file.h). Hostile until the digest fits, and checked
 * after that too: a digest keeps accidents out, not intent. */
#ifndef EM_IO_STATE_FILE_H
#define EM_IO_STATE_FILE_H

#include "base/hash.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { EM_STATE_NUMBERS = 16, EM_STATE_BLOCKS = 8, EM_STATE_KIND = 8 }; /* at most; letters */

typedef struct em_state_block {
    const void *data; /* 8-byte aligned after reading; NULL when the size is 0 */
    size_t size_bytes;
} em_state_block;

typedef struct em_state_file {
    const char *kind; /* EM_STATE_KIND letters, borrowed */
    unsigned char key[EM_SHA256_BYTES];
    size_t numbers, blocks;
    int64_t number[EM_STATE_NUMBERS];
    em_state_block block[EM_STATE_BLOCKS]; /* borrowed: from the writer, or from `owned` */
    void *owned;                           /* what em_state_read read; em_state_close */
} em_state_file;

/* Replaces the file as a whole: it is the old one or the new one, on the disk when this returns.
 * EM_NOSPC, EM_IO, EM_NOMEM. */
em_status em_state_write(const char *path, const em_state_file *s, em_err *err);

/* *out is closed with em_state_close. EM_IO: it cannot be read; EM_FORMAT: of another kind, larger
 * than max_bytes, or damaged; EM_MISMATCH: whole, but another key's. */
em_status em_state_read(em_state_file *out, const char *path, const char *kind,
                        const unsigned char key[EM_SHA256_BYTES], size_t max_bytes, em_err *err);
void em_state_close(em_state_file *s); /* NULL and an empty one are allowed */

#endif
