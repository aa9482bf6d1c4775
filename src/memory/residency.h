/* Weights and where they are.
 *
 * Model code pins a group, uses its tensors, unpins it; it never knows whether the weights were
 * there, were copied, or make room for others afterwards. That choice is the policy's alone.
 *
 *                 load                                       unpin
 *     COLD --------------------> LOADING ----> PINNED (n) ----------> WARM
 *      ^  \______________________________pin______^  ^________pin______/ |
 *      |                                                                 |
 *      +---------------------------- make room --------------------------+
 *
 * Groups live in a store: the low end of the run's block of device memory. What is not pinned may
 * be overwritten when another group needs the room. A plan runs the same code without moving a byte
 * and writes down the order of pins, the trace; a run follows it: whatever comes next is copied
 * while the device computes, and room is made by what is used latest (Belady's rule). One number,
 * the store's capacity, is what tells memory modes apart: room for two groups streams everything,
 * room for all keeps everything.
 *
 * On the host a group whose values need no conversion is used where the file has it: COLD means
 * that its pages may be given back to the kernel, WARM that they are left to it. */
#ifndef EM_MEMORY_RESIDENCY_H
#define EM_MEMORY_RESIDENCY_H

#include "base/status.h"
#include "memory/group.h"

typedef struct em_staging em_staging;
typedef struct em_stopwatch em_stopwatch;

/* Pins and unpins in the order of a request; `next` of a pin is the position of the same group's
 * next one. */
typedef struct em_trace_step {
    em_group *group;
    bool pin;
    size_t next;
} em_trace_step;

typedef struct em_trace {
    em_trace_step *step; /* owned array */
    size_t count, cap;
    bool failed; /* out of memory: it is incomplete */
} em_trace;

/* How large the store will be, up to a step of the trace. */
typedef struct em_room {
    size_t end; /* behind the last step */
    size_t bytes;
} em_room;

void em_trace_close(em_trace *t);
/* Fills the `next` of every step. */
void em_trace_link(em_trace *t);

/* One per engine or per plan. Zero but for what the caller sets: the first paragraph. */
typedef struct em_residency {
    em_device *device;  /* borrowed; NULL: the host */
    em_dtype dtype;     /* working type of the runs */
    em_pool *pool;      /* borrowed: converts and packs; NULL: the calling thread */
    bool drop_unpinned; /* give the pages of a group that is in place back once nobody uses it */
    bool eager;         /* and the room of others: shows how little would do */
    bool counts_only;   /* a plan: nothing is touched */
    bool prefetch;      /* copy what comes next ahead of its pin */
    unsigned serial;    /* tells plans of the same models apart */
    size_t ring_bytes;  /* of each buffer between files and the device; 0: EM_STAGING_BYTES */
    em_trace *record;   /* a plan writes here; NULL: nowhere */
    const em_trace *follow; /* a run reads here; NULL: no foresight */
    const em_room *room;    /* along `follow`, borrowed; none: it stays as it is */
    size_t rooms;

    void *base;            /* of the store; device memory, borrowed */
    size_t capacity_bytes; /* of the store */

    em_group **stored; /* owned array: groups in the store, by offset */
    size_t stored_count, stored_cap;
    em_group **known; /* owned array: groups with events or images of ours */
    size_t known_count, known_cap;
    em_staging *staging; /* owned */
    void *images;        /* owned: host memory that the device can read, for packed groups */
    size_t images_bytes; /* its size; in a plan: the size that it would have */
    em_event *moved;     /* owned: what COMPUTE had been given when the store moved */
    /* Owned; NULL on a device without a clock. Of copies' time on COPY; and of the time for
     * which COMPUTE stood still in a pin: until the copy that it needs was done, and while the host
     * read files in it. */
    em_stopwatch *copies, *waits;
    size_t cursor;               /* in follow: behind the last pin */
    size_t here_begin, here_end; /* in follow: no pin in between is of a group that is not here */
    size_t clock;                /* counts pins, for the least recently used without a trace */

    /* Counted since em_residency_count_anew, for whoever asks. */
    size_t resident_bytes, peak_bytes;      /* of WARM and PINNED groups, wherever they are */
    size_t mapped_bytes, mapped_peak_bytes; /* of them, those used where the file has them */
    size_t store_peak_bytes;                /* the highest end of a group in the store */
    size_t source_peak_bytes;               /* of the largest group's sources that no file has */
    size_t image_bytes;                     /* in images now */
    size_t copied_bytes;                    /* into the store */
    size_t packed_bytes; /* of them, those that the host read from files, not from an image */
    double packed_ms;    /* the time that took */
} em_residency;

/* Takes all that following the trace will need besides the store: events, lists, the ring (an older
 * one with larger buffers goes), and an image store of at least image_bytes (an older one that is
 * smaller loses what it holds). Between this and the end of the run nothing is allocated.
 * EM_NOVRAM, EM_NOMEM: *images_failed tells which of the two it was; the other is there. */
em_status em_residency_prepare(em_residency *r, const em_trace *t, size_t image_bytes,
                               bool *images_failed, em_err *err);
/* A plan that was just begun and follows its trace goes on from where `real`, which is not in use,
 * left weights: in its store, where files have them, in its images. EM_NOMEM. */
em_status em_residency_resume(em_residency *plan, const em_residency *real, em_err *err);
/* From the beginning of a trace that it was prepared for, until another call: borrowed, as is how
 * large the store will be in the meantime (no rooms: as it is). NULL: no foresight. */
void em_residency_follow(em_residency *r, const em_trace *t, const em_room *room, size_t rooms);
/* Gives back the pages of groups in place that nobody uses, whatever drop_unpinned said when they
 * were used last. */
void em_residency_drop_mapped(em_residency *r);
/* Frees the image store, after the copies that are on their way out of it. Nothing may be
 * pinned. */
void em_residency_drop_images(em_residency *r);
/* Peaks start from what is there now, sums from zero. */
void em_residency_count_anew(em_residency *r);
/* By the device's clock, since then: how long its copies took, and for how long it computed nothing
 * because weights were not there yet. Of what is over by now; the rest counts in the next reading.
 * False, and both untouched, where there is no clock. */
bool em_residency_clock(em_residency *r, double *copy_ms, double *wait_ms);
/* True while every invariant of states, pins, offsets and counters holds: for asserts. */
bool em_residency_sound(const em_residency *r);

/* On success the group's slots may be used until the matching unpin. EM_NOVRAM: the store has no
 * room beside what is pinned. */
em_status em_residency_pin(em_residency *r, em_group *g, em_err *err);
em_status em_residency_unpin(em_residency *r, em_group *g,
                             em_err *err); /* of a pin that failed: nothing */
/* One pin more of a group that is there: it stays until the matching unpin, through whatever the
 * trace says. No use, so no step of the trace, and nothing is enqueued. False: it is not there, or
 * still on its way. */
bool em_residency_hold(em_residency *r, em_group *g);
/* The store moves or changes its size; groups that do not lie inside it any more become COLD.
 * Nothing may be pinned. */
em_status em_residency_set_store(em_residency *r, void *base, size_t capacity_bytes, em_err *err);
/* Everything becomes COLD; events, images and buffers are freed. */
void em_residency_close(em_residency *r);

#endif
