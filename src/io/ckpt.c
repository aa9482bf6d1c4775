#include "io/ckpt.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/file.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

struct em_ckpt {
    em_safetensors **files; /* every file ever laid on, in that order: they own names and bytes */
    size_t file_count, file_cap;
    void **copies; /* of tensors whose place in the file does not suit their type */
    size_t copy_count, copy_cap;
    em_ckpt_tensor *tensors; /* sorted by name, no name twice */
    size_t count;
};

static em_status nomem(const char *path, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory opening '%s'", path);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static int compare_name(const void *a, const void *b)
{
    return strcmp(((const em_ckpt_tensor *)a)->name, ((const em_ckpt_tensor *)b)->name);
}

/* Older writers do not pad the header, and then nothing after it is aligned. Those tensors are
 * copied, so that the rest of the program may read every tensor through a pointer of its type. */
static em_status align(em_ckpt *c, em_ckpt_tensor *t, em_err *err)
{
    if (t->size_bytes == 0 || (uintptr_t)t->data % em_dtype_bytes(t->dtype) == 0) return EM_OK;
    void *copy = em_alloc(t->size_bytes);
    if (!copy || !EM_PUSH(c->copies, c->copy_count, c->copy_cap, copy)) {
        em_free(copy);
        return nomem(t->file, err);
    }
    memcpy(copy, t->data, t->size_bytes);
    em_map_drop(t->data, t->size_bytes);
    t->data = copy;
    return EM_OK;
}

/* *out: the tensors of a file, sorted by name; owned. */
static em_status list_file(em_ckpt_tensor **out, em_ckpt *c, const em_safetensors *f, em_err *err)
{
    size_t n = em_safetensors_count(f);
    em_ckpt_tensor *list = em_alloc_array(n + 1, sizeof *list);
    if (!list) return nomem(em_safetensors_path(f), err);
    for (size_t i = 0; i < n; i++) {
        const em_safetensors_entry *e = em_safetensors_at(f, i);
        em_ckpt_tensor *t = &list[i];
        *t = (em_ckpt_tensor){.name = e->name,
                              .dtype = e->dtype,
                              .ndim = e->ndim,
                              .data = e->data,
                              .size_bytes = e->size_bytes,
                              .file = em_safetensors_path(f)};
        memcpy(t->dim, e->dim, sizeof t->dim);
        em_status st = align(c, t, err);
        if (st) {
            em_free(list);
            return st;
        }
    }
    qsort(list, n, sizeof *list, compare_name);
    *out = list;
    return EM_OK;
}

/* Both sorted by name; where both have a name, b's tensor is kept. out has room for both; its
 * length. */
static size_t merge(em_ckpt_tensor *out, const em_ckpt_tensor *a, size_t na,
                    const em_ckpt_tensor *b, size_t nb)
{
    size_t n = 0, i = 0, j = 0;
    while (i < na || j < nb) {
        int order = i == na ? 1 : j == nb ? -1 : strcmp(a[i].name, b[j].name);
        if (order == 0) i++;
        out[n++] = order < 0 ? a[i++] : b[j++];
    }
    return n;
}

em_status em_ckpt_create(em_ckpt **out, em_err *err)
{
    em_ckpt *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "out of memory making a checkpoint");
    *out = c;
    return EM_OK;
}

em_status em_ckpt_open(em_ckpt **out, const char *path, em_err *err)
{
    em_ckpt *c = NULL;
    em_status st = em_ckpt_create(&c, err);
    if (st) return st;
    st = em_ckpt_overlay(c, path, err);
    if (st) {
        em_ckpt_close(&c);
        return st;
    }
    *out = c;
    return EM_OK;
}

em_status em_ckpt_overlay(em_ckpt *c, const char *path, em_err *err)
{
    em_safetensors *f = NULL;
    em_ckpt_tensor *list = NULL, *both = NULL;
    size_t copies_before = c->copy_count, total;
    if (em_path_is_file(path) &&
        (ends_with(path, ".pth") || ends_with(path, ".bin") || ends_with(path, ".pt"))) {
        return em_fail(err, EM_FORMAT,
                       "'%s': PyTorch files are not read yet: convert it to .safetensors", path);
    }
    em_status st = em_safetensors_open(&f, path, 0, err);
    if (!st) st = list_file(&list, c, f, err);
    if (st) goto fail;

    total = c->count + em_safetensors_count(f);
    both = em_alloc_array(total + 1, sizeof *both);
    if (!both || !EM_PUSH(c->files, c->file_count, c->file_cap, f)) {
        st = nomem(path, err);
        goto fail;
    }
    total = merge(both, c->tensors, c->count, list, em_safetensors_count(f));
    em_free(list);
    em_free(c->tensors);
    c->tensors = both;
    c->count = total;
    return EM_OK;

fail:
    while (c->copy_count > copies_before) em_free(c->copies[--c->copy_count]);
    em_free(both);
    em_free(list);
    em_safetensors_close(&f);
    return st;
}

em_status em_ckpt_strip_prefix(em_ckpt *c, const char *prefix, em_err *err)
{
    size_t n = strlen(prefix);
    em_ckpt_tensor *list = em_alloc_array(c->count + 1, sizeof *list);
    if (!list) return em_fail(err, EM_NOMEM, "out of memory renaming tensors");
    for (size_t i = 0; i < c->count; i++) {
        list[i] = c->tensors[i];
        if (strncmp(list[i].name, prefix, n) == 0)
            list[i].name += n; /* the tail of the same string */
    }
    qsort(list, c->count, sizeof *list, compare_name);
    for (size_t i = 1; i < c->count; i++) {
        if (strcmp(list[i - 1].name, list[i].name) == 0) {
            em_fail(err, EM_FORMAT,
                    "'%s': tensor '%s' is there with and without '%s' before its name",
                    list[i].file, list[i].name, prefix);
            em_free(list);
            return EM_FORMAT;
        }
    }
    em_free(c->tensors);
    c->tensors = list;
    return EM_OK;
}

void em_ckpt_close(em_ckpt **ckpt)
{
    if (!ckpt || !*ckpt) return;
    em_ckpt *c = *ckpt;
    em_free(c->tensors);
    for (size_t i = 0; i < c->copy_count; i++) em_free(c->copies[i]);
    em_free(c->copies);
    for (size_t i = 0; i < c->file_count; i++) em_safetensors_close(&c->files[i]);
    em_free(c->files);
    em_free(c);
    *ckpt = NULL;
}

const em_ckpt_tensor *em_ckpt_find(const em_ckpt *c, const char *name)
{
    em_ckpt_tensor key = {.name = name};
    return c->count ? bsearch(&key, c->tensors, c->count, sizeof key, compare_name) : NULL;
}

size_t em_ckpt_count(const em_ckpt *c)
{
    return c->count;
}

const em_ckpt_tensor *em_ckpt_at(const em_ckpt *c, size_t i)
{
    return &c->tensors[i];
}
