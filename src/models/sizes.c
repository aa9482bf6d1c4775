#include "models/sizes.h"

#include "memory/tensor.h"

#include <stdarg.h>
#include <string.h>

void em_sizes_require(em_sizes *s, bool holds, const char *fmt, ...)
{
    if (holds || s->err.code) return;
    va_list ap;
    va_start(ap, fmt);
    em_vfail(&s->err, EM_MISMATCH, fmt, ap);
    va_end(ap);
    em_err_prefix(&s->err, "%s", s->model);
}

int64_t em_sizes_dim(em_sizes *s, const char *name, int ndim, int axis)
{
    const em_ckpt_tensor *t = em_ckpt_find(s->ckpt, name);
    em_sizes_require(s, t != NULL,
                     "tensor '%s' is missing, and the model's sizes are read from its shape", name);
    if (!t || s->err.code) return 0;
    bool fits = t->ndim == ndim && t->dim[axis] >= 1 && t->dim[axis] <= INT32_MAX;
    char shape[80];
    em_sizes_require(
        s, fits, "tensor '%s' has shape %s, expected %d dimensions of 1 to 2^31 - 1 (file '%s')",
        name, em_shape_text(shape, t->dim, t->ndim), ndim, t->file);
    return fits ? t->dim[axis] : 0;
}

/* The decimal number at the start of text, when a dot ends it; else -1. Stops counting at
 * `limit`. */
static int64_t block_number(const char *text, int64_t limit)
{
    int64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) n = n < limit ? 10 * n + (*p - '0') : limit;
    return p > text && *p == '.' ? n : -1;
}

int64_t em_sizes_blocks(em_sizes *s, const char *prefix)
{
    int64_t blocks = 0, tensors = (int64_t)em_ckpt_count(s->ckpt);
    size_t length = strlen(prefix);
    for (size_t i = 0; i < em_ckpt_count(s->ckpt); i++) {
        const char *name = em_ckpt_at(s->ckpt, i)->name;
        if (strncmp(name, prefix, length)) continue;
        int64_t n = block_number(name + length, tensors);
        em_sizes_require(s, n < tensors, "tensor '%s' has a higher number than there are tensors",
                         name);
        if (n >= blocks) blocks = n + 1;
    }
    em_sizes_require(s, blocks > 0, "no tensor's name starts with '%s0.'", prefix);
    return s->err.code ? 0 : blocks;
}

em_status em_sizes_finish(const em_sizes *s, em_err *err)
{
    return s->err.code ? em_fail(err, s->err.code, "%s", s->err.msg) : EM_OK;
}
