/* Linear layers and convolutions of the CUDA plug-in on a bare GPU: against sums in double on the
 * host, whole against cut (bits), and timed at the released model's sizes. Prints a line a case;
 * exit status 1 when one failed.
 *
 *     try_gemm [small] [linear] [conv] [time]     default: all */
#include "ops/cuda/conv_dnn.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/lt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, cases;
static em_cuda *context;
static em_run run_state;
static em_ops table;
static em_cuda_dnn *dnn; /* the context's, in the cases that may use it */

/* ---- the context ----------------------------------------------------------------------------- */

static void must(cudaError_t rc, const char *what)
{
    if (!rc) return;
    printf("FATAL %s: %s\n", what, cudaGetErrorString(rc));
    exit(2);
}

/* The device and both libraries, as the plug-in's table opens them, but with a stream that waits
 * for the plain copies made here. */
static void open_context(void)
{
    char path[1024];
    em_err err = {0};
    if (em_cuda_open(&context, 0, &err)) {
        printf("FATAL %s\n", err.msg);
        exit(2);
    }
    must(cudaStreamDestroy(context->compute), "stream");
    must(cudaStreamCreate(&context->compute), "stream");
    printf("%s, sm_%d, %d multiprocessors\n", context->model, context->cc, context->sm_count);
    void *library = em_cuda_library("libcublasLt.so.13", path, sizeof path, &err);
    if (!library || em_cuda_lt_open(&context->lt, library, path, &err))
        printf("cuBLASLt: %s\n", err.msg);
    else
        printf("cuBLASLt %zu from %s\n", em_cuda_lt_version(context->lt), path);
    library = em_cuda_library("libcudnn.so.9", path, sizeof path, &err);
    if (!library || em_cuda_dnn_open(&dnn, library, path, context->compute, &err))
        printf("cuDNN: %s\n", err.msg);
    else
        printf("cuDNN %zu from %s\n", em_cuda_dnn_version(dnn), path);
    table.device = &context->device;
    run_state.ops = &table;
}

/* ---- data ------------------------------------------------------------------------------------ */

static uint64_t seed = 88172645463325252u;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

/* A tensor on both sides: random values, guard bands on the device side. */
enum { GUARD = 4096 };
typedef struct both {
    em_tensor t; /* device */
    void *host;
    unsigned char *base;
    size_t bytes;
} both;

static both make(em_dtype type, const int64_t *dim, int ndim, float scale)
{
    both b = {.t = em_tensor_of(NULL, type, dim, ndim)};
    b.bytes = em_tensor_bytes(b.t);
    b.host = malloc(b.bytes + 16);
    must(cudaMalloc((void **)&b.base, b.bytes + 2 * GUARD), "memory");
    must(cudaMemset(b.base, 0xAB, b.bytes + 2 * GUARD), "poison");
    b.t.data = b.base + GUARD;
    if (scale > 0) {
        size_t n = (size_t)em_tensor_count(b.t);
        for (size_t i = 0; i < n; i++) {
            float v = ((float)(random_u32() >> 8) / 8388608.0f - 1.0f) * scale;
            if (type == EM_BF16)
                ((uint16_t *)b.host)[i] = em_f32_to_bf16(v);
            else
                em_store_f32(b.host, type, i, v);
        }
        must(cudaMemcpy(b.t.data, b.host, b.bytes, cudaMemcpyHostToDevice), "upload");
    }
    return b;
}

static void drop(both *b)
{
    cudaFree(b->base);
    free(b->host);
    *b = (both){0};
}

static bool guards_hold(const both *b)
{
    static unsigned char g[2 * GUARD];
    must(cudaMemcpy(g, b->base, GUARD, cudaMemcpyDeviceToHost), "guard");
    must(cudaMemcpy(g + GUARD, b->base + GUARD + b->bytes, GUARD, cudaMemcpyDeviceToHost), "guard");
    for (size_t i = 0; i < sizeof g; i++)
        if (g[i] != 0xAB) return false;
    return true;
}

static float value(const both *b, int64_t i)
{
    return em_load_f32(b->host, b->t.dtype, (size_t)i);
}

static float rounded(float v, em_dtype type)
{
    unsigned char t[4];
    em_store_f32(t, type, 0, v);
    return em_load_f32(t, type, 0);
}

static void *workspace;
static size_t workspace_bytes;

/* Exactly `bytes`, poisoned with NaNs, in front of a guard. */
static void *take_workspace(size_t bytes)
{
    if (bytes + GUARD > workspace_bytes) {
        cudaFree(workspace);
        workspace_bytes = bytes + GUARD;
        must(cudaMalloc(&workspace, workspace_bytes), "workspace");
    }
    must(cudaMemset(workspace, 0xFF, bytes), "poison");
    must(cudaMemset((char *)workspace + bytes, 0xAB, GUARD), "poison");
    return workspace;
}

static bool workspace_holds(size_t bytes)
{
    static unsigned char g[GUARD];
    must(cudaMemcpy(g, (char *)workspace + bytes, GUARD, cudaMemcpyDeviceToHost), "guard");
    for (size_t i = 0; i < GUARD; i++)
        if (g[i] != 0xAB) return false;
    return true;
}

static double activate(double v, em_act act)
{
    switch (act) {
    case EM_ACT_RELU: return v < 0 ? 0 : v;
    case EM_ACT_SILU: return v / (1 + exp(-v));
    case EM_ACT_GELU_ERF: return v * 0.5 * (1 + erf(v / sqrt(2)));
    case EM_ACT_GELU_TANH:
        return 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
    case EM_ACT_HARD_TANH: return v < -1 ? -1 : v > 1 ? 1 : v;
    default: return v;
    }
}

/* Half a unit in the last place of the type, with a little room for the float32 sum; and the share
 * of the terms' sum of magnitudes that float32 accumulation may cost. */
static double step_of(em_dtype t)
{
    return t == EM_BF16 ? 0.00395 : t == EM_F16 ? 0.000492 : 4e-7;
}

typedef struct verdict {
    double worst, square_error, square;
    int64_t wrong;
} verdict;

/* A library that adds the bias in a second pass rounds twice; so does the reference's. */
static void judge(verdict *v, double got, double want, double magnitude, em_dtype type,
                  int roundings)
{
    double e = fabs(got - want);
    double bound =
        step_of(type) * (fabs(want) + (roundings - 1) * (fabs(want) + 1)) + 2e-6 * magnitude + 1e-7;
    if (!(e <= bound)) v->wrong++;
    if (!(e / bound <= v->worst)) v->worst = e / bound;
    v->square_error += e * e;
    v->square += want * want;
}

static void report(const char *name, const verdict *v, bool guards, const char *bits, double ms,
                   double flop, const char *how)
{
    bool ok = !v->wrong && guards && !strchr(bits, 'X');
    cases++;
    if (!ok) failures++;
    printf("%-4s %-44s rel %.2e worst/bound %.2f%s bits %s", ok ? "ok" : "FAIL", name,
           sqrt(v->square_error / (v->square + 1e-300)), v->worst, guards ? "" : " GUARDS", bits);
    if (ms > 0) printf("  %.3f ms %.0f TF/s", ms, flop / ms * 1e-9);
    printf("  %s\n", how);
    fflush(stdout);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

typedef em_status (*action)(void *);

static double time_of(action f, void *arg)
{
    enum { WARM = 2, TIMES = 9 };
    float ms[TIMES];
    cudaEvent_t a, b;
    must(cudaEventCreate(&a), "event");
    must(cudaEventCreate(&b), "event");
    for (int i = 0; i < WARM; i++) f(arg);
    for (int i = 0; i < TIMES; i++) {
        must(cudaEventRecord(a, context->compute), "event");
        f(arg);
        must(cudaEventRecord(b, context->compute), "event");
        must(cudaEventSynchronize(b), "kernel");
        must(cudaEventElapsedTime(&ms[i], a, b), "event");
    }
    cudaEventDestroy(a);
    cudaEventDestroy(b);
    qsort(ms, TIMES, sizeof *ms, by_size);
    return ms[TIMES / 2];
}

static bool failed(const char *name, em_status st)
{
    cudaError_t rc = cudaStreamSynchronize(context->compute);
    if (!st && !rc) return false;
    printf("FAIL %-44s %s %s\n", name, run_state.err.msg, rc ? cudaGetErrorString(rc) : "");
    run_state.err = (em_err){0};
    failures++;
    cases++;
    must(rc, "the device is lost");
    return true;
}

/* ---- linear ---------------------------------------------------------------------------------- */

typedef struct linear_case {
    int64_t m, n, k;
    em_dtype x, w, b; /* b: EM_DTYPE_COUNT: none */
    em_act act;
    bool timed;
} linear_case;

typedef struct linear_call {
    em_tensor y, x, w, b;
    em_act act;
    void *ws;
} linear_call;

static em_status call_linear(void *arg)
{
    linear_call *l = arg;
    return em_cuda_linear(&run_state, l->y, l->x, l->w, l->b, l->act, l->ws);
}

static void note(char *bits, char c)
{
    size_t n = strlen(bits);
    bits[n] = c;
    bits[n + 1] = '\0';
}

/* Pieces of uneven size: cut i of n of `total`. */
static int64_t cut(int64_t total, int i, int n)
{
    return i == n ? total : total * i / n + (i * 7 % 3 && i ? (total > 8 * n ? i % 3 : 0) : 0);
}

static void linear_bits(const linear_call *whole, both *y, int pieces, char *bits)
{
    int64_t rows = em_rows(whole->x);
    must(cudaMemset(y->t.data, 0xCD, y->bytes), "poison");
    for (int i = 0; i < pieces; i++) {
        int64_t from = cut(rows, i, pieces), to = cut(rows, i + 1, pieces);
        if (to <= from) continue;
        linear_call l = *whole;
        l.y = em_slice(y->t, from, to - from);
        l.x = em_slice(whole->x, from, to - from);
        l.ws = take_workspace(em_cuda_linear_workspace(&run_state, l.y, l.x, l.w));
        if (call_linear(&l)) {
            note(bits, 'X');
            printf("     piece: %s\n", run_state.err.msg);
            run_state.err = (em_err){0};
            return;
        }
    }
    void *got = malloc(y->bytes);
    must(cudaMemcpy(got, y->t.data, y->bytes, cudaMemcpyDeviceToHost), "download");
    note(bits, memcmp(got, y->host, y->bytes) ? 'X' : '=');
    free(got);
}

static void try_linear(const linear_case *c)
{
    char name[128], bits[8] = "", how[160] = "";
    snprintf(name, sizeof name, "linear %lldx%lldx%lld %s.%s%s%s act%d", (long long)c->m,
             (long long)c->n, (long long)c->k, em_dtype_name(c->x), em_dtype_name(c->w),
             c->b == EM_DTYPE_COUNT ? "" : "+", c->b == EM_DTYPE_COUNT ? "" : em_dtype_name(c->b),
             (int)c->act);
    both x = make(c->x, EM_SHAPE(c->m, c->k), 1.7f);
    both w = make(c->w, EM_SHAPE(c->n, c->k), 1.7f / sqrtf((float)c->k));
    both b = {0};
    if (c->b != EM_DTYPE_COUNT) b = make(c->b, EM_SHAPE(c->n), 1.0f);
    both y = make(c->x, EM_SHAPE(c->m, c->n), 0);
    linear_call l = {.y = y.t, .x = x.t, .w = w.t, .b = b.t, .act = c->act};
    size_t need = em_cuda_linear_workspace(&run_state, y.t, x.t, w.t);
    l.ws = take_workspace(need);
    em_status st = call_linear(&l);
    if (!failed(name, st)) {
        verdict v = {0};
        must(cudaMemcpy(y.host, y.t.data, y.bytes, cudaMemcpyDeviceToHost), "download");
        int64_t total = c->m * c->n, samples = total < 3000 ? total : 3000;
        for (int64_t s = 0; s < samples; s++) {
            int64_t i = samples == total ? s
                        : s < 200        ? total - 1 - s
                                         : (int64_t)(random_u32() % (uint64_t)total);
            int64_t row = i / c->n, col = i % c->n;
            double sum = b.host ? value(&b, col) : 0, magnitude = fabs(sum);
            for (int64_t k = 0; k < c->k; k++) {
                float wv = rounded(value(&w, col * c->k + k), c->x);
                double t = (double)value(&x, row * c->k + k) * wv;
                sum += t;
                magnitude += fabs(t);
            }
            judge(&v, value(&y, i), activate(sum, c->act), magnitude, c->x, 1);
        }
        bool guards = guards_hold(&y) && workspace_holds(need);
        linear_bits(&l, &y, 2, bits);
        linear_bits(&l, &y, 7, bits);
        guards = guards && guards_hold(&y);
        l.ws = take_workspace(need);
        double ms = c->timed ? time_of(call_linear, &l) : 0;
        em_lt_product p = {.d = y.t.data,
                           .x = x.t.data,
                           .w = w.t.data,
                           .rows = c->m,
                           .n = c->n,
                           .k = c->k,
                           .d_step = c->n,
                           .type = c->x,
                           .d_type = c->x};
        if (c->x != EM_F32 && em_lt_fuses(c->act) && c->b == c->x) {
            p.bias = b.t.data;
            p.act = c->act;
        }
        if (context->lt) em_lt_describe(context->lt, &p, how);
        report(name, &v, guards, bits, ms, 2.0 * (double)(c->m * c->n) * (double)c->k, how);
    }
    drop(&x);
    drop(&w);
    drop(&y);
    if (b.base) drop(&b);
}

#define NO EM_DTYPE_COUNT
static const linear_case small_linears[] = {
    {300, 200, 136, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, false},
    {257, 96, 80, EM_BF16, EM_BF16, EM_BF16, EM_ACT_GELU_TANH, false},
    {257, 96, 80, EM_BF16, EM_BF16, NO, EM_ACT_GELU_TANH, false},
    {129, 64, 72, EM_F16, EM_F16, EM_F16, EM_ACT_RELU, false},
    {77, 60, 36, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, false},
    {41, 7, 13, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, false},
    {41, 7, 13, EM_F16, EM_F16, NO, EM_ACT_NONE, false},
    {130, 72, 48, EM_BF16, EM_BF16, EM_F32, EM_ACT_NONE, false},
    {130, 72, 48, EM_BF16, EM_F32, EM_BF16, EM_ACT_SILU, false},
    {999, 320, 128, EM_BF16, EM_BF16, EM_BF16, EM_ACT_GELU_ERF, false},
    {99, 320, 128, EM_F16, EM_F16, EM_F16, EM_ACT_HARD_TANH, false},
    {1, 1536, 256, EM_BF16, EM_BF16, EM_BF16, EM_ACT_SILU, false},
    {99, 130, 70, EM_F32, EM_F32, EM_F32, EM_ACT_GELU_ERF, false},
    {99, 130, 70, EM_F32, EM_BF16, EM_BF16, EM_ACT_GELU_TANH, false},
    {41, 7, 13, EM_F32, EM_F16, NO, EM_ACT_NONE, false},
    {1, 64, 64, EM_F32, EM_F32, EM_F32, EM_ACT_SILU, false},
};
static const linear_case real_linears[] = {
    {21504, 1536, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {21504, 4608, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {21504, 8960, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_GELU_TANH, true},
    {21504, 1536, 8960, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {21504, 1536, 8960, EM_BF16, EM_BF16, NO, EM_ACT_NONE, true},
    {40, 10240, 4096, EM_BF16, EM_BF16, NO, EM_ACT_GELU_TANH, true},
    {40, 4096, 10240, EM_BF16, EM_BF16, NO, EM_ACT_NONE, true},
    {512, 10240, 4096, EM_BF16, EM_BF16, NO, EM_ACT_NONE, true},
    {512, 4096, 10240, EM_BF16, EM_BF16, NO, EM_ACT_NONE, true},
    {257, 5120, 1280, EM_F16, EM_F16, EM_F16, EM_ACT_GELU_ERF, true},
    {672, 1536, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {1, 9216, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {16384, 384, 384, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {21504, 64, 1536, EM_BF16, EM_BF16, EM_BF16, EM_ACT_NONE, true},
    {4096, 1536, 1536, EM_F32, EM_F32, EM_F32, EM_ACT_NONE, true},
    {512, 10240, 4096, EM_F32, EM_BF16, NO, EM_ACT_GELU_TANH, true},
};

/* ---- convolutions ---------------------------------------------------------------------------- */

typedef struct conv_case {
    int64_t t, past, h, w, c, o;
    int kernel[3], stride[3], before[3], after[3], groups;
    bool up;
    em_dtype type, w_type;
    bool timed;
} conv_case;

typedef struct conv_call {
    em_tensor y;
    em_conv_args a;
    void *ws;
} conv_call;

static em_status call_conv(void *arg)
{
    conv_call *c = arg;
    return em_cuda_conv(&run_state, c->y, &c->a, c->ws);
}

static double conv_input(const conv_case *c, const both *x, int64_t t, int64_t h, int64_t w,
                         int64_t ch)
{
    int64_t zoom = c->up ? 2 : 1;
    if (t < 0 || h < 0 || w < 0 || t >= c->t + c->past || h >= c->h * zoom || w >= c->w * zoom)
        return 0;
    return value(x, ((t * c->h + h / zoom) * c->w + w / zoom) * c->c + ch);
}

static double conv_want(const conv_case *c, const both *x, const both *w, const both *b,
                        em_tensor y, int64_t i, double *magnitude)
{
    int64_t o = i % c->o, p = i / c->o, ow = p % y.dim[2], oh = p / y.dim[2] % y.dim[1];
    int64_t ot = p / y.dim[2] / y.dim[1], ins = c->c / c->groups,
            first = o / (c->o / c->groups) * ins;
    double sum = b->host ? value(b, o) : 0;
    *magnitude = fabs(sum);
    for (int64_t ch = 0; ch < ins; ch++)
        for (int kt = 0; kt < c->kernel[0]; kt++)
            for (int kh = 0; kh < c->kernel[1]; kh++)
                for (int kw = 0; kw < c->kernel[2]; kw++) {
                    int64_t tap =
                        (((o * ins + ch) * c->kernel[0] + kt) * c->kernel[1] + kh) * c->kernel[2] +
                        kw;
                    float wv = rounded(value(w, tap), c->type);
                    double v = conv_input(c, x, ot * c->stride[0] - c->before[0] + kt,
                                          oh * c->stride[1] - c->before[1] + kh,
                                          ow * c->stride[2] - c->before[2] + kw, first + ch) *
                               wv;
                    sum += v;
                    *magnitude += fabs(v);
                }
    return sum;
}

/* Frames [from, to) of the output, from the frames that they need of `all`. */
static conv_call conv_piece(const conv_case *c, const conv_call *whole, em_tensor all, em_tensor y,
                            int64_t from, int64_t to)
{
    conv_call p = *whole;
    int64_t first = from * c->stride[0], end = (to - 1) * c->stride[0] + c->kernel[0];
    p.y = em_slice(y, from, to - from);
    p.a.past = c->past ? em_slice(all, first, c->past) : (em_tensor){0};
    p.a.x = em_slice(all, first + c->past, end - first - c->past);
    return p;
}

static void conv_bits(const conv_case *c, const conv_call *whole, em_tensor all, both *y,
                      int pieces, char *bits)
{
    int64_t frames = y->t.dim[0];
    must(cudaMemset(y->t.data, 0xCD, y->bytes), "poison");
    for (int i = 0; i < pieces; i++) {
        int64_t from = frames * i / pieces, to = frames * (i + 1) / pieces;
        if (pieces == 2 && i == 0) to = frames > 2 ? 1 : to;
        if (pieces == 2 && i == 1) from = frames > 2 ? 1 : from;
        if (to <= from) continue;
        conv_call p = conv_piece(c, whole, all, y->t, from, to);
        p.ws = take_workspace(em_cuda_conv_workspace(&run_state, p.y, &p.a));
        if (call_conv(&p)) {
            note(bits, 'X');
            printf("     piece: %s\n", run_state.err.msg);
            run_state.err = (em_err){0};
            return;
        }
    }
    void *got = malloc(y->bytes);
    must(cudaMemcpy(got, y->t.data, y->bytes, cudaMemcpyDeviceToHost), "download");
    note(bits, memcmp(got, y->host, y->bytes) ? 'X' : '=');
    free(got);
}

static void describe_conv(const conv_call *c, char how[192])
{
    emk_conv_job j = {.frames = c->a.x.dim[0],
                      .height = c->a.x.dim[1],
                      .width = c->a.x.dim[2],
                      .channels = c->a.x.dim[3],
                      .out_channels = c->y.dim[3],
                      .groups = c->a.groups,
                      .upsample_2x = c->a.upsample_2x,
                      .type = (int)c->a.x.dtype,
                      .bias = em_cuda_arg(c->a.b)};
    if (c->a.past.ndim) j.past_frames = c->a.past.dim[0];
    for (int i = 0; i < 3; i++) {
        j.out[i] = c->y.dim[i];
        j.kernel[i] = (int)c->a.w.dim[2 + i];
        j.stride[i] = c->a.stride[i];
        j.pad[i] = c->a.pad_before[i];
    }
    em_conv_dnn_view v;
    char text[128];
    if (!em_conv_dnn_view_of(&v, &j, c->a.pad_after, true) || !context->dnn)
        snprintf(how, 192, context->cc == 90 ? "own, Hopper" : "own");
    else
        snprintf(how, 192, "cuDNN%s %s", v.gathered ? " on a copy" : "",
                 em_conv_dnn_describe(context->dnn, &j, &v, text));
}

static void try_conv_way(const conv_case *c, const char *name, conv_call *call, const both *x,
                         const both *w, const both *b, both *y)
{
    char bits[8] = "", how[192];
    must(cudaMemset(y->t.data, 0xCD, y->bytes), "poison");
    size_t need = em_cuda_conv_workspace(&run_state, y->t, &call->a);
    call->ws = take_workspace(need);
    if (failed(name, call_conv(call))) return;
    verdict v = {0};
    must(cudaMemcpy(y->host, y->t.data, y->bytes, cudaMemcpyDeviceToHost), "download");
    int64_t total = em_tensor_count(y->t), samples = total < 2000 ? total : 2000;
    for (int64_t s = 0; s < samples; s++) {
        int64_t i = samples == total ? s
                    : s < 300        ? total - 1 - s
                    : s < 600        ? s - 300
                                     : (int64_t)(random_u32() % (uint64_t)total);
        double magnitude, want = conv_want(c, x, w, b, y->t, i, &magnitude);
        judge(&v, value(y, i), want, magnitude, c->type, context->dnn ? 2 : 1);
    }
    bool guards = guards_hold(y) && workspace_holds(need);
    if (c->t + c->past > c->kernel[0] && c->before[0] == 0 && c->after[0] == 0) {
        conv_bits(c, call, x->t, y, 2, bits);
        conv_bits(c, call, x->t, y, 7, bits);
    }
    call->ws = take_workspace(need);
    double ms = c->timed ? time_of(call_conv, call) : 0;
    describe_conv(call, how);
    snprintf(how + strlen(how), sizeof how - strlen(how), " ws %.0f MiB", (double)need / 1048576);
    report(name, &v, guards, bits, ms, 2.0 * (double)total * (double)(em_tensor_count(w->t) / c->o),
           how);
}

static void try_conv(const conv_case *c)
{
    char name[128];
    snprintf(name, sizeof name, "conv %lld+%lldx%lldx%lld %lld>%lld k%d%d%d s%d%d%d g%d%s %s",
             (long long)c->t, (long long)c->past, (long long)c->h, (long long)c->w, (long long)c->c,
             (long long)c->o, c->kernel[0], c->kernel[1], c->kernel[2], c->stride[0], c->stride[1],
             c->stride[2], c->groups, c->up ? " up" : "", em_dtype_name(c->type));
    int64_t taps = (int64_t)c->kernel[0] * c->kernel[1] * c->kernel[2], zoom = c->up ? 2 : 1;
    int64_t in[3] = {c->t + c->past, c->h * zoom, c->w * zoom}, out[4] = {0, 0, 0, c->o};
    for (int i = 0; i < 3; i++)
        out[i] = (in[i] + c->before[i] + c->after[i] - c->kernel[i]) / c->stride[i] + 1;
    both x = make(c->type, EM_SHAPE(c->t + c->past, c->h, c->w, c->c), 1.7f);
    both w =
        make(c->w_type, EM_SHAPE(c->o, c->c / c->groups, c->kernel[0], c->kernel[1], c->kernel[2]),
             1.7f / sqrtf((float)(taps * c->c / c->groups)));
    both b = make(c->w_type, EM_SHAPE(c->o), 1.0f);
    both y = make(c->type, out, 4, 0);
    conv_call call = {.y = y.t,
                      .a = {.w = w.t, .b = b.t, .groups = c->groups, .upsample_2x = c->up}};
    for (int i = 0; i < 3; i++) {
        call.a.stride[i] = c->stride[i];
        call.a.pad_before[i] = c->before[i];
        call.a.pad_after[i] = c->after[i];
    }
    if (c->past) call.a.past = em_slice(x.t, 0, c->past);
    call.a.x = em_slice(x.t, c->past, c->t);
    /* The own kernel for every card, cuDNN, the own kernel for Hopper. */
    bool half = c->type != EM_F32 && c->groups == 1;
    int cc = context->cc;
    context->cc = 80;
    context->dnn = NULL;
    try_conv_way(c, name, &call, &x, &w, &b, &y);
    context->dnn = dnn;
    if (dnn && half && c->c >= 32 && c->o >= 64) try_conv_way(c, name, &call, &x, &w, &b, &y);
    context->dnn = NULL;
    context->cc = cc;
    if (cc == 90 && half && emk_conv_hopper_takes(c->c, c->o))
        try_conv_way(c, name, &call, &x, &w, &b, &y);
    drop(&x);
    drop(&w);
    drop(&b);
    drop(&y);
}

#define K333 {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}, 1
#define K133 {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}, 1
#define K311(s) {3, 1, 1}, {s, 1, 1}, {0, 0, 0}, {0, 0, 0}, 1
#define K1(k, s, before, after, groups) {1, 1, k}, {1, 1, s}, {0, 0, before}, {0, 0, after}, groups
#define ODD {3, 2, 3}, {1, 2, 1}, {2, 1, 0}, {1, 0, 2}, 1
#define HALF {1, 3, 3}, {1, 2, 2}, {0, 0, 0}, {0, 1, 1}, 1
static const conv_case small_convs[] = {
    {3, 2, 9, 11, 8, 12, K333, false, EM_BF16, EM_BF16, false},
    {3, 2, 5, 7, 32, 96, K333, false, EM_BF16, EM_BF16, false},
    {5, 2, 7, 9, 96, 32, K333, false, EM_F16, EM_F16, false},
    {2, 2, 6, 5, 3, 40, K333, false, EM_BF16, EM_BF16, false},
    {2, 2, 9, 8, 40, 3, K333, false, EM_BF16, EM_BF16, false},
    {2, 2, 5, 5, 5, 7, K333, false, EM_F16, EM_F32, false},
    {3, 0, 6, 7, 64, 192, K133, true, EM_BF16, EM_BF16, false},
    {3, 2, 9, 11, 96, 96, K333, false, EM_BF16, EM_BF16, false},
    {7, 1, 5, 6, 64, 192, K311(2), false, EM_BF16, EM_BF16, false},
    {2, 2, 7, 9, 40, 384, K333, false, EM_F16, EM_F16, false},
    {3, 0, 11, 9, 72, 96, HALF, false, EM_F16, EM_F16, false},
    {2, 0, 6, 7, 16, 200, K133, true, EM_F16, EM_F16, false},
    {3, 0, 10, 12, 48, 48, HALF, false, EM_BF16, EM_BF16, false},
    {7, 1, 5, 6, 32, 64, K311(2), false, EM_BF16, EM_BF16, false},
    {4, 2, 5, 6, 32, 128, K311(1), false, EM_BF16, EM_BF16, false},
    {2, 0, 4, 5, 24, 16, ODD, false, EM_BF16, EM_BF16, false},
    {3, 2, 5, 7, 12, 20, K333, false, EM_F32, EM_F32, false},
    {3, 2, 5, 7, 12, 20, K333, false, EM_F32, EM_BF16, false},
    {2, 0, 5, 7, 6, 70, K133, true, EM_F32, EM_F32, false},
    {1, 0, 1, 200, 1, 64, K1(10, 5, 0, 0, 1), false, EM_F32, EM_F32, false},
    {1, 0, 1, 90, 48, 48, K1(16, 1, 8, 7, 4), false, EM_F32, EM_F32, false},
    {1, 0, 1, 90, 24, 24, K1(5, 1, 2, 2, 3), false, EM_BF16, EM_BF16, false},
};
static const conv_case real_convs[] = {
    {4, 2, 512, 512, 96, 96, K333, false, EM_BF16, EM_BF16, true},
    {1, 2, 512, 512, 96, 96, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 256, 256, 192, 192, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 512, 512, 192, 96, K333, false, EM_BF16, EM_BF16, true},
    {2, 2, 128, 128, 384, 384, K333, false, EM_BF16, EM_BF16, true},
    {2, 2, 128, 128, 192, 384, K333, false, EM_BF16, EM_BF16, true},
    {1, 2, 64, 64, 384, 384, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 64, 64, 384, 384, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 512, 512, 96, 3, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 512, 512, 3, 96, K333, false, EM_BF16, EM_BF16, true},
    {4, 2, 64, 64, 16, 384, K333, false, EM_BF16, EM_BF16, true},
    {1, 2, 64, 64, 384, 32, K333, false, EM_BF16, EM_BF16, true},
    {4, 0, 128, 128, 384, 192, K133, true, EM_BF16, EM_BF16, true},
    {4, 0, 256, 256, 192, 96, K133, true, EM_BF16, EM_BF16, true},
    {4, 0, 512, 512, 96, 96, HALF, false, EM_BF16, EM_BF16, true},
    {1, 2, 64, 64, 384, 768, K311(1), false, EM_BF16, EM_BF16, true},
    {4, 1, 256, 256, 192, 192, K311(2), false, EM_BF16, EM_BF16, true},
    {4, 2, 256, 256, 192, 192, K333, false, EM_F16, EM_F16, true},
    {2, 2, 256, 256, 192, 192, K333, false, EM_F32, EM_F32, true},
    {1, 0, 1, 51840, 1, 512, K1(10, 5, 0, 0, 1), false, EM_F32, EM_F32, true},
    {1, 0, 1, 10367, 512, 512, K1(3, 2, 0, 0, 1), false, EM_F32, EM_F32, true},
    {1, 0, 1, 162, 768, 768, K1(128, 1, 64, 63, 16), false, EM_F32, EM_F32, true},
};

/* ---------------------------------------------------------------------------------------------- */

#define ALL(array, f)                                                                              \
    for (size_t i = 0; i < sizeof array / sizeof *array; i++) f(&array[i])

static bool asked(int argc, char **argv, const char *what)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], what)) return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_context();
    bool linear = asked(argc, argv, "linear"), conv = asked(argc, argv, "conv");
    if (conv && asked(argc, argv, "small")) ALL(small_convs, try_conv);
    if (linear && context->lt && asked(argc, argv, "small")) ALL(small_linears, try_linear);
    if (linear && context->lt && asked(argc, argv, "time")) ALL(real_linears, try_linear);
    if (conv && asked(argc, argv, "time")) ALL(real_convs, try_conv);
    printf("%d cases, %d failures\n", cases, failures);
    return failures ? 1 : 0;
}
