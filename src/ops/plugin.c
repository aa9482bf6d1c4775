#include "ops/plugin.h"

#include "base/str.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* EM_CUDA_FORCE_ARCH=80, for tests: the plug-in with the kernels of other cards, compiled from
 * PTX. */
static const char *file_name(void)
{
    const char *forced = getenv("EM_CUDA_FORCE_ARCH");
    return forced && !strcmp(forced, "80") ? "libechomimic-cuda-80.so" : "libechomimic-cuda.so";
}

/* The folder that this code was loaded from, with its slash. */
static void own_folder(char *out, size_t size)
{
    Dl_info info;
    out[0] = 0;
    if (!dladdr((const void *)(uintptr_t)em_plugin_cuda_open, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    if (slash) snprintf(out, size, "%.*s", (int)(slash + 1 - info.dli_fname), info.dli_fname);
}

/* Where a build, an installation and a loader have it; EM_CUDA_PLUGIN names the file outright. */
static void *open_library(em_err *err)
{
    static const char *const place[] = {"", "../", "../lib/"};
    char folder[3072], path[4096];
    const char *named = getenv("EM_CUDA_PLUGIN");
    void *library = NULL;
    if (named && *named) {
        library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (!library) em_fail(err, EM_INVAL, "EM_CUDA_PLUGIN: %s", dlerror());
        return library;
    }
    own_folder(folder, sizeof folder);
    for (size_t i = 0; !library && i < sizeof place / sizeof *place; i++) {
        if (snprintf(path, sizeof path, "%s%s%s", folder, place[i], file_name()) >=
            (int)sizeof path)
            continue;
        FILE *there = fopen(path, "re");
        if (!there) continue;
        fclose(there);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            em_fail(err, EM_INVAL, "device cuda: '%s' does not load: %s", path, dlerror());
            return NULL;
        }
    }
    if (!library) library = dlopen(file_name(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
        em_fail(err, EM_INVAL,
                "device cuda: %s is not beside the program: build it with EM_CUDA=ON", file_name());
    return library;
}

em_status em_plugin_cuda_open(const em_ops **out, int ordinal, em_err *err)
{
    void *library = open_library(err);
    if (!library) return err->code;
    const em_plugin *p = dlsym(library, EM_PLUGIN_SYMBOL);
    if (!p || p->abi != EM_PLUGIN_ABI || p->ops_bytes != sizeof(em_ops) ||
        strcmp(p->version, em_version()) != 0)
        return em_fail(err, EM_INVAL,
                       "device cuda: %s is of another build (version %s, this is %s)", file_name(),
                       p ? p->version : "unknown", em_version());
    return p->open(out, ordinal, err);
}
