/* The folder of what is fetched: removed at the end, or, if this program is killed, by the next. */
#include "batch/state.h"

#include "base/alloc.h"
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STEM "echomimic-"
#define MARK ".temporary" /* a folder without it is not ours to remove, whatever its name */

/* Files of one folder, then itself. */
static void remove_folder(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(path);
}

/* Whether a folder was made by a program that died. A living one's is locked, or so young that it
 * is about to be. */
static bool is_left_over(int fd)
{
    enum { YOUNG_S = 60 };
    struct stat info;
    return faccessat(fd, MARK, F_OK, 0) == 0 && fstat(fd, &info) == 0 &&
           time(NULL) - info.st_mtime > YOUNG_S && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static void remove_left_overs(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, STEM, strlen(STEM)) != 0) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) continue;
        char *path = em_path_join(dir, e->d_name);
        if (path && is_left_over(fd)) remove_folder(path);
        em_free(path);
        close(fd);
    }
    if (d) closedir(d);
}

static em_status mark(const char *path, em_err *err)
{
    char *name = em_path_join(path, MARK);
    em_status st =
        name ? em_file_write(name, "", 0, err) : em_fail(err, EM_NOMEM, "no memory for the batch");
    em_free(name);
    return st;
}

em_status em_batch_make_temp(em_batch *b, em_err *err)
{
    const char *dir = b->options.temp_dir ? b->options.temp_dir : getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    em_status st = em_dir_create(dir, err);
    if (st) return em_err_prefix(err, "--temp_dir"), st;
    remove_left_overs(dir);
    char *path = em_path_join(dir, STEM "XXXXXX");
    if (!path) return em_fail(err, EM_NOMEM, "no memory for the batch");
    if (!mkdtemp(path)) {
        st = em_fail_errno(err, errno, "--temp_dir '%s': nothing can be written there", dir);
        em_free(path);
        return st;
    }
    b->temp = path;
    b->temp_lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (b->temp_lock >= 0) flock(b->temp_lock, LOCK_EX | LOCK_NB);
    if (!b->options.keep_temp) return mark(path, err);
    em_logf(&b->options.log, EM_LOG_INFO, "fetched files stay in '%s'", path);
    return EM_OK;
}

void em_batch_remove_temp(em_batch *b)
{
    if (b->temp && !b->options.keep_temp) remove_folder(b->temp);
    if (b->temp_lock >= 0) close(b->temp_lock);
    b->temp_lock = -1;
    em_free(b->temp);
    b->temp = NULL;
}
