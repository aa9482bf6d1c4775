#include "io/file.h"

#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- reading ---- */

/* O_NONBLOCK so that a pipe without a writer is refused below instead of waited for. */
static em_status open_regular(int *out, struct stat *info, const char *path, em_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ENOENT) return em_fail(err, EM_IO, "'%s' does not exist", path);
        return em_fail_errno(err, errno, "cannot open '%s'", path);
    }
    em_status st = EM_OK;
    if (fstat(fd, info) != 0) {
        st = em_fail_errno(err, errno, "cannot examine '%s'", path);
    } else if (S_ISDIR(info->st_mode)) {
        st = em_fail(err, EM_IO, "'%s' is a folder, a file was expected", path);
    } else if (!S_ISREG(info->st_mode)) {
        st = em_fail(err, EM_IO, "'%s' is not a regular file", path);
    }
    if (st) {
        close(fd);
        return st;
    }
    *out = fd;
    return EM_OK;
}

em_status em_file_map(em_map *out, const char *path, bool allow_empty, em_err *err)
{
    int fd = -1;
    struct stat info;
    em_status st = open_regular(&fd, &info, path, err);
    if (st) return st;

    void *data = NULL;
    size_t size_bytes = (size_t)info.st_size;
    if (size_bytes == 0 && !allow_empty) {
        st = em_fail(err, EM_FORMAT, "'%s' is empty (0 bytes)", path);
        goto fail;
    }
    if (size_bytes > 0) {
        data = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            data = NULL;
            st = em_fail_errno(err, errno, "cannot map '%s'", path);
            goto fail;
        }
    }
    if (fstat(fd, &info) != 0 || (size_t)info.st_size != size_bytes) {
        st = em_fail(err, EM_IO, "'%s' changes while it is read: wait until it is complete", path);
        goto fail;
    }
    if (!data) close(fd);
    *out = (em_map){.data = data, .size_bytes = size_bytes, .fd = data ? fd : 0};
    return EM_OK;

fail:
    if (data) munmap(data, size_bytes);
    close(fd);
    return st;
}

void em_map_close(em_map *map)
{
    if (!map) return;
    if (map->data) {
        munmap((void *)map->data, map->size_bytes);
        close(map->fd);
    }
    *map = (em_map){0};
}

em_file_place em_map_place(const em_map *map, const void *data, size_t size_bytes, const char *path)
{
    uintptr_t begin = (uintptr_t)map->data, at = (uintptr_t)data;
    bool inside = map->data && at >= begin && at - begin <= map->size_bytes &&
                  size_bytes <= map->size_bytes - (at - begin);
    if (!inside) return (em_file_place){0};
    return (em_file_place){.path = path, .fd = map->fd, .offset_bytes = at - begin};
}

em_status em_file_read_at(void *out, size_t size_bytes, const em_file_place *from, em_err *err)
{
    size_t got = 0;
    while (got < size_bytes) {
        ssize_t n =
            pread(from->fd, (char *)out + got, size_bytes - got, (off_t)(from->offset_bytes + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return em_fail_errno(err, errno, "cannot read '%s'", from->path);
        if (n == 0)
            return em_fail(err, EM_IO,
                           "'%s' ends before its weights do: it became shorter since it was opened",
                           from->path);
        got += (size_t)n;
    }
    return EM_OK;
}

void em_file_fetch(const em_file_place *at, size_t size_bytes)
{
    posix_fadvise(at->fd, (off_t)at->offset_bytes, (off_t)size_bytes, POSIX_FADV_WILLNEED);
}

void em_map_drop(const void *data, size_t size_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)data + size_bytes) & ~(page - 1);
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* Reads until `size_bytes` are there or the file ends; *got tells. */
static em_status read_all(int fd, char *data, size_t size_bytes, size_t *got, const char *path,
                          em_err *err)
{
    *got = 0;
    while (*got < size_bytes) {
        ssize_t n = read(fd, data + *got, size_bytes - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return em_fail_errno(err, errno, "cannot read '%s'", path);
        if (n == 0) break;
        *got += (size_t)n;
    }
    return EM_OK;
}

/* The whole pages that hold the range. */
static void advise(const void *data, size_t size_bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data & ~(page - 1);
    if (size_bytes) madvise((void *)begin, (uintptr_t)data + size_bytes - begin, advice);
}

void em_map_jump(const void *data, size_t size_bytes)
{
    advise(data, size_bytes, MADV_RANDOM);
}

void em_map_fetch(const void *data, size_t size_bytes)
{
    advise(data, size_bytes, MADV_WILLNEED);
}

void em_map_in_order(const void *data, size_t size_bytes)
{
    advise(data, size_bytes, MADV_NORMAL);
}

/* Pages that are shared, if with nobody, outlive their being dropped. What is too small to hold a
 * whole page comes from em_alloc: a process has not so many maps as a checkpoint may have
 * tensors. */
enum { BLOCK_MAPPED_BYTES = 4096 };

em_status em_block_open(em_block *out, size_t size_bytes, em_err *err)
{
    em_block b = {.size_bytes = size_bytes};
    if (size_bytes < BLOCK_MAPPED_BYTES) {
        b.data = em_alloc(size_bytes);
    } else {
        b.data = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (b.data == MAP_FAILED) b.data = NULL;
    }
    if (!b.data) return em_fail(err, EM_NOMEM, "out of memory for a copy of %zu bytes", size_bytes);
    *out = b;
    return EM_OK;
}

void em_block_close(em_block *b)
{
    if (b->size_bytes < BLOCK_MAPPED_BYTES)
        em_free(b->data);
    else
        munmap(b->data, b->size_bytes);
    *b = (em_block){0};
}

em_status em_file_peek(void *out, size_t *size_bytes, const char *path, size_t max_bytes,
                       em_err *err)
{
    int fd;
    struct stat info;
    size_t got = 0;
    em_status st = open_regular(&fd, &info, path, err);
    if (st) return st;
    st = read_all(fd, out, max_bytes, &got, path, err);
    close(fd);
    if (!st) *size_bytes = got;
    return st;
}

em_status em_file_read(char **out, size_t *size_bytes, const char *path, size_t max_bytes,
                       em_err *err)
{
    int fd;
    struct stat info;
    char *data = NULL;
    size_t got = 0;
    em_status st = open_regular(&fd, &info, path, err);
    if (st) return st;

    if ((uintmax_t)info.st_size > max_bytes) {
        st = em_fail(err, EM_FORMAT, "'%s' has %lld bytes, at most %zu are read", path,
                     (long long)info.st_size, max_bytes);
        goto done;
    }
    size_t want = (size_t)info.st_size;
    data = em_alloc(want + 1);
    if (!data) {
        st = em_fail(err, EM_NOMEM, "out of memory reading '%s' (%zu bytes)", path, want);
        goto done;
    }
    st = read_all(fd, data, want, &got, path, err);
    if (!st && got != want) {
        st = em_fail(err, EM_IO, "'%s' changes while it is read: wait until it is complete", path);
    }

done:
    close(fd);
    if (st) {
        em_free(data);
        return st;
    }
    *out = data;
    *size_bytes = got;
    return EM_OK;
}

/* ---- paths ---- */

char *em_path_join(const char *dir, const char *name)
{
    while (name[0] == '.' && name[1] == '/') {
        name += 2;
        while (*name == '/') name++;
    }
    if (name[0] == '/' || dir[0] == 0) return em_strdup(name);
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    if (name[0] == 0 || strcmp(name, ".") == 0) return em_strndup(dir, n);

    size_t slash = dir[n - 1] != '/', len = strlen(name);
    char *path = em_alloc(n + slash + len + 1);
    if (!path) return NULL;
    memcpy(path, dir, n);
    if (slash) path[n] = '/';
    memcpy(path + n + slash, name, len);
    return path;
}

const char *em_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool em_path_is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool em_path_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

em_status em_dir_create(const char *path, em_err *err)
{
    em_status st = EM_OK;
    char *part = em_strdup(path);
    if (!part) return em_fail(err, EM_NOMEM, "out of memory making the folder '%s'", path);

    for (char *p = part; *p && !st; p++) {
        bool last = p[1] == 0;
        if (!last && p[1] != '/') continue;
        char next = p[1];
        p[1] = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            st = em_fail_errno(err, errno, "cannot make the folder '%s'", part);
        } else if (!em_path_is_dir(part)) {
            st = em_fail(err, EM_IO, "cannot make the folder '%s': '%s' is not a folder", path,
                         part);
        }
        p[1] = next;
    }
    em_free(part);
    return st;
}

em_status em_dir_free_bytes(uint64_t *out, const char *path, em_err *err)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return em_fail_errno(err, errno, "cannot ask '%s' for its free space", path);
    *out = (uint64_t)info.f_bavail * info.f_frsize;
    return EM_OK;
}

/* ---- writing ---- */

struct em_file_writer {
    char *path; /* final name */
    char *part; /* name until commit */
    char *dir;  /* folder of both */
    int fd;     /* of `part`, -1 before it is ours: what we did not make we do not remove */
};

/* dir = everything up to the last slash, or "."; part = dir/.NAME.part-TID: two threads may write
 * one target, the last one counts */
static bool derive_paths(em_file_writer *w, const char *path)
{
    const char *name = em_path_base(path);
    char part[32];
    int pid_len = snprintf(part, sizeof part, ".part-%ld", (long)gettid());
    w->path = em_strdup(path);
    w->dir = name == path ? em_strdup(".") : em_strndup(path, (size_t)(name - path));
    if (!w->path || !w->dir) return false;

    size_t dir_len = (size_t)(name - path), name_len = strlen(name);
    w->part = em_alloc(dir_len + 1 + name_len + (size_t)pid_len + 1);
    if (!w->part) return false;
    char *p = w->part;
    memcpy(p, path, dir_len);
    p[dir_len] = '.';
    memcpy(p + dir_len + 1, name, name_len);
    memcpy(p + dir_len + 1 + name_len, part, (size_t)pid_len);
    return true;
}

/* Removes what killed runs left of this target, "name.part-DIGITS" in its folder. The lock that
 * each writer holds tells a left-over from a file at work, whose process may be in another
 * container. What cannot be removed stays: it is in nobody's way. */
static void remove_left_overs(const em_file_writer *w)
{
    const char *base = em_path_base(w->part);
    size_t n = (size_t)(strrchr(base, '-') + 1 - base);
    DIR *d = opendir(w->dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *digits = e->d_name + n;
        if (strncmp(e->d_name, base, n) != 0 || digits[strspn(digits, "0123456789")]) continue;
        int fd = openat(dirfd(d), e->d_name, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    if (d) closedir(d);
}

static em_status create_part(em_file_writer *w, em_err *err)
{
    enum { TRIES = 3 };
    for (int i = 0; i < TRIES; i++) {
        struct stat info;
        remove_left_overs(w);
        int fd = open(w->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno == EEXIST) break;
        if (fd < 0) return em_fail_errno(err, errno, "cannot write '%s'", w->path);
        /* File systems without locks do without. Before the lock, another writer of the target may
         * have taken our file for a left-over: then it has no name any more. */
        bool taken = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        if (!taken && fstat(fd, &info) == 0 && info.st_nlink > 0) {
            w->fd = fd;
            return EM_OK;
        }
        close(fd);
    }
    return em_fail(err, EM_IO, "'%s' is being written already ('%s')", w->path, w->part);
}

em_status em_file_writer_open(em_file_writer **out, const char *path, em_err *err)
{
    if (em_path_base(path)[0] == 0) return em_fail(err, EM_INVAL, "'%s' names no file", path);
    if (em_path_is_dir(path)) return em_fail(err, EM_IO, "cannot write '%s': it is a folder", path);

    em_status st;
    em_file_writer *w = em_alloc(sizeof *w);
    if (!w) return em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    w->fd = -1;
    if (!derive_paths(w, path)) {
        st = em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
        goto fail;
    }
    st = create_part(w, err);
    if (st) goto fail;
    *out = w;
    return EM_OK;

fail:
    em_file_writer_close(&w);
    return st;
}

em_status em_file_writer_reserve(em_file_writer *w, uint64_t size_bytes, em_err *err)
{
    if (size_bytes > INT64_MAX) {
        return em_fail(err, EM_INVAL, "'%s': no file can have %llu bytes", w->path,
                       (unsigned long long)size_bytes);
    }
    off_t size = (off_t)size_bytes;
    int rc;
    do {
        rc = size ? fallocate(w->fd, 0, 0, size) : 0;
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
        return em_fail_errno(err, errno, "cannot claim %llu bytes for '%s'",
                             (unsigned long long)size_bytes, w->path);
    }
    if (ftruncate(w->fd, size) != 0) return em_fail_errno(err, errno, "cannot size '%s'", w->path);
    return EM_OK;
}

em_status em_file_writer_write(em_file_writer *w, uint64_t offset_bytes, const void *data,
                               size_t size_bytes, em_err *err)
{
    const char *p = data;
    if (size_bytes > INT64_MAX || offset_bytes > INT64_MAX - size_bytes) {
        return em_fail(err, EM_INVAL, "'%s': offset %llu is beyond any file", w->path,
                       (unsigned long long)offset_bytes);
    }
    while (size_bytes > 0) {
        ssize_t n = pwrite(w->fd, p, size_bytes, (off_t)offset_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return em_fail_errno(err, errno, "cannot write '%s'", w->path);
        if (n == 0) return em_fail(err, EM_IO, "cannot write '%s': no progress", w->path);
        p += n;
        size_bytes -= (size_t)n;
        offset_bytes += (uint64_t)n;
    }
    return EM_OK;
}

const char *em_file_writer_part(const em_file_writer *w)
{
    return w->part;
}

em_status em_file_sync(const char *path, em_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return em_fail_errno(err, errno, "cannot open '%s'", path);
    int rc = fsync(fd), cause = errno;
    close(fd);
    return rc ? em_fail_errno(err, cause, "cannot write '%s' to the disk", path) : EM_OK;
}

/* The new name is on the disk only when the folder is. File systems that cannot sync a folder say
 * EINVAL. */
static em_status sync_dir(const char *dir, em_err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return em_fail_errno(err, errno, "cannot open the folder '%s'", dir);
    int rc = fsync(fd), cause = errno;
    close(fd);
    if (rc != 0 && cause != EINVAL) return em_fail_errno(err, cause, "cannot sync '%s'", dir);
    return EM_OK;
}

em_status em_file_writer_commit(em_file_writer **writer, em_err *err)
{
    em_file_writer *w = *writer;
    em_status st = EM_OK;
    if (fsync(w->fd) != 0) {
        st = em_fail_errno(err, errno, "cannot write '%s' to the disk", w->path);
    } else if (rename(w->part, w->path) != 0) {
        st = em_fail_errno(err, errno, "cannot give '%s' its name", w->path);
    } else {
        close(w->fd);
        w->fd = -1;
        st = sync_dir(w->dir, err);
    }
    em_file_writer_close(writer);
    return st;
}

void em_file_writer_close(em_file_writer **writer)
{
    if (!writer || !*writer) return;
    em_file_writer *w = *writer;
    if (w->fd >= 0) {
        unlink(w->part);
        close(w->fd);
    }
    em_free(w->path);
    em_free(w->part);
    em_free(w->dir);
    em_free(w);
    *writer = NULL;
}

em_status em_file_write(const char *path, const void *data, size_t size_bytes, em_err *err)
{
    em_file_writer *w = NULL;
    em_status st = em_file_writer_open(&w, path, err);
    if (!st) st = em_file_writer_write(w, 0, data, size_bytes, err);
    if (!st) return em_file_writer_commit(&w, err);
    em_file_writer_close(&w);
    return st;
}
