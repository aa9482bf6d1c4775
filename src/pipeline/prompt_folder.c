#include "pipeline/prompt_folder.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/hash.h"
#include "io/file.h"
#include "io/state_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const kind = "EMPRMPT1", *const suffix = ".prompt";

enum { TOKENS, DIM, NUMBERS };
enum { IDS, ROWS, BLOCKS };

struct em_prompt_folder {
    char *dir, *key, *ops; /* owned */
    em_dtype dtype;
    uint64_t max_bytes;
    em_log log;
    bool warned; /* that nothing can be kept */
};

/* ---- one file -------------------------------------------------------------------------------- */

static void digest(const em_prompt_folder *f, const char *text, unsigned char out[EM_SHA256_BYTES])
{
    const int32_t dtype = (int32_t)f->dtype;
    em_sha256 h;
    em_sha256_start(&h);
    em_sha256_add(&h, f->key, strlen(f->key) + 1);
    em_sha256_add(&h, f->ops, strlen(f->ops) + 1);
    em_sha256_add(&h, &dtype, sizeof dtype);
    em_sha256_add(&h, text, strlen(text));
    em_sha256_end(&h, out);
}

/* DIR/<64 digits>.prompt; owned, NULL when out of memory. */
static char *path_of(const em_prompt_folder *f, const unsigned char key[EM_SHA256_BYTES])
{
    char name[EM_SHA256_HEX_BYTES + 8];
    em_sha256_hex(name, key);
    memcpy(name + EM_SHA256_HEX_BYTES - 1, suffix, strlen(suffix) + 1);
    return em_path_join(f->dir, name);
}

static size_t rows_bytes(const em_prompt *p, int64_t dim)
{
    return (size_t)p->n * (size_t)dim * sizeof *p->rows;
}

static bool same_prompt(const em_state_file *s, const em_prompt *p, int64_t dim)
{
    size_t ids_bytes = (size_t)p->n * sizeof *p->ids;
    return s->numbers == NUMBERS && s->blocks == BLOCKS && s->number[TOKENS] == p->n &&
           s->number[DIM] == dim && s->block[IDS].size_bytes == ids_bytes &&
           !memcmp(s->block[IDS].data, p->ids, ids_bytes) &&
           s->block[ROWS].size_bytes == rows_bytes(p, dim);
}

void em_prompt_folder_load(em_prompt_folder *f, em_prompt *p, int64_t dim)
{
    unsigned char key[EM_SHA256_BYTES];
    em_state_file s = {0};
    em_err err = {0};
    if (!f || p->encoded) return;
    digest(f, p->text, key);
    char *path = path_of(f, key);
    if (!path || access(path, F_OK) != 0) {
        em_free(path);
        return;
    }
    em_status st = em_state_read(&s, path, kind, key, rows_bytes(p, dim) + (64 << 10), &err);
    if (!st && !same_prompt(&s, p, dim))
        st = em_fail(&err, EM_FORMAT, "'%s' is not usable: it holds other tokens", path);
    if (st) {
        em_logf(&f->log, EM_LOG_WARN, "%s; the prompt is encoded anew", err.msg);
    } else {
        memcpy(p->rows, s.block[ROWS].data, s.block[ROWS].size_bytes);
        p->encoded = true;
        utimensat(AT_FDCWD, path, NULL, 0);
    }
    em_state_close(&s);
    em_free(path);
}

/* ---- how much there is ----------------------------------------------------------------------- */

typedef struct kept {
    struct timespec used;
    uint64_t size_bytes;
    char *name; /* owned */
} kept;

static int older_first(const void *a, const void *b)
{
    const struct timespec *x = &((const kept *)a)->used, *y = &((const kept *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

static bool is_ours(const char *name)
{
    size_t n = strlen(name), tail = strlen(suffix);
    return name[0] != '.' && n > tail && !strcmp(name + n - tail, suffix);
}

/* Out of memory it trims less: another time. */
static void trim(em_prompt_folder *f)
{
    kept *file = NULL;
    size_t count = 0, cap = 0;
    uint64_t total = 0;
    DIR *d = opendir(f->dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat s;
        if (!is_ours(e->d_name) || fstatat(dirfd(d), e->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(s.st_mode))
            continue;
        kept k = {s.st_mtim, (uint64_t)s.st_size, em_strdup(e->d_name)};
        if (!k.name) continue;
        if (!EM_PUSH(file, count, cap, k)) {
            em_free(k.name);
            continue;
        }
        total += k.size_bytes;
    }
    if (count) qsort(file, count, sizeof *file, older_first);
    for (size_t i = 0; i < count; i++) {
        if (total > f->max_bytes && unlinkat(dirfd(d), file[i].name, 0) == 0)
            total -= file[i].size_bytes;
        em_free(file[i].name);
    }
    em_free(file);
    if (d) closedir(d);
}

/* What fails its job today shall not fail every job to come. */
static bool all_finite(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i == n;
}

void em_prompt_folder_save(em_prompt_folder *f, const em_prompt *p, int64_t dim)
{
    em_err err = {0};
    if (!f || !all_finite(p->rows, rows_bytes(p, dim) / sizeof *p->rows)) return;
    em_state_file s = {.kind = kind,
                       .numbers = NUMBERS,
                       .number = {[TOKENS] = p->n, [DIM] = dim},
                       .blocks = BLOCKS,
                       .block = {[IDS] = {p->ids, (size_t)p->n * sizeof *p->ids},
                                 [ROWS] = {p->rows, rows_bytes(p, dim)}}};
    digest(f, p->text, s.key);
    char *path = path_of(f, s.key);
    em_status st = path ? em_state_write(path, &s, &err)
                        : em_fail(&err, EM_NOMEM, "no memory to keep an encoded prompt");
    if (st && !f->warned)
        em_logf(&f->log, EM_LOG_WARN, "%s: prompts are not kept for the next run", err.msg);
    f->warned |= st != EM_OK;
    if (!st) trim(f);
    em_free(path);
}

/* ---- object ---------------------------------------------------------------------------------- */

em_status em_prompt_folder_open(em_prompt_folder **out, const em_prompt_folder_params *p,
                                em_err *err)
{
    em_status st = em_dir_create(p->dir, err);
    if (st) return st;
    em_prompt_folder *f = em_alloc(sizeof *f);
    if (!f) return em_fail(err, EM_NOMEM, "no memory for a folder of prompts");
    f->dir = em_strdup(p->dir);
    f->key = em_strdup(p->key);
    f->ops = em_strdup(p->ops);
    f->dtype = p->dtype;
    f->max_bytes = p->max_bytes ? p->max_bytes : (uint64_t)EM_PROMPT_FOLDER_MIB << 20;
    f->log = p->log;
    if (f->dir && f->key && f->ops) {
        *out = f;
        return EM_OK;
    }
    em_prompt_folder_close(&f);
    return em_fail(err, EM_NOMEM, "no memory for a folder of prompts");
}

void em_prompt_folder_close(em_prompt_folder **folder)
{
    em_prompt_folder *f = *folder;
    if (!f) return;
    em_free(f->dir);
    em_free(f->key);
    em_free(f->ops);
    em_free(f);
    *folder = NULL;
}
