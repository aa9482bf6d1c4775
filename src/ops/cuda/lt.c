#include "ops/cuda/lt.h"

#include "base/alloc.h"

#include <assert.h>
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* name in the library without its prefix "cublas", our name */
#define FUNCTIONS(X)                                                                               \
    X(LtCreate, create)                                                                            \
    X(LtDestroy, destroy)                                                                          \
    X(LtGetVersion, version)                                                                       \
    X(LtGetStatusString, error_text)                                                               \
    X(LtMatmul, matmul)                                                                            \
    X(LtMatmulDescCreate, desc_create)                                                             \
    X(LtMatmulDescDestroy, desc_destroy)                                                           \
    X(LtMatmulDescSetAttribute, desc_set)                                                          \
    X(LtMatrixLayoutCreate, layout_create)                                                         \
    X(LtMatrixLayoutDestroy, layout_destroy)                                                       \
    X(LtMatrixLayoutSetAttribute, layout_set)                                                      \
    X(LtMatmulPreferenceCreate, preference_create)                                                 \
    X(LtMatmulPreferenceDestroy, preference_destroy)                                               \
    X(LtMatmulPreferenceSetAttribute, preference_set)                                              \
    X(LtMatmulAlgoGetHeuristic, heuristic)                                                         \
    X(LtMatmulAlgoCheck, check)                                                                    \
    X(LtMatmulAlgoConfigGetAttribute, config_get)

enum {
    MIN_VERSION = 120000,
    CANDIDATES = 32,
    MAX_ALIGN = 16,
};

/* What the choice is made for: the transformer's tokens, about. The others are asked where none of
 * the algorithms for that takes every height. */
static const int64_t usual_rows[] = {16384, 2048, 256, 1};

/* Heights that the chosen algorithm must accept: a time step, a prompt, an image, many tokens. */
static const int64_t probe_rows[] = {1, 2, 21, 257, 512, 2047, 16384, 77824};

/* What an algorithm belongs to. Alignments are those of the layer (a row's bytes, the weights'
 * place), not of the piece of work. No padding: keys are compared as bytes. */
typedef struct layer {
    int64_t n, k, d_step, type, d_type, epilogue, batch, w_step, bias_step;
    uint32_t align_x, align_w, align_d, align_bias;
} layer;

/* The layer's product in cuBLASLt's terms. Its matrices are column-major, so it computes the
 * transpose: d^T (n, rows) = w (n, k) x^T (k, rows). */
typedef struct plan {
    layer key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, d;
    cublasLtMatmulAlgo_t algo;
    bool none; /* there is no algorithm */
} plan;

struct em_cuda_lt {
#define X(name, ours) __typeof__(&cublas##name) ours;
    FUNCTIONS(X)
#undef X
    cublasLtHandle_t handle;
    plan *plans;
    size_t count, room;
};

/* ---- the library ----------------------------------------------------------------------------- */

static em_status bind(em_cuda_lt *lt, void *library, const char *path, em_err *err)
{
    void *f;
#define X(name, ours)                                                                              \
    f = dlsym(library, "cublas" #name);                                                            \
    if (!f) return em_fail(err, EM_DEVICE, "%s has no function cublas" #name, path);               \
    memcpy(&lt->ours, &f, sizeof f); /* POSIX: function and object pointers have one size */
    FUNCTIONS(X)
#undef X
    return EM_OK;
}

em_status em_cuda_lt_open(em_cuda_lt **out, void *library, const char *path, em_err *err)
{
    em_cuda_lt *lt = em_alloc(sizeof *lt);
    if (!lt) return em_fail(err, EM_NOMEM, "cuBLASLt's functions");
    em_status st = bind(lt, library, path, err);
    if (st) goto fail;
    size_t have = lt->version();
    if (have < MIN_VERSION) {
        st = em_fail(err, EM_DEVICE, "%s is cuBLASLt %zu.%zu; 12.0 or newer is needed", path,
                     have / 10000, have / 100 % 100);
        goto fail;
    }
    cublasStatus_t rc = lt->create(&lt->handle);
    if (rc) {
        lt->handle = NULL;
        st = em_fail(err, EM_DEVICE, "%s: no cuBLASLt handle: %s", path, lt->error_text(rc));
        goto fail;
    }
    *out = lt;
    return EM_OK;

fail:
    em_cuda_lt_close(&lt);
    return st;
}

static void close_plan(const em_cuda_lt *lt, plan *p)
{
    if (p->desc) lt->desc_destroy(p->desc);
    if (p->w) lt->layout_destroy(p->w);
    if (p->x) lt->layout_destroy(p->x);
    if (p->d) lt->layout_destroy(p->d);
}

void em_cuda_lt_close(em_cuda_lt **lt)
{
    em_cuda_lt *l = *lt;
    if (!l) return;
    for (size_t i = 0; i < l->count; i++) close_plan(l, &l->plans[i]);
    if (l->handle) l->destroy(l->handle);
    em_free(l->plans);
    em_free(l);
    *lt = NULL;
}

size_t em_cuda_lt_version(const em_cuda_lt *lt)
{
    return lt->version();
}

/* ---- layers ---------------------------------------------------------------------------------- */

static cudaDataType_t type_of(int64_t dtype)
{
    return dtype == EM_F32 ? CUDA_R_32F : dtype == EM_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

bool em_lt_fuses(em_act act)
{
    return act == EM_ACT_NONE || act == EM_ACT_RELU || act == EM_ACT_GELU_TANH;
}

static cublasLtEpilogue_t epilogue_of(em_act act, bool bias)
{
    if (act == EM_ACT_RELU) return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    if (act == EM_ACT_GELU_TANH) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* The largest power of two up to MAX_ALIGN that divides the address and the bytes of a row. */
static uint32_t alignment(const void *at, size_t row_bytes)
{
    uint32_t a = MAX_ALIGN;
    while (((uintptr_t)at | row_bytes) & (a - 1)) a /= 2;
    return a;
}

static layer layer_of(const em_lt_product *p)
{
    layer l;
    size_t in = em_dtype_bytes(p->type), out = em_dtype_bytes(p->d_type);
    memset(&l, 0, sizeof l);
    l.n = p->n;
    l.k = p->k;
    l.d_step = p->d_step;
    l.type = p->type;
    l.d_type = p->d_type;
    l.epilogue = epilogue_of(p->act, p->bias != NULL);
    l.batch = p->batch > 1 ? p->batch : 1;
    l.w_step = l.batch > 1 ? p->w_step : 0;
    l.bias_step = l.batch > 1 && p->bias ? p->bias_step : 0;
    l.align_x = alignment(p->x, (size_t)p->k * in);
    l.align_w = alignment(p->w, (size_t)p->k * in | (size_t)l.w_step * in);
    l.align_d = alignment(p->d, (size_t)p->d_step * out);
    l.align_bias = p->bias ? alignment(p->bias, (size_t)l.bias_step * out) : MAX_ALIGN;
    return l;
}

static cublasStatus_t describe_bias(const em_cuda_lt *lt, plan *p)
{
    const layer *l = &p->key;
    cudaDataType_t type = type_of(l->d_type);
    const void *bias = (const void *)(uintptr_t)(4096 + l->align_bias); /* read as an alignment */
    cublasStatus_t rc =
        lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type);
    if (!rc) rc = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (rc || l->batch == 1) return rc;
    return lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, &l->bias_step,
                        sizeof l->bias_step);
}

/* `step` elements from one matrix of a batch to the next. */
static cublasStatus_t set_batch(const em_cuda_lt *lt, cublasLtMatrixLayout_t m, int64_t count,
                                int64_t step)
{
    int32_t n = (int32_t)count;
    if (n == 1) return CUBLAS_STATUS_SUCCESS;
    cublasStatus_t rc = lt->layout_set(m, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n);
    return rc ? rc
              : lt->layout_set(m, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
}

/* Descriptors of a layer; set_rows gives them their height. */
static cublasStatus_t describe(const em_cuda_lt *lt, plan *p)
{
    const layer *l = &p->key;
    uint64_t n = (uint64_t)l->n, k = (uint64_t)l->k;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)l->epilogue;
    cublasStatus_t rc = lt->desc_create(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!rc) rc = lt->layout_create(&p->w, type_of(l->type), k, n, l->k);
    if (!rc) rc = lt->layout_create(&p->x, type_of(l->type), k, 1, l->k);
    if (!rc) rc = lt->layout_create(&p->d, type_of(l->d_type), n, 1, l->d_step);
    if (!rc) rc = set_batch(lt, p->w, l->batch, l->w_step);
    if (!rc) rc = set_batch(lt, p->x, l->batch, 0);
    if (!rc)
        rc = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (!rc) rc = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    return rc || !(l->epilogue & CUBLASLT_EPILOGUE_BIAS) ? rc : describe_bias(lt, p);
}

static cublasStatus_t set_rows(const em_cuda_lt *lt, const plan *p, int64_t rows)
{
    uint64_t cols = (uint64_t)rows;
    cublasStatus_t rc = lt->layout_set(p->x, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols);
    if (!rc) rc = lt->layout_set(p->d, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols);
    return rc ? rc : set_batch(lt, p->d, p->key.batch, rows * p->key.d_step);
}

/* 0 where the algorithm knows no such thing. */
static uint32_t config(const em_cuda_lt *lt, const cublasLtMatmulAlgo_t *a,
                       cublasLtMatmulAlgoConfigAttributes_t what)
{
    uint32_t v = 0;
    size_t written;
    return lt->config_get(a, what, &v, sizeof v, &written) ? 0 : v;
}

/* One block sums all of k, and the algorithm takes any number of rows. */
static bool suits(const em_cuda_lt *lt, const plan *p, const cublasLtMatmulAlgo_t *a)
{
    if (config(lt, a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1) return false;
    if (config(lt, a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) != CUBLASLT_REDUCTION_SCHEME_NONE)
        return false;
    for (size_t i = 0; i < sizeof probe_rows / sizeof *probe_rows; i++) {
        cublasLtMatmulHeuristicResult_t r;
        if (set_rows(lt, p, probe_rows[i])) return false;
        if (lt->check(lt->handle, p->desc, p->w, p->x, p->d, p->d, a, &r)) return false;
        if (r.state || r.workspaceSize > EM_LT_WORKSPACE_BYTES) return false;
    }
    return true;
}

static cublasStatus_t preference_of(const em_cuda_lt *lt, const layer *l,
                                    cublasLtMatmulPreference_t *out)
{
    uint64_t workspace = EM_LT_WORKSPACE_BYTES;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size_bytes;
    } rows[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &l->align_w, sizeof l->align_w},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &l->align_x, sizeof l->align_x},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &l->align_d, sizeof l->align_d},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &l->align_d, sizeof l->align_d},
    };
    cublasStatus_t rc = lt->preference_create(out);
    for (size_t i = 0; !rc && i < sizeof rows / sizeof *rows; i++)
        rc = lt->preference_set(*out, rows[i].name, rows[i].value, rows[i].size_bytes);
    return rc;
}

/* The first suitable algorithm of cuBLASLt's list for a height, best first. */
static cublasStatus_t choose_for(const em_cuda_lt *lt, plan *p, int64_t rows,
                                 cublasLtMatmulPreference_t preference, bool *found)
{
    cublasLtMatmulHeuristicResult_t list[CANDIDATES];
    int n = 0;
    cublasStatus_t rc = set_rows(lt, p, rows);
    if (!rc)
        rc = lt->heuristic(lt->handle, p->desc, p->w, p->x, p->d, p->d, preference, CANDIDATES,
                           list, &n);
    for (int i = 0; !rc && i < n && !*found; i++) {
        *found = !list[i].state && suits(lt, p, &list[i].algo);
        if (*found) p->algo = list[i].algo;
    }
    return rc;
}

static em_status choose(const em_cuda_lt *lt, plan *p, em_err *err)
{
    cublasLtMatmulPreference_t preference = NULL;
    bool found = false;
    cublasStatus_t rc = preference_of(lt, &p->key, &preference), last = rc;
    for (size_t i = 0; !rc && !found && i < sizeof usual_rows / sizeof *usual_rows; i++)
        last = choose_for(lt, p, usual_rows[i], preference, &found);
    if (preference) lt->preference_destroy(preference);
    if (found) return EM_OK;
    return em_fail(err, EM_DEVICE, "cuBLASLt has no algorithm that takes any number of rows (%s)",
                   lt->error_text(last));
}

static em_status add_plan(em_cuda_lt *lt, const layer *key, plan **out, em_err *err)
{
    if (lt->count == lt->room) {
        size_t room = lt->room ? 2 * lt->room : 32;
        plan *grown = em_realloc_array(lt->plans, room, sizeof *grown);
        if (!grown) return em_fail(err, EM_NOMEM, "%zu matrix products", room);
        lt->plans = grown;
        lt->room = room;
    }
    plan *p = &lt->plans[lt->count];
    memset(p, 0, sizeof *p);
    p->key = *key;
    cublasStatus_t rc = describe(lt, p);
    em_status st =
        rc ? em_fail(err, EM_DEVICE, "cuBLASLt: %s", lt->error_text(rc)) : choose(lt, p, err);
    p->none = st != EM_OK;
    lt->count++;
    *out = p;
    return st;
}

static em_status plan_of(em_cuda_lt *lt, const em_lt_product *p, plan **out, em_err *err)
{
    layer key = layer_of(p);
    for (size_t i = 0; i < lt->count; i++) {
        if (memcmp(&lt->plans[i].key, &key, sizeof key) != 0) continue;
        *out = &lt->plans[i];
        if (!lt->plans[i].none) return EM_OK;
        return em_fail(err, EM_DEVICE, "cuBLASLt has no algorithm for this layer");
    }
    return add_plan(lt, &key, out, err);
}

bool em_lt_has(em_cuda_lt *lt, const em_lt_product *p)
{
    plan *layer_plan;
    em_err ignored = {0};
    return plan_of(lt, p, &layer_plan, &ignored) == EM_OK;
}

/* ---- products -------------------------------------------------------------------------------- */

em_status em_lt_multiply(em_cuda_lt *lt, const em_lt_product *p, void *workspace,
                         cudaStream_t stream, em_err *err)
{
    plan *layer_plan;
    const float one = 1, zero = 0;
    assert(em_lt_fuses(p->act));
    em_status st = plan_of(lt, p, &layer_plan, err);
    if (st) return st;
    cublasStatus_t rc = set_rows(lt, layer_plan, p->rows);
    if (!rc && p->bias)
        rc = lt->desc_set(layer_plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias,
                          sizeof p->bias);
    if (!rc)
        rc = lt->matmul(lt->handle, layer_plan->desc, &one, p->w, layer_plan->w, p->x,
                        layer_plan->x, &zero, p->d, layer_plan->d, p->d, layer_plan->d,
                        &layer_plan->algo, workspace, EM_LT_WORKSPACE_BYTES, stream);
    char algo[160];
    return rc ? em_fail(err, EM_DEVICE, "cuBLASLt: %s (%s)", lt->error_text(rc),
                        em_lt_describe(lt, p, algo))
              : EM_OK;
}

const char *em_lt_describe(em_cuda_lt *lt, const em_lt_product *p, char out[160])
{
    plan *layer_plan;
    em_err err;
    if (plan_of(lt, p, &layer_plan, &err)) {
        snprintf(out, 160, "%.159s", err.msg);
        return out;
    }
    const cublasLtMatmulAlgo_t *a = &layer_plan->algo;
    snprintf(out, 160, "algo %u tile %u stages %u cluster %u swizzle %u custom %u",
             config(lt, a, CUBLASLT_ALGO_CONFIG_ID), config(lt, a, CUBLASLT_ALGO_CONFIG_TILE_ID),
             config(lt, a, CUBLASLT_ALGO_CONFIG_STAGES_ID),
             config(lt, a, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID) & 0xffffu,
             config(lt, a, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING),
             config(lt, a, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION));
    return out;
}
