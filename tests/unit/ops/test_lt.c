/* ops/cuda/lt.c and linear.c against a stand-in for cuBLASLt: this program itself, opened as a
 * library. It multiplies on the host, offers the algorithms that a test lists, and keeps books of
 * which was used. No GPU. */
#include "ops/cuda/lt.h"

#include "../test.h"
#include "base/alloc.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/linear_kernels.h"
#include "ops/ref/ref.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* ---- the stand-in ---------------------------------------------------------------------------- */

typedef struct algorithm {
    int64_t from_rows, to_rows; /* heights that it takes */
    uint32_t split;             /* parts that it cuts the sum into */
    size_t workspace_bytes;
    int64_t only_for; /* the one height that it is offered for; 0: any */
} algorithm;

typedef struct object { /* a description, a layout or a preference */
    int64_t type, rows, cols, step;
    int32_t transposed, epilogue, bias_type, reduction;
    uint64_t workspace_bytes;
    const void *bias;
} object;

static struct {
    size_t version;
    const algorithm *list;
    int count;
    int live, heuristics, handles; /* objects not destroyed; calls; handles not destroyed */
    uint64_t used;                 /* by the last product */
} fake;

#define EXPORT __attribute__((visibility("default"))) cublasStatus_t

__attribute__((visibility("default"))) size_t cublasLtGetVersion(void)
{
    return fake.version;
}

__attribute__((visibility("default"))) const char *cublasLtGetStatusString(cublasStatus_t rc)
{
    return rc ? "refused" : "fine";
}

EXPORT cublasLtCreate(cublasLtHandle_t *out)
{
    *out = (cublasLtHandle_t)&fake;
    fake.handles++;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtDestroy(cublasLtHandle_t h)
{
    (void)h;
    fake.handles--;
    return CUBLAS_STATUS_SUCCESS;
}

static object *new_object(void)
{
    object *o = calloc(1, sizeof *o);
    assert_non_null(o);
    fake.live++;
    return o;
}

static cublasStatus_t drop(void *o)
{
    assert_non_null(o);
    free(o);
    fake.live--;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                cudaDataType_t scale)
{
    assert_int_equal(compute, CUBLAS_COMPUTE_32F); /* no TF32 */
    assert_int_equal(scale, CUDA_R_32F);
    *out = (cublasLtMatmulDesc_t)new_object();
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    return drop(d);
}

EXPORT cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name,
                                      const void *value, size_t size)
{
    object *o = (object *)d;
    void *to = name == CUBLASLT_MATMUL_DESC_TRANSA           ? (void *)&o->transposed
               : name == CUBLASLT_MATMUL_DESC_EPILOGUE       ? (void *)&o->epilogue
               : name == CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE ? (void *)&o->bias_type
               : name == CUBLASLT_MATMUL_DESC_BIAS_POINTER   ? (void *)&o->bias
                                                             : NULL;
    if (!to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                  uint64_t cols, int64_t step)
{
    object *o = new_object();
    o->type = type;
    o->rows = (int64_t)rows;
    o->cols = (int64_t)cols;
    o->step = step;
    *out = (cublasLtMatrixLayout_t)o;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    return drop(l);
}

EXPORT cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                        cublasLtMatrixLayoutAttribute_t name, const void *value,
                                        size_t size)
{
    assert_int_equal(name, CUBLASLT_MATRIX_LAYOUT_COLS);
    memcpy(&((object *)l)->cols, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = (cublasLtMatmulPreference_t)new_object();
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    return drop(p);
}

EXPORT cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                            cublasLtMatmulPreferenceAttributes_t name,
                                            const void *value, size_t size)
{
    object *o = (object *)p;
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) memcpy(&o->workspace_bytes, value, size);
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) memcpy(&o->reduction, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                      cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                      cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                      cublasLtMatmulPreference_t preference, int room,
                                      cublasLtMatmulHeuristicResult_t *out, int *n)
{
    (void)h, (void)desc, (void)a, (void)c, (void)d;
    const object *p = (const object *)preference, *x = (const object *)b;
    assert_int_equal(p->reduction, CUBLASLT_REDUCTION_SCHEME_NONE);
    assert_int_equal(p->workspace_bytes, EM_LT_WORKSPACE_BYTES);
    fake.heuristics++;
    *n = 0;
    for (int i = 0; i < fake.count && *n < room; i++) {
        if (fake.list[i].only_for && fake.list[i].only_for != x->cols) continue;
        memset(&out[*n], 0, sizeof *out);
        out[(*n)++].algo.data[0] = (uint64_t)i;
    }
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

EXPORT cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                               const cublasLtMatmulAlgo_t *algo,
                               cublasLtMatmulHeuristicResult_t *out)
{
    (void)h, (void)desc, (void)a, (void)c;
    const algorithm *x = &fake.list[algo->data[0]];
    int64_t rows = ((const object *)b)->cols;
    assert_int_equal(rows, ((const object *)d)->cols);
    memset(out, 0, sizeof *out);
    out->workspaceSize = x->workspace_bytes;
    return rows < x->from_rows || rows > x->to_rows ? CUBLAS_STATUS_NOT_SUPPORTED
                                                    : CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                            cublasLtMatmulAlgoConfigAttributes_t name, void *out,
                                            size_t size, size_t *written)
{
    uint32_t v = 0;
    if (name == CUBLASLT_ALGO_CONFIG_SPLITK_NUM) v = fake.list[algo->data[0]].split;
    if (name == CUBLASLT_ALGO_CONFIG_ID) v = (uint32_t)algo->data[0];
    memcpy(out, &v, size);
    *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

static em_dtype dtype_of(int64_t type)
{
    return type == CUDA_R_32F ? EM_F32 : type == CUDA_R_16F ? EM_F16 : EM_BF16;
}

static em_act act_of(int epilogue)
{
    if (epilogue & CUBLASLT_EPILOGUE_RELU) return EM_ACT_RELU;
    return epilogue & CUBLASLT_EPILOGUE_GELU ? EM_ACT_GELU_TANH : EM_ACT_NONE;
}

/* Column-major, as the library has it: d (n, rows) = a (k, n)^T b (k, rows). */
EXPORT cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha,
                      const void *a, cublasLtMatrixLayout_t la, const void *b,
                      cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                      cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                      const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                      cudaStream_t stream)
{
    (void)h, (void)c, (void)lc, (void)stream;
    const object *o = (const object *)desc, *w = (const object *)la, *x = (const object *)lb;
    const object *y = (const object *)ld;
    assert_true(*(const float *)alpha == 1 && *(const float *)beta == 0);
    assert_int_equal(o->transposed, CUBLAS_OP_T);
    assert_true((uintptr_t)workspace % 256 == 0); /* the library refuses others */
    assert_int_equal(workspace_bytes, EM_LT_WORKSPACE_BYTES);
    em_dtype in = dtype_of(w->type), out = dtype_of(y->type);
    bool bias = o->epilogue & CUBLASLT_EPILOGUE_BIAS;
    if (bias) assert_int_equal(o->bias_type, y->type);
    fake.used = algo->data[0];
    for (int64_t r = 0; r < y->cols; r++)
        for (int64_t n = 0; n < y->rows; n++) {
            double sum = bias ? em_load_f32(o->bias, out, (size_t)n) : 0;
            for (int64_t k = 0; k < w->rows; k++)
                sum += (double)em_load_f32(a, in, (size_t)(n * w->step + k)) *
                       em_load_f32(b, in, (size_t)(r * x->step + k));
            em_store_f32(d, out, (size_t)(r * y->step + n),
                         (float)em_ref_activate(sum, act_of(o->epilogue)));
        }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the device's part, on the host ---------------------------------------------------------- */

em_status em_cuda_status(cudaError_t rc, const char *what, em_err *err)
{
    return rc ? em_fail(err, EM_DEVICE, "%s", what) : EM_OK;
}

cudaError_t emk_copy_cols(emk_tensor dst, int64_t dst_stride, emk_tensor src, int64_t src_stride,
                          int64_t rows, int64_t cols, cudaStream_t s)
{
    (void)s;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            em_store_f32(dst.data, (em_dtype)dst.dtype, (size_t)(r * dst_stride + c),
                         em_load_f32(src.data, (em_dtype)src.dtype, (size_t)(r * src_stride + c)));
    return cudaSuccess;
}

cudaError_t emk_linear_finish(emk_tensor y, int64_t y_step, const float *sum, emk_tensor bias,
                              int act, int64_t rows, int64_t cols, cudaStream_t stream)
{
    (void)stream;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double v = sum[r * cols + c];
            if (bias.data) v += em_load_f32(bias.data, (em_dtype)bias.dtype, (size_t)c);
            em_store_f32(y.data, (em_dtype)y.dtype, (size_t)(r * y_step + c),
                         (float)em_ref_activate(v, (em_act)act));
        }
    return cudaSuccess;
}

/* ---- tests ----------------------------------------------------------------------------------- */

enum { ANY = 1 << 30 };

static const algorithm usual[] = {
    {1, ANY, 4, 0, 0},        /* 0: cuts the sum */
    {64, ANY, 1, 0, 0},       /* 1: not for a time step */
    {1, 4096, 1, 0, 0},       /* 2: not for a video */
    {1, ANY, 1, 64 << 20, 0}, /* 3: keeps partial sums somewhere */
    {1, ANY, 1, 4096, 0},     /* 4: this one */
    {1, ANY, 1, 0, 0},        /* 5: too late */
};

static em_cuda_lt *open_fake(const algorithm *list, int count)
{
    em_cuda_lt *lt = NULL;
    em_err err = {0};
    memset(&fake, 0, sizeof fake);
    fake.version = 130100;
    fake.list = list;
    fake.count = count;
    void *self = dlopen(NULL, RTLD_NOW);
    assert_non_null(self);
    assert_ok(em_cuda_lt_open(&lt, self, "stand-in", &err), err);
    return lt;
}

static void close_fake(em_cuda_lt *lt)
{
    em_cuda_lt_close(&lt);
    assert_null(lt);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.handles, 0);
}

static _Alignas(64) uint16_t xs[1024], ws[1024], ds[4096];
static _Alignas(256) unsigned char scratch[EM_LT_WORKSPACE_BYTES];

static em_lt_product product(int64_t rows, int64_t n)
{
    return (em_lt_product){.d = ds,
                           .x = xs,
                           .w = ws,
                           .rows = rows,
                           .n = n,
                           .k = 16,
                           .d_step = n,
                           .type = EM_BF16,
                           .d_type = EM_BF16};
}

static em_status multiply(em_cuda_lt *lt, const em_lt_product *p, em_err *err)
{
    return em_lt_multiply(lt, p, scratch, NULL, err);
}

static void refuses_libraries(void **state)
{
    (void)state;
    em_cuda_lt *lt = NULL;
    em_err err = {0};
    void *other = dlopen("libm.so.6", RTLD_NOW);
    assert_non_null(other);
    assert_int_equal(em_cuda_lt_open(&lt, other, "libm", &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "libm has no function cublasLt"));
    close_fake(open_fake(usual, 6));
    fake.version = 110900;
    assert_int_equal(em_cuda_lt_open(&lt, dlopen(NULL, RTLD_NOW), "old", &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "11.9"));
    assert_null(lt);
}

static void passes_over_what_depends_on_rows(void **state)
{
    (void)state;
    em_cuda_lt *lt = open_fake(usual, 6);
    em_err err = {0};
    em_lt_product p = product(3, 8);
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.used, 4);
    close_fake(lt);
}

/* One decision a layer, whatever the rows; another width, epilogue or alignment is a new one. */
static void remembers_layers(void **state)
{
    (void)state;
    em_cuda_lt *lt = open_fake(usual, 6);
    em_err err = {0};
    for (int64_t rows = 1; rows <= 64; rows *= 4) {
        em_lt_product p = product(rows, 8);
        assert_ok(multiply(lt, &p, &err), err);
        assert_int_equal(fake.heuristics, 1);
    }
    em_lt_product p = product(3, 24);
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.heuristics, 2);
    p.act = EM_ACT_RELU;
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.heuristics, 3);
    p.w = ws + 1;
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.heuristics, 4);
    for (int64_t n = 1; n <= 60; n++) { /* more than there is room for at first */
        p = product(1, n);
        assert_ok(multiply(lt, &p, &err), err);
    }
    int asked = fake.heuristics;
    p = product(5, 1);
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.heuristics, asked);
    close_fake(lt);
}

static void asks_for_other_heights(void **state)
{
    (void)state;
    static const algorithm late[] = {{64, ANY, 1, 0, 0}, {1, ANY, 1, 0, 256}};
    em_cuda_lt *lt = open_fake(late, 2);
    em_err err = {0};
    em_lt_product p = product(3, 8);
    assert_ok(multiply(lt, &p, &err), err);
    assert_int_equal(fake.used, 1);
    close_fake(lt);
}

static void says_that_there_is_none(void **state)
{
    (void)state;
    char text[160];
    em_cuda_lt *lt = open_fake(usual, 4);
    em_err err = {0};
    em_lt_product p = product(3, 8);
    assert_int_equal(multiply(lt, &p, &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "any number of rows"));
    assert_non_null(strstr(em_lt_describe(lt, &p, text), "any number of rows"));
    assert_int_equal(fake.live, 0);
    close_fake(lt);
}

static void survives_without_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        em_cuda_lt *lt = NULL;
        em_err err = {0};
        close_fake(open_fake(usual, 6));
        em_alloc_fail_at(n, false);
        em_status st = em_cuda_lt_open(&lt, dlopen(NULL, RTLD_NOW), "stand-in", &err);
        em_lt_product p = product(3, 8);
        if (!st) st = multiply(lt, &p, &err);
        em_alloc_fail_at(0, false);
        assert_int_equal(st, EM_NOMEM);
        close_fake(lt);
    }
}

/* ---- the layer ------------------------------------------------------------------------------- */

static em_tensor random_tensor(em_dtype type, const int64_t *dim, int ndim)
{
    static uint32_t seed = 12345;
    em_tensor t = em_tensor_of(NULL, type, dim, ndim);
    t.data = aligned_alloc(64, (em_tensor_bytes(t) + 63) / 64 * 64);
    assert_non_null(t.data);
    for (int64_t i = 0; i < em_tensor_count(t); i++) {
        seed = seed * 1664525u + 1013904223u;
        em_store_f32(t.data, type, (size_t)i, (float)(seed >> 8) / 8388608.0f - 1);
    }
    return t;
}

static void run_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act)
{
    size_t bytes = em_cuda_linear_workspace(r, y, x, w);
    unsigned char *ws_bytes = aligned_alloc(256, (bytes + 511) / 256 * 256);
    assert_non_null(ws_bytes);
    memset(ws_bytes + bytes, 0x5A, 32);
    em_status st = em_cuda_linear(r, y, x, w, b, act, ws_bytes);
    assert_ok(st, r->err);
    for (int i = 0; i < 32; i++) assert_int_equal(ws_bytes[bytes + (size_t)i], 0x5A);
    free(ws_bytes);
}

typedef struct layer_case {
    int64_t m, n, k;
    em_dtype x, w, b; /* b: EM_DTYPE_COUNT: none */
    em_act act;
} layer_case;

/* Weights in x's type, as the op promises to use them. */
static em_tensor narrowed(em_tensor w, em_dtype type)
{
    em_tensor t = random_tensor(type, w.dim, w.ndim);
    em_convert(t.data, type, w.data, w.dtype, (size_t)em_tensor_count(w));
    return t;
}

static void check_layer(em_run *r, const layer_case *c)
{
    em_tensor x = random_tensor(c->x, EM_SHAPE(c->m, c->k));
    em_tensor w = random_tensor(c->w, EM_SHAPE(c->n, c->k)), plain = narrowed(w, c->x);
    em_tensor b = {0}, y = random_tensor(c->x, EM_SHAPE(c->m, c->n));
    em_tensor want = random_tensor(c->x, EM_SHAPE(c->m, c->n));
    if (c->b != EM_DTYPE_COUNT) b = random_tensor(c->b, EM_SHAPE(c->n));
    run_linear(r, y, x, w, b, c->act);
    assert_int_equal(em_ref_linear(r, want, x, plain, b, c->act, NULL), EM_OK);
    /* Sums in double here and there; on the way through float32 sums they are rounded once more. */
    double ulp = c->x == EM_F32 ? 1e-6 : c->x == EM_F16 ? 0.001 : 0.008;
    for (int64_t i = 0; i < em_tensor_count(y); i++) {
        double v = em_ref_get(want, i);
        assert_true(fabs(em_ref_get(y, i) - v) <= ulp * fabs(v) + 1e-5);
    }
    int64_t cut = c->m / 3;
    memcpy(want.data, y.data, em_tensor_bytes(y));
    memset(y.data, 0xCD, em_tensor_bytes(y));
    run_linear(r, em_slice(y, 0, cut), em_slice(x, 0, cut), w, b, c->act);
    run_linear(r, em_slice(y, cut, c->m - cut), em_slice(x, cut, c->m - cut), w, b, c->act);
    assert_memory_equal(y.data, want.data, em_tensor_bytes(y));
    free(x.data);
    free(w.data);
    free(plain.data);
    free(b.data);
    free(y.data);
    free(want.data);
}

static void layers_agree_with_the_reference(void **state)
{
    (void)state;
    static const layer_case cases[] = {
        {40, 24, 16, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE},
        {40, 24, 16, EM_BF16, EM_BF16, EM_BF16, EM_ACT_GELU_TANH},
        {40, 24, 16, EM_F16, EM_F16, EM_DTYPE_COUNT, EM_ACT_RELU},
        {41, 7, 13, EM_BF16, EM_BF16, EM_BF16, EM_ACT_SILU},
        {41, 7, 13, EM_F16, EM_F16, EM_F16, EM_ACT_HARD_TANH},
        {40, 24, 16, EM_BF16, EM_BF16, EM_F32, EM_ACT_GELU_ERF},
        {40, 24, 16, EM_BF16, EM_F32, EM_BF16, EM_ACT_NONE},
        {40, 24, 16, EM_F32, EM_F32, EM_F32, EM_ACT_GELU_ERF},
        {40, 24, 16, EM_F32, EM_BF16, EM_BF16, EM_ACT_NONE},
        {40, 24, 16, EM_F32, EM_F16, EM_DTYPE_COUNT, EM_ACT_NONE},
        {3000, 1500, 4, EM_BF16, EM_BF16, EM_BF16, EM_ACT_SILU}, /* sums in two pieces */
    };
    em_cuda c = {.lt = open_fake(usual, 6)};
    em_ops table = {.device = &c.device};
    em_run r = {.ops = &table};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_layer(&r, &cases[i]);
    close_fake(c.lt);
    c.lt = NULL;
    em_tensor x = em_tensor_of(xs, EM_BF16, EM_SHAPE(2, 16));
    em_tensor w = em_tensor_of(ws, EM_BF16, EM_SHAPE(8, 16));
    em_tensor y = em_tensor_of(ds, EM_BF16, EM_SHAPE(2, 8));
    assert_int_equal(em_cuda_linear(&r, y, x, w, (em_tensor){0}, EM_ACT_NONE, scratch), EM_DEVICE);
    assert_non_null(strstr(r.err.msg, "cuBLASLt"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_libraries),
        cmocka_unit_test(passes_over_what_depends_on_rows),
        cmocka_unit_test(remembers_layers),
        cmocka_unit_test(asks_for_other_heights),
        cmocka_unit_test(says_that_there_is_none),
        cmocka_unit_test(survives_without_memory),
        cmocka_unit_test(layers_agree_with_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
