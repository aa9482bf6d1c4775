/* Speed of the heavy ops on this machine. Not a test: nothing depends on the figures. */
#include "checkops.h"

#include "base/time.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct subject {
    const char *op, *what; /* "linear", "2048x1536x1536" */
    em_dtype dtype;
    inputs in;
    em_tensor (*call)(em_run *r, const inputs *in);
} subject;

static em_tensor linear(em_run *r, const inputs *in)
{
    return em_linear(r, in->t[0], in->t[1], in->t[2], EM_ACT_NONE);
}

static em_tensor attention(em_run *r, const inputs *in)
{
    return em_attention(r, in->t[0], in->t[1], in->t[2], &in->attn);
}

static em_tensor conv(em_run *r, const inputs *in)
{
    return em_conv(r, in->t[0], in->t[1], in->t[2], in->t[3], &in->conv);
}

static em_tensor layer_norm(em_run *r, const inputs *in)
{
    return em_norm_modulate(r, in->t[0], in->t[1], in->t[2], 1e-6f);
}

static em_tensor gelu(em_run *r, const inputs *in)
{
    em_act_inplace(r, in->t[0], EM_ACT_GELU_TANH);
    return in->t[0];
}

static em_tensor gated_add(em_run *r, const inputs *in)
{
    em_gated_add(r, in->t[0], in->t[1], in->t[2]);
    return in->t[0];
}

static em_tensor channels_last(em_run *r, const inputs *in)
{
    return em_channels_last(r, in->t[0]);
}

/* Waits for what was queued, on devices that queue: the last value is asked for. */
static void settle(em_run *r, em_tensor y)
{
    unsigned char last;
    if (em_tensor_bytes(y) == 0) return;
    em_download(r, em_tensor_of((char *)y.data + em_tensor_bytes(y) - 1, EM_U8, EM_SHAPE(1)),
                &last);
}

/* Milliseconds of the fastest of several calls within about a second: the least disturbed one. */
static double best_ms(em_run *r, const subject *s)
{
    double best = INFINITY, begin = em_now_ms();
    for (int i = 0; i < 3 || (i < 200 && em_now_ms() - begin < 1000); i++) {
        em_mark m = em_run_mark(r);
        double from = em_now_ms();
        settle(r, s->call(r, &s->in));
        double ms = em_now_ms() - from;
        if (ms < best) best = ms;
        em_run_release(r, m);
    }
    return best;
}

/* GFLOP/s of what counts multiply-adds; bytes of inputs and result otherwise. */
static void measure(const em_ops *ops, em_arena *scratch, const subject *s)
{
    int most = ops->device == &em_device_host ? 2 : 1;
    for (int threads = 1; threads <= most; threads++) {
        em_run r = {.ops = ops, .dtype = s->dtype, .arena = *scratch};
        if (em_pool_create(&r.pool, threads, r.ops->thread_start, &r.err)) break;
        em_mark m = em_run_mark(&r);
        size_t bytes = em_tensor_bytes(s->call(&r, &s->in));
        for (int i = 0; i < 2; i++) bytes += em_tensor_bytes(s->in.t[i]);
        double flops = r.flops, ms = best_ms(&r, s);
        em_run_release(&r, m);
        em_pool_destroy(&r.pool);
        if (r.err.code) {
            fprintf(stderr, "%s %s: %s\n", s->op, s->what, r.err.msg);
            return;
        }
        printf("{\"device\":\"%s\",\"op\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\","
               "\"threads\":%d,\"ms\":%.3f,\"%s\":%.1f}\n",
               ops->name, s->op, s->what, em_dtype_name(s->dtype), threads, ms,
               flops > 0 ? "gflops" : "gbytes", (flops > 0 ? flops : (double)bytes) / ms * 1e-6);
        fflush(stdout);
    }
}

static em_tensor tensor(maker *m, const int64_t *dim, int ndim)
{
    return maker_tensor(m, m->dtype, 1, dim, ndim);
}

/* Made on the host, measured in a copy on the device. */
static em_status bench_type(const em_ops *ops, maker *m, em_arena *there, em_arena *scratch,
                            const char *only)
{
    const em_conv_spec same = {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}};
    em_tensor x = tensor(m, EM_SHAPE(2048, 1536)), tokens = tensor(m, EM_SHAPE(3072, 1536));
    em_tensor small = tensor(m, EM_SHAPE(4, 64, 64, 96)),
              deep = tensor(m, EM_SHAPE(1, 32, 32, 384));
    em_tensor vector = maker_tensor(m, EM_F32, 1, EM_SHAPE(1536));
    const subject subjects[] = {
        {"linear", "2048x1536x1536", m->dtype, {.t = {x, tensor(m, EM_SHAPE(1536, 1536))}}, linear},
        {"linear",
         "512x4096x10240",
         m->dtype,
         {.t = {tensor(m, EM_SHAPE(512, 4096)), tensor(m, EM_SHAPE(10240, 4096))}},
         linear},
        {"linear",
         "2048x8960x1536",
         m->dtype,
         {.t = {tensor(m, EM_SHAPE(2048, 8960)), tensor(m, EM_SHAPE(1536, 8960))}},
         linear},
        {"linear",
         "1x1536x1536",
         m->dtype,
         {.t = {em_slice(x, 0, 1), tensor(m, EM_SHAPE(1536, 1536))}},
         linear},
        {"attention",
         "12x128, 3072 keys",
         m->dtype,
         {.t = {tokens, tokens, tokens}, .attn = {.heads = 12, .scale = 0.0883883476f}},
         attention},
        {"conv",
         "96>96 k333 4x64x64",
         m->dtype,
         {.t = {small, em_slice(small, 0, 2), tensor(m, EM_SHAPE(96, 96, 3, 3, 3))}, .conv = same},
         conv},
        {"conv",
         "384>384 k333 1x32x32",
         m->dtype,
         {.t = {deep, tensor(m, EM_SHAPE(2, 32, 32, 384)), tensor(m, EM_SHAPE(384, 384, 3, 3, 3))},
          .conv = same},
         conv},
        {"norm_modulate", "3072x1536", m->dtype, {.t = {tokens, vector, vector}}, layer_norm},
        {"gelu_tanh", "3072x1536", m->dtype, {.t = {tensor(m, EM_SHAPE(3072, 1536))}}, gelu},
        {"gated_add",
         "3072x1536",
         m->dtype,
         {.t = {tensor(m, EM_SHAPE(3072, 1536)), tokens, vector}},
         gated_add},
        {"channels_last",
         "16x512x512",
         m->dtype,
         {.t = {tensor(m, EM_SHAPE(16, 512, 512))}},
         channels_last},
    };
    em_run r = {.ops = ops, .arena = *scratch};
    em_status st =
        ops->upload(&r, em_tensor_of(there->base, EM_U8, EM_SHAPE((int64_t)m->arena.low_bytes)),
                    m->arena.base);
    for (size_t i = 0; !st && i < sizeof subjects / sizeof *subjects; i++) {
        subject s = subjects[i];
        s.in = inputs_at(&s.in, m, there->base);
        if (!only || !strcmp(only, s.op)) measure(ops, scratch, &s);
    }
    return st;
}

int bench(const em_ops *ops, const char *only)
{
    em_arena scratch = {0}, there = {0};
    maker m = {.state = 1};
    em_err err = {0};
    em_status st = em_arena_open(&m.arena, &em_device_host, (size_t)1 << 30, false, &err);
    if (!st) st = em_arena_open(&there, ops->device, (size_t)1 << 30, false, &err);
    if (!st) st = em_arena_open(&scratch, ops->device, (size_t)1 << 30, false, &err);
    for (int t = 0; !st && t < 2; t++) {
        m.dtype = t ? EM_BF16 : EM_F32;
        st = bench_type(ops, &m, &there, &scratch, only);
        em_arena_release(&m.arena, (em_mark){0});
    }
    if (st) fprintf(stderr, "checkops: %s\n", err.msg);
    em_arena_close(&scratch);
    em_arena_close(&there);
    em_arena_close(&m.arena);
    return st ? 1 : 0;
}
