/* Files: read-only maps, small files whole, and writing that leaves all or nothing.
 *
 * A file that shrinks while it is mapped raises SIGBUS on access. A library has no business to
 * install a process-wide handler: the program does, if it wants a sentence instead of a signal.
 * What is read through an em_file_place ends with a sentence instead.
 */
#ifndef EM_IO_FILE_H
#define EM_IO_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- reading ---- */

/* A whole regular file, mapped read-only. {0} is a closed map, and also an empty file. */
typedef struct em_map {
    const void *data; /* owned by the map: em_map_close */
    size_t size_bytes;
    int fd; /* owned likewise; while data is there */
} em_map;

/* Refuses what is missing, unreadable, not a regular file, and, without `allow_empty`, empty. The
 * size is taken again after mapping: a file that changes meanwhile is refused. */
em_status em_file_map(em_map *out, const char *path, bool allow_empty, em_err *err);
void em_map_close(em_map *map); /* NULL and a closed map are allowed */

/* Where bytes are in a file that is open. {0} is nowhere: they are in memory alone. */
typedef struct em_file_place {
    const char *path; /* borrowed, like fd; for messages; NULL: nowhere */
    int fd;
    uint64_t offset_bytes;
} em_file_place;

/* The place of bytes inside the map; nowhere when they are not inside. `path` is the map's. */
em_file_place em_map_place(const em_map *map, const void *data, size_t size_bytes,
                           const char *path);
/* Copies bytes from a place that is somewhere, without mapping a page of them. A file that ends
 * before they do has changed: EM_IO. */
em_status em_file_read_at(void *out, size_t size_bytes, const em_file_place *from, em_err *err);
/* A hint that bytes at a place will be read soon: the disk begins now. Costs next to nothing where
 * the kernel has them. */
void em_file_fetch(const em_file_place *at, size_t size_bytes);

/* Tells the kernel that the whole pages inside the range are not needed for now, so that reading a
 * large file once does not count as memory in use. They read the same afterwards. For mapped files
 * and blocks only. */
void em_map_drop(const void *data, size_t size_bytes);

/* Hints about a range, for which nothing changes but how long it takes: `jump` says that it will be
 * read here and there, so that the kernel reads no more than that; `fetch` that it will be wanted
 * soon, so that reading starts now; `in_order` ends a jump. */
void em_map_jump(const void *data, size_t size_bytes);
void em_map_fetch(const void *data, size_t size_bytes);
void em_map_in_order(const void *data, size_t size_bytes);

/* Memory for a copy of what a map holds: em_map_drop gives its pages back too and loses nothing,
 * which memory from em_alloc would. Zeroed; owned by the block. {0} is a closed one. */
typedef struct em_block {
    void *data;
    size_t size_bytes;
} em_block;

em_status em_block_open(em_block *out, size_t size_bytes, em_err *err);
void em_block_close(em_block *block);

/* The first bytes of a regular file, at most max_bytes: how many are there. */
em_status em_file_peek(void *out, size_t *size_bytes, const char *path, size_t max_bytes,
                       em_err *err);

/* A small file whole: *out is owned (em_free) and has a NUL after its *size_bytes bytes. A file
 * above max_bytes is refused. */
em_status em_file_read(char **out, size_t *size_bytes, const char *path, size_t max_bytes,
                       em_err *err);

/* ---- paths ---- */

/* "dir/name" with one slash; an absolute name stands alone, a leading "./" of it goes. Owned
 * (em_free); NULL when out of memory. */
char *em_path_join(const char *dir, const char *name);
const char *em_path_base(const char *path); /* what follows the last slash; borrowed from path */
bool em_path_is_file(const char *path);     /* a regular file, links followed */
bool em_path_is_dir(const char *path);

/* Makes a folder and those above it; one that exists is fine. */
em_status em_dir_create(const char *path, em_err *err);

/* What an unprivileged writer may still put on the file system of an existing path. */
em_status em_dir_free_bytes(uint64_t *out, const char *path, em_err *err);

/* ---- writing ---- */

/* A small file at once: all or nothing, under its final name only when it is whole. */
em_status em_file_write(const char *path, const void *data, size_t size_bytes, em_err *err);

/* What was written to a file so far is on the disk when this returns. */
em_status em_file_sync(const char *path, em_err *err);

/* Bytes go to ".NAME.part-PID" beside the target and get its name when they are complete and on the
 * disk; until then whatever has the name stays untouched. Left-overs of killed runs are removed,
 * one that is being written is respected. */
typedef struct em_file_writer em_file_writer;

em_status em_file_writer_open(em_file_writer **out, const char *path, em_err *err);

/* Sets the size and, where the file system can, claims the room: a full disk shows before the
 * work. */
em_status em_file_writer_reserve(em_file_writer *w, uint64_t size_bytes, em_err *err);

/* All bytes or an error. May be called from several threads at once. */
em_status em_file_writer_write(em_file_writer *w, uint64_t offset_bytes, const void *data,
                               size_t size_bytes, em_err *err);

/* Where the bytes are until then; borrowed until commit or close. */
const char *em_file_writer_part(const em_file_writer *w);

/* fsync, rename, fsync of the folder. The writer is closed either way. After a failure nothing is
 * left of the new bytes, unless it is the folder that did not sync: then the file is whole under
 * its name, and a power cut may undo that. */
em_status em_file_writer_commit(em_file_writer **w, em_err *err);

/* Closes without committing and removes the temporary; NULL and a closed writer are allowed. */
void em_file_writer_close(em_file_writer **w);

#endif
