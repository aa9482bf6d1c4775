/* Preloaded into the program under test: it dies, as by kill -9, at the N-th call that changes
 * something in a folder; a write that it dies in leaves its first half.
 *
 *     EM_KILL_DIR    the folder (absolute, no links in it); calls elsewhere do not count
 *     EM_KILL_AT     N; 0: never
 *     EM_KILL_COUNT  file that receives how many such calls there were when the process ends */
#undef _FILE_OFFSET_BITS /* it would make one name of open and open64 */

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char *dir;
static unsigned long at;
static atomic_ulong calls;

/* What the C library calls `name`: each function below hides one. */
#define REAL(name) ((__typeof__(&(name)))(uintptr_t)dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void)
{
    const char *n = getenv("EM_KILL_AT");
    dir = getenv("EM_KILL_DIR");
    at = n ? strtoul(n, NULL, 10) : 0;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("EM_KILL_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f) return;
    fprintf(f, "%lu\n", (unsigned long)calls);
    fclose(f);
}

static bool inside(const char *path)
{
    char real[PATH_MAX], parent[PATH_MAX];
    if (!dir || !path) return false;
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return realpath(parent, real) && !strncmp(real, dir, strlen(dir));
}

static bool inside_fd(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = dir ? readlink(link, path, sizeof path - 1) : -1;
    if (n < 0) return false;
    path[n] = 0;
    return !strncmp(path, dir, strlen(dir));
}

/* Is this the call to die at? */
static bool due(void)
{
    return atomic_fetch_add(&calls, 1) + 1 == at;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void count_path(const char *path)
{
    if (inside(path) && due()) die();
}

static void count_fd(int fd)
{
    if (inside_fd(fd) && due()) die();
}

#define EXPORT __attribute__((visibility("default")))

EXPORT ssize_t write(int fd, const void *data, size_t n)
{
    if (inside_fd(fd) && due()) {
        REAL(write)(fd, data, n / 2);
        die();
    }
    return REAL(write)(fd, data, n);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset)
{
    if (inside_fd(fd) && due()) {
        REAL(pwrite64)(fd, data, n / 2, offset);
        die();
    }
    return REAL(pwrite64)(fd, data, n, offset);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
    return pwrite64(fd, data, n, offset);
}

EXPORT int fsync(int fd)
{
    count_fd(fd);
    return REAL(fsync)(fd);
}

EXPORT int fdatasync(int fd)
{
    count_fd(fd);
    return REAL(fdatasync)(fd);
}

EXPORT int ftruncate64(int fd, off64_t n)
{
    count_fd(fd);
    return REAL(ftruncate64)(fd, n);
}

EXPORT int ftruncate(int fd, off_t n)
{
    return ftruncate64(fd, n);
}

EXPORT int rename(const char *from, const char *to)
{
    count_path(to);
    return REAL(rename)(from, to);
}

EXPORT int link(const char *from, const char *to)
{
    count_path(to);
    return REAL(link)(from, to);
}

EXPORT int unlink(const char *path)
{
    count_path(path);
    return REAL(unlink)(path);
}

EXPORT int unlinkat(int fd, const char *path, int flags)
{
    count_fd(fd);
    return REAL(unlinkat)(fd, path, flags);
}

/* Making a file is a change; opening one is none. */
static void count_open(const char *path, int flags)
{
    if (flags & O_CREAT) count_path(path);
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags)&O_CREAT) {                                                                         \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, mode_t);                                                                 \
        va_end(ap);                                                                                \
    }

EXPORT int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    count_open(path, flags);
    return REAL(open64)(path, flags, mode);
}

EXPORT int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    count_open(path, flags);
    return REAL(open64)(path, flags, mode);
}
