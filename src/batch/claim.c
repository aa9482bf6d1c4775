#include "batch/claim.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

em_status em_claim_open(int *fd, const char *path, em_err *err)
{
    int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0) return em_fail_errno(err, errno, "cannot make '%s'", path);
    *fd = opened;
    return EM_OK;
}

void em_claim_close(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Locks of the open file, not of the process: they are ours in every thread, and no other
 * descriptor's close ends them. */
static int set_lock(int fd, const char *name, short kind)
{
    uint64_t h = em_fnv1a64(EM_FNV1A64_INIT, name, strlen(name));
    struct flock lock = {.l_type = kind,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)(h >> 2), /* a byte that need not exist */
                         .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

bool em_claim_take(int fd, const char *name)
{
    return set_lock(fd, name, F_WRLCK) == 0 || (errno != EAGAIN && errno != EACCES);
}

void em_claim_drop(int fd, const char *name)
{
    set_lock(fd, name, F_UNLCK);
}
