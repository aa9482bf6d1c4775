/* The one door to oneDNN: dense products and convolutions on one thread, over operands that the
 * caller has laid out.
 *
 * Why so narrow. oneDNN's kernels reach 90 % of the machine on dense tiles; what it cannot do is
 * keep a result independent of the number of threads, read float16, or pad in time. So it gets
 * tiles only:
 *
 *     A  activations, dense, row-major, in the compute type (float32 or bfloat16)
 *     B  weights, packed beforehand into the layout that the kernel likes best
 *     C  results, dense, always float32: bias, activation and rounding are the caller's epilogue
 *
 * and every primitive runs on the thread that calls it. Cutting into tiles, and running them in
 * parallel, is the kernels' business (linear.c, conv.c, attention.c).
 *
 * Opening is cheap the second time: oneDNN keeps generated code in a cache of its own (1,024
 * primitives by default, more than the five models have shapes), and an em_dnnl is a few references
 * into it.
 *
 * A build without oneDNN (EM_ONEDNN=OFF) has dnnl_none.c behind the same door: own loops, float32
 * only. */
#ifndef EM_OPS_CPU_DNNL_H
#define EM_OPS_CPU_DNNL_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdbool.h>

typedef struct em_dnnl em_dnnl;

/* C (m, n) = A (m, k) B (k, n), or C += A B. */
typedef struct em_dnnl_matmul {
    em_dtype type; /* of A and B: F32 or BF16 */
    int64_t m, n, k;
    int64_t step_k, step_n; /* distance of neighbours in the B that is given to pack, in elements */
    bool accumulate;
    const em_dnnl *like; /* NULL, or an operation whose packed B this one shares */
} em_dnnl_matmul;

/* C (1, out[0], out[1], out[2], n) = A (1, in[0], in[1], in[2], k) convolved, no padding; time,
 * height, width. B is given to pack as (n, k, kernel[0], kernel[1], kernel[2]). */
typedef struct em_dnnl_conv {
    em_dtype type;
    int64_t n, k;
    int64_t in[3], out[3], kernel[3], stride[3];
} em_dnnl_conv;

/* One operation with fixed shapes. Read-only once open: any number of threads may pack and run at
 * once, each with scratch of its own. */
struct em_dnnl {
    void *engine, *op, *pack; /* oneDNN's objects, owned: em_dnnl_close; op is NULL until open */
    size_t packed_bytes;      /* B in the kernel's layout */
    size_t scratch_bytes;     /* what pack and run need beside their operands */
    /* What dnnl_none.c goes by; a convolution when conv.n is not 0. */
    em_dnnl_matmul matmul;
    em_dnnl_conv conv;
};

/* On failure (EM_NOMEM, EM_DEVICE) *d is empty; closing it is allowed. */
em_status em_dnnl_open_matmul(em_dnnl *d, const em_dnnl_matmul *s);
em_status em_dnnl_open_conv(em_dnnl *d, const em_dnnl_conv *s);
void em_dnnl_close(em_dnnl *d);

/* All pointers 64-byte aligned, but for plain and a (their type's alignment will do). */
em_status em_dnnl_pack(const em_dnnl *d, void *packed, const void *plain, void *scratch);
em_status em_dnnl_run(const em_dnnl *d, float *c, const void *a, const void *packed, void *scratch);

/* What the machine can do; with oneDNN, what DNNL_MAX_CPU_ISA lets us use of it. */
typedef enum em_isa { EM_ISA_BASE, EM_ISA_AVX2, EM_ISA_AVX512 } em_isa;
em_isa em_dnnl_isa(void);
/* Products of bfloat16 are in hardware (elsewhere oneDNN has none, or slow ones). */
bool em_dnnl_has_bf16(void);

#endif
