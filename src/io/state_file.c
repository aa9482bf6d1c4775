#include "io/state_file.h"

#include "base/alloc.h"
#include "io/file.h"

#include <assert.h>
#include <string.h>

enum {
    AT_NUMBERS = 8,
    AT_BLOCKS = 12,
    AT_KEY = 16,
    AT_DATA = AT_KEY + EM_SHA256_BYTES,
    WORD = 8, /* of a number, of a size, of the padding */
    HEAD_MOST = AT_DATA + WORD * (EM_STATE_NUMBERS + EM_STATE_BLOCKS)
};

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct sink {
    em_file_writer *file;
    em_sha256 hash;
    uint64_t at;
} sink;

static em_status put(sink *s, const void *data, size_t size_bytes, em_err *err)
{
    if (size_bytes == 0) return EM_OK; /* an empty block has no address */
    em_sha256_add(&s->hash, data, size_bytes);
    em_status st = em_file_writer_write(s->file, s->at, data, size_bytes, err);
    s->at += size_bytes;
    return st;
}

static size_t pad_of(size_t size_bytes)
{
    return (WORD - size_bytes % WORD) % WORD;
}

static em_status put_head(sink *to, const em_state_file *s, em_err *err)
{
    unsigned char head[HEAD_MOST] = {0};
    const uint32_t numbers = (uint32_t)s->numbers, blocks = (uint32_t)s->blocks;
    memcpy(head, s->kind, EM_STATE_KIND);
    memcpy(head + AT_NUMBERS, &numbers, sizeof numbers);
    memcpy(head + AT_BLOCKS, &blocks, sizeof blocks);
    memcpy(head + AT_KEY, s->key, sizeof s->key);
    memcpy(head + AT_DATA, s->number, WORD * s->numbers);
    for (size_t i = 0; i < s->blocks; i++) {
        const uint64_t size = s->block[i].size_bytes;
        memcpy(head + AT_DATA + WORD * (s->numbers + i), &size, sizeof size);
    }
    return put(to, head, AT_DATA + WORD * (s->numbers + s->blocks), err);
}

em_status em_state_write(const char *path, const em_state_file *s, em_err *err)
{
    static const unsigned char zeros[WORD];
    unsigned char sum[EM_SHA256_BYTES];
    sink to = {0};
    assert(strlen(s->kind) == EM_STATE_KIND);
    assert(s->numbers <= EM_STATE_NUMBERS && s->blocks <= EM_STATE_BLOCKS);
    em_sha256_start(&to.hash);
    em_status st = em_file_writer_open(&to.file, path, err);
    if (!st) st = put_head(&to, s, err);
    for (size_t i = 0; !st && i < s->blocks; i++) {
        st = put(&to, s->block[i].data, s->block[i].size_bytes, err);
        if (!st) st = put(&to, zeros, pad_of(s->block[i].size_bytes), err);
    }
    em_sha256_end(&to.hash, sum);
    if (!st) st = em_file_writer_write(to.file, to.at, sum, sizeof sum, err);
    if (!st) return em_file_writer_commit(&to.file, err);
    em_file_writer_close(&to.file);
    return st;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool sum_fits(const unsigned char *data, size_t size_bytes)
{
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256 h;
    em_sha256_start(&h);
    em_sha256_add(&h, data, size_bytes - sizeof sum);
    em_sha256_end(&h, sum);
    return memcmp(sum, data + size_bytes - sizeof sum, sizeof sum) == 0;
}

/* The blocks' places; false unless they fill [at, end) exactly. */
static bool find_blocks(em_state_file *s, const unsigned char *data, size_t at, size_t end)
{
    const unsigned char *sizes = data + at - WORD * s->blocks;
    for (size_t i = 0; i < s->blocks; i++) {
        uint64_t size;
        memcpy(&size, sizes + WORD * i, sizeof size);
        if (size > end - at || pad_of((size_t)size) > end - at - size) return false;
        s->block[i] = (em_state_block){size ? data + at : NULL, (size_t)size};
        at += (size_t)size + pad_of((size_t)size);
    }
    return at == end;
}

/* What is wrong with it; NULL: nothing. */
static const char *parse(em_state_file *s, const unsigned char *data, size_t size_bytes)
{
    uint32_t numbers, blocks;
    if (size_bytes < AT_DATA + EM_SHA256_BYTES) return "it is too short";
    if (memcmp(data, s->kind, EM_STATE_KIND)) return "it is of another kind or version";
    if (!sum_fits(data, size_bytes)) return "its checksum does not fit";
    memcpy(&numbers, data + AT_NUMBERS, sizeof numbers);
    memcpy(&blocks, data + AT_BLOCKS, sizeof blocks);
    if (numbers > EM_STATE_NUMBERS || blocks > EM_STATE_BLOCKS) return "it promises too much";
    size_t end = size_bytes - EM_SHA256_BYTES, at = AT_DATA + WORD * ((size_t)numbers + blocks);
    if (at > end) return "it is too short";
    s->numbers = numbers;
    s->blocks = blocks;
    memcpy(s->key, data + AT_KEY, sizeof s->key);
    memcpy(s->number, data + AT_DATA, WORD * s->numbers);
    return find_blocks(s, data, at, end) ? NULL : "its blocks do not fill it";
}

em_status em_state_read(em_state_file *out, const char *path, const char *kind,
                        const unsigned char key[EM_SHA256_BYTES], size_t max_bytes, em_err *err)
{
    em_state_file s = {.kind = kind};
    char *data = NULL;
    size_t size_bytes = 0;
    em_status st = em_file_read(&data, &size_bytes, path, max_bytes, err);
    if (st) return st;
    const char *wrong = parse(&s, (const unsigned char *)data, size_bytes);
    if (wrong) {
        st = em_fail(err, EM_FORMAT, "'%s' is not usable: %s", path, wrong);
    } else if (memcmp(s.key, key, sizeof s.key)) {
        st = em_fail(err, EM_MISMATCH, "'%s' belongs to something else", path);
    } else {
        s.owned = data;
        *out = s;
        return EM_OK;
    }
    em_free(data);
    return st;
}

void em_state_close(em_state_file *s)
{
    if (!s) return;
    em_free(s->owned);
    *s = (em_state_file){0};
}
