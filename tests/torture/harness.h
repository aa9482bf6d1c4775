/* What the torture programs share: a folder with a tiny checkpoint, job lists, the program under
 * test as a child, and what it left behind. Whatever goes wrong here ends the test with a
 * sentence. */
#ifndef EM_TORTURE_HARNESS_H
#define EM_TORTURE_HARNESS_H

#include "base/hash.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { HARNESS_PATH = 512, HARNESS_ARGS = 64 };

typedef struct harness {
    const char *program, *share;
    char dir[HARNESS_PATH];   /* removed by harness_close */
    char model[HARNESS_PATH]; /* the checkpoint */
} harness;

void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

void harness_open(harness *h, const char *program, const char *share);
void harness_close(harness *h);

/* DIR/NAME; lives until the call after the next 15. */
const char *harness_path(const harness *h, const char *name);

void make_folder(const char *path);
void remove_folder(const char *path); /* with all that is in it; it need not exist */

/* Starts `batch` on a list, small and quick; `more` (ends in NULL) comes last. Its stderr goes to
 * `log`; `env` are settings "NAME=value" beyond ours (ends in NULL; may be NULL). */
pid_t start_batch(const harness *h, const char *list, const char *save_path, const char *log,
                  const char *const *more, const char *const *env);
int wait_for(pid_t pid); /* exit status, or -signal */

/* The hash of a file; false: there is none. */
bool hash_file(char out[EM_SHA256_HEX_BYTES], const char *path);
json_t *read_report(const char *save_path); /* owned */
/* The item of a report by output_name; borrowed. */
json_t *report_item(json_t *report, const char *name);

double now_s(void);

#endif
