#include "far.h"
#include "far_device.h"

#include <string.h>

/* ---- operands -------------------------------------------------------------------------------- */

/* The ops, and the table that they end up in. */
typedef struct far_table {
    em_ops ops;
    const em_ops *inner;
} far_table;

/* A run may carry a copy of our table (checkops' guarded one): its name tells which it was. */
static far_table tables[2];

static const em_ops *inner_of(const em_run *r)
{
    return !strcmp(r->ops->name, tables[1].ops.name) ? tables[1].inner : tables[0].inner;
}

/* Moves *t to real memory; an operand of the host's fails the run. */
static bool reach(em_run *r, const char *op, em_tensor *t)
{
    if (em_tensor_is_empty(*t)) return true;
    t->data = far_real(t->data, em_tensor_bytes(*t));
    if (!t->data) far_refuse(op, &r->err);
    return t->data != NULL;
}

/* Workspaces may be empty; how large they are is known to the wrapper alone. */
static bool reach_workspace(em_run *r, const char *op, far_call *c)
{
    c->ws = far_real(c->ws, 0);
    if (!c->ws) far_refuse(op, &r->err);
    return c->ws != NULL;
}

/* All operands that there are. */
static em_status enqueue(em_run *r, const char *op, far_call *c)
{
    for (size_t i = 0; i < sizeof c->t / sizeof *c->t; i++)
        if (!reach(r, op, &c->t[i])) return EM_DEVICE;
    return far_enqueue(r, c);
}

/* ---- ops: operands moved, then done or kept -------------------------------------------------- */

static em_status run_linear(em_run *r, const far_call *c)
{
    const em_tensor *t = c->t;
    return inner_of(r)->linear(r, t[0], t[1], t[2], t[3], c->u.act, c->ws);
}

static em_status linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    far_call c = {.run = run_linear, .t = {y, x, w, b}, .ws = ws, .u.act = act};
    return reach_workspace(r, "linear", &c) ? enqueue(r, "linear", &c) : EM_DEVICE;
}

static em_status run_attention(em_run *r, const far_call *c)
{
    const em_tensor *t = c->t;
    em_attn near = c->u.attn;
    near.rel_bias = t[4];
    return inner_of(r)->attention(r, t[0], t[1], t[2], t[3], &near, c->ws);
}

static em_status attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    far_call c = {.run = run_attention, .t = {y, q, k, v, a->rel_bias}, .ws = ws, .u.attn = *a};
    return reach_workspace(r, "attention", &c) ? enqueue(r, "attention", &c) : EM_DEVICE;
}

static em_status run_conv(em_run *r, const far_call *c)
{
    em_conv_args near = c->u.conv;
    near.x = c->t[1];
    near.past = c->t[2];
    near.w = c->t[3];
    near.b = c->t[4];
    return inner_of(r)->conv(r, c->t[0], &near, c->ws);
}

static em_status conv(em_run *r, em_tensor y, const em_conv_args *a, void *ws)
{
    far_call c = {.run = run_conv, .t = {y, a->x, a->past, a->w, a->b}, .ws = ws, .u.conv = *a};
    return reach_workspace(r, "conv", &c) ? enqueue(r, "conv", &c) : EM_DEVICE;
}

static em_status run_weight_norm(em_run *r, const far_call *c)
{
    return inner_of(r)->weight_norm(r, c->t[0], c->t[1], c->t[2]);
}

static em_status weight_norm(em_run *r, em_tensor y, em_tensor g, em_tensor v)
{
    far_call c = {.run = run_weight_norm, .t = {y, g, v}};
    return enqueue(r, "weight_norm", &c);
}

static em_status run_norm(em_run *r, const far_call *c)
{
    em_norm_spec near = c->u.norm;
    near.w = c->t[2];
    near.b = c->t[3];
    return inner_of(r)->norm(r, c->t[0], c->t[1], &near);
}

static em_status norm(em_run *r, em_tensor y, em_tensor x, const em_norm_spec *s)
{
    far_call c = {.run = run_norm, .t = {y, x, s->w, s->b}, .u.norm = *s};
    return enqueue(r, "norm", &c);
}

static em_status run_time_norm(em_run *r, const far_call *c)
{
    const em_tensor *t = c->t;
    return inner_of(r)->time_norm(r, t[0], t[1], t[2], t[3], c->u.number);
}

static em_status time_norm(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, float eps)
{
    far_call c = {.run = run_time_norm, .t = {y, x, w, b}, .u.number = eps};
    return enqueue(r, "time_norm", &c);
}

static em_status run_act(em_run *r, const far_call *c)
{
    return inner_of(r)->act(r, c->t[0], c->u.act);
}

static em_status act(em_run *r, em_tensor x, em_act kind)
{
    far_call c = {.run = run_act, .t = {x}, .u.act = kind};
    return enqueue(r, "act", &c);
}

static em_status run_binary(em_run *r, const far_call *c)
{
    return inner_of(r)->binary(r, c->t[0], c->t[1], c->t[2], c->u.binary);
}

static em_status binary(em_run *r, em_tensor x, em_tensor a, em_tensor b, em_binary kind)
{
    far_call c = {.run = run_binary, .t = {x, a, b}, .u.binary = kind};
    return enqueue(r, "binary", &c);
}

static em_status run_fill(em_run *r, const far_call *c)
{
    return inner_of(r)->fill(r, c->t[0], c->u.number);
}

static em_status fill(em_run *r, em_tensor x, float value)
{
    far_call c = {.run = run_fill, .t = {x}, .u.number = value};
    return enqueue(r, "fill", &c);
}

static em_status run_rope(em_run *r, const far_call *c)
{
    return inner_of(r)->rope(r, c->t[0], c->t[1], c->u.heads);
}

static em_status rope(em_run *r, em_tensor x, em_tensor table, int heads)
{
    far_call c = {.run = run_rope, .t = {x, table}, .u.heads = heads};
    return enqueue(r, "rope", &c);
}

static em_status run_lincomb(em_run *r, const far_call *c)
{
    return inner_of(r)->lincomb(r, c->t[0], c->u.terms.n, c->t + 1, c->u.terms.c);
}

static em_status lincomb(em_run *r, em_tensor y, int n, const em_tensor *x, const float *factor)
{
    far_call c = {.run = run_lincomb, .t = {y}, .u.terms.n = n};
    memcpy(c.t + 1, x, (size_t)n * sizeof *x);
    memcpy(c.u.terms.c, factor, (size_t)n * sizeof *factor);
    return enqueue(r, "lincomb", &c);
}

static em_status run_copy_cols(em_run *r, const far_call *c)
{
    return inner_of(r)->copy_cols(r, c->t[0], c->u.cols.dst, c->t[1], c->u.cols.src,
                                  c->u.cols.count);
}

static em_status copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src,
                           int64_t src_col, int64_t cols)
{
    far_call c = {.run = run_copy_cols, .t = {dst, src}, .u.cols = {dst_col, src_col, cols}};
    return enqueue(r, "copy_cols", &c);
}

static em_status run_transpose(em_run *r, const far_call *c)
{
    return inner_of(r)->transpose(r, c->t[0], c->t[1]);
}

static em_status transpose(em_run *r, em_tensor y, em_tensor x)
{
    far_call c = {.run = run_transpose, .t = {y, x}};
    return enqueue(r, "transpose", &c);
}

static em_status run_gather(em_run *r, const far_call *c)
{
    return inner_of(r)->gather(r, c->t[0], c->t[1], c->u.idx);
}

static em_status gather(em_run *r, em_tensor y, em_tensor table, const int32_t *idx)
{
    far_call c = {.run = run_gather, .t = {y, table}, .u.idx = idx};
    em_status st = far_uncapturable("gather", &r->err);
    return st ? st : enqueue(r, "gather", &c);
}

static em_status run_patchify(em_run *r, const far_call *c)
{
    return inner_of(r)->patchify(r, c->t[0], c->t[1], c->u.patch.h, c->u.patch.w);
}

static em_status patchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    far_call c = {.run = run_patchify, .t = {y, x}, .u.patch = {ph, pw}};
    return enqueue(r, "patchify", &c);
}

static em_status run_unpatchify(em_run *r, const far_call *c)
{
    return inner_of(r)->unpatchify(r, c->t[0], c->t[1], c->u.patch.h, c->u.patch.w);
}

static em_status unpatchify(em_run *r, em_tensor y, em_tensor x, int ph, int pw)
{
    far_call c = {.run = run_unpatchify, .t = {y, x}, .u.patch = {ph, pw}};
    return enqueue(r, "unpatchify", &c);
}

static em_status upload(em_run *r, em_tensor y, const void *host)
{
    return far_device.upload(&far_device, y.data, host, em_tensor_bytes(y), &r->err);
}

static em_status download(em_run *r, em_tensor x, void *host)
{
    return far_device.download(&far_device, host, x.data, em_tensor_bytes(x), &r->err);
}

static em_status run_lerp_time(em_run *r, const far_call *c)
{
    return inner_of(r)->lerp_time(r, c->t[0], c->t[1]);
}

static em_status lerp_time(em_run *r, em_tensor y, em_tensor x)
{
    far_call c = {.run = run_lerp_time, .t = {y, x}};
    return enqueue(r, "lerp_time", &c);
}

static em_status run_resize_bicubic(em_run *r, const far_call *c)
{
    return inner_of(r)->resize_bicubic(r, c->t[0], c->t[1]);
}

static em_status resize_bicubic(em_run *r, em_tensor y, em_tensor x)
{
    far_call c = {.run = run_resize_bicubic, .t = {y, x}};
    return enqueue(r, "resize_bicubic", &c);
}

static em_status run_to_u8(em_run *r, const far_call *c)
{
    return inner_of(r)->to_u8(r, c->t[0], c->t[1]);
}

static em_status to_u8(em_run *r, em_tensor y, em_tensor x)
{
    far_call c = {.run = run_to_u8, .t = {y, x}};
    return enqueue(r, "to_u8", &c);
}

/* ---- registration ---------------------------------------------------------------------------- */

static far_table table_over(const char *name, const em_ops *inner)
{
    em_ops t = {
        .name = name,
        .device = &far_device,
        .thread_start = inner->thread_start,
        .linear_workspace = inner->linear_workspace,
        .linear = linear,
        .attention_workspace = inner->attention_workspace,
        .attention = attention,
        .conv_workspace = inner->conv_workspace,
        .conv = conv,
        .weight_norm = weight_norm,
        .norm = norm,
        .time_norm = time_norm,
        .act = act,
        .binary = binary,
        .fill = fill,
        .rope = rope,
        .lincomb = lincomb,
        .copy_cols = copy_cols,
        .transpose = transpose,
        .gather = gather,
        .patchify = patchify,
        .unpatchify = unpatchify,
        .upload = upload,
        .download = download,
        .lerp_time = lerp_time,
        .resize_bicubic = resize_bicubic,
        .to_u8 = to_u8,
    };
    return (far_table){t, inner};
}

static em_status open_far(const em_ops **out, int ordinal, em_err *err)
{
    if (ordinal > 1) return em_fail(err, EM_INVAL, "device 'far:%d': there are 0 and 1", ordinal);
    *out = &tables[ordinal].ops;
    return EM_OK;
}

void far_register(void)
{
    if (tables[0].inner) return;
    tables[0] = table_over("far", em_ops_cpu());
    tables[1] = table_over("far:1", em_ops_ref());
    em_ops_register((em_ops_entry){"far", open_far});
}
