/* Which process works on which video. Several may share a folder (shards, or a batch that was
 * started twice): each job is claimed before it is touched, and a claim ends with its process,
 * however that ends.
 *
 * One byte of a lock file a name, chosen by the name's hash: nothing to clean up. */
#ifndef EM_BATCH_CLAIM_H
#define EM_BATCH_CLAIM_H

#include "base/status.h"

#include <stdbool.h>

#define EM_CLAIM_NAME ".echomimic.lock"

/* Opens or makes the lock file; the descriptor is the caller's (em_claim_close). */
em_status em_claim_open(int *fd, const char *path, em_err *err);
void em_claim_close(int *fd); /* ends all claims; -1 is allowed */

/* False: another process has it. A file system without locks gives every claim. */
bool em_claim_take(int fd, const char *name);
void em_claim_drop(int fd, const char *name);

#endif
