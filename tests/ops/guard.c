#include "checkops.h"

static guard *guard_of(em_run *r)
{
    return (guard *)((char *)r->ops - offsetof(guard, table));
}

bool guard_untouched(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0xFF) return false;
    return true;
}

static size_t guarded(em_run *r, size_t bytes)
{
    guard_of(r)->workspace_bytes = bytes;
    return bytes + (size_t)2 * GUARD;
}

/* GUARD bytes of the device; what cannot be read back counts as broken. */
static void inspect_band(em_run *r, void *at)
{
    unsigned char band[GUARD];
    em_status st = r->ops->download(r, em_tensor_of(at, EM_U8, EM_SHAPE(GUARD)), band);
    if (st || !guard_untouched(band, GUARD)) guard_of(r)->broken = true;
}

static void inspect(em_run *r, void *ws)
{
    inspect_band(r, ws);
    inspect_band(r, (char *)ws + GUARD + guard_of(r)->workspace_bytes);
}

static size_t linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    return guarded(r, guard_of(r)->target->linear_workspace(r, y, x, w));
}

static em_status linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    em_status st = guard_of(r)->target->linear(r, y, x, w, b, act, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static em_status linears(em_run *r, int n, em_tensor y, em_tensor x, const em_tensor *w,
                         const em_tensor *b, void *ws)
{
    em_status st = guard_of(r)->target->linears(r, n, y, x, w, b, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static size_t attention_workspace(em_run *r, em_tensor q, em_tensor k, const em_attn *a)
{
    return guarded(r, guard_of(r)->target->attention_workspace(r, q, k, a));
}

static em_status attention(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                           const em_attn *a, void *ws)
{
    em_status st = guard_of(r)->target->attention(r, y, q, k, v, a, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

static size_t conv_workspace(em_run *r, em_tensor y, const em_conv_args *c)
{
    return guarded(r, guard_of(r)->target->conv_workspace(r, y, c));
}

static em_status conv(em_run *r, em_tensor y, const em_conv_args *c, void *ws)
{
    em_status st = guard_of(r)->target->conv(r, y, c, (char *)ws + GUARD);
    inspect(r, ws);
    return st;
}

guard guard_over(const em_ops *target)
{
    guard g = {.table = *target, .target = target};
    g.table.linear_workspace = linear_workspace;
    g.table.linear = linear;
    g.table.linears = target->linears ? linears : NULL;
    g.table.attention_workspace = attention_workspace;
    g.table.attention = attention;
    g.table.conv_workspace = conv_workspace;
    g.table.conv = conv;
    return g;
}
