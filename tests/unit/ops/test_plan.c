/* A plan is the program: random chains of ops peak where their plan does. */
#include "on_ref.h"

#include "base/alloc.h"
#include "base/rng.h"

#include <string.h>

#define NONE ((em_tensor){0})

enum { STEPS = 40, DIM = 8, TOKENS = 6 };

/* Workspaces that depend on the shapes, as a fast table's do. */
static size_t linear_room(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    return (void)r, em_tensor_bytes(y) + 3 * em_tensor_bytes(x) + em_tensor_bytes(w);
}

static size_t attention_room(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    return (void)r, 100 * (size_t)a->heads + em_tensor_bytes(q) + 7 * em_tensor_bytes(k);
}

static size_t conv_room(em_run *r, em_tensor y, const em_conv_args *c)
{
    return (void)r, 5 * em_tensor_bytes(y) + em_tensor_bytes(c->w);
}

/* One step on x (TOKENS, DIM); the result may be x itself. */
static em_tensor step(em_run *r, em_tensor x, em_tensor w, uint32_t what)
{
    em_conv_spec depthwise = {.groups = DIM, .pad_before = {0, 0, 4}, .pad_after = {0, 0, 3}};
    em_tensor line = em_at(w, 0);
    switch (what % 8) {
    case 0: return em_linear(r, x, w, line, EM_ACT_SILU);
    case 1: return em_attention(r, x, x, x, &(em_attn){.heads = 2, .scale = 0.5f});
    case 2: return em_conv(r, x, NONE, em_view(w, EM_SHAPE(DIM, 1, DIM)), line, &depthwise);
    case 3: return em_cast(r, em_layer_norm(r, x, line, NONE, 1e-5f), EM_F32);
    case 4: return em_lerp_time(r, em_lerp_time(r, x, TOKENS + 5), TOKENS);
    case 5: em_copy(r, em_run_keep(r, EM_BF16, EM_SHAPE(TOKENS, DIM)), x); return x;
    case 6: em_add(r, x, em_cast(r, em_rms_norm(r, x, line, 1e-5f), EM_F32)); return x;
    default: return em_channels_first(r, em_channels_last(r, x));
    }
}

/* Steps with marks between them, as blocks and stages have. */
static void program(em_run *r, uint32_t seed)
{
    float host[DIM * DIM];
    em_mt19937 g;
    em_mt19937_seed(&g, seed);
    for (int i = 0; i < DIM * DIM; i++) host[i] = 0.01f * (float)(i % 13 - 6);
    em_tensor w = em_upload(r, host, EM_F32, EM_SHAPE(DIM, DIM));
    em_tensor x = em_upload(r, host, EM_F32, EM_SHAPE(TOKENS, DIM));
    for (int i = 0; i < STEPS; i++) {
        uint32_t block = em_mt19937_next(&g) % 4, all = em_mt19937_next(&g) % 2;
        em_mark m = em_run_mark(r);
        em_tensor h = x;
        for (uint32_t k = 0; k < block; k++) h = step(r, h, w, em_mt19937_next(&g));
        em_copy(r, x, h);
        if (all)
            em_run_release_all(r, m);
        else
            em_run_release(r, m);
    }
    em_download(r, x, host);
    if (r->plans || r->err.code) return;
    for (int i = 0; i < TOKENS * DIM; i++) assert_true(isfinite(host[i]));
}

/* On ref's own (empty) workspaces and on larger ones, in a poisoned arena of twice the size. */
static void peaks_agree(void **state)
{
    (void)state;
    em_ops roomy = *em_ops_ref();
    roomy.linear_workspace = linear_room;
    roomy.attention_workspace = attention_room;
    roomy.conv_workspace = conv_room;
    const em_ops *const table[] = {em_ops_ref(), &roomy};
    for (uint32_t seed = 0; seed < 100; seed++) {
        em_err err = {0};
        em_ops planner;
        em_ops_plan(&planner, table[seed % 2]);
        em_dtype dtype = seed % 4 < 2 ? EM_F32 : EM_BF16;
        em_run plan = {.ops = &planner, .dtype = dtype, .plans = true},
               run = {.ops = table[seed % 2], .dtype = dtype};
        em_arena_open_virtual(&plan.arena);
        program(&plan, seed);
        assert_ok(plan.err.code, plan.err);
        size_t room = 2 * plan.arena.peak_bytes;
        assert_ok(em_arena_open(&run.arena, &em_device_host, room, true, &err), err);
        uint64_t calls = em_alloc_calls();
        program(&run, seed);
        assert_ok(run.err.code, run.err);
        assert_int_equal(em_alloc_calls(), calls);
        assert_int_equal(run.arena.peak_bytes, plan.arena.peak_bytes);
        assert_int_equal(run.arena.high_bytes, plan.arena.high_bytes);
        assert_true(run.flops == plan.flops);
        em_arena_close(&run.arena);
    }
}

/* Exactly the forecast is enough; 64 bytes less are not. */
static void the_forecast_is_tight(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        em_err err = {0};
        em_ops planner;
        em_ops_plan(&planner, em_ops_ref());
        em_run plan = {.ops = &planner, .dtype = EM_F32, .plans = true};
        em_arena_open_virtual(&plan.arena);
        program(&plan, seed);
        for (size_t less = 0; less <= EM_ARENA_ALIGN; less += EM_ARENA_ALIGN) {
            em_run run = {.ops = em_ops_ref(), .dtype = EM_F32};
            size_t room = plan.arena.peak_bytes - less;
            assert_ok(em_arena_open(&run.arena, &em_device_host, room, true, &err), err);
            program(&run, seed);
            assert_int_equal(run.err.code, less ? EM_NOMEM : EM_OK);
            em_arena_close(&run.arena);
        }
    }
}

static void a_plan_computes_nothing_but_zeros(void **state)
{
    (void)state;
    em_ops planner;
    const em_ops target = {.device = &em_device_host,
                           .linear_workspace = linear_room,
                           .attention_workspace = attention_room,
                           .conv_workspace = conv_room};
    em_ops_plan(&planner, &target);
    assert_ptr_equal(planner.device, target.device);
    assert_ptr_equal(planner.linear_workspace, target.linear_workspace);
    assert_ptr_equal(planner.attention_workspace, target.attention_workspace);
    assert_ptr_equal(planner.conv_workspace, target.conv_workspace);
    em_run r = {.ops = &planner, .dtype = EM_F32, .plans = true};
    em_arena_open_virtual(&r.arena);
    float host[] = {1, 2, 3};
    em_tensor x = em_upload(&r, host, EM_F32, EM_SHAPE(3));
    em_download(&r, em_to_u8(&r, x), host); /* three bytes */
    assert_int_equal(r.err.code, EM_OK);
    assert_memory_equal(host, "\0\0\0\x3f", 4); /* the last byte of 1.0f is left alone */
    assert_true(host[1] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peaks_agree),
        cmocka_unit_test(the_forecast_is_tight),
        cmocka_unit_test(a_plan_computes_nothing_but_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
