/* Where CUDA's libraries are: this plug-in links none of them, so that it loads on a machine that
 * has only a driver, and uses those that people have already, as a part of PyTorch most often. */
#include "ops/cuda/cuda.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *try_path(const char *path, char *found, size_t found_size)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library) snprintf(found, found_size, "%s", path);
    return library;
}

/* The first file of a pattern that opens. */
static void *try_pattern(const char *pattern, char *found, size_t found_size)
{
    glob_t g;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &g)) return NULL;
    for (size_t i = 0; !library && i < g.gl_pathc; i++)
        library = try_path(g.gl_pathv[i], found, found_size);
    globfree(&g);
    return library;
}

/* Every folder of a list with colons. */
static void *try_folders(const char *list, const char *soname, char *found, size_t found_size)
{
    void *library = NULL;
    char path[4096];
    while (list && *list && !library) {
        int n = (int)strcspn(list, ":");
        if (n && snprintf(path, sizeof path, "%.*s/%s", n, list, soname) < (int)sizeof path)
            library = try_path(path, found, found_size);
        list += n + (list[n] == ':');
    }
    return library;
}

void *em_cuda_library(const char *soname, char *found, size_t found_size, em_err *err)
{
    static const char *const place[] = {
        "/usr/local/cuda*/lib64/%s",
        "/usr/lib/python3*/*-packages/nvidia/*/lib/%s",
        "/usr/local/lib/python3*/*-packages/nvidia/*/lib/%s",
        "/opt/*/lib/python3*/*-packages/nvidia/*/lib/%s",
        "/opt/*/.venv/lib/python3*/*-packages/nvidia/*/lib/%s",
    };
    const char *virtual_env = getenv("VIRTUAL_ENV");
    char pattern[4096];
    void *library = try_folders(getenv("EM_CUDA_LIBRARY_PATH"), soname, found, found_size);
    if (!library) library = try_path(soname, found, found_size);
    if (!library && virtual_env &&
        snprintf(pattern, sizeof pattern, "%s/lib/python3*/*-packages/nvidia/*/lib/%s", virtual_env,
                 soname) < (int)sizeof pattern)
        library = try_pattern(pattern, found, found_size);
    for (size_t i = 0; !library && i < sizeof place / sizeof *place; i++) {
        const char *hole = strstr(place[i], "%s");
        snprintf(pattern, sizeof pattern, "%.*s%s", (int)(hole - place[i]), place[i], soname);
        library = try_pattern(pattern, found, found_size);
    }
    if (!library)
        em_fail(err, EM_DEVICE,
                "%s was not found: install it, or name its folder in EM_CUDA_LIBRARY_PATH (a "
                "PyTorch installation has it under nvidia/…/lib)",
                soname);
    return library;
}
