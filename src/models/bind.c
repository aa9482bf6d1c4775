#include "models/bind.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/str.h"

#include <assert.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct em_binder {
    const em_ckpt *ckpt; /* NULL: a visit */
    const char *model;
    const em_log *log;
    em_status (*item)(void *user, const em_bind_item *it, em_err *err);
    void *user;
    em_bind_audit *audit; /* of the caller; NULL: bind */
    const int64_t *sizes;
    int n_sizes;
    em_group *group;
    unsigned char *fate;  /* owned: em_bind_fate of each tensor of the checkpoint */
    const char **ignored; /* owned array of borrowed patterns */
    size_t n_ignored, cap_ignored;
    int problems, missing, misshaped; /* problems = missing + misshaped + others */
    em_err first;                     /* the first problem, or what ended the walk */
    bool ended;
};

static em_status open_binder(em_binder **out, size_t tensors, em_err *err)
{
    em_binder *b = em_alloc(sizeof *b);
    if (b && tensors && !(b->fate = em_alloc(tensors))) em_free(b), b = NULL;
    if (!b) return em_fail(err, EM_NOMEM, "no memory to bind %zu tensors", tensors);
    *out = b;
    return EM_OK;
}

em_status em_binder_open(em_binder **out, const em_ckpt *ckpt, const char *model, const em_log *log,
                         em_err *err)
{
    em_status st = open_binder(out, em_ckpt_count(ckpt), err);
    if (st) return st;
    (*out)->ckpt = ckpt;
    (*out)->model = model;
    (*out)->log = log;
    return EM_OK;
}

em_status em_binder_open_visit(em_binder **out,
                               em_status (*item)(void *user, const em_bind_item *it, em_err *err),
                               void *user, em_err *err)
{
    em_status st = open_binder(out, 0, err);
    if (st) return st;
    (*out)->item = item;
    (*out)->user = user;
    return EM_OK;
}

em_status em_binder_open_audit(em_binder **out, const em_ckpt *ckpt, const char *model,
                               const em_log *log, em_bind_audit *audit, em_err *err)
{
    em_status st = em_binder_open(out, ckpt, model, log, err);
    if (st) return st;
    (*out)->audit = audit;
    *audit = (em_bind_audit){0};
    return EM_OK;
}

void em_binder_sizes(em_binder *b, const int64_t *sizes, int n)
{
    b->sizes = sizes;
    b->n_sizes = n;
}

void em_binder_group(em_binder *b, em_group *g)
{
    b->group = g;
}

void em_binder_ignore(em_binder *b, const char *pattern)
{
    if (!EM_PUSH(b->ignored, b->n_ignored, b->cap_ignored, pattern)) {
        em_fail(&b->first, EM_NOMEM, "no memory to bind %s", b->model);
        b->ended = true;
    }
}

static void problem(em_binder *b, int *kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* One line in the log; the first one also becomes the error sentence. */
static void problem(em_binder *b, int *kind, const char *fmt, ...)
{
    em_err e = {0};
    va_list ap;
    va_start(ap, fmt);
    em_vfail(&e, EM_MISMATCH, fmt, ap);
    va_end(ap);
    if (b->problems++ == 0) b->first = e;
    (*kind)++;
    em_logf(b->log, EM_LOG_ERROR, "%s", e.msg);
}

static int resolve(const em_binder *b, const em_bind *row, int64_t dim[EM_MAX_DIMS])
{
    int n = 0;
    for (; n < EM_MAX_DIMS && row->dim[n]; n++) {
        int64_t d = row->dim[n];
        assert(d > 0 || -1 - d < b->n_sizes);
        dim[n] = d > 0 ? d : b->sizes[-1 - d];
    }
    return n;
}

static bool shape_fits(const em_ckpt_tensor *t, const int64_t *dim, int ndim)
{
    bool same = t->ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t->dim[i] == dim[i];
    return same;
}

/* The tensor under its name, or under prefix + alias. */
static const em_ckpt_tensor *find(const em_binder *b, const char *prefix, const em_bind *row,
                                  const char *name)
{
    const em_ckpt_tensor *t = em_ckpt_find(b->ckpt, name);
    char other[512];
    if (t || !row->alias) return t;
    snprintf(other, sizeof other, "%s%s", prefix, row->alias);
    return em_ckpt_find(b->ckpt, other);
}

static void set_fate(em_binder *b, const em_ckpt_tensor *t, em_bind_fate fate)
{
    b->fate[t - em_ckpt_at(b->ckpt, 0)] = (unsigned char)fate;
}

static void list_missing(em_binder *b, const em_bind_item *it)
{
    em_bind_audit *a = b->audit;
    em_bind_missing m = {.name = em_strdup(it->name), .ndim = it->ndim};
    memcpy(m.dim, it->dim, sizeof m.dim);
    if (m.name && EM_PUSH(a->missing_item, a->missing, a->missing_cap, m)) return;
    em_free(m.name);
    em_fail(&b->first, EM_NOMEM, "no memory to list %s", it->name);
    b->ended = true;
}

static void bind_tensor(em_binder *b, const em_bind *row, const em_ckpt_tensor *t, em_tensor *slot)
{
    *slot = em_tensor_of((void *)(uintptr_t)t->data, t->dtype, t->dim, t->ndim);
    if (b->group && !em_group_add(b->group, slot, &t->place)) {
        em_fail(&b->first, EM_NOMEM, "no memory to bind %s", row->name);
        b->ended = true;
    }
}

static void bind_row(em_binder *b, const em_bind *row, const char *prefix, const em_bind_item *it,
                     void *base)
{
    const em_ckpt_tensor *t = find(b, prefix, row, it->name);
    char want[80], got[80];
    if (t) set_fate(b, t, row->use == EM_BIND_UNUSED ? EM_BIND_SPARE : EM_BIND_USED);
    if (row->use == EM_BIND_UNUSED || (!t && row->use == EM_BIND_OPTIONAL)) return;
    if (!t) {
        problem(b, &b->missing, "%s: tensor '%s' %s is missing", b->model, it->name,
                em_shape_text(want, it->dim, it->ndim));
        if (b->audit) list_missing(b, it);
    } else if (!shape_fits(t, it->dim, it->ndim)) {
        problem(b, &b->misshaped, "%s: tensor '%s' has shape %s, expected %s (file '%s')", b->model,
                it->name, em_shape_text(got, t->dim, t->ndim),
                em_shape_text(want, it->dim, it->ndim), t->file);
        set_fate(b, t, EM_BIND_MISSHAPED);
    } else if (!em_dtype_is_float(t->dtype)) {
        problem(b, &b->misshaped, "%s: tensor '%s' is %s, expected F32, F16 or BF16 (file '%s')",
                b->model, it->name, em_dtype_name(t->dtype), t->file);
        set_fate(b, t, EM_BIND_MISSHAPED);
    } else if (!b->audit) {
        bind_tensor(b, row, t, (em_tensor *)((char *)base + row->offset));
    }
}

void em_binder_rows(em_binder *b, const em_bind *rows, size_t n, void *base, const char *prefix,
                    ...)
{
    char head[256], name[512];
    va_list ap;
    va_start(ap, prefix);
    vsnprintf(head, sizeof head, prefix, ap);
    va_end(ap);
    for (size_t i = 0; i < n && !b->ended; i++) {
        snprintf(name, sizeof name, "%s%s", head, rows[i].name);
        em_bind_item it = {.name = name, .use = rows[i].use};
        it.ndim = resolve(b, &rows[i], it.dim);
        if (b->ckpt)
            bind_row(b, &rows[i], head, &it, base);
        else
            b->ended = b->item(b->user, &it, &b->first) != EM_OK;
    }
}

static bool is_ignored(const em_binder *b, const char *name)
{
    for (size_t i = 0; i < b->n_ignored; i++)
        if (fnmatch(b->ignored[i], name, 0) == 0) return true;
    return false;
}

/* Surplus names: people's files carry extras, so one warning that lists them. */
static void report_surplus(em_binder *b)
{
    em_str names = {0};
    size_t count = 0;
    for (size_t i = 0; i < em_ckpt_count(b->ckpt); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(b->ckpt, i);
        if (b->fate[i] != EM_BIND_SURPLUS) continue;
        if (is_ignored(b, t->name)) {
            b->fate[i] = EM_BIND_SPARE;
            continue;
        }
        char shape[80];
        if (count++ < 20)
            em_str_printf(&names, "%s'%s' %s", count > 1 ? ", " : "", t->name,
                          em_shape_text(shape, t->dim, t->ndim));
    }
    if (count)
        em_logf(b->log, EM_LOG_WARN, "%s: %zu tensors of the file are not part of the model: %s%s",
                b->model, count, em_str_text(&names), count > 20 ? ", …" : "");
    em_str_free(&names);
}

/* The audit keeps the fates, and counts them. */
static void fill_audit(em_binder *b)
{
    em_bind_audit *a = b->audit;
    size_t *const count[] = {[EM_BIND_SURPLUS] = &a->surplus,
                             [EM_BIND_USED] = &a->used,
                             [EM_BIND_SPARE] = &a->spare,
                             [EM_BIND_MISSHAPED] = &a->misshaped};
    for (size_t i = 0; i < em_ckpt_count(b->ckpt); i++) (*count[b->fate[i]])++;
    a->fate = b->fate;
    b->fate = NULL;
}

void em_bind_audit_close(em_bind_audit *a)
{
    for (size_t i = 0; i < a->missing; i++) em_free(a->missing_item[i].name);
    em_free(a->missing_item);
    em_free(a->fate);
    *a = (em_bind_audit){0};
}

static em_status verdict(em_binder *b, em_err *err)
{
    if (b->ended) return em_fail(err, b->first.code, "%s", b->first.msg);
    if (!b->ckpt) return EM_OK;
    report_surplus(b);
    if (b->audit) fill_audit(b);
    if (!b->problems) return EM_OK;
    if (b->problems == 1) return em_fail(err, EM_MISMATCH, "%s", b->first.msg);
    return em_fail(err, EM_MISMATCH, "%s: %d tensors are missing and %d do not fit; the first: %s",
                   b->model, b->missing, b->misshaped, b->first.msg);
}

em_status em_binder_finish(em_binder **binder, em_err *err)
{
    em_binder *b = *binder;
    em_status st = verdict(b, err);
    em_free(b->fate);
    em_free(b->ignored);
    em_free(b);
    *binder = NULL;
    return st;
}
