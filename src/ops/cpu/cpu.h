/* The CPU's own kernels, and what they share. Contracts: ops/ops.h; table and fall-backs: cpu.c. */
#ifndef EM_OPS_CPU_CPU_H
#define EM_OPS_CPU_CPU_H

#include "ops/cpu/vec.h"
#include "ops/table.h"

/* One OpenMP thread for oneDNN in the calling thread. The kernels see to it themselves; a pool may
 * pass it as on_start, which moves OpenMP's per-thread set-up out of the first op. */
void em_cpu_thread_start(void);

size_t em_cpu_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w);
em_status em_cpu_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws);
size_t em_cpu_attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a);
em_status em_cpu_attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws);
size_t em_cpu_conv_workspace(em_run *r, em_tensor y, const em_conv_args *c);
em_status em_cpu_conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws);
em_status em_cpu_norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s);
em_status em_cpu_time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b,
                           float eps);
em_status em_cpu_act(em_run *r, em_tensor x, em_act act);
em_status em_cpu_binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind);
em_status em_cpu_rope(em_run *r, em_tensor x, em_tensor table, int heads);
em_status em_cpu_lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *c);
em_status em_cpu_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols);
em_status em_cpu_transpose(em_run *r, em_tensor y, em_tensor x);
em_status em_cpu_to_u8(em_run *r, em_tensor y, em_tensor x);

/* The type in which products with activations x are computed: bfloat16 where x is and the machine
 * multiplies it, else float32. */
em_dtype em_cpu_product_type(em_tensor x);

/* Element i of a tensor. */
static inline void *em_cpu_at(em_tensor t, int64_t i)
{
    return (char *)t.data + (size_t)i * em_dtype_bytes(t.dtype);
}

static inline int64_t em_cpu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static inline int64_t em_cpu_round_up(int64_t a, int64_t b)
{
    return em_cpu_ceil_div(a, b) * b;
}
static inline int64_t em_cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline size_t em_cpu_max_bytes(size_t a, size_t b)
{
    return a > b ? a : b;
}
/* Pieces of a workspace keep its alignment. */
static inline size_t em_cpu_aligned(size_t bytes)
{
    return (bytes + EM_ARENA_ALIGN - 1) & ~(size_t)(EM_ARENA_ALIGN - 1);
}

#endif
