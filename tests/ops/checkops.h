/* checkops: every entry of an op table against the reference. */
#ifndef EM_CHECKOPS_H
#define EM_CHECKOPS_H

#include "ops/table.h"

#include <stddef.h>

/* Inputs of one case: tensors in an arena of their own, NaN all around each, and whatever numbers
 * the op takes beside them. */
enum { MAX_INPUTS = 8, MAX_INDICES = 64, GUARD = 4096 };
typedef struct inputs {
    em_tensor t[MAX_INPUTS];
    const void *host; /* t[0]'s values on the host, wherever t[0] is */
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

/* The same inputs in a copy of the maker's arena at `base`: on a device. */
inputs inputs_at(const inputs *in, const maker *m, void *base);

/* A table's kernels with GUARD bytes on either side of the workspaces that they ask for: in front
 * of it lies the result. The others have the arena's free bytes behind their result. */
typedef struct guard {
    em_ops table;
    const em_ops *target;   /* borrowed */
    size_t workspace_bytes; /* as the target asked */
    bool broken;
} guard;

guard guard_over(const em_ops *target);
bool guard_untouched(const unsigned char *p, size_t n); /* all 0xFF, as the arena's poison */

/* How exact an op has to be; the figures and their reasons: checkops.c. */
typedef enum bound_kind { BOUND_EXACT, BOUND_POINTWISE, BOUND_SUM, BOUND_PRODUCT } bound_kind;

typedef struct op_check {
    const char *name;
    size_t slot; /* offset of the kernel in em_ops */
    bound_kind bound;
    int cases;
    unsigned dtypes;  /* bit per em_dtype of the activations it takes */
    bool may_be_same; /* the reference may serve as another table's kernel */
    void (*make)(maker *m, inputs *in, int index);
    em_tensor (*call)(em_run *r, const inputs *in);
} op_check;

extern const op_check checks[];
extern const int check_count;

/* An op whose result is made of rows (tokens, frames, queries): rows [begin, begin + n) of it have
 * the same bits, whether they are computed alone or with the others. */
typedef struct piece_check {
    const char *name;
    int cases;
    unsigned dtypes;
    /* in->n[4] = rows */
    void (*make)(maker *m, inputs *in, int index);
    em_tensor (*part)(em_run *r, const inputs *in, int64_t begin, int64_t n);
} piece_check;

extern const piece_check piece_checks[];
extern const int piece_check_count;

/* JSON lines: what each op of a table reaches on this machine, on the host with 1 and with 2
 * threads. */
int bench(const em_ops *ops, const char *only);

#endif
