/* A group of weights: what one step of a model needs at once (a transformer block, an encoder
 * stage). Its tensors come and go together.
 *
 * The binder fills a group with the slots of a model's weight struct and with where the file has
 * their values. Before its first use a residency settles the group: each slot gets the type that
 * ops will see, and the tensors get their places in one packed image, so that a group travels as
 * one copy:
 *
 *     file (mapped)    | q.w F32 |   …   | norm BF16 |          anywhere, any float type
 *     image            | q.w BF16 | norm BF16 | … |             one block, 256-byte steps
 *
 * A group whose values may be used where the file has them (on the host, in their own type) needs
 * no image: it is `in_place`. */
#ifndef EM_MEMORY_GROUP_H
#define EM_MEMORY_GROUP_H

#include "base/thread.h"
#include "device/device.h"
#include "io/file.h"
#include "memory/tensor.h"

#include <stdbool.h>
#include <stddef.h>

/* Which type ops see. A type that is narrower than the run's working type stays: ops widen. */
typedef enum em_weight_rule {
    EM_WEIGHTS_WORKING, /* the working type, as upstream casts a model when it loads it */
    EM_WEIGHTS_WIDE,    /* the same, but bfloat16 where that is float16 (UMT5 overflows it) */
    EM_WEIGHTS_STORED,  /* the file's own (wav2vec2 runs in float32 always) */
    EM_WEIGHTS_ON_HOST, /* the file's own, and in host memory on every device */
} em_weight_rule;

typedef enum em_group_state {
    EM_GROUP_COLD,
    EM_GROUP_LOADING,
    EM_GROUP_WARM,
    EM_GROUP_PINNED
} em_group_state;

/* What one residency knows of a group. */
typedef struct em_group_use {
    em_group_state state;
    int pins;
    unsigned serial;        /* of the residency that it belongs to; COLD to every other */
    size_t offset_bytes;    /* of the image in the store */
    size_t next_use;        /* position in the trace; larger is later */
    unsigned loads;         /* so far */
    bool announced;         /* to the disk, since it was read last */
    bool known;             /* to the residency, whose the next are */
    em_event *ready, *done; /* copied; last used */
    bool imaged;            /* it is in one of the residency's images, at: */
    size_t image_offset_bytes;
} em_group_use;

typedef struct em_weight {
    em_tensor *slot;     /* borrowed: in the model's weight struct */
    const void *source;  /* borrowed: mapped from the file */
    em_file_place place; /* of the same bytes in it; nowhere: they are in memory alone */
    em_dtype source_type;
    size_t offset_bytes; /* in the image */
} em_weight;

/* Opened by the binder with the model, closed with it. */
typedef struct em_group {
    em_weight *weight; /* owned array */
    size_t count, cap;
    em_weight_rule rule;
    size_t size_bytes;  /* of all tensors, in the file's types */
    size_t loose_bytes; /* of them, those that are in memory alone */
    size_t image_bytes; /* of the image; 0: in place, or not settled */
    bool settled, in_place;
    em_dtype working; /* what it was settled for, like the next */
    bool host_addressable;
    /* By the last em_budget_try: some stage uses it more than once; it comes in more than once. */
    bool repeats, streamed;
    em_group_use real, planned; /* a plan must not disturb what it forecasts */
} em_group;

enum { EM_IMAGE_ALIGN = 256 };

/* Adds a tensor slot, filled as the file has it, of a model's weight struct. `place` (copied; NULL:
 * nowhere) is where the file has it, and must stay open until the group is closed. False when out
 * of memory. */
bool em_group_add(em_group *g, em_tensor *slot, const em_file_place *place);
void em_group_close(em_group *g);

/* Fixes the types that ops see and the layout of the image, for a working type and for memory that
 * the host can or cannot address. Not while the group is resident in either use. */
void em_group_settle(em_group *g, em_dtype working, bool host_addressable);
/* Points the slots into an image at `base` (device memory). */
void em_group_place(em_group *g, void *base);
/* Writes bytes [begin, begin + size) of the image to host memory: read from the file, past its map,
 * and converted where the types differ; gaps are zero. begin is a multiple of EM_IMAGE_ALIGN.
 * EM_IO: the file is not what it was. */
em_status em_group_write(const em_group *g, void *out, size_t begin_bytes, size_t size_bytes,
                         em_err *err);
/* All of the image, on the pool's threads. */
em_status em_group_write_all(const em_group *g, void *out, em_pool *pool, em_err *err);
/* The file will be read soon: the disk begins now. */
void em_group_fetch(const em_group *g);
/* Lets go of the file's pages. */
void em_group_drop_source(const em_group *g);

#endif
