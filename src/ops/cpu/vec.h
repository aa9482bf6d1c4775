/* Vector arithmetic for the CPU kernels: one small set of loops, compiled once per instruction set.
 *
 * vec_body.h holds the loops in plain C; vec_base.c, vec_avx2.c and vec_avx512.c include it under
 * the compiler flags of their instruction set (src/ops/CMakeLists.txt), so that the compiler, not
 * intrinsics, makes the vectors. Reductions run in EM_VEC_LANES fixed partial sums and nothing is
 * contracted into fused multiply-adds, so that every build of a loop gives the same bits.
 *
 * Everything works on contiguous float32 of any alignment; kernels bring other types through short
 * stack buffers (EM_VEC_CHUNK values, which stay in the first-level cache) with `convert`. */
#ifndef EM_OPS_CPU_VEC_H
#define EM_OPS_CPU_VEC_H

#include "ops/table.h"

enum { EM_VEC_CHUNK = 512, EM_VEC_LANES = 16 };

typedef struct em_vec {
    const char *name; /* "avx512", "avx2", "baseline" */
    /* n values from one float type to another. */
    void (*convert)(void *dst, em_dtype dst_type, const void *src, em_dtype src_type, size_t n);
    void (*add)(float *x, const float *y, size_t n);                 /* x += y */
    void (*mul)(float *x, const float *y, size_t n);                 /* x *= y */
    void (*add_scaled)(float *x, const float *y, float c, size_t n); /* x += c y */
    /* x = (x - mean - rest) factor: a mean in two parts, as precise as the difference. */
    void (*centre)(float *x, float mean, float rest, float factor, size_t n);
    void (*act)(float *x, em_act act, size_t n);
    void (*rope)(float *x, const float *table, size_t pairs); /* table: cos, sin of every pair */
    void (*to_u8)(unsigned char *dst, const float *x, size_t n);
    /* C (m, n) += A (m, k) B (k, n), C and B dense, rows of A step_a apart. Every value gathers its
     * k products in order, so that no result depends on m or n. */
    void (*product)(float *c, const float *a, size_t step_a, const float *b, size_t m, size_t n,
                    size_t k);
    double (*sum)(const float *x, size_t n);
    double (*sum_squares)(const float *x, float mean, float rest,
                          size_t n); /* of x - mean - rest */
    /* max(top, the largest of scale s + bias); bias may be NULL. */
    float (*top_score)(const float *s, float scale, const float *bias, float top, size_t n);
    /* s = exp(scale s + bias - top); returns the sum. */
    float (*exp_scores)(float *s, float scale, const float *bias, float top, size_t n);
} em_vec;

/* The best set that oneDNN would use too, so that DNNL_MAX_CPU_ISA caps all of our arithmetic. */
const em_vec *em_vec_best(void);

extern const em_vec em_vec_base, em_vec_avx2, em_vec_avx512;

#endif
