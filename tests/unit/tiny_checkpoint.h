/* Tiny models: a synthetic checkpoint, a forward that is planned and run, goldens to compare with.
 *
 *     em_inventory list = {0};
 *     em_binder *walk = tiny_walk_begin(&list);
 *     em_umt5_visit(walk, &cfg);
 *     em_ckpt *ckpt = tiny_walk_end(&walk, &list, "t5", EM_BF16); */
#ifndef EM_TEST_TINY_CHECKPOINT_H
#define EM_TEST_TINY_CHECKPOINT_H

#include "base/alloc.h"
#include "base/hash.h"
#include "io/ckpt.h"
#include "models/inventory.h"
#include "ops/table.h"

#include "far/far.h"
#include "far/rehearsal.h"
#include "golden.h"

#include <stdlib.h>
#include <unistd.h>

enum { TINY_SEED = 1 }; /* what the goldens were made with */

/* ---- a checkpoint ---------------------------------------------------------------------------- */

static inline em_binder *tiny_walk_begin(em_inventory *list)
{
    em_err err = {0};
    em_binder *walk = NULL;
    assert_ok(em_binder_open_visit(&walk, em_inventory_item, list, &err), err);
    return walk;
}

/* Ends the walk, writes what it listed to a temporary file and opens that. The file has no name any
 * more and lasts until em_ckpt_close. */
static inline em_ckpt *tiny_walk_end(em_binder **walk, em_inventory *list, const char *model,
                                     em_dtype dtype)
{
    em_err err = {0};
    em_ckpt *ckpt = NULL;
    char dir[] = "/tmp/em-tiny-XXXXXX", path[64];
    assert_ok(em_binder_finish(walk, &err), err);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tiny.safetensors", dir);
    assert_ok(em_inventory_synthesize(list, model, TINY_SEED, dtype, path, NULL, &err), err);
    assert_ok(em_ckpt_open(&ckpt, path, &err), err);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    em_inventory_close(list);
    return ckpt;
}

/* ---- a forward ------------------------------------------------------------------------------- */

typedef void tiny_forward(em_run *r, void *arg);

static uint64_t tiny_bits; /* of the results that a forward has shown to tiny_see */

/* The values of a result, wherever it is. Owned by the caller: free. */
static inline void *tiny_values(em_run *r, em_tensor t)
{
    void *host = malloc(em_tensor_bytes(t) + 1);
    assert_non_null(host);
    em_download(r, t, host);
    assert_ok(r->err.code, r->err);
    return host;
}

static inline void tiny_see(em_run *r, em_tensor t)
{
    void *host = tiny_values(r, t);
    tiny_bits = em_fnv1a64(tiny_bits, host, em_tensor_bytes(t));
    free(host);
}

/* Runs `compute` on a plan and then for real, in a poisoned block that has twice the scratch that
 * the plan says. Scratch and weights must peak where the plan said, everything that was pinned must
 * be unpinned, and where no weights travel nothing may be allocated meanwhile. `compute` compares
 * its results unless r->plans. Returns tiny_bits. */
static inline uint64_t tiny_run_cut(const em_ops *ops, em_pool *pool, em_dtype dtype, em_cut cut,
                                    tiny_forward *compute, void *arg)
{
    em_err err = {0};
    em_run r;
    rehearsal f = {.ops = ops, .pool = pool, .dtype = dtype, .cut = cut, .poisoned = true};
    rehearse_plan(&f, &r);
    compute(&r, arg);
    assert_ok(r.err.code, r.err);

    f.spare_bytes = r.arena.peak_bytes;
    assert_ok(rehearse_open(&f, &r, &err), err);
    tiny_bits = EM_FNV1A64_INIT;
    uint64_t calls = em_alloc_calls();
    compute(&r, arg);
    assert_ok(r.err.code, r.err);
    if (f.weights.copied_bytes == 0) assert_int_equal(em_alloc_calls(), calls);
    assert_int_equal(r.dtype, dtype);
    assert_ok(rehearse_close(&f, &r, &err), err);
    assert_int_equal(f.scratch_bytes, f.planned_scratch_bytes);
    assert_int_equal(f.weight_bytes, f.planned_weight_bytes);
    assert_int_equal(f.left_bytes, 0);
    return tiny_bits;
}

static inline uint64_t tiny_run_on(const em_ops *ops, em_pool *pool, em_dtype dtype,
                                   tiny_forward *compute, void *arg)
{
    return tiny_run_cut(ops, pool, dtype, (em_cut){0}, compute, arg);
}

static inline void tiny_run(const em_ops *ops, em_dtype dtype, tiny_forward *compute, void *arg)
{
    tiny_run_on(ops, NULL, dtype, compute, arg);
}

/* On the fast table: by one thread, by two, and far away with the weights streamed and the work cut
 * into odd pieces, which must give the same bits. */
static inline void tiny_run_cpu(em_dtype dtype, tiny_forward *compute, void *arg)
{
    em_err err = {0};
    em_pool *pool = NULL;
    const em_ops *ops = em_ops_cpu();
    far_register();
    assert_ok(em_pool_create(&pool, 2, ops->thread_start, &err), err);
    uint64_t alone = tiny_run_on(ops, NULL, dtype, compute, arg),
             shared = tiny_run_on(ops, pool, dtype, compute, arg),
             away = tiny_run_cut(em_ops_find("far"), pool, dtype,
                                 (em_cut){.ffn_rows = 7, .vae_frames = 3}, compute, arg);
    em_pool_destroy(&pool);
    assert_true(alone != EM_FNV1A64_INIT); /* there was something to compare */
    assert_true(alone == shared);
    assert_true(alone == away);
}

/* The same model code on every table. */
static inline void tiny_run_everywhere(em_dtype dtype, tiny_forward *compute, void *arg)
{
    tiny_run(em_ops_ref(), dtype, compute, arg);
    tiny_run_cpu(dtype, compute, arg);
}

/* got (F32) against the golden tensor `name`, by relative L2 distance. */
static inline void tiny_expect(em_run *r, em_tensor got, const em_safetensors *goldens,
                               const char *name, double bound)
{
    const em_safetensors_entry *want = golden_find(goldens, name, "");
    assert_non_null(want);
    assert_int_equal(got.dtype, EM_F32);
    assert_int_equal(em_tensor_bytes(got), want->size_bytes);
    tiny_see(r, got);
    float *host = tiny_values(r, got);
    double d = golden_distance(host, want->data, (size_t)em_tensor_count(got));
    free(host);
    print_message("    %-10s %.2e of %.2e\n", name, d, bound);
    if (!(d <= bound)) fail_msg("'%s' is %.3e from the golden, bound %.3e", name, d, bound);
}

/* A golden tensor as float32 (bytes become their number). Owned by the caller: free. */
static inline float *tiny_floats(const em_safetensors_entry *e, size_t *count)
{
    assert_non_null(e);
    size_t n = e->size_bytes / em_dtype_bytes(e->dtype);
    float *out = malloc(n * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = e->dtype == EM_U8 ? (float)((const uint8_t *)e->data)[i]
                                   : em_load_f32(e->data, e->dtype, i);
    *count = n;
    return out;
}

#endif
