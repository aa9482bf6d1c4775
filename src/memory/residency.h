/* Weights and where they are.
 *
 * A group is what one step of a model needs at once (a transformer block, an encoder stage): its
 * tensors come and go together. Model code pins a group, uses its tensors, unpins it; it never
 * knows whether the weights were there, were copied, or are dropped again afterwards. That choice
 * is the policy's alone.
 *
 *            pin                    unpin, policy keeps
 *     COLD -------> PINNED (n) ------------------------> WARM
 *       ^             ^   |                               |
 *       |             |   | unpin, policy drops           | pin
 *       |             +---|-------------------------------+
 *       +-----------------+
 *
 * On the host a tensor's bytes are the mapped file's: COLD means that its pages may be given back
 * to the kernel, WARM that they are left to it. */
#ifndef EM_MEMORY_RESIDENCY_H
#define EM_MEMORY_RESIDENCY_H

#include "base/status.h"
#include "memory/tensor.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum em_group_state { EM_GROUP_COLD, EM_GROUP_WARM, EM_GROUP_PINNED } em_group_state;

/* What one residency knows of a group. */
typedef struct em_group_use {
    em_group_state state;
    int pins;
    unsigned serial; /* of the residency that counts it; COLD to every other */
} em_group_use;

/* Opened by the binder with the model, closed with it. */
typedef struct em_group {
    em_tensor **tensor; /* owned array of borrowed pointers into the model's weight structs */
    size_t count, cap;
    size_t size_bytes;          /* of all tensors, in the file's types */
    em_group_use real, planned; /* a plan must not disturb what it forecasts */
} em_group;

/* One per engine or per plan. Counts the bytes of WARM and PINNED groups. */
typedef struct em_residency {
    bool drop_unpinned; /* the policy: give a group's pages back as soon as nobody uses it */
    bool counts_only;   /* a plan: nothing is touched */
    unsigned serial;    /* tells plans of the same models apart that keep what they used */
    size_t resident_bytes, peak_bytes;
} em_residency;

/* Adds a tensor slot of a model's weight struct; false when out of memory. */
bool em_group_add(em_group *g, em_tensor *slot);
void em_group_close(em_group *g);

void em_residency_pin(em_residency *r, em_group *g);
void em_residency_unpin(em_residency *r, em_group *g);

#endif
