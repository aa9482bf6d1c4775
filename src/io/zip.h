/* Zip archives whose members are stored, not compressed: the container of PyTorch's checkpoints,
 * read in place.
 *
 *     member 0     "PK\3\4", name, extra field, bytes[, sizes again]
 *     member 1 …
 *     directory    one record a member: name, size, CRC, where the member begins
 *     [zip64]      the numbers below in 64 bits, and where this is
 *     end          "PK\5\6": how many members, where the directory is
 *
 * The directory is the authority. The archive must begin with a member and end with its end
 * record, the directory must fill the room before it, and no two members may share a byte or a
 * name (letters of either case count as one): what two programs could read differently is
 * refused. Compressed and encrypted members are refused too. CRCs are not needed for reading:
 * em_zip_check. */
#ifndef EM_IO_ZIP_H
#define EM_IO_ZIP_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_ZIP_MEMBERS 1000000              /* at most */
#define EM_ZIP_DIRECTORY_BYTES (256u << 20) /* at most */
#define EM_ZIP_NAME_BYTES 1024              /* at most */

typedef struct em_zip_member {
    const char *name; /* owned by the archive */
    const void *data; /* borrowed from the archive's bytes */
    size_t size_bytes;
    uint32_t crc;
} em_zip_member;

typedef struct em_zip em_zip;

/* The bytes stay the caller's and must outlive *out; `path` is for messages. */
em_status em_zip_parse(em_zip **out, const void *data, size_t size_bytes, const char *path,
                       em_err *err);
void em_zip_close(em_zip **zip);

size_t em_zip_count(const em_zip *zip);
/* Sorted by name; borrowed until em_zip_close. */
const em_zip_member *em_zip_at(const em_zip *zip, size_t i);
const em_zip_member *em_zip_find(const em_zip *zip, const char *name); /* NULL if absent */
/* The member that comes first in the directory; an archive has at least one. */
const em_zip_member *em_zip_first(const em_zip *zip);

/* Reads all of a member and holds its CRC against the directory's. */
em_status em_zip_check(const em_zip *zip, const em_zip_member *member, em_err *err);

#endif
