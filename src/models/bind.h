/* Weight tables: one row a tensor, one table a block, one walk a model.
 *
 * A model describes its checkpoint once, by walking its blocks with a binder:
 *
 *     static const em_bind attention_rows[] = {
 *         EM_BIND(attn, q.w, "q.weight", DIM, DIM),
 *         EM_BIND(attn, q.b, "q.bias", DIM),
 *     };
 *     em_binder_group(b, &m->group[i]);
 *     em_binder_rows(b, attention_rows, EM_COUNT(attention_rows), &m->block[i].attn,
 *     "blocks.%d.self_attn.", i);
 *
 * The same walk serves three readers: binding to a checkpoint (every missing, surplus and
 * mis-shaped tensor is reported at once), writing a synthetic checkpoint, and `inspect`. */
#ifndef EM_MODELS_BIND_H
#define EM_MODELS_BIND_H

#include "base/log.h"
#include "base/status.h"
#include "io/ckpt.h"
#include "memory/residency.h"
#include "memory/tensor.h"

#include <stddef.h>

#define EM_COUNT(array) (sizeof(array) / sizeof *(array))

/* A dimension in a row: a literal, or a symbol: an index into the binder's sizes, EM_SYM(0),
 * EM_SYM(1), … Models give symbols names: enum { DIM = EM_SYM(0), FFN = EM_SYM(1) }. */
#define EM_SYM(i) (-1 - (i))

typedef enum em_bind_use {
    EM_BIND_REQUIRED,
    EM_BIND_OPTIONAL, /* absent: the slot stays empty */
    EM_BIND_UNUSED,   /* in the released files, known, not read; no slot */
} em_bind_use;

typedef struct em_bind {
    size_t offset;     /* of the em_tensor in the weight struct */
    const char *name;  /* appended to the prefix */
    const char *alias; /* another spelling of name in older files, or NULL */
    em_bind_use use;
    int64_t dim[EM_MAX_DIMS]; /* literals > 0 or symbols < 0; 0 ends the list */
} em_bind;

#define EM_BIND(type, field, text, ...)                                                            \
    {                                                                                              \
        .offset = offsetof(type, field), .name = text, .dim = { __VA_ARGS__ }                      \
    }
#define EM_BIND_SPARE(text, ...)                                                                   \
    {                                                                                              \
        .name = text, .use = EM_BIND_UNUSED, .dim = { __VA_ARGS__ }                                \
    }

typedef struct em_binder em_binder;

/* A tensor as the walk describes it; name borrowed for the call. */
typedef struct em_bind_item {
    const char *name;
    int ndim;
    int64_t dim[EM_MAX_DIMS];
    em_bind_use use;
} em_bind_item;

/* Binds to a checkpoint; ckpt and log borrowed until em_binder_finish. `model` names it in
 * messages. */
em_status em_binder_open(em_binder **out, const em_ckpt *ckpt, const char *model, const em_log *log,
                         em_err *err);
/* Visits instead of binding: item is called for every tensor of the walk, in order. A status other
 * than EM_OK ends the visit and comes back from em_binder_finish. */
em_status em_binder_open_visit(em_binder **out,
                               em_status (*item)(void *user, const em_bind_item *it, em_err *err),
                               void *user, em_err *err);

/* What becomes of a tensor of the file. */
typedef enum em_bind_fate {
    EM_BIND_SURPLUS, /* the model knows nothing of it */
    EM_BIND_USED,
    EM_BIND_SPARE, /* known, and not read */
    EM_BIND_MISSHAPED,
} em_bind_fate;

typedef struct em_bind_missing {
    char *name; /* owned */
    int ndim;
    int64_t dim[EM_MAX_DIMS];
} em_bind_missing;

/* What an audit found. */
typedef struct em_bind_audit {
    size_t used, spare, surplus, misshaped; /* how many of each fate */
    size_t missing, missing_cap;
    em_bind_missing *missing_item; /* owned; `missing` of them */
    unsigned char *fate;           /* owned: em_bind_fate of each tensor of the checkpoint */
} em_bind_audit;

void em_bind_audit_close(em_bind_audit *audit); /* {0} is allowed */

/* Holds a checkpoint against the walk as em_binder_open does, and binds nothing: *audit is filled
 * by em_binder_finish; close it then. */
em_status em_binder_open_audit(em_binder **out, const em_ckpt *ckpt, const char *model,
                               const em_log *log, em_bind_audit *audit, em_err *err);

/* The values of EM_SYM(0 … n-1) from now on; borrowed until changed. */
void em_binder_sizes(em_binder *b, const int64_t *sizes, int n);
/* Tensors bound from now on belong to this group (NULL: to none); slots are remembered by
 * address. */
void em_binder_group(em_binder *b, em_group *g);
/* Binds rows into the weight struct at base (ignored by a visit: may be NULL) under a formatted
 * prefix. */
void em_binder_rows(em_binder *b, const em_bind *rows, size_t n, void *base, const char *prefix,
                    ...) __attribute__((format(printf, 5, 6)));
/* Names that match this glob are known and unused: no surplus. `pattern` borrowed until finish. */
void em_binder_ignore(em_binder *b, const char *pattern);

/* Reports and frees the binder (always, *b becomes NULL). Each problem is one line in the log; the
 * error sentence counts them and quotes the first. Surplus tensors are warnings. */
em_status em_binder_finish(em_binder **b, em_err *err);

#endif
