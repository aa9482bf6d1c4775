/* Attention on CUDA, alone: the kernels and cuDNN's node against float64 on the host, whole against
 * cut (bits), and times at the sizes that matter. A plain program; exit status 1 if anything fails.
 *
 *     nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Isrc -Iinclude \
 *         tests/cuda/try_attention.cu src/ops/cuda/attention_kernels.cu src/ops/cuda/dnn.c \
 *         src/ops/cuda/sdpa.c src/base/status.c src/base/alloc.c -ldl -o try_attention
 *     ./try_attention [seed]
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cudnn.h>

extern "C" {
#include "ops/cuda/attention_kernels.h"
#include "ops/cuda/sdpa.h"
}

static int failures;
static unsigned long long seed;
static cudaStream_t stream;

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t rc_ = (call);                                                                  \
        if (rc_ != cudaSuccess) {                                                                  \
            printf("FATAL %s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(rc_));   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void verdict(bool good, const char *what)
{
    printf("  %s %s\n", good ? "ok  " : "FAIL", what);
    failures += !good;
    fflush(stdout);
}

/* ---- data ------------------------------------------------------------------------------------ */

static const char *type_name(int t)
{
    return t == 0 ? "f32" : t == 1 ? "f16" : "bf16";
}

static size_t type_bytes(int t)
{
    return t == 0 ? 4 : 2;
}

__device__ static unsigned mix(unsigned long long x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    x ^= x >> 33;
    return (unsigned)(x >> 16);
}

/* Normal numbers. */
static __global__ void fill(void *to, int type, size_t n, unsigned long long key, float sigma)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float a = (mix(key + 2 * i) + 1.0f) * 2.3283064e-10f,
              b = mix(key + 2 * i + 1) * 1.4629181e-9f;
        float x = sigma * sqrtf(-2 * logf(fminf(a, 1.0f))) * cosf(b);
        if (type == 0) ((float *)to)[i] = x;
        if (type == 1) ((__half *)to)[i] = __float2half_rn(x);
        if (type == 2) ((__nv_bfloat16 *)to)[i] = __float2bfloat16_rn(x);
    }
}

static double number_at(const void *p, int type, size_t i)
{
    if (type == 0) return ((const float *)p)[i];
    unsigned short u = ((const unsigned short *)p)[i];
    if (type == 2) {
        unsigned w = (unsigned)u << 16;
        float f;
        memcpy(&f, &w, 4);
        return f;
    }
    int e = u >> 10 & 31, m = u & 1023;
    double v = e == 0 ? ldexp(m, -24) : e == 31 ? (m ? NAN : INFINITY) : ldexp(1024 + m, e - 25);
    return u & 0x8000 ? -v : v;
}

/* One test's tensors on the device, with a guard band behind y. */
typedef struct problem {
    em_cuda_attn a;
    size_t q_count, k_count, bias_count;
    void *hq, *hk, *hv;
    float *hbias;
} problem;

enum { GUARD = 4096 };

static problem make(int type, int batch, int64_t nq, int64_t nk, int heads, int dim, float scale,
                    bool bias)
{
    problem p = {};
    size_t size = type_bytes(type);
    em_cuda_attn *a = &p.a;
    a->nq = nq;
    a->nk = nk;
    a->dtype = type;
    a->batch = batch;
    a->heads = heads;
    a->dim = dim;
    a->scale = scale;
    p.q_count = (size_t)batch * nq * heads * dim;
    p.k_count = (size_t)batch * nk * heads * dim;
    void *q, *k, *v;
    CHECK(cudaMalloc(&q, p.q_count * size));
    CHECK(cudaMalloc(&k, p.k_count * size));
    CHECK(cudaMalloc(&v, p.k_count * size));
    CHECK(cudaMalloc(&a->y, p.q_count * size + GUARD));
    CHECK(cudaMemset(a->y, 0xff, p.q_count * size + GUARD)); /* NaN in every type */
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    fill<<<1024, 256>>>(q, type, p.q_count, seed, 1.5f);
    fill<<<1024, 256>>>(k, type, p.k_count, seed ^ 0x1111111111ull, 1.5f);
    fill<<<1024, 256>>>(v, type, p.k_count, seed ^ 0x2222222222ull, 1.0f);
    a->q = q;
    a->k = k;
    a->v = v;
    if (bias) {
        p.bias_count = (size_t)heads * (nq + nk - 1);
        float *b;
        CHECK(cudaMalloc((void **)&b, p.bias_count * 4));
        fill<<<64, 256>>>(b, 0, p.bias_count, seed ^ 0x3333333333ull, 2.0f);
        a->rel_bias = b;
        p.hbias = (float *)malloc(p.bias_count * 4);
    }
    CHECK(cudaDeviceSynchronize());
    return p;
}

static void to_host(problem *p)
{
    size_t size = type_bytes(p->a.dtype);
    p->hq = malloc(p->q_count * size);
    p->hk = malloc(p->k_count * size);
    p->hv = malloc(p->k_count * size);
    CHECK(cudaMemcpy(p->hq, p->a.q, p->q_count * size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(p->hk, p->a.k, p->k_count * size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(p->hv, p->a.v, p->k_count * size, cudaMemcpyDeviceToHost));
    if (p->hbias)
        CHECK(cudaMemcpy(p->hbias, p->a.rel_bias, p->bias_count * 4, cudaMemcpyDeviceToHost));
}

static void drop(problem *p)
{
    cudaFree((void *)p->a.q);
    cudaFree((void *)p->a.k);
    cudaFree((void *)p->a.v);
    cudaFree((void *)p->a.rel_bias);
    cudaFree(p->a.y);
    free(p->hq);
    free(p->hk);
    free(p->hv);
    free(p->hbias);
}

/* ---- reference ------------------------------------------------------------------------------- */

static void reference(const problem *p, int b, int h, int64_t i, double *y)
{
    const em_cuda_attn *a = &p->a;
    size_t width = (size_t)a->heads * a->dim, q0 = (b * a->nq + i) * width + h * a->dim;
    size_t k0 = b * a->nk * width + h * a->dim;
    double *s = (double *)malloc(a->nk * sizeof *s), top = -INFINITY, total = 0;
    for (int64_t j = 0; j < a->nk; j++) {
        double dot = 0;
        for (int c = 0; c < a->dim; c++)
            dot +=
                number_at(p->hq, a->dtype, q0 + c) * number_at(p->hk, a->dtype, k0 + j * width + c);
        s[j] = dot * a->scale;
        if (p->hbias) s[j] += p->hbias[h * (a->nq + a->nk - 1) + j - i + a->nq - 1];
        top = fmax(top, s[j]);
    }
    memset(y, 0, a->dim * sizeof *y);
    for (int64_t j = 0; j < a->nk; j++) {
        double w = exp(s[j] - top);
        total += w;
        for (int c = 0; c < a->dim; c++) y[c] += w * number_at(p->hv, a->dtype, k0 + j * width + c);
    }
    for (int c = 0; c < a->dim; c++) y[c] /= total;
    free(s);
}

/* Relative L2 distance over all queries, or `samples` of each head (the first and last ones
 * too). */
static double distance(const problem *p, int64_t samples)
{
    const em_cuda_attn *a = &p->a;
    size_t bytes = p->q_count * type_bytes(a->dtype), width = (size_t)a->heads * a->dim;
    void *y = malloc(bytes);
    CHECK(cudaMemcpy(y, a->y, bytes, cudaMemcpyDeviceToHost));
    double *want = (double *)malloc(a->dim * sizeof *want), off = 0, all = 0;
    int64_t n = samples && samples < a->nq ? samples : a->nq;
    for (int b = 0; b < a->batch; b++)
        for (int h = 0; h < a->heads; h++)
            for (int64_t r = 0; r < n; r++) {
                int64_t i = n == a->nq ? r : n == 1 ? a->nq - 1 : r * (a->nq - 1) / (n - 1);
                reference(p, b, h, i, want);
                for (int c = 0; c < a->dim; c++) {
                    double have = number_at(y, a->dtype, (b * a->nq + i) * width + h * a->dim + c);
                    off += (have - want[c]) * (have - want[c]);
                    all += want[c] * want[c];
                }
            }
    free(want);
    free(y);
    return sqrt(off / all);
}

/* Weights are rounded before they meet the values, and the result is rounded once more: about
 * 2^-9 (bf16) and 2^-12 (f16) of the result each; float32 has the rounding of long sums. */
static double bound_of(int type)
{
    return type == 0 ? 3e-6 : type == 1 ? 8e-4 : 6e-3;
}

/* ---- runners --------------------------------------------------------------------------------- */

static em_cuda_dnn *dnn;

static em_sdpa_shape shape_of(const em_cuda_attn *a)
{
    em_sdpa_shape s = {(em_dtype)a->dtype, a->batch, a->nq, a->nk, a->heads, a->dim};
    return s;
}

static void *workspace;
static size_t workspace_bytes;

static bool run(const em_cuda_attn *a, bool by_dnn)
{
    if (!by_dnn) {
        cudaError_t rc = em_cuda_attention_launch(a, stream);
        if (rc) printf("  launch: %s\n", cudaGetErrorString(rc));
        return !rc;
    }
    em_err err = {};
    em_sdpa_shape s = shape_of(a);
    size_t need = 0;
    if (em_sdpa_workspace(dnn, &s, &need, &err)) {
        printf("  cuDNN plan: %s\n", err.msg);
        return false;
    }
    if (need > workspace_bytes) {
        CHECK(cudaDeviceSynchronize());
        cudaFree(workspace);
        CHECK(cudaMalloc(&workspace, need));
        workspace_bytes = need;
    }
    if (em_sdpa(dnn, &s, a->scale, a->y, a->q, a->k, a->v, workspace, &err)) {
        printf("  cuDNN run: %s\n", err.msg);
        return false;
    }
    return true;
}

static bool finished(void)
{
    cudaError_t rc = cudaStreamSynchronize(stream);
    if (rc) printf("  stream: %s\n", cudaGetErrorString(rc));
    return !rc;
}

/* Queries in `pieces` uneven runs (batch 1): the same bits as whole? Leaves the cut result in y. */
static bool same_cut(problem *p, int pieces, bool by_dnn)
{
    size_t row = (size_t)p->a.heads * p->a.dim * type_bytes(p->a.dtype), bytes = p->a.nq * row;
    char *whole = (char *)malloc(bytes), *cut = (char *)malloc(bytes);
    CHECK(cudaMemcpy(whole, p->a.y, bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemset(p->a.y, 0xff, bytes));
    int64_t done = 0;
    bool good = true;
    for (int i = 0; i < pieces; i++) {
        em_cuda_attn a = p->a;
        int64_t to = i + 1 == pieces ? a.nq : (int64_t)(a.nq * pow((i + 1.0) / pieces, 1.37));
        a.nq = to - done;
        a.q = (const char *)a.q + done * row;
        a.y = (char *)a.y + done * row;
        if (a.nq > 0) good = run(&a, by_dnn) && good;
        done = to;
    }
    good = finished() && good;
    CHECK(cudaMemcpy(cut, p->a.y, bytes, cudaMemcpyDeviceToHost));
    int64_t off = 0;
    for (int64_t i = 0; i < p->a.nq; i++) off += memcmp(whole + i * row, cut + i * row, row) != 0;
    if (off) printf("  %lld of %lld rows differ\n", (long long)off, (long long)p->a.nq);
    free(whole);
    free(cut);
    return good && !off;
}

static bool guard_holds(const problem *p)
{
    unsigned char g[GUARD];
    CHECK(cudaMemcpy(g, (char *)p->a.y + p->q_count * type_bytes(p->a.dtype), GUARD,
                     cudaMemcpyDeviceToHost));
    for (int i = 0; i < GUARD; i++)
        if (g[i] != 0xff) return false;
    return true;
}

static void test(int type, int batch, int64_t nq, int64_t nk, int heads, int dim, float scale,
                 bool bias, bool by_dnn)
{
    char line[160];
    problem p = make(type, batch, nq, nk, heads, dim, scale, bias);
    to_host(&p);
    bool good = run(&p.a, by_dnn);
    good = finished() && good;
    double d = good ? distance(&p, batch * nq * nk * heads * (double)dim > 3e8 ? 5 : 0) : NAN;
    snprintf(line, sizeof line,
             "%s%s B %d Nq %lld Nk %lld %d x %d scale %.3g%s: distance %.3g (%.1g)",
             by_dnn ? "cuDNN " : "", type_name(type), batch, (long long)nq, (long long)nk, heads,
             dim, scale, bias ? " bias" : "", d, bound_of(type));
    verdict(good && d <= bound_of(type), line);
    if (!guard_holds(&p)) verdict(false, "guard band behind the output");
    if (good && batch == 1 && !bias && nq > 7) {
        if (!same_cut(&p, 2, by_dnn)) verdict(false, "queries in 2 pieces: the same bits");
        if (!same_cut(&p, 7, by_dnn)) verdict(false, "queries in 7 pieces: the same bits");
    }
    drop(&p);
}

static void timing(const char *what, int type, int batch, int64_t nq, int64_t nk, int heads,
                   int dim, float scale, bool bias, bool by_dnn)
{
    problem p = make(type, batch, nq, nk, heads, dim, scale, bias);
    cudaEvent_t from, to;
    float best = 1e30f, sum = 0, ms;
    CHECK(cudaEventCreate(&from));
    CHECK(cudaEventCreate(&to));
    bool good = run(&p.a, by_dnn) && finished() && run(&p.a, by_dnn) && finished();
    double flop = 4.0 * batch * nq * (double)nk * heads * dim;
    int n = flop > 3e12 ? 3 : 10;
    for (int i = 0; i < n && good; i++) {
        CHECK(cudaEventRecord(from, stream));
        good = run(&p.a, by_dnn);
        CHECK(cudaEventRecord(to, stream));
        CHECK(cudaEventSynchronize(to));
        CHECK(cudaEventElapsedTime(&ms, from, to));
        best = fminf(best, ms);
        sum += ms;
    }
    if (good)
        printf("  time %-34s %-5s %s: best %8.3f ms, mean %8.3f, %6.1f TFLOP/s\n", what,
               type_name(type), by_dnn ? "cuDNN" : "own  ", best, sum / n, flop / (sum / n) * 1e-9);
    else
        verdict(false, what);
    fflush(stdout);
    drop(&p);
}

/* ---- libraries ------------------------------------------------------------------------------- */

static void *open_in(const char *folder, const char *soname, char *found, size_t n)
{
    snprintf(found, n, "%s%s%s", folder, *folder ? "/" : "", soname);
    void *lib = dlopen(found, RTLD_NOW | RTLD_LOCAL);
    if (!lib) printf("  not %s: %s\n", found, dlerror());
    return lib;
}

static void *open_library(const char *soname, char *found, size_t n)
{
    static const char *patterns[] = {"/opt/torch/.venv/lib/python3*/site-packages/nvidia/*/lib",
                                     "/usr/local/lib/python3*/*-packages/nvidia/*/lib",
                                     "/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu"};
    const char *own = getenv("EM_CUDA_LIBRARY_PATH");
    void *lib = own ? open_in(own, soname, found, n) : NULL;
    if (!lib) lib = open_in("", soname, found, n);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns && !lib; i++) {
        glob_t g = {};
        if (!glob(patterns[i], 0, NULL, &g))
            for (size_t k = 0; k < g.gl_pathc && !lib; k++) {
                char path[1024];
                snprintf(path, sizeof path, "%s/%s", g.gl_pathv[k], soname);
                FILE *f = fopen(path, "rb");
                if (!f) continue;
                fclose(f);
                lib = open_in(g.gl_pathv[k], soname, found, n);
            }
        globfree(&g);
    }
    printf("%s: %s\n", soname, lib ? found : "not found");
    return lib;
}

static void open_dnn(void)
{
    char path[1024];
    em_err err = {};
    open_library("libcublasLt.so.13", path, sizeof path);
    void *lib = open_library("libcudnn.so.9", path, sizeof path);
    if (!lib) {
        verdict(false, "libcudnn.so.9 opens");
        return;
    }
    if (em_cuda_dnn_open(&dnn, lib, path, stream, &err)) {
        printf("  %s\n", err.msg);
        verdict(false, "cuDNN handle");
        return;
    }
    printf("cuDNN %zu\n", em_cuda_dnn_version(dnn));
}

/* ---- the runs -------------------------------------------------------------------------------- */

static void own_tests(void)
{
    static const int dims[] = {16, 32, 64, 80, 128, 384};
    for (int type = 0; type < 3; type++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            int d = dims[i];
            float scale = 1 / sqrtf((float)d);
            test(type, 1, 1, 1, 1, d, scale, false, false);
            test(type, 1, 129, 65, 2, d, scale, false, false);
            test(type, 1, 301, 333, 1, d, scale, false, false);
            test(type, 1, 200, 512, 3, d, scale, false, false);
            test(type, 3, 77, 32, 2, d, scale, false, false);
            test(type, 2, 63, 31, 2, d, scale, false, false);
            test(type, 2, 100, 100, 3, d, scale, true, false);
            test(type, 1, 70, 130, 1, d, 0.3f * scale, true, false);
            test(type, 1, 70, 130, 2, d, -0.5f * scale, false, false);
        }
        test(type, 1, 100, 90, 2, 48, 0.14f, false,
             false); /* sizes without a kernel of their own */
        test(type, 1, 100, 90, 1, 96, 0.1f, true, false);
        test(type, 1, 60, 70, 1, 512, 0.05f, false, false);
        test(type, 1, 60, 70, 3, 7, 0.4f, false, false);
        test(type, 1, 257, 257, 16, 80, 0.1118f, false, false);
        test(type, 1, 2048, 4100, 2, 128, 0.0884f, false, false);
        test(type, 1, 1030, 4096, 1, 384, 0.051f, false, false);
    }
}

static void dnn_tests(void)
{
    if (!dnn) return;
    for (int type = 2; type > 0; type--) {
        em_sdpa_shape s = {(em_dtype)type, 1, 4096, 4096, 12, 128};
        size_t need = 0;
        em_err err = {};
        char engine[128];
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        em_status st = em_sdpa_workspace(dnn, &s, &need, &err);
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("cuDNN %s: %s, %s, workspace %zu, first plan %.0f ms\n", type_name(type),
               st ? err.msg : "ok", em_sdpa_engine(engine, dnn, &s), need,
               (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) * 1e-6);
        if (st) {
            verdict(false, "cuDNN plan");
            continue;
        }
        test(type, 1, 1024, 1024, 2, 128, 0.0884f, false, true);
        test(type, 1, 1025, 1100, 3, 128, 0.0884f, false, true);
        test(type, 2, 517, 2051, 2, 128, 0.0884f, false, true);
        test(type, 1, 3001, 4097, 12, 128, 0.0884f, false, true);
        test(type, 1, 2048, 2048, 12, 64, 0.125f, false, true);
        test(type, 1, 1024, 1024, 2, 32, 0.1768f, false, true);
        test(type, 1, 1024, 1024, 2, 16, 0.25f, false, true);
        test(type, 1, 21504, 21504, 12, 128, 0.0884f, false, true);
    }
}

static void timings(bool by_dnn)
{
    const float s = 0.0884f;
    timing("self 21504", 2, 1, 21504, 21504, 12, 128, s, false, by_dnn);
    timing("self 21504", 1, 1, 21504, 21504, 12, 128, s, false, by_dnn);
    timing("self 48384", 2, 1, 48384, 48384, 12, 128, s, false, by_dnn);
    timing("self 77824", 2, 1, 77824, 77824, 12, 128, s, false, by_dnn);
    timing("cross 512", 2, 1, 21504, 512, 12, 128, s, false, by_dnn);
    timing("cross 257", 2, 1, 21504, 257, 12, 128, s, false, by_dnn);
    timing("audio 21 x 1024 to 32", 2, 21, 1024, 32, 12, 128, s, false, by_dnn);
    if (by_dnn) return;
    timing("VAE 21 x 4096, 1 x 384", 2, 21, 4096, 4096, 1, 384, 0.051f, false, false);
    timing("VAE 21 x 9216, 1 x 384", 2, 21, 9216, 9216, 1, 384, 0.051f, false, false);
    timing("UMT5 512, 64 x 64, bias", 2, 1, 512, 512, 64, 64, 1, true, false);
    timing("CLIP 257, 16 x 80", 2, 1, 257, 257, 16, 80, 0.1118f, false, false);
    timing("wav2vec2 500, 12 x 64", 0, 1, 500, 500, 12, 64, 0.125f, false, false);
    timing("self 21504", 0, 1, 21504, 21504, 12, 128, s, false, false);
    timing("VAE 4 x 4096, 1 x 384", 0, 4, 4096, 4096, 1, 384, 0.051f, false, false);
    timing("UMT5 512, 64 x 64, bias", 0, 1, 512, 512, 64, 64, 1, true, false);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (unsigned long long)time(NULL);
    int driver = 0, runtime = 0;
    cudaDeviceProp prop;
    CHECK(cudaDriverGetVersion(&driver));
    CHECK(cudaRuntimeGetVersion(&runtime));
    CHECK(cudaGetDeviceProperties(&prop, 0));
    printf("seed %llu; %s, sm_%d%d, %d multiprocessors; driver %d, runtime %d\n", seed, prop.name,
           prop.major, prop.minor, prop.multiProcessorCount, driver, runtime);
    CHECK(cudaStreamCreate(&stream));
    open_dnn();
    printf("own kernels\n");
    own_tests();
    printf("own kernels, times\n");
    timings(false);
    printf("cuDNN\n");
    dnn_tests();
    printf("cuDNN, times\n");
    if (dnn) timings(true);
    /* At the full length too, against the reference. */
    test(2, 1, 21504, 21504, 12, 128, 0.0884f, false, false);
    test(0, 1, 5000, 5000, 12, 128, 0.0884f, false, false);
    em_cuda_dnn_close(&dnn);
    printf("%s: %d failures\n", failures ? "FAILED" : "PASSED", failures);
    return failures != 0;
}
