/* checkops [--seed N] [--op NAME] | --bench [--op NAME]
 *
 * Every entry of the cpu table against the reference, on fresh random inputs of odd shapes, in
 * every type:
 *
 *   result      within a bound (the one table below); every element written (scratch starts as NaN)
 *   inputs      not changed; nothing read beyond their edges (NaN lies there)
 *   edges       nothing written outside the result and the workspace that was asked for
 *   threads     the same bits with 1, 2 and 3
 *   memory      the plan's peak is the peak
 *   rows        linear: the same bits whether rows come together or in uneven portions
 *
 * One line an op and type. Exit status 1 when a check fails, and when linear, attention,
 * convolution or a norm is the reference's own. */
#include "checkops.h"

#include "base/hash.h"
#include "ops/cpu/dnnl.h"
#include "ops/cpu/vec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Largest NMSE = sum (a - b)^2 / (1 + sum b^2) of one case. Inputs make results of order one; the
 * 1, the power of a single such value, keeps a lone result that happens to vanish from being
 * divided by.
 *
 *   exact       a move, or a rounding that both sides do: no difference at all
 *   pointwise   F32: a few float32 roundings each (1e-7), against double. 16 bits: both sides
 *               round the same value but for those 1e-7, so an element differs only when it lies
 *               next to a tie, and then by one unit in the last place, 2^-10 or 2^-7 relative; a
 *               lone element's NMSE is the square of it
 *   sum         as pointwise: partial sums keep the sum's error to a few roundings
 *   product     F32: K roundings of partial sums, sqrt(3300) 6e-8 = 3e-6 at most, squared. F16:
 *               the same in float32, then one rounding. BF16: weights of other types, attention's
 *               probabilities and the result are rounded to 8 bits where bfloat16 is multiplied:
 *               2^-9 each, squared, and the tie of a lone element */
static const double bounds[][3] = {
    /*                  F32    F16    BF16 */
    [BOUND_EXACT] = {0, 0, 0},
    [BOUND_POINTWISE] = {1e-12, 1e-6, 6e-5},
    [BOUND_SUM] = {1e-12, 1e-6, 6e-5},
    [BOUND_PRODUCT] = {1e-11, 1e-6, 6e-5},
};

enum { GUARD = 4096, MAX_THREADS = 3 };

/* ---- inputs ---------------------------------------------------------------------------------- */

uint64_t maker_next(maker *m)
{
    uint64_t z = m->state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t maker_pick(maker *m, const int64_t *from, int count)
{
    return from[maker_next(m) % (uint64_t)count];
}

em_dtype maker_float_type(maker *m)
{
    static const em_dtype type[] = {EM_F32, EM_F16, EM_BF16};
    return type[maker_next(m) % 3];
}

/* Uniform in +-sqrt(3): unit variance. */
em_tensor maker_tensor(maker *m, em_dtype dtype, float scale, const int64_t *dim, int ndim)
{
    em_tensor t = em_tensor_of(NULL, dtype, dim, ndim);
    em_arena_take(&m->arena, GUARD, false);
    t.data = em_arena_take(&m->arena, em_tensor_bytes(t), false);
    em_arena_take(&m->arena, GUARD, false);
    for (int64_t i = 0; i < em_tensor_count(t); i++) {
        float v = (float)(maker_next(m) >> 40) * (float)0x1p-23 - 1;
        em_store_f32(t.data, dtype, (size_t)i, v * 1.7320508f * scale);
    }
    return t;
}

/* ---- a guarded table ------------------------------------------------------------------------- */

/* The target's kernels with GUARD bytes on either side of the workspaces that they ask for: in
 * front of it lies the result. The others have the arena's free bytes behind their result. */
typedef struct guard {
    em_ops table;
    const em_ops *target;
    size_t workspace_bytes; /* as the target asked */
    bool broken;
} guard;

static guard *guard_of(em_run *r)
{
    return (guard *)((char *)r->ops - offsetof(guard, table));
}

static bool untouched(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0xFF) return false;
    return true;
}

static size_t guarded(em_run *r, size_t bytes)
{
    guard_of(r)->workspace_bytes = bytes;
    return bytes + 2 * GUARD;
}

static void inspect(em_run *r, const unsigned char *ws)
{
    guard *g = guard_of(r);
    if (!untouched(ws, GUARD) || !untouched(ws + GUARD + g->workspace_bytes, GUARD))
        g->broken = true;
}

static size_t linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    return guarded(r, guard_of(r)->target->linear_workspace(r, y, x, w));
}

static em_status linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    em_status st = guard_of(r)->target->linear(r, y, x, w, b, act, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static size_t attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    return guarded(r, guard_of(r)->target->attention_workspace(r, q, k, a));
}

static em_status attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    em_status st = guard_of(r)->target->attention(r, y, q, k, v, a, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static size_t conv_workspace(em_run *r, em_tensor y, const em_conv_args *c)
{
    return guarded(r, guard_of(r)->target->conv_workspace(r, y, c));
}

static em_status conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws)
{
    em_status st = guard_of(r)->target->conv(r, y, c, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static em_ops guarded_table(const em_ops *target)
{
    em_ops t = *target;
    t.linear_workspace = linear_workspace;
    t.linear = linear;
    t.attention_workspace = attention_workspace;
    t.attention = attention;
    t.conv_workspace = conv_workspace;
    t.conv = conv;
    return t;
}

/* ---- one case -------------------------------------------------------------------------------- */

typedef struct lab {
    em_pool *pool[MAX_THREADS]; /* of 1, 2, 3 threads */
    em_arena inputs, scratch, want;
} lab;

typedef struct verdict {
    double nmse;
    const char *fault; /* NULL: none */
    uint64_t bits;     /* of the result */
} verdict;

static double nmse_of(em_tensor got, em_tensor want)
{
    double error = 0, power = 1;
    for (int64_t i = 0; i < em_tensor_count(want); i++) {
        double a, b;
        if (want.dtype == EM_U8) {
            a = ((unsigned char *)got.data)[i];
            b = ((unsigned char *)want.data)[i];
        } else {
            a = em_load_f32(got.data, got.dtype, (size_t)i);
            b = em_load_f32(want.data, want.dtype, (size_t)i);
        }
        error += (a - b) * (a - b);
        power += b * b;
    }
    return error / power; /* a NaN stays one, and fails every comparison */
}

/* The peak that a plan of the guarded table forecasts. */
static size_t planned_peak(const guard *g, const op_check *op, const inputs *in, em_pool *pool,
                           em_dtype dtype)
{
    guard p = *g;
    em_ops_plan(&p.table, &g->table);
    em_run r = {.ops = &p.table, .pool = pool, .dtype = dtype, .plans = true};
    em_arena_open_virtual(&r.arena);
    op->call(&r, in);
    return r.err.code ? 0 : r.arena.peak_bytes;
}

/* The case on the cpu table, with one pool. */
static verdict run_once(const lab *l, const op_check *op, const inputs *in, em_tensor want,
                        em_pool *pool, em_dtype dtype)
{
    guard g = {.table = guarded_table(em_ops_cpu()), .target = em_ops_cpu()};
    size_t plan = planned_peak(&g, op, in, pool, dtype);
    em_run r = {.ops = &g.table, .pool = pool, .dtype = dtype, .arena = l->scratch};
    em_tensor got = op->call(&r, in);
    verdict v = {.nmse = INFINITY};
    if (r.err.code) {
        fprintf(stderr, "%s: %s\n", op->name, r.err.msg);
        v.fault = "an error";
        return v;
    }
    size_t bytes = em_tensor_bytes(got);
    v.nmse = nmse_of(got, want);
    v.bits = em_fnv1a64(EM_FNV1A64_INIT, got.data, bytes);
    if (got.dtype != want.dtype || !em_same_shape(got, want))
        v.fault = "another shape or type";
    else if (g.broken || !untouched((unsigned char *)got.data + bytes, GUARD))
        v.fault = "wrote outside its result or its workspace";
    else if (plan != r.arena.peak_bytes)
        v.fault = "plan and peak differ";
    em_run_release_all(&r, (em_mark){0});
    return v;
}

static uint64_t inputs_bits(const lab *l)
{
    return em_fnv1a64(EM_FNV1A64_INIT, l->inputs.base, l->inputs.low_bytes);
}

/* One case with every pool. The first thing that is wrong is the verdict. */
static verdict run_case(lab *l, const op_check *op, em_dtype dtype, uint64_t seed, int index)
{
    maker m = {.state = seed, .arena = l->inputs, .dtype = dtype};
    inputs in = {.n = {0}};
    op->make(&m, &in, index);
    l->inputs = m.arena;
    uint64_t before = inputs_bits(l);
    em_run ref = {.ops = em_ops_ref(), .dtype = dtype, .arena = l->want};
    em_tensor want = op->call(&ref, &in);
    verdict v = {.nmse = INFINITY, .fault = "the reference fails"};
    if (!ref.err.code) v = run_once(l, op, &in, want, l->pool[0], dtype);
    for (int i = 1; i < MAX_THREADS && !v.fault; i++) {
        verdict w = run_once(l, op, &in, want, l->pool[i], dtype);
        if (w.fault)
            v = w;
        else if (w.bits != v.bits)
            v.fault = "the number of threads changes the bits";
    }
    if (!v.fault && inputs_bits(l) != before) v.fault = "changed its inputs";
    em_run_release_all(&ref, (em_mark){0});
    em_arena_release(&l->inputs, (em_mark){0});
    return v;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* linear on 300 rows at once and in portions of 1, 31, 100, 5 and the rest. */
static bool check_portions(lab *l, em_dtype dtype, uint64_t seed, int64_t n, int64_t k)
{
    static const int64_t end[] = {1, 32, 132, 137, 300};
    maker m = {.state = seed, .arena = l->inputs, .dtype = dtype};
    em_tensor x = maker_tensor(&m, dtype, 1, EM_SHAPE(300, k));
    em_tensor w = maker_tensor(&m, dtype, 1 / sqrtf((float)k), EM_SHAPE(n, k));
    em_run r = {.ops = em_ops_cpu(), .pool = l->pool[1], .dtype = dtype, .arena = l->scratch};
    em_tensor all = em_linear(&r, x, w, (em_tensor){0}, EM_ACT_SILU);
    bool same = !r.err.code;
    for (int64_t i = 0, from = 0; same && i < (int64_t)(sizeof end / sizeof *end); i++) {
        em_tensor some =
            em_linear(&r, em_slice(x, from, end[i] - from), w, (em_tensor){0}, EM_ACT_SILU);
        same =
            !r.err.code && !memcmp(some.data, em_slice(all, from, 1).data, em_tensor_bytes(some));
        from = end[i];
    }
    if (r.err.code) fprintf(stderr, "linear: %s\n", r.err.msg);
    em_run_release_all(&r, (em_mark){0});
    return same;
}

static int check_rows(lab *l, uint64_t seed)
{
    static const int64_t shape[][2] = {{1, 1},      {17, 130},  {100, 64},
                                       {256, 1536}, {70, 1600}, {130, 4000}};
    static const em_dtype types[] = {EM_F32, EM_F16, EM_BF16};
    int failures = 0;
    for (int t = 0; t < 3; t++) {
        bool fault = false;
        int cases = (int)(sizeof shape / sizeof *shape);
        for (int i = 0; i < cases && !fault; i++)
            fault = !check_portions(l, types[t], seed, shape[i][0], shape[i][1]);
        printf("%-15s %-5s %-5s %3d cases  %21s  %s\n", "linear rows", em_dtype_name(types[t]),
               "cpu", cases, "", fault ? "FAIL: a row's bits depend on the other rows" : "pass");
        failures += fault;
    }
    return failures;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool is_reference(const op_check *op)
{
    const char *cpu = (const char *)em_ops_cpu() + op->slot;
    return !memcmp(cpu, (const char *)em_ops_ref() + op->slot, sizeof(void (*)(void)));
}

static uint64_t case_seed(uint64_t seed, const char *op, em_dtype dtype, int index)
{
    uint64_t h = em_fnv1a64(EM_FNV1A64_INIT ^ seed, op, strlen(op));
    return h + (uint64_t)dtype * 1000 + (uint64_t)index;
}

/* Prints the op's line in one type; false when something failed. */
static bool check_op(lab *l, const op_check *op, em_dtype dtype, uint64_t seed)
{
    double bound = bounds[op->bound][dtype], worst = 0;
    bool same = is_reference(op);
    const char *fault = same && !op->may_be_same ? "must have a kernel of its own" : NULL;
    int index = 0;
    for (; index < op->cases && !fault; index++) {
        verdict v = run_case(l, op, dtype, case_seed(seed, op->name, dtype, index), index);
        if (!(v.nmse <= worst)) worst = v.nmse;
        fault = v.fault ? v.fault : !(v.nmse <= bound) ? "inexact" : NULL;
    }
    printf("%-15s %-5s %-5s %3d cases  %.2e <= %.0e  ", op->name, em_dtype_name(dtype),
           same ? "same" : "cpu", index, worst, bound);
    if (fault)
        printf("FAIL: %s (after %d cases)\n", fault, index);
    else
        printf("pass\n");
    fflush(stdout);
    return !fault;
}

static int check_all(lab *l, uint64_t seed, const char *only)
{
    int failures = 0;
    for (int i = 0; i < check_count; i++) {
        if (only && strcmp(only, checks[i].name)) continue;
        for (em_dtype t = EM_F32; t <= EM_BF16; t++)
            if (checks[i].dtypes >> t & 1) failures += !check_op(l, &checks[i], t, seed);
    }
    if (!only || !strcmp(only, "linear")) failures += check_rows(l, seed);
    return failures;
}

static em_status open_lab(lab *l, em_err *err)
{
    em_status st = em_arena_open(&l->inputs, &em_device_host, 64 << 20, true, err);
    if (!st) st = em_arena_open(&l->scratch, &em_device_host, 256 << 20, true, err);
    if (!st) st = em_arena_open(&l->want, &em_device_host, 16 << 20, true, err);
    for (int i = 0; !st && i < MAX_THREADS; i++)
        st = em_pool_create(&l->pool[i], i + 1, em_ops_cpu()->thread_start, err);
    return st;
}

static void close_lab(lab *l)
{
    for (int i = 0; i < MAX_THREADS; i++) em_pool_destroy(&l->pool[i]);
    em_arena_close(&l->want);
    em_arena_close(&l->scratch);
    em_arena_close(&l->inputs);
}

static int usage(void)
{
    fprintf(stderr, "usage: checkops [--seed N] [--op NAME] [--bench]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    const char *only = NULL;
    bool timing = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            timing = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--op") && i + 1 < argc)
            only = argv[++i];
        else
            return usage();
    }
    if (timing) return bench(only);
    static const char *const isa[] = {"baseline", "AVX2", "AVX-512"};
    printf("seed %llu, oneDNN on %s%s, own loops for %s\n", (unsigned long long)seed,
           isa[em_dnnl_isa()], em_dnnl_has_bf16() ? " with bfloat16" : "", em_vec_best()->name);
    lab l = {0};
    em_err err = {0};
    int failures = open_lab(&l, &err) ? 1 : check_all(&l, seed, only);
    if (err.code) fprintf(stderr, "checkops: %s\n", err.msg);
    close_lab(&l);
    if (failures) printf("%d FAILED\n", failures);
    return failures ? 1 : 0;
}
