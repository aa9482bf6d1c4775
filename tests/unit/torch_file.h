/* Archives and pickles as torch.save writes them, piece by piece, so that a test can bend any
 * piece. Nothing here is shared with the code under test. */
#ifndef EM_TEST_TORCH_FILE_H
#define EM_TEST_TORCH_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TORCH_MEMBERS = 16 };

typedef struct torch_file {
    unsigned char *data; /* exactly size bytes: an over-read is for ASan to see */
    size_t size;
    size_t local[TORCH_MEMBERS], body[TORCH_MEMBERS], record[TORCH_MEMBERS]; /* where each begins */
    size_t end64, locator, end;
    const char *name[TORCH_MEMBERS];
    size_t body_bytes[TORCH_MEMBERS];
    int count;
} torch_file;

static inline void torch_raw(torch_file *f, const void *data, size_t n)
{
    f->data = realloc(f->data, f->size + n + 1);
    if (!f->data) abort();
    if (n) memcpy(f->data + f->size, data, n);
    f->size += n;
}

static inline void torch_le(torch_file *f, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) torch_raw(f, &(unsigned char){(unsigned char)(v >> 8 * i)}, 1);
}

static inline uint32_t torch_crc(const void *data, size_t n)
{
    uint32_t c = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        c ^= ((const unsigned char *)data)[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

/* A stored member, its bytes aligned to 64, its sizes behind it. `name` must outlive the file. */
static inline void torch_member(torch_file *f, const char *name, const void *data, size_t n)
{
    const size_t name_bytes = strlen(name);
    int i = f->count++;
    f->local[i] = f->size;
    f->name[i] = name;
    f->body_bytes[i] = n;
    size_t pad = (64 - (f->size + 30 + name_bytes + 4) % 64) % 64;
    torch_le(f, 0x04034b50, 4);
    torch_le(f, 0, 2);
    torch_le(f, 0x0808, 2);
    torch_le(f, 0, 2 + 4 + 4 + 4 + 4); /* stored; no time; the rest is behind */
    torch_le(f, name_bytes, 2);
    torch_le(f, 4 + pad, 2);
    torch_raw(f, name, name_bytes);
    torch_raw(f, "FB", 2);
    torch_le(f, pad, 2);
    for (size_t k = 0; k < pad; k++) torch_raw(f, "Z", 1);
    f->body[i] = f->size;
    torch_raw(f, data, n);
    torch_le(f, 0x08074b50, 4);
    torch_le(f, torch_crc(data, n), 4);
    torch_le(f, n, 4);
    torch_le(f, n, 4);
}

/* Directory and ends. `wide`: every number of the directory is in zip64 fields. */
static inline void torch_finish(torch_file *f, bool wide)
{
    const size_t at = f->size;
    for (int i = 0; i < f->count; i++) {
        const size_t n = f->body_bytes[i];
        f->record[i] = f->size;
        torch_le(f, 0x02014b50, 4);
        torch_le(f, 0, 4);
        torch_le(f, 0x0808, 2);
        torch_le(f, 0, 2 + 4);
        torch_le(f, torch_crc(f->data + f->body[i], n), 4);
        torch_le(f, wide ? 0xffffffff : n, 4);
        torch_le(f, wide ? 0xffffffff : n, 4);
        torch_le(f, strlen(f->name[i]), 2);
        torch_le(f, wide ? 28 : 0, 2);
        torch_le(f, 0, 2 + 2 + 2 + 4);
        torch_le(f, wide ? 0xffffffff : f->local[i], 4);
        torch_raw(f, f->name[i], strlen(f->name[i]));
        if (!wide) continue;
        torch_le(f, 1, 2);
        torch_le(f, 24, 2);
        torch_le(f, n, 8);
        torch_le(f, n, 8);
        torch_le(f, f->local[i], 8);
    }
    const size_t bytes = f->size - at;
    f->end64 = f->size;
    torch_le(f, 0x06064b50, 4);
    torch_le(f, 44, 8);
    torch_le(f, 0x2d002d, 4);
    torch_le(f, 0, 8);
    torch_le(f, (uint64_t)f->count, 8);
    torch_le(f, (uint64_t)f->count, 8);
    torch_le(f, bytes, 8);
    torch_le(f, at, 8);
    f->locator = f->size;
    torch_le(f, 0x07064b50, 4);
    torch_le(f, 0, 4);
    torch_le(f, f->end64, 8);
    torch_le(f, 1, 4);
    f->end = f->size;
    torch_le(f, 0x06054b50, 4);
    torch_le(f, 0, 4);
    torch_le(f, wide ? 0xffff : (uint64_t)f->count, 2);
    torch_le(f, wide ? 0xffff : (uint64_t)f->count, 2);
    torch_le(f, wide ? 0xffffffff : bytes, 4);
    torch_le(f, wide ? 0xffffffff : at, 4);
    torch_le(f, 0, 2);
}

static inline void torch_free(torch_file *f)
{
    free(f->data);
    *f = (torch_file){0};
}

/* ---- pickles --------------------------------------------------------------------------------- */

/* Programs as string literals, their bytes counted by the compiler. Names are at most 255 bytes. */
#define PK_STR1(n, text) "X" n "\0\0\0" text
#define PK_BEGIN "\x80\2"
#define PK_GLOBAL(module, name) "c" module "\n" name "\n"
#define PK_REBUILD PK_GLOBAL("torch._utils", "_rebuild_tensor_v2")
#define PK_DICT PK_GLOBAL("collections", "OrderedDict") ")R"
/* ('storage', torch.CLASS, 'KEY', 'cpu', N) of a key of one letter, then BINPERSID */
#define PK_STORAGE(class, key, n)                                                                  \
    "(" PK_STR1("\7", "storage") PK_GLOBAL("torch", class) PK_STR1("\1", key) PK_STR1("\3", "cpu") \
        n "tQ"
/* a tensor of what the storage is, `shape` and `stride` pushing tuples */
#define PK_TENSOR(storage, offset, shape, stride)                                                  \
    PK_REBUILD "(" storage offset shape stride "\x89" PK_DICT "tR"
#define PK_K(n) "K" n

#endif
