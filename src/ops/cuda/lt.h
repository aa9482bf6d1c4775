/* cuBLASLt: matrix products whose algorithm belongs to the layer.
 *
 * cuBLASLt's own choice follows the number of rows, so a row's result would depend on its company.
 * Here the first product of a layer (n, k, types, epilogue) decides once, for a fixed number of
 * rows, among the algorithms that sum k in one piece and take any number of rows; every later
 * product of that layer uses it. Not for several threads at once. */
#ifndef EM_OPS_CUDA_LT_H
#define EM_OPS_CUDA_LT_H

#include "ops/ops.h"

#include <cuda_runtime_api.h>

typedef struct em_cuda_lt em_cuda_lt;

/* Scratch of a product. Too small for partial sums of a whole grid, on purpose: an algorithm that
 * shares a tile's sum among blocks has nowhere to keep it. */
enum { EM_LT_WORKSPACE_BYTES = 1 << 20 };

/* Binds the functions of an open libcublasLt.so (borrowed, never closed). `path` is for messages.
 * On success *out is owned by the caller. EM_DEVICE when a symbol is missing, the version too old
 * or the library unwilling; EM_NOMEM. */
em_status em_cuda_lt_open(em_cuda_lt **out, void *library, const char *path, em_err *err);
void em_cuda_lt_close(em_cuda_lt **lt);
size_t em_cuda_lt_version(const em_cuda_lt *lt); /* 130100 for 13.1.0 */

/* d (rows, n) = act(x (rows, k) w (n, k)^T + bias (n)), sums in float32 (no TF32). Device pointers,
 * borrowed until the stream has passed. */
typedef struct em_lt_product {
    void *d;
    const void *x, *w, *bias; /* bias: NULL or of d_type */
    int64_t rows, n, k;
    int64_t d_step;            /* elements from one row of d to the next; x and w are dense */
    int64_t batch;             /* products of the same x, or 0: one; d's lie one behind the other */
    int64_t w_step, bias_step; /* elements from one product's to the next one's */
    em_dtype type, d_type;     /* of x and w; of d: the same or F32 */
    em_act act;                /* one that em_lt_fuses */
} em_lt_product;

bool em_lt_fuses(em_act act);
/* There is an algorithm (decides it if need be). */
bool em_lt_has(em_cuda_lt *lt, const em_lt_product *p);
/* Enqueues. workspace: EM_LT_WORKSPACE_BYTES, 256-byte aligned (cuBLASLt refuses others). EM_DEVICE
 * when no algorithm fits or the launch fails; EM_NOMEM. */
em_status em_lt_multiply(em_cuda_lt *lt, const em_lt_product *p, void *workspace,
                         cudaStream_t stream, em_err *err);
/* The algorithm that the product's layer uses: "algo 66 tile 20 …" (decides it if need be), or why
 * there is none; returns out. */
const char *em_lt_describe(em_cuda_lt *lt, const em_lt_product *p, char out[160]);

#endif
