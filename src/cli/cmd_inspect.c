/* `inspect`: what a checkpoint file, or every one in a folder, holds, which model it is, and what
 * that model misses in it. */
#include "base/alloc.h"
#include "base/array.h"
#include "cli/command.h"
#include "io/file.h"
#include "io/json.h"
#include "memory/tensor.h"
#include "pipeline/audit.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 4 }; /* of folders below the given one */

typedef struct inspection {
    const em_options *o;
    em_terminal *t;
    char **path; /* owned, of the files */
    size_t count, cap;
    bool whole_folder;
    em_exit rc;
} inspection;

/* ---- finding files --------------------------------------------------------------------------- */

static bool is_checkpoint(const char *name)
{
    static const char tail[] = ".safetensors";
    size_t n = strlen(name), m = sizeof tail - 1;
    return name[0] != '.' && n > m && !strcmp(name + n - m, tail);
}

/* Out of memory a folder is simply shorter; what was found is shown. */
static void find_files(inspection *x, const char *dir, int depth)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = e->d_name[0] == '.' ? NULL : em_path_join(dir, e->d_name);
        if (!path) continue;
        bool wanted = is_checkpoint(e->d_name) && em_path_is_file(path);
        if (depth < DEPTH && em_path_is_dir(path)) find_files(x, path, depth + 1);
        if (!wanted || !EM_PUSH(x->path, x->count, x->cap, path)) em_free(path);
    }
    if (d) closedir(d);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- one file -------------------------------------------------------------------------------- */

/* Tensors and bytes by type. */
typedef struct census {
    size_t tensors[EM_DTYPE_COUNT];
    uint64_t bytes[EM_DTYPE_COUNT], total;
} census;

static census count_types(const em_ckpt *c)
{
    census n = {0};
    for (size_t i = 0; i < em_ckpt_count(c); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(c, i);
        n.tensors[t->dtype]++;
        n.bytes[t->dtype] += t->size_bytes;
        n.total += t->size_bytes;
    }
    return n;
}

static const char *model_of(const em_audit *a)
{
    return a->kind == EM_MODEL_COUNT ? "no model of ours" : em_model_name(a->kind);
}

static void print_text(const inspection *x, const char *path, const em_ckpt *c, const em_audit *a)
{
    char text[80], bytes[16];
    census n = count_types(c);
    if (!x->whole_folder)
        for (size_t i = 0; i < em_ckpt_count(c); i++) {
            const em_ckpt_tensor *t = em_ckpt_at(c, i);
            printf("%-5s %-24s %s\n", em_dtype_name(t->dtype), em_shape_text(text, t->dim, t->ndim),
                   t->name);
        }
    printf("%s\n  %s: %zu tensors, %s", path, model_of(a), em_ckpt_count(c),
           em_format_bytes(bytes, n.total));
    for (int d = 0; d < EM_DTYPE_COUNT; d++)
        if (n.tensors[d])
            printf("; %s: %zu, %s", em_dtype_name((em_dtype)d), n.tensors[d],
                   em_format_bytes(bytes, n.bytes[d]));
    printf("\n");
    if (a->kind == EM_MODEL_COUNT) return;
    const em_bind_audit *r = &a->tensors;
    printf("  used %zu, known and unused %zu, surplus %zu, missing %zu, mis-shaped %zu: %s\n",
           r->used, r->spare, r->surplus, r->missing, r->misshaped,
           a->verdict.code ? a->verdict.msg : "complete");
}

static json_t *list_tensors(const em_ckpt *c)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < em_ckpt_count(c); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(c, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->ndim; d++) json_array_append_new(shape, json_integer(t->dim[d]));
        json_array_append_new(all, json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype",
                                             em_dtype_name(t->dtype), "shape", shape));
    }
    return all;
}

static void print_json(const char *path, const em_ckpt *c, const em_audit *a)
{
    const em_bind_audit *r = &a->tensors;
    json_t *o = json_pack("{s:s%, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s?, s:o}", "file", path,
                          strlen(path), "model", model_of(a), "bytes",
                          (json_int_t)count_types(c).total, "used", (json_int_t)r->used, "unused",
                          (json_int_t)r->spare, "surplus", (json_int_t)r->surplus, "missing",
                          (json_int_t)r->missing, "misshaped", (json_int_t)r->misshaped, "problem",
                          a->verdict.code ? a->verdict.msg : NULL, "tensors", list_tensors(c));
    if (o) json_dumpf(o, stdout, JSON_COMPACT);
    printf("\n");
    json_decref(o);
}

static em_status inspect_file(inspection *x, const char *path, em_err *err)
{
    em_ckpt *c = NULL;
    em_audit a;
    const em_log log = em_terminal_log(x->t);
    em_status st = em_ckpt_open(&c, path, err);
    if (!st) st = em_audit_ckpt(&a, c, &log, err);
    if (!st && x->o->json) print_json(path, c, &a);
    if (!st && !x->o->json) print_text(x, path, c, &a);
    if (!st && a.verdict.code) x->rc = EM_EXIT_SOME_FAILED;
    em_ckpt_close(&c);
    return st;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void inspect_all(inspection *x)
{
    if (x->count) qsort(x->path, x->count, sizeof *x->path, by_path);
    for (size_t i = 0; i < x->count; i++) {
        em_err err = {0};
        if (inspect_file(x, x->path[i], &err)) x->rc = em_command_fail(x->t, &err, EM_EXIT_NOTHING);
    }
    if (!x->count) {
        em_terminal_say(x->t, EM_LOG_ERROR, "'%s' holds no .safetensors file", x->o->path);
        x->rc = EM_EXIT_NOTHING;
    }
}

em_exit em_command_inspect(em_options *o, em_terminal *t)
{
    inspection x = {.o = o, .t = t};
    em_err err = {0};
    if (!o->path) {
        em_terminal_say(t, EM_LOG_ERROR, "inspect what? Give a checkpoint file or a folder");
        return EM_EXIT_USAGE;
    }
    x.whole_folder = em_path_is_dir(o->path);
    if (x.whole_folder) {
        find_files(&x, o->path, 0);
        inspect_all(&x);
    } else if (inspect_file(&x, o->path, &err)) {
        x.rc = em_command_fail(t, &err, EM_EXIT_NOTHING);
    }
    for (size_t i = 0; i < x.count; i++) em_free(x.path[i]);
    em_free(x.path);
    return x.rc;
}
