/* checkops: every entry of an op table against the reference. */
#ifndef EM_CHECKOPS_H
#define EM_CHECKOPS_H

#include "ops/table.h"

#include <stddef.h>

/* Inputs of one case: tensors in an arena of their own, NaN all around each, and whatever numbers
 * the op takes beside them. */
enum { MAX_INPUTS = 8, MAX_INDICES = 64 };
typedef struct inputs {
    em_tensor t[MAX_INPUTS];
    em_attn attn;
    em_conv_spec conv;
    em_act act;
    int64_t n[5];
    float f[MAX_INPUTS];
    int32_t index[MAX_INDICES];
} inputs;

/* Makes inputs: a seeded generator and the arena. */
typedef struct maker {
    uint64_t state;
    em_arena arena;
    em_dtype dtype; /* of activations; weights and vectors take any */
} maker;

uint64_t maker_next(maker *m);
int64_t maker_pick(maker *m, const int64_t *from, int count);
/* Values of about unit size times `scale`; NaN on either side of the tensor. */
em_tensor maker_tensor(maker *m, em_dtype dtype, float scale, const int64_t *dim, int ndim);
em_dtype maker_float_type(maker *m); /* F32, F16 or BF16 */
#define PICK(m, ...)                                                                               \
    maker_pick(m, (const int64_t[]){__VA_ARGS__},                                                  \
               (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

/* How exact an op has to be; the figures and their reasons: checkops.c. */
typedef enum bound_kind { BOUND_EXACT, BOUND_POINTWISE, BOUND_SUM, BOUND_PRODUCT } bound_kind;

typedef struct op_check {
    const char *name;
    size_t slot; /* offset of the kernel in em_ops */
    bound_kind bound;
    int cases;
    unsigned dtypes;  /* bit per em_dtype of the activations it takes */
    bool may_be_same; /* the reference may serve as the CPU's kernel */
    void (*make)(maker *m, inputs *in, int index);
    em_tensor (*call)(em_run *r, const inputs *in);
} op_check;

extern const op_check checks[];
extern const int check_count;

/* JSON lines: what each op reaches on this machine with 1 and with 2 threads. */
int bench(const char *only);

#endif
