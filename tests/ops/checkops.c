/* checkops [--device NAME] [--seed N] [--op NAME] [--once] [--whole] | --bench [--device NAME]
 * [--op NAME]
 *
 * Every entry of a table (cpu unless told otherwise) against the reference, on fresh random inputs
 * of odd shapes, in every type:
 *
 *   result      within a bound (the one table below); every element written (scratch starts as NaN)
 *   inputs      not changed; nothing read beyond their edges (NaN lies there)
 *   edges       nothing written outside the result and the workspace that was asked for
 *   threads     the same bits with 1, 2 and 3, and so the same bits every time
 *   memory      the plan's peak is the peak
 *   pieces      the same bits whether rows, frames or queries come together, in 2 or in 7 portions
 *
 * Under tools that make a kernel a hundred times slower: --once leaves out the repetitions with
 * more threads, --whole the pieces.
 *
 * Inputs are made on the host, uploaded, and downloaded again to see that they are what they were:
 * device memory is touched by upload, download and the ops alone. One line an op and type. Exit
 * status 1 when a check fails, and when linear, attention, convolution or a norm is the reference's
 * own; 77 when there is no such device. */
#include "checkops.h"

#include "base/alloc.h"
#include "base/hash.h"
#include "base/time.h"
#include "far/far.h"
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

enum { MAX_THREADS = 3, MAX_PIECES = 7, NO_DEVICE = 77 };
enum { INPUT_BYTES = 64 << 20, SCRATCH_BYTES = 256 << 20, WANT_BYTES = 16 << 20 };

/* ---- one case -------------------------------------------------------------------------------- */

typedef struct lab {
    const em_ops *ops;          /* under test */
    em_pool *pool[MAX_THREADS]; /* of 1, 2, 3 threads */
    int pools;                  /* of them, those in use */
    bool whole;                 /* no pieces */
    em_arena inputs, want;      /* on the host */
    em_arena there, scratch;    /* on the device: the inputs' copy, and what ops work in */
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

static em_run run_on(const em_ops *ops, em_pool *pool, em_dtype dtype, const em_arena *scratch)
{
    return (em_run){.ops = ops, .pool = pool, .dtype = dtype, .arena = *scratch};
}

/* The op between two bands: in front of its scratch, and behind it. */
static em_tensor call(em_run *r, const op_check *op, const inputs *in, em_tensor *front)
{
    *front = em_run_tensor(r, EM_U8, EM_SHAPE(GUARD));
    return op->call(r, in);
}

/* The peak that a plan of the guarded table forecasts. */
static size_t planned_peak(const guard *g, const op_check *op, const inputs *in, em_pool *pool,
                           em_dtype dtype)
{
    guard p = *g;
    em_tensor front;
    em_ops_plan(&p.table, &g->table);
    em_run r = {.ops = &p.table, .pool = pool, .dtype = dtype, .plans = true};
    em_arena_open_virtual(&r.arena);
    call(&r, op, in, &front);
    return r.err.code ? 0 : r.arena.peak_bytes;
}

/* n bytes of the device, owned; NULL after a failure. */
static unsigned char *fetched(em_run *r, void *at, size_t n)
{
    unsigned char *host = em_alloc(n);
    if (host) em_download(r, em_tensor_of(at, EM_U8, EM_SHAPE((int64_t)n)), host);
    if (host && !r->err.code) return host;
    em_free(host);
    return NULL;
}

static bool band_untouched(em_run *r, em_tensor band)
{
    unsigned char *b = fetched(r, band.data, GUARD);
    bool clean = b && guard_untouched(b, GUARD);
    em_free(b);
    return clean;
}

/* A result, and GUARD bytes behind it, against the reference's. */
static verdict judge(em_run *r, em_tensor got, em_tensor front, em_tensor want, bool broken)
{
    verdict v = {.nmse = INFINITY};
    size_t bytes = em_tensor_bytes(got);
    unsigned char *host = fetched(r, got.data, bytes + GUARD);
    if (!host) {
        v.fault = "cannot be downloaded";
    } else if (got.dtype != want.dtype || !em_same_shape(got, want)) {
        v.fault = "another shape or type";
    } else {
        em_tensor near = got;
        near.data = host;
        v.nmse = nmse_of(near, want);
        v.bits = em_fnv1a64(EM_FNV1A64_INIT, host, bytes);
        if (broken || !guard_untouched(host + bytes, GUARD) || !band_untouched(r, front))
            v.fault = "wrote outside its result or its workspace";
    }
    em_free(host);
    return v;
}

/* The case on the table under test, with one pool. */
static verdict run_once(const lab *l, const op_check *op, const inputs *in, em_tensor want,
                        em_pool *pool, em_dtype dtype)
{
    guard g = guard_over(l->ops);
    em_tensor front;
    size_t plan = planned_peak(&g, op, in, pool, dtype);
    em_run r = run_on(&g.table, pool, dtype, &l->scratch);
    em_tensor got = call(&r, op, in, &front);
    verdict v = {.nmse = INFINITY, .fault = "an error"};
    if (r.err.code)
        fprintf(stderr, "%s: %s\n", op->name, r.err.msg);
    else
        v = judge(&r, got, front, want, g.broken);
    if (!v.fault && plan != r.arena.peak_bytes) v.fault = "plan and peak differ";
    em_run_release_all(&r, (em_mark){0});
    return v;
}

/* The inputs as the device sees them: all of the host's arena, NaN and all. */
static em_tensor whole_of(const lab *l, em_arena *a)
{
    return em_tensor_of(a->base, EM_U8, EM_SHAPE((int64_t)l->inputs.low_bytes));
}

static bool send_inputs(lab *l, em_err *err)
{
    em_run r = run_on(l->ops, NULL, EM_F32, &l->scratch);
    em_status st = l->ops->upload(&r, whole_of(l, &l->there), l->inputs.base);
    return st ? em_fail(err, st, "the inputs cannot be uploaded: %s", r.err.msg), false : true;
}

static bool inputs_unchanged(lab *l)
{
    em_run r = run_on(l->ops, NULL, EM_F32, &l->scratch);
    unsigned char *now = fetched(&r, l->there.base, l->inputs.low_bytes);
    bool same = now && !memcmp(now, l->inputs.base, l->inputs.low_bytes);
    em_free(now);
    return same;
}

/* One case with every pool. The first thing that is wrong is the verdict. */
static verdict run_case(lab *l, const op_check *op, em_dtype dtype, uint64_t seed, int index)
{
    maker m = {.state = seed, .arena = l->inputs, .dtype = dtype};
    inputs in = {.n = {0}};
    em_err err = {0};
    op->make(&m, &in, index);
    l->inputs = m.arena;
    const inputs near = inputs_at(&in, &m, m.arena.base), far = inputs_at(&in, &m, l->there.base);
    em_run ref = run_on(em_ops_ref(), NULL, dtype, &l->want);
    em_tensor want = op->call(&ref, &near);
    verdict v = {.nmse = INFINITY, .fault = "the reference fails"};
    if (!ref.err.code && !send_inputs(l, &err))
        v.fault = "the inputs cannot be uploaded";
    else if (!ref.err.code)
        v = run_once(l, op, &far, want, l->pool[0], dtype);
    for (int i = 1; i < l->pools && !v.fault; i++) {
        verdict w = run_once(l, op, &far, want, l->pool[i], dtype);
        if (w.fault)
            v = w;
        else if (w.bits != v.bits)
            v.fault = "the bits change with the threads, or from time to time";
    }
    if (!v.fault && !inputs_unchanged(l)) v.fault = "changed its inputs";
    em_run_release_all(&ref, (em_mark){0});
    em_arena_release(&l->inputs, (em_mark){0});
    return v;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* count uneven portions of n rows: end[i] of each, ascending, the last one n. */
static void cut(maker *m, int64_t n, int count, int64_t end[MAX_PIECES])
{
    int have = 0;
    while (have < count - 1) {
        int64_t at = 1 + (int64_t)(maker_next(m) % (uint64_t)(n - 1));
        int i = have;
        bool known = false;
        for (int k = 0; k < have; k++) known |= end[k] == at;
        if (known) continue;
        for (; i > 0 && end[i - 1] > at; i--) end[i] = end[i - 1];
        end[i] = at;
        have++;
    }
    end[count - 1] = n;
}

/* The whole result's bytes are `whole`; those of the portions, one after the other, must equal
 * them. */
static const char *compare_pieces(em_run *r, const piece_check *p, const inputs *in,
                                  const unsigned char *whole, size_t whole_bytes,
                                  const int64_t *end, int count)
{
    size_t at = 0;
    const char *fault = NULL;
    for (int i = 0; i < count && !fault; i++) {
        int64_t begin = i ? end[i - 1] : 0;
        em_mark m = em_run_mark(r);
        em_tensor part = p->part(r, in, begin, end[i] - begin);
        size_t n = em_tensor_bytes(part);
        unsigned char *host = r->err.code ? NULL : fetched(r, part.data, n);
        if (!host)
            fault = "an error";
        else if (n > whole_bytes - at || memcmp(host, whole + at, n))
            fault = count == 2 ? "2 portions have other bits" : "7 portions have other bits";
        at += n;
        em_free(host);
        em_run_release(r, m);
    }
    return fault ? fault : at != whole_bytes ? "portions have other sizes" : NULL;
}

/* One case, whole and in portions; the verdict's fault. */
static const char *run_pieces(lab *l, const piece_check *p, em_dtype dtype, uint64_t seed,
                              int index)
{
    maker m = {.state = seed, .arena = l->inputs, .dtype = dtype};
    inputs in = {.n = {0}};
    em_err err = {0};
    p->make(&m, &in, index);
    l->inputs = m.arena;
    const inputs far = inputs_at(&in, &m, l->there.base);
    em_run r = run_on(l->ops, l->pool[l->pools > 1], dtype, &l->scratch);
    const char *fault = send_inputs(l, &err) ? NULL : "the inputs cannot be uploaded";
    em_tensor all = fault ? (em_tensor){0} : p->part(&r, &far, 0, in.n[4]);
    size_t bytes = em_tensor_bytes(all);
    unsigned char *whole = r.err.code || fault ? NULL : fetched(&r, all.data, bytes);
    if (!whole && !fault) fault = "an error";
    for (int count = 2; count <= MAX_PIECES && !fault; count += MAX_PIECES - 2) {
        int64_t end[MAX_PIECES];
        cut(&m, in.n[4], count, end);
        fault = compare_pieces(&r, p, &far, whole, bytes, end, count);
    }
    if (r.err.code) fprintf(stderr, "%s: %s\n", p->name, r.err.msg);
    em_free(whole);
    em_run_release_all(&r, (em_mark){0});
    em_arena_release(&l->inputs, (em_mark){0});
    return fault;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool is_reference(const lab *l, const op_check *op)
{
    return !memcmp((const char *)l->ops + op->slot, (const char *)em_ops_ref() + op->slot,
                   sizeof(void (*)(void)));
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
    bool same = is_reference(l, op), own = l->ops == em_ops_ref() || op->may_be_same || !same;
    const char *fault = own ? NULL : "must have a kernel of its own";
    int index = 0;
    for (; index < op->cases && !fault; index++) {
        verdict v = run_case(l, op, dtype, case_seed(seed, op->name, dtype, index), index);
        if (!(v.nmse <= worst)) worst = v.nmse;
        fault = v.fault ? v.fault : !(v.nmse <= bound) ? "inexact" : NULL;
    }
    printf("%-15s %-5s %-7s %3d cases  %.2e <= %.0e  ", op->name, em_dtype_name(dtype),
           same ? "same" : l->ops->name, index, worst, bound);
    if (fault)
        printf("FAIL: %s (after %d cases)\n", fault, index);
    else
        printf("pass\n");
    fflush(stdout);
    return !fault;
}

static bool check_pieces(lab *l, const piece_check *p, em_dtype dtype, uint64_t seed)
{
    const char *fault = NULL;
    int index = 0;
    for (; index < p->cases && !fault; index++)
        fault = run_pieces(l, p, dtype, case_seed(seed, p->name, dtype, index), index);
    printf("%-15s %-5s %-7s %3d cases  in 2 and 7 pieces     %s%s\n", p->name, em_dtype_name(dtype),
           l->ops->name, index, fault ? "FAIL: " : "pass", fault ? fault : "");
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
    for (int i = 0; i < piece_check_count && !l->whole; i++) {
        if (only && strcmp(only, piece_checks[i].name)) continue;
        for (em_dtype t = EM_F32; t <= EM_BF16; t++)
            if (piece_checks[i].dtypes >> t & 1)
                failures += !check_pieces(l, &piece_checks[i], t, seed);
    }
    return failures;
}

static em_status open_lab(lab *l, em_err *err)
{
    em_status st = em_arena_open(&l->inputs, &em_device_host, INPUT_BYTES, true, err);
    if (!st) st = em_arena_open(&l->want, &em_device_host, WANT_BYTES, true, err);
    if (!st) st = em_arena_open(&l->there, l->ops->device, INPUT_BYTES, true, err);
    if (!st) st = em_arena_open(&l->scratch, l->ops->device, SCRATCH_BYTES, true, err);
    for (int i = 0; !st && i < MAX_THREADS; i++)
        st = em_pool_create(&l->pool[i], i + 1, l->ops->thread_start, err);
    return st;
}

static void close_lab(lab *l)
{
    for (int i = 0; i < MAX_THREADS; i++) em_pool_destroy(&l->pool[i]);
    em_arena_close(&l->scratch);
    em_arena_close(&l->there);
    em_arena_close(&l->want);
    em_arena_close(&l->inputs);
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: checkops [--device NAME] [--seed N] [--op NAME] [--once] [--whole] [--bench]\n");
    return 2;
}

/* A seed that no run before had, for whoever gives none. */
static uint64_t fresh_seed(void)
{
    double ms = em_now_ms();
    return em_fnv1a64(EM_FNV1A64_INIT, &ms, sizeof ms) % 1000000;
}

static int check_table(lab *l, uint64_t seed, const char *only)
{
    static const char *const isa[] = {"baseline", "AVX2", "AVX-512"};
    const em_ops *ops = l->ops;
    em_err err = {0};
    printf("seed %llu, device %s; the CPU has %s%s, own loops for %s\n", (unsigned long long)seed,
           ops->name, isa[em_dnnl_isa()], em_dnnl_has_bf16() ? " with bfloat16" : "",
           em_vec_best()->name);
    int failures = open_lab(l, &err) ? 1 : check_all(l, seed, only);
    if (err.code) fprintf(stderr, "checkops: %s\n", err.msg);
    close_lab(l);
    if (failures) printf("%d FAILED (seed %llu)\n", failures, (unsigned long long)seed);
    return failures ? 1 : 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = fresh_seed();
    const char *only = NULL, *name = "cpu";
    lab l = {.pools = MAX_THREADS};
    bool timing = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            timing = true;
        else if (!strcmp(argv[i], "--once"))
            l.pools = 1;
        else if (!strcmp(argv[i], "--whole"))
            l.whole = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--op") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            name = argv[++i];
        else
            return usage();
    }
    far_register();
    em_err err = {0};
    if (em_ops_open(&l.ops, name, &err)) {
        printf("skipped: %s\n", err.msg);
        return NO_DEVICE;
    }
    return timing ? bench(l.ops, only) : check_table(&l, seed, only);
}
