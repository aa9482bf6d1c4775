/* A folder of its own for a test, and small files in it. */
#ifndef EM_TMPDIR_H
#define EM_TMPDIR_H

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TMPDIR_PATHS = 2000 };
typedef struct tmpdir {
    char path[64];
    int path_count;
    char *paths[TMPDIR_PATHS];
} tmpdir;

static inline int tmpdir_setup(void **state)
{
    tmpdir *t = calloc(1, sizeof *t);
    if (!t) return -1;
    snprintf(t->path, sizeof t->path, "/tmp/em-test-XXXXXX");
    *state = t;
    return mkdtemp(t->path) ? 0 : -1;
}

static inline int tmpdir_remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

static inline int tmpdir_teardown(void **state)
{
    tmpdir *t = *state;
    int rc = nftw(t->path, tmpdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    while (t->path_count) free(t->paths[--t->path_count]);
    free(t);
    return rc;
}

/* "DIR/name"; lives as long as the folder. */
static inline const char *tmpdir_path(void **state, const char *name)
{
    tmpdir *t = *state;
    if (t->path_count == TMPDIR_PATHS) abort();
    char **path = &t->paths[t->path_count++];
    if (asprintf(path, "%s/%s", t->path, name) < 0) abort();
    return *path;
}

/* Writes a file, making the folders above it. */
static inline const char *tmpdir_write(void **state, const char *name, const void *data, size_t n)
{
    const char *path = tmpdir_path(state, name);
    char part[256];
    for (const char *p = strchr(path + strlen(((tmpdir *)*state)->path) + 1, '/'); p;
         p = strchr(p + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(p - path), path);
        if (mkdir(part, 0777) != 0 && errno != EEXIST) abort();
    }
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) abort();
    return path;
}

static inline const char *tmpdir_text(void **state, const char *name, const char *text)
{
    return tmpdir_write(state, name, text, strlen(text));
}

/* How many files and folders are in it. */
static inline int tmpdir_count(void **state)
{
    int n = 0;
    DIR *d = opendir(((tmpdir *)*state)->path);
    if (!d) abort();
    for (struct dirent *e; (e = readdir(d));) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(d);
    return n;
}

#endif
