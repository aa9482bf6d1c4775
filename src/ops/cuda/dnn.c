#include "ops/cuda/dnn.h"

#include "base/alloc.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* name in the library without its prefix "cudnn", our name */
#define FUNCTIONS(X)                                                                               \
    X(Create, create)                                                                              \
    X(Destroy, destroy)                                                                            \
    X(SetStream, set_stream)                                                                       \
    X(GetVersion, version)                                                                         \
    X(GetErrorString, error_text)                                                                  \
    X(GetLastErrorString, last_error)                                                              \
    X(BackendCreateDescriptor, make)                                                               \
    X(BackendDestroyDescriptor, drop)                                                              \
    X(BackendFinalize, finalize)                                                                   \
    X(BackendSetAttribute, set)                                                                    \
    X(BackendGetAttribute, get)                                                                    \
    X(BackendExecute, execute)

struct em_cuda_dnn {
#define X(name, ours) __typeof__(&cudnn##name) ours;
    FUNCTIONS(X)
#undef X
    cudnnHandle_t handle;
    em_dnn_entry *entries;
};

struct em_dnn_plan {
    em_dnn_graph g; /* keeps what the plan was made from */
    cudnnBackendDescriptor_t plan;
    size_t workspace_bytes;
};

/* ---- the library ----------------------------------------------------------------------------- */

static em_status bind(em_cuda_dnn *d, void *library, const char *path, em_err *err)
{
    void *f;
#define X(name, ours)                                                                              \
    f = dlsym(library, "cudnn" #name);                                                             \
    if (!f) return em_fail(err, EM_DEVICE, "%s has no function cudnn" #name, path);                \
    memcpy(&d->ours, &f, sizeof f); /* POSIX: function and object pointers have one size */
    FUNCTIONS(X)
#undef X
    return EM_OK;
}

em_status em_cuda_dnn_open(em_cuda_dnn **out, void *library, const char *path, cudaStream_t stream,
                           em_err *err)
{
    em_cuda_dnn *d = em_alloc(sizeof *d);
    if (!d) return em_fail(err, EM_NOMEM, "cuDNN's functions");
    em_status st = bind(d, library, path, err);
    if (st) goto fail;
    size_t have = d->version();
    if (have < EM_DNN_MIN_VERSION) {
        st = em_fail(err, EM_DEVICE, "%s is cuDNN %zu.%zu.%zu; 9.13.1 or newer is needed", path,
                     have / 10000, have / 100 % 100, have % 100);
        goto fail;
    }
    cudnnStatus_t rc = d->create(&d->handle);
    if (!rc) rc = d->set_stream(d->handle, stream);
    if (rc) {
        st =
            em_fail(err, EM_DEVICE, "%s (cuDNN %zu): no handle: %s", path, have, d->error_text(rc));
        goto fail;
    }
    *out = d;
    return EM_OK;

fail:
    em_cuda_dnn_close(&d);
    return st;
}

void em_cuda_dnn_close(em_cuda_dnn **dnn)
{
    em_cuda_dnn *d = *dnn;
    if (!d) return;
    for (em_dnn_entry *e = d->entries, *next; e; e = next) {
        next = e->next;
        em_dnn_plan_close(&e->plan);
        em_free(e);
    }
    if (d->handle) d->destroy(d->handle);
    em_free(d);
    *dnn = NULL;
}

size_t em_cuda_dnn_version(const em_cuda_dnn *dnn)
{
    return dnn->version();
}

/* ---- building a graph ------------------------------------------------------------------------ */

/* Keeps the first failure, with what cuDNN says about it. */
static void note(em_dnn_graph *g, cudnnStatus_t rc, const char *step, int what)
{
    char detail[128] = "";
    if (!rc || g->status) return;
    g->status = rc;
    g->dnn->last_error(detail, sizeof detail);
    snprintf(g->why, sizeof g->why, "%s %d: %s; %s", step, what, g->dnn->error_text(rc), detail);
}

static em_status graph_error(const em_dnn_graph *g, em_err *err)
{
    if (!g->status) return EM_OK;
    return em_fail(err, EM_DEVICE, "cuDNN: %s", g->why);
}

void em_dnn_begin(em_dnn_graph *g, em_cuda_dnn *dnn)
{
    *g = (em_dnn_graph){.dnn = dnn};
}

void em_dnn_end(em_dnn_graph *g)
{
    while (g->count > 0) g->dnn->drop(g->made[--g->count]);
    g->graph = NULL;
}

cudnnBackendDescriptor_t em_dnn_make(em_dnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->status) return NULL;
    assert(g->count < EM_DNN_MAX_MADE);
    note(g, g->dnn->make(type, &d), "create descriptor", (int)type);
    if (!g->status) g->made[g->count++] = d;
    return d;
}

void em_dnn_set(em_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (!g->status) note(g, g->dnn->set(d, name, type, count, values), "attribute", (int)name);
}

void em_dnn_set_child(em_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                      cudnnBackendDescriptor_t child)
{
    em_dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &child);
}

void em_dnn_finalize(em_dnn_graph *g, cudnnBackendDescriptor_t d)
{
    if (!g->status) note(g, g->dnn->finalize(d), "finalize descriptor", g->count - 1);
}

cudnnBackendDescriptor_t em_dnn_tensor(em_dnn_graph *g, const em_dnn_view *v)
{
    const int64_t align = 16;
    cudnnBackendDescriptor_t d = em_dnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &v->type);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, v->ndim, v->dim);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, v->ndim, v->stride);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &v->id);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &v->is_virtual);
    em_dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &v->by_value);
    em_dnn_finalize(g, d);
    return d;
}

void em_dnn_join(em_dnn_graph *g, int n, const cudnnBackendDescriptor_t *ops)
{
    cudnnBackendDescriptor_t d = em_dnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (g->status) return;
    em_dnn_set(g, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->dnn->handle);
    em_dnn_set(g, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, ops);
    em_dnn_finalize(g, d);
    g->graph = d;
}

/* ---- engines --------------------------------------------------------------------------------- */

/* Descriptors that one attempt needs; a failed attempt must not spoil the graph. */
typedef struct attempt {
    em_dnn_graph g;
    cudnnBackendDescriptor_t plan;
    int64_t workspace_bytes;
} attempt;

/* The configuration of a choice, for this graph. */
static cudnnBackendDescriptor_t config_of(em_dnn_graph *g, const em_dnn_choice *c)
{
    cudnnBackendDescriptor_t knobs[EM_DNN_MAX_KNOBS] = {NULL};
    cudnnBackendDescriptor_t engine = em_dnn_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    em_dnn_set_child(g, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, g->graph);
    em_dnn_set(g, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &c->engine);
    em_dnn_finalize(g, engine);
    for (int i = 0; i < c->knobs; i++) {
        knobs[i] = em_dnn_make(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        em_dnn_set(g, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                   &c->knob[i]);
        em_dnn_set(g, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
                   &c->value[i]);
        em_dnn_finalize(g, knobs[i]);
    }
    cudnnBackendDescriptor_t config = em_dnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    em_dnn_set_child(g, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    if (c->knobs > 0)
        em_dnn_set(g, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                   c->knobs, knobs);
    em_dnn_finalize(g, config);
    return config;
}

/* A plan of a choice; a->g.status says whether it worked. */
static void try_plan(attempt *a, const em_dnn_choice *c)
{
    em_dnn_graph *g = &a->g;
    int64_t n = 0;
    cudnnBackendDescriptor_t config = config_of(g, c);
    a->plan = em_dnn_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (g->status) return;
    em_dnn_set(g, a->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->dnn->handle);
    em_dnn_set_child(g, a->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    em_dnn_finalize(g, a->plan);
    if (!g->status)
        note(g,
             g->dnn->get(a->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                         &a->workspace_bytes),
             "attribute", CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
}

/* Reads at most max descriptors of an attribute into freshly made ones; returns how many. */
static int64_t read_children(em_dnn_graph *g, cudnnBackendDescriptor_t d,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                             int64_t max, cudnnBackendDescriptor_t *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < max; i++) out[i] = em_dnn_make(g, type);
    if (g->status) return 0;
    note(g, g->dnn->get(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, max, &n, out), "read of", name);
    return g->status ? 0 : n < max ? n : max;
}

static uint32_t notes_of(const em_cuda_dnn *dnn, cudnnBackendDescriptor_t engine)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t n = 0;
    uint32_t mask = 0;
    if (dnn->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes))
        return 0;
    for (int64_t i = 0; i < n && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++) mask |= 1u << notes[i];
    return mask;
}

/* What a configuration of the heuristic consists of. */
static void read_choice(em_dnn_choice *out, uint32_t *notes, em_dnn_graph *scratch,
                        cudnnBackendDescriptor_t config)
{
    const em_cuda_dnn *dnn = scratch->dnn;
    cudnnBackendDescriptor_t engine = NULL, knobs[EM_DNN_MAX_KNOBS] = {NULL};
    int64_t n = 0;
    *out = (em_dnn_choice){.engine = -1};
    read_children(scratch, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1,
                  &engine);
    if (!scratch->status)
        note(scratch,
             dnn->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n,
                      &out->engine),
             "engine index", 0);
    if (scratch->status) return;
    *notes = notes_of(dnn, engine);
    int64_t count =
        read_children(scratch, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                      CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS, knobs);
    scratch->status = CUDNN_STATUS_SUCCESS; /* unreadable: an engine without knobs */
    for (int64_t i = 0; i < count; i++) {
        note(scratch,
             dnn->get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &n,
                      &out->knob[i]),
             "knob type", (int)i);
        note(scratch,
             dnn->get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &n,
                      &out->value[i]),
             "knob value", (int)i);
    }
    out->knobs = (int)count;
}

/* Whether a configuration of the heuristic can be used, without its knobs if `bare`; fills *out
 * when so, else writes the reason into g. */
static bool accept_config(em_dnn_choice *out, em_dnn_graph *g, cudnnBackendDescriptor_t config,
                          bool bare, const em_dnn_limits *limits)
{
    uint32_t notes = 0, forbidden = limits->forbidden | 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    attempt a = {0};
    em_dnn_begin(&a.g, g->dnn);
    read_choice(out, &notes, &a.g, config);
    em_dnn_end(&a.g);
    if (bare) out->knobs = 0;
    bool usable = !a.g.status && !(notes & forbidden);
    if (!usable && !a.g.status)
        snprintf(a.g.why, sizeof a.g.why, "notes 0x%x are forbidden", notes);
    if (usable) {
        a.g.graph = g->graph;
        if (limits->unplanned)
            config_of(&a.g, out);
        else
            try_plan(&a, out);
        em_dnn_end(&a.g);
        usable = !a.g.status && (size_t)a.workspace_bytes <= limits->workspace_bytes;
        if (!usable && !a.g.status)
            snprintf(a.g.why, sizeof a.g.why, "%lld bytes of workspace are too many",
                     (long long)a.workspace_bytes);
    }
    if (!usable)
        snprintf(g->why, sizeof g->why, "engine %lld: %.180s", (long long)out->engine, a.g.why);
    return usable;
}

/* Tries the configurations of one heuristic in its order. */
static bool choose_by(em_dnn_choice *out, em_dnn_graph *g, cudnnBackendHeurMode_t mode, bool bare,
                      const em_dnn_limits *limits)
{
    cudnnBackendDescriptor_t configs[EM_DNN_MAX_MADE - 1];
    em_dnn_graph h;
    bool found = false;
    em_dnn_begin(&h, g->dnn);
    cudnnBackendDescriptor_t heuristic = em_dnn_make(&h, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    em_dnn_set_child(&h, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
    em_dnn_set(&h, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    em_dnn_finalize(&h, heuristic);
    int64_t n = 0;
    if (!h.status)
        note(&h,
             g->dnn->get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                         &n, NULL),
             "count of", CUDNN_ATTR_ENGINEHEUR_RESULTS);
    if (n > EM_DNN_MAX_MADE - 1) n = EM_DNN_MAX_MADE - 1;
    n = read_children(&h, heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                      CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, n, configs);
    for (int64_t i = 0; i < n && !found; i++)
        found = accept_config(out, g, configs[i], bare, limits);
    if (h.status) snprintf(g->why, sizeof g->why, "heuristic %d: %.180s", (int)mode, h.why);
    em_dnn_end(&h);
    return found;
}

em_status em_dnn_choose(em_dnn_choice *out, em_dnn_graph *g, const em_dnn_limits *limits,
                        em_err *err)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                                   CUDNN_HEUR_MODE_FALLBACK};
    em_dnn_choice c;
    em_status st = graph_error(g, err);
    if (st) return st;
    snprintf(g->why, sizeof g->why, "it offers no engine");
    const size_t count = sizeof modes / sizeof *modes;
    for (size_t i = 0; i < 2 * count; i++) {
        if (!choose_by(&c, g, modes[i % count], i >= count, limits)) continue;
        *out = c;
        return EM_OK;
    }
    return em_fail(err, EM_DEVICE, "cuDNN has no engine for the graph; the last refusal: %s",
                   g->why);
}

const char *em_dnn_choice_text(char out[128], const em_dnn_choice *c)
{
    size_t at = (size_t)snprintf(out, 128, "engine %lld:", (long long)c->engine);
    for (int i = 0; i < c->knobs && at < 127; i++)
        at += (size_t)snprintf(out + at, 128 - at, " %d=%lld", (int)c->knob[i],
                               (long long)c->value[i]);
    return out;
}

/* ---- plans ----------------------------------------------------------------------------------- */

em_status em_dnn_plan_open(em_dnn_plan **out, em_dnn_graph *g, const em_dnn_choice *choice,
                           em_err *err)
{
    em_status st = graph_error(g, err);
    if (st) return st;
    em_dnn_plan *p = em_alloc(sizeof *p);
    if (!p) return em_fail(err, EM_NOMEM, "a cuDNN plan");
    attempt a = {.g = *g};
    try_plan(&a, choice);
    *g = a.g;
    st = graph_error(g, err);
    if (st) {
        em_free(p);
        return st;
    }
    p->g = *g;
    p->plan = a.plan;
    p->workspace_bytes = (size_t)a.workspace_bytes;
    em_dnn_begin(g, p->g.dnn);
    *out = p;
    return EM_OK;
}

void em_dnn_plan_close(em_dnn_plan **plan)
{
    if (!*plan) return;
    em_dnn_end(&(*plan)->g);
    em_free(*plan);
    *plan = NULL;
}

size_t em_dnn_plan_workspace(const em_dnn_plan *plan)
{
    return plan->workspace_bytes;
}

em_status em_dnn_execute(const em_dnn_plan *plan, int n, const int64_t *ids, void *const *pointers,
                         void *workspace, em_err *err)
{
    em_dnn_graph g;
    em_dnn_begin(&g, plan->g.dnn);
    cudnnBackendDescriptor_t pack = em_dnn_make(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    em_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    em_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointers);
    em_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    em_dnn_finalize(&g, pack);
    if (!g.status) note(&g, g.dnn->execute(g.dnn->handle, plan->plan, pack), "execution", 0);
    em_dnn_end(&g);
    return graph_error(&g, err);
}

/* ---- what was decided before ----------------------------------------------------------------- */

em_dnn_entry *em_dnn_entry_of(em_cuda_dnn *dnn, const void *key, size_t key_bytes)
{
    unsigned char padded[EM_DNN_KEY_BYTES] = {0};
    assert(key_bytes <= sizeof padded);
    memcpy(padded, key, key_bytes);
    for (em_dnn_entry *e = dnn->entries; e; e = e->next)
        if (!memcmp(e->key, padded, sizeof padded)) return e;
    em_dnn_entry *e = em_alloc(sizeof *e);
    if (!e) return NULL;
    memcpy(e->key, padded, sizeof padded);
    e->next = dnn->entries;
    dnn->entries = e;
    return e;
}
