/* cuDNN 9 through its backend C API: one graph of operations, one engine for it, one plan.
 *
 *     em_dnn_graph g;
 *     em_dnn_begin(&g, dnn);
 *     x = em_dnn_tensor(&g, &(em_dnn_view){…});  …     descriptors; the first failure sticks
 *     op = em_dnn_make(&g, CUDNN_BACKEND_OPERATION_…_DESCRIPTOR); em_dnn_set_…; em_dnn_finalize
 *     em_dnn_join(&g, 1, &op);
 *     em_dnn_choose(&choice, &g, &limits, err)         which engine, with which knobs
 *     em_dnn_plan_open(&plan, &g, &choice, err)        takes the graph over
 *     em_dnn_execute(plan, n, ids, pointers, workspace, err)
 *
 * A choice made for one shape can be planned for another shape of the same graph: so an algorithm
 * belongs to a layer and not to the piece of work at hand. The library is opened by the caller
 * (dlopen); nothing here links cuDNN. Not for several threads at once. */
#ifndef EM_OPS_CUDA_DNN_H
#define EM_OPS_CUDA_DNN_H

#include "base/status.h"

#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <stdbool.h>

enum {
    EM_DNN_MIN_VERSION = 91301, /* the attention node is complete from 9.13.1 on */
    EM_DNN_MAX_DIMS = 5,
    EM_DNN_MAX_KNOBS = 64,
    EM_DNN_MAX_MADE = 96, /* descriptors of one graph */
    EM_DNN_KEY_BYTES = 192
};

typedef struct em_cuda_dnn em_cuda_dnn;

/* Binds the functions of an open libcudnn.so.9 (borrowed, never closed) and creates a handle that
 * enqueues on stream (borrowed). `path` is for messages. On success *out is owned by the caller.
 * EM_DEVICE when a symbol is missing, the version too old or cuDNN unwilling; EM_NOMEM. */
em_status em_cuda_dnn_open(em_cuda_dnn **out, void *library, const char *path, cudaStream_t stream,
                           em_err *err);
void em_cuda_dnn_close(em_cuda_dnn **dnn);          /* with every entry and plan that it keeps */
size_t em_cuda_dnn_version(const em_cuda_dnn *dnn); /* 91900 for 9.19.0 */

/* ---- building a graph ------------------------------------------------------------------------ */

typedef struct em_dnn_graph {
    em_cuda_dnn *dnn;
    cudnnStatus_t status; /* the first failure; later calls do nothing */
    char why[224];        /* which step, and cuDNN's own sentence */
    cudnnBackendDescriptor_t graph;
    cudnnBackendDescriptor_t made[EM_DNN_MAX_MADE]; /* owned */
    int count;
} em_dnn_graph;

/* What a tensor looks like. by_value: its pointer at execution is a host pointer. */
typedef struct em_dnn_view {
    int64_t id; /* unique in the graph */
    cudnnDataType_t type;
    int ndim;
    int64_t dim[EM_DNN_MAX_DIMS], stride[EM_DNN_MAX_DIMS]; /* in elements */
    bool is_virtual, by_value;
} em_dnn_view;

void em_dnn_begin(em_dnn_graph *g, em_cuda_dnn *dnn);
void em_dnn_end(em_dnn_graph *g); /* destroys what was made; harmless after em_dnn_plan_open */
/* A descriptor of the graph (NULL after a failure); owned by the graph. */
cudnnBackendDescriptor_t em_dnn_make(em_dnn_graph *g, cudnnBackendDescriptorType_t type);
/* A finalized tensor descriptor; addresses are multiples of 16 bytes. */
cudnnBackendDescriptor_t em_dnn_tensor(em_dnn_graph *g, const em_dnn_view *v);
void em_dnn_set(em_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values);
void em_dnn_set_child(em_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                      cudnnBackendDescriptor_t child);
void em_dnn_finalize(em_dnn_graph *g, cudnnBackendDescriptor_t d);
/* The operation graph of n finalized operations: the last step before an engine is chosen. */
void em_dnn_join(em_dnn_graph *g, int n, const cudnnBackendDescriptor_t *ops);

/* ---- engines and plans ----------------------------------------------------------------------- */

/* One algorithm: an engine and its knobs. */
typedef struct em_dnn_choice {
    int64_t engine;
    int knobs;
    cudnnBackendKnobType_t knob[EM_DNN_MAX_KNOBS];
    int64_t value[EM_DNN_MAX_KNOBS];
} em_dnn_choice;

typedef struct em_dnn_limits {
    size_t workspace_bytes;
    uint32_t forbidden; /* bit n: engines with cudnnBackendNumericalNote_t n are passed over */
    bool unplanned;     /* believe the list: no plan is made (a compilation), no scratch known */
} em_dnn_limits;

/* The first engine of cuDNN's list (heuristic A, then B, then its fallbacks) that can be planned
 * for the graph within the limits, with the knobs that the list gives it or, when no engine can,
 * with its own. Engines that are not deterministic are always passed over. */
em_status em_dnn_choose(em_dnn_choice *out, em_dnn_graph *g, const em_dnn_limits *limits,
                        em_err *err);
/* "engine 12: 2=3 40=128", for reports; returns out. */
const char *em_dnn_choice_text(char out[128], const em_dnn_choice *c);

typedef struct em_dnn_plan em_dnn_plan;
/* On success the plan owns the graph's descriptors (g is empty) and *out is the caller's. */
em_status em_dnn_plan_open(em_dnn_plan **out, em_dnn_graph *g, const em_dnn_choice *choice,
                           em_err *err);
void em_dnn_plan_close(em_dnn_plan **plan);
size_t em_dnn_plan_workspace(const em_dnn_plan *plan); /* bytes */
/* Enqueues the plan on the handle's stream. pointers[i] is the data of tensor ids[i]. */
em_status em_dnn_execute(const em_dnn_plan *plan, int n, const int64_t *ids, void *const *pointers,
                         void *workspace, em_err *err);

/* ---- what was decided before ----------------------------------------------------------------- */

/* One remembered decision; zeroed when new, kept until the close. The owner of a key gives the
 * fields their meaning. */
typedef struct em_dnn_entry em_dnn_entry;
struct em_dnn_entry {
    em_dnn_entry *next;
    unsigned char key[EM_DNN_KEY_BYTES];
    bool decided;
    em_status status; /* EM_OK: choice (and plan) can be used */
    em_dnn_choice choice;
    em_dnn_plan *plan; /* owned by the entry; may be NULL */
};

/* The entry of a key (at most EM_DNN_KEY_BYTES bytes, padding zeroed; start it with a family tag).
 * NULL when out of memory. */
em_dnn_entry *em_dnn_entry_of(em_cuda_dnn *dnn, const void *key, size_t key_bytes);

#endif
