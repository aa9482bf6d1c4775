/* `inspect`: what a checkpoint file, or every one in a folder, holds, which model it is, and what
 * that model misses in it. */
#include "base/alloc.h"
#include "base/array.h"
#include "base/str.h"
#include "cli/command.h"
#include "io/file.h"
#include "io/fingerprint.h"
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
    static const char *const tail[] = {".safetensors", ".pth", ".pt", ".bin"};
    size_t n = strlen(name);
    for (size_t i = 0; name[0] != '.' && i < sizeof tail / sizeof *tail; i++) {
        size_t m = strlen(tail[i]);
        if (n > m && !strcmp(name + n - m, tail[i])) return true;
    }
    return false;
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

/* What is known of a file. */
typedef struct report {
    const char *path;
    em_ckpt *ckpt; /* owned, like the audit */
    em_audit audit;
    char fingerprint[EM_SHA256_HEX_BYTES];
    char content[EM_SHA256_HEX_BYTES]; /* "" unless --verify */
} report;

/* Tensors and bytes by type, and what those that the model uses take in memory. */
typedef struct census {
    size_t tensors[EM_DTYPE_COUNT];
    uint64_t bytes[EM_DTYPE_COUNT], total, used_items;
} census;

static em_bind_fate fate_of(const report *r, size_t i)
{
    return r->audit.tensors.fate ? (em_bind_fate)r->audit.tensors.fate[i] : EM_BIND_SURPLUS;
}

static census count_types(const report *r)
{
    census n = {0};
    for (size_t i = 0; i < em_ckpt_count(r->ckpt); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(r->ckpt, i);
        n.tensors[t->dtype]++;
        n.bytes[t->dtype] += t->size_bytes;
        n.total += t->size_bytes;
        if (fate_of(r, i) == EM_BIND_USED) n.used_items += t->size_bytes / em_dtype_bytes(t->dtype);
    }
    return n;
}

static const char *model_of(const report *r)
{
    return r->audit.kind == EM_MODEL_COUNT ? "no model of ours" : em_model_name(r->audit.kind);
}

static const char *fate_text(em_bind_fate fate)
{
    static const char *const text[] = {[EM_BIND_SURPLUS] = "surplus",
                                       [EM_BIND_USED] = "used",
                                       [EM_BIND_SPARE] = "unused",
                                       [EM_BIND_MISSHAPED] = "misshaped"};
    return text[fate];
}

static void print_tensors(const report *r)
{
    char text[80];
    for (size_t i = 0; i < em_ckpt_count(r->ckpt); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(r->ckpt, i);
        const char *fate = r->audit.tensors.fate && fate_of(r, i) != EM_BIND_USED
                               ? fate_text(fate_of(r, i))
                               : NULL;
        printf("%-5s %-24s %s%s%s\n", em_dtype_name(t->dtype), em_shape_text(text, t->dim, t->ndim),
               t->name, fate ? "  " : "", fate ? fate : "");
    }
}

/* Names that differ in their first number alone. */
typedef struct family {
    char *pattern; /* owned: "blocks.*.q.weight" */
    const char *first;
    size_t count;
} family;

/* NULL when out of memory; owned. */
static char *pattern_of(const char *name)
{
    em_str s = {0};
    size_t head = strcspn(name, "0123456789"), digits = strspn(name + head, "0123456789");
    em_str_append(&s, name, head);
    em_str_printf(&s, "%s%s", digits ? "*" : "", name + head + digits);
    if (s.failed) em_str_free(&s);
    return s.data;
}

static bool add_to_family(family *all, size_t n, const char *pattern)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(all[i].pattern, pattern)) return all[i].count++, true;
    return false;
}

/* The names of that fate, those of all blocks taken together. Out of memory the list is shorter. */
static void print_names(const report *r, em_bind_fate fate)
{
    family *all = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < em_ckpt_count(r->ckpt); i++) {
        const char *name = em_ckpt_at(r->ckpt, i)->name;
        const family one = {.pattern = fate_of(r, i) == fate ? pattern_of(name) : NULL,
                            .first = name,
                            .count = 1};
        if (!one.pattern) continue;
        if (add_to_family(all, n, one.pattern) || !EM_PUSH(all, n, cap, one)) em_free(one.pattern);
    }
    if (n) printf("  %s:\n", fate_text(fate));
    for (size_t i = 0; i < n; i++) {
        if (all[i].count > 1)
            printf("    %s (%zu)\n", all[i].pattern, all[i].count);
        else
            printf("    %s\n", all[i].first);
        em_free(all[i].pattern);
    }
    em_free(all);
}

/* What is missing and what does not fit stands in the log, with the shapes that were expected. */
static void print_audit(const report *r, const census *n)
{
    const em_bind_audit *a = &r->audit.tensors;
    char bytes[16], half[16];
    printf("  used %zu, known and unused %zu, surplus %zu, missing %zu, mis-shaped %zu: %s\n",
           a->used, a->spare, a->surplus, a->missing, a->misshaped,
           r->audit.verdict.code ? r->audit.verdict.msg : "complete");
    printf("  what is used, in memory: %s as float32, %s as bfloat16 or float16\n",
           em_format_bytes(bytes, n->used_items * em_dtype_bytes(EM_F32)),
           em_format_bytes(half, n->used_items * em_dtype_bytes(EM_BF16)));
    if (!a->fate) return;
    print_names(r, EM_BIND_SPARE);
    print_names(r, EM_BIND_SURPLUS);
}

static void print_text(const inspection *x, const report *r)
{
    char bytes[16];
    census n = count_types(r);
    if (!x->whole_folder) print_tensors(r);
    printf("%s\n  %s: %zu tensors, %s", r->path, model_of(r), em_ckpt_count(r->ckpt),
           em_format_bytes(bytes, n.total));
    for (int d = 0; d < EM_DTYPE_COUNT; d++)
        if (n.tensors[d])
            printf("; %s: %zu, %s", em_dtype_name((em_dtype)d), n.tensors[d],
                   em_format_bytes(bytes, n.bytes[d]));
    printf("\n  fingerprint %s\n", r->fingerprint);
    if (r->content[0]) printf("  every byte read: content %s\n", r->content);
    if (r->audit.kind != EM_MODEL_COUNT) print_audit(r, &n);
}

static json_t *shape_json(const int64_t *dim, int ndim)
{
    json_t *shape = json_array();
    for (int d = 0; shape && d < ndim; d++) json_array_append_new(shape, json_integer(dim[d]));
    return shape;
}

static json_t *list_tensors(const report *r)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < em_ckpt_count(r->ckpt); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(r->ckpt, i);
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:o, s:s?}", "name", t->name, "dtype",
                                        em_dtype_name(t->dtype), "shape",
                                        shape_json(t->dim, t->ndim), "use",
                                        r->audit.tensors.fate ? fate_text(fate_of(r, i)) : NULL));
    }
    return all;
}

static json_t *list_missing(const em_bind_audit *a)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < a->missing; i++) {
        const em_bind_missing *m = &a->missing_item[i];
        json_array_append_new(all, json_pack("{s:s, s:o}", "name", m->name, "shape",
                                             shape_json(m->dim, m->ndim)));
    }
    return all;
}

static void print_json(const report *r)
{
    const em_bind_audit *a = &r->audit.tensors;
    const census n = count_types(r);
    const uint64_t wide = n.used_items * em_dtype_bytes(EM_F32);
    const uint64_t half = n.used_items * em_dtype_bytes(EM_BF16);
    json_t *o =
        json_pack("{s:s%, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s?, s:s, s:s?, s:I, s:I, s:o, s:o}",
                  "file", r->path, strlen(r->path), "model", model_of(r), "bytes",
                  (json_int_t)n.total, "used", (json_int_t)a->used, "unused", (json_int_t)a->spare,
                  "surplus", (json_int_t)a->surplus, "missing", (json_int_t)a->missing, "misshaped",
                  (json_int_t)a->misshaped, "problem",
                  r->audit.verdict.code ? r->audit.verdict.msg : NULL, "fingerprint",
                  r->fingerprint, "content", r->content[0] ? r->content : NULL, "bytes_float32",
                  (json_int_t)wide, "bytes_bfloat16", (json_int_t)half, "missing_tensors",
                  list_missing(a), "tensors", list_tensors(r));
    if (o) json_dumpf(o, stdout, JSON_COMPACT);
    printf("\n");
    json_decref(o);
}

static em_status verify(report *r, const em_options *o, em_err *err)
{
    em_pool *pool = NULL;
    em_status st = em_pool_create(&pool, o->engine.threads, NULL, err);
    if (!st) st = em_ckpt_verify(r->ckpt, pool, r->content, err);
    em_pool_destroy(&pool);
    return st;
}

static em_status inspect_file(inspection *x, const char *path, em_err *err)
{
    report r = {.path = path};
    const em_log log = em_terminal_log(x->t);
    em_status st = em_ckpt_open(&r.ckpt, path, err);
    if (!st) st = em_audit_ckpt(&r.audit, r.ckpt, &log, err);
    if (!st) em_ckpt_fingerprint(r.ckpt, r.fingerprint);
    if (!st && x->o->verify) st = verify(&r, x->o, err);
    if (!st && x->o->json) print_json(&r);
    if (!st && !x->o->json) print_text(x, &r);
    if (!st && r.audit.verdict.code) x->rc = EM_EXIT_SOME_FAILED;
    em_audit_close(&r.audit);
    em_ckpt_close(&r.ckpt);
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
        em_terminal_say(x->t, EM_LOG_ERROR, "'%s' holds no .safetensors, .pth, .pt or .bin file",
                        x->o->path);
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
