/* A file of weights and a group over it: float32, float16 and bfloat16, odd lengths, larger than
 * any piece that is read at once. */
#ifndef EM_WEIGHTS_FILE_H
#define EM_WEIGHTS_FILE_H

#include "base/dtype.h"
#include "memory/group.h"

#include "../test.h"
#include "../tmpdir.h"

#include <fcntl.h>

enum { WEIGHTS = 5, GAP = 7 };

typedef struct weights_file {
    const char *path;
    int fd;
    unsigned char *bytes; /* the file's */
    size_t size_bytes;
    unsigned char *image; /* what a bfloat16 run shall see */
    em_tensor slot[WEIGHTS];
    em_group group;
} weights_file;

static inline void open_weights(weights_file *f, void **state, const char *name, int seed)
{
    static const struct {
        em_dtype type;
        int64_t count;
    } kind[WEIGHTS] = {
        {EM_F32, 300001}, {EM_BF16, 700000}, {EM_F16, 100003}, {EM_F32, 1}, {EM_BF16, 129}};
    *f = (weights_file){0};
    for (int i = 0; i < WEIGHTS; i++)
        f->size_bytes += (size_t)(kind[i].count + GAP) * em_dtype_bytes(kind[i].type);
    f->bytes = malloc(f->size_bytes);
    assert_non_null(f->bytes);
    memset(f->bytes, 0x5a, f->size_bytes);
    size_t at = 0, begin[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) {
        const size_t element = em_dtype_bytes(kind[i].type);
        at = (at + GAP) / element * element; /* what lies between tensors belongs to none */
        begin[i] = at;
        for (int64_t k = 0; k < kind[i].count; k++, at += element)
            em_store_f32(f->bytes + at, kind[i].type, 0,
                         (float)((k * 37 + seed * 11 + i) % 1999) / 64 - 15);
    }
    f->size_bytes = at; /* the last weight ends the file */
    f->path = tmpdir_write(state, name, f->bytes, f->size_bytes);
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    for (int i = 0; i < WEIGHTS; i++) {
        const em_file_place place = {f->path, f->fd, begin[i]};
        f->slot[i] = em_tensor_of(f->bytes + begin[i], kind[i].type, EM_SHAPE(kind[i].count));
        assert_true(em_group_add(&f->group, &f->slot[i], &place));
    }
    em_group_settle(&f->group, EM_BF16, false);
    f->image = calloc(1, f->group.image_bytes);
    assert_non_null(f->image);
    for (int i = 0; i < WEIGHTS; i++)
        em_convert(f->image + f->group.weight[i].offset_bytes, EM_BF16, f->bytes + begin[i],
                   kind[i].type, (size_t)kind[i].count);
    memset(f->bytes, 0xFF, f->size_bytes); /* whoever looks there did not read the file */
}

static inline void close_weights(weights_file *f)
{
    em_group_close(&f->group);
    close(f->fd);
    free(f->bytes);
    free(f->image);
}

#endif
