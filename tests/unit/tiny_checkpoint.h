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

static inline void tiny_see(em_tensor t)
{
    tiny_bits = em_fnv1a64(tiny_bits, t.data, em_tensor_bytes(t));
}

/* Runs `forward` on a plan and then for real, in a poisoned arena that is twice as large as the
 * plan says. Scratch and weights must peak where the plan said, nothing may be allocated
 * meanwhile, and everything that was pinned must be unpinned. `forward` compares its results
 * unless r->plans. Returns tiny_bits. */
static inline uint64_t tiny_run_on(const em_ops *ops, em_pool *pool, em_dtype dtype,
                                   tiny_forward *forward, void *arg)
{
    em_err err = {0};
    em_ops planner;
    em_ops_plan(&planner, ops);
    em_residency forecast = {.drop_unpinned = true, .counts_only = true};
    em_run plan = {.ops = &planner, .residency = &forecast, .dtype = dtype, .plans = true};
    plan.pool = pool;
    em_arena_open_virtual(&plan.arena);
    forward(&plan, arg);
    assert_ok(plan.err.code, plan.err);

    em_residency real = {.drop_unpinned = true};
    em_run run = {.ops = ops, .residency = &real, .pool = pool, .dtype = dtype};
    tiny_bits = EM_FNV1A64_INIT;
    size_t room = 2 * plan.arena.peak_bytes;
    assert_ok(em_arena_open(&run.arena, ops->device, room, true, &err), err);
    uint64_t calls = em_alloc_calls();
    forward(&run, arg);
    assert_ok(run.err.code, run.err);
    assert_int_equal(em_alloc_calls(), calls);
    assert_int_equal(run.arena.peak_bytes, plan.arena.peak_bytes);
    assert_int_equal(real.peak_bytes, forecast.peak_bytes);
    assert_int_equal(real.resident_bytes, 0);
    assert_int_equal(run.dtype, dtype);
    em_arena_close(&run.arena);
    return tiny_bits;
}

static inline void tiny_run(const em_ops *ops, em_dtype dtype, tiny_forward *forward, void *arg)
{
    tiny_run_on(ops, NULL, dtype, forward, arg);
}

/* On the fast table: by one thread, and by two, which must give the same bits. */
static inline void tiny_run_cpu(em_dtype dtype, tiny_forward *forward, void *arg)
{
    em_err err = {0};
    em_pool *pool = NULL;
    const em_ops *ops = em_ops_cpu();
    assert_ok(em_pool_create(&pool, 2, ops->thread_start, &err), err);
    uint64_t alone = tiny_run_on(ops, NULL, dtype, forward, arg),
             shared = tiny_run_on(ops, pool, dtype, forward, arg);
    em_pool_destroy(&pool);
    assert_true(alone != EM_FNV1A64_INIT); /* there was something to compare */
    assert_true(alone == shared);
}

/* The same model code on every table. */
static inline void tiny_run_everywhere(em_dtype dtype, tiny_forward *forward, void *arg)
{
    tiny_run(em_ops_ref(), dtype, forward, arg);
    tiny_run_cpu(dtype, forward, arg);
}

/* got (F32) against the golden tensor `name`, by relative L2 distance. */
static inline void tiny_expect(em_tensor got, const em_safetensors *goldens, const char *name,
                               double bound)
{
    const em_safetensors_entry *want = golden_find(goldens, name, "");
    assert_non_null(want);
    assert_int_equal(got.dtype, EM_F32);
    assert_int_equal(em_tensor_bytes(got), want->size_bytes);
    tiny_see(got);
    double d = golden_distance(got.data, want->data, (size_t)em_tensor_count(got));
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
