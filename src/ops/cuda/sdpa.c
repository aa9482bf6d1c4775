#include "ops/cuda/sdpa.h"

#include <string.h>

enum { ID_Q = 1, ID_K, ID_V, ID_Y, ID_SCALE };

/* The length for which an engine is asked for: what it prefers here serves all lengths. */
enum { TYPICAL_LENGTH = 16384 };

/* What a remembered decision belongs to: a choice to the heads, a plan to the whole shape. */
typedef struct key {
    char family[8];
    int64_t type, heads, dim, batch, nq, nk;
} key;

/* Token-major data as cuDNN's (batch, heads, tokens, channels). */
static cudnnBackendDescriptor_t tokens(em_dnn_graph *g, const em_sdpa_shape *s, int id, int64_t n)
{
    int64_t width = s->heads * s->dim;
    em_dnn_view v = {.id = id,
                     .type = s->type == EM_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF,
                     .ndim = 4,
                     .dim = {s->batch, s->heads, n, s->dim},
                     .stride = {n * width, s->dim, width, 1}};
    return em_dnn_tensor(g, &v);
}

static void build(em_dnn_graph *g, em_cuda_dnn *dnn, const em_sdpa_shape *s)
{
    em_dnn_begin(g, dnn);
    em_dnn_view one = {.id = ID_SCALE,
                       .type = CUDNN_DATA_FLOAT,
                       .ndim = 4,
                       .dim = {1, 1, 1, 1},
                       .stride = {1, 1, 1, 1},
                       .by_value = true};
    cudnnBackendDescriptor_t q = tokens(g, s, ID_Q, s->nq), k = tokens(g, s, ID_K, s->nk);
    cudnnBackendDescriptor_t v = tokens(g, s, ID_V, s->nk), y = tokens(g, s, ID_Y, s->nq);
    cudnnBackendDescriptor_t scale = em_dnn_tensor(g, &one);
    cudnnBackendDescriptor_t op = em_dnn_make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, y);
    em_dnn_set_child(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, scale);
    em_dnn_finalize(g, op);
    em_dnn_join(g, 1, &op);
}

static em_dnn_entry *choice_of(em_cuda_dnn *dnn, const em_sdpa_shape *s, em_err *err)
{
    key k = {.family = "sdpa", .type = s->type, .heads = s->heads, .dim = s->dim};
    em_dnn_entry *e = em_dnn_entry_of(dnn, &k, sizeof k);
    if (!e || e->decided) return e;
    em_sdpa_shape typical = *s;
    typical.batch = 1;
    typical.nq = typical.nk = TYPICAL_LENGTH;
    const em_dnn_limits limits = {.unplanned = true};
    em_dnn_graph g;
    build(&g, dnn, &typical);
    e->status = em_dnn_choose(&e->choice, &g, &limits, err);
    e->decided = true;
    em_dnn_end(&g);
    return e;
}

/* The entry of a planned shape; NULL: err says why not. */
static const em_dnn_entry *plan_of(em_cuda_dnn *dnn, const em_sdpa_shape *s, em_err *err)
{
    key k = {.family = "sdpa", .type = s->type, .heads = s->heads, .dim = s->dim};
    k.batch = s->batch;
    k.nq = s->nq;
    k.nk = s->nk;
    em_dnn_entry *e = em_dnn_entry_of(dnn, &k, sizeof k);
    if (!e) return em_fail(err, EM_NOMEM, "a cuDNN plan"), NULL;
    if (!e->decided) {
        const em_dnn_entry *c = choice_of(dnn, s, err);
        if (!c) return em_fail(err, EM_NOMEM, "a cuDNN plan"), NULL;
        e->status = c->status;
        if (!e->status) {
            em_dnn_graph g;
            build(&g, dnn, s);
            e->status = em_dnn_plan_open(&e->plan, &g, &c->choice, err);
            em_dnn_end(&g);
        }
        if (e->status == EM_NOMEM) return NULL; /* may go better another time */
        e->decided = true;
        return e->status ? NULL : e;
    }
    if (e->status) return em_fail(err, e->status, "cuDNN has no attention for the shape"), NULL;
    return e;
}

em_status em_sdpa_workspace(em_cuda_dnn *dnn, const em_sdpa_shape *s, size_t *workspace_bytes,
                            em_err *err)
{
    const em_dnn_entry *e = plan_of(dnn, s, err);
    if (!e) return err->code;
    *workspace_bytes = em_dnn_plan_workspace(e->plan);
    return EM_OK;
}

em_status em_sdpa(em_cuda_dnn *dnn, const em_sdpa_shape *s, float scale, void *y, const void *q,
                  const void *k, const void *v, void *workspace, em_err *err)
{
    static const int64_t ids[] = {ID_Q, ID_K, ID_V, ID_Y, ID_SCALE};
    void *const pointers[] = {(void *)q, (void *)k, (void *)v, y, &scale};
    const em_dnn_entry *e = plan_of(dnn, s, err);
    if (!e) return err->code;
    return em_dnn_execute(e->plan, sizeof ids / sizeof *ids, ids, pointers, workspace, err);
}

const char *em_sdpa_engine(char out[128], em_cuda_dnn *dnn, const em_sdpa_shape *s)
{
    em_err err = {0};
    const em_dnn_entry *e = choice_of(dnn, s, &err);
    out[0] = '\0';
    return e && !e->status ? em_dnn_choice_text(out, &e->choice) : out;
}
