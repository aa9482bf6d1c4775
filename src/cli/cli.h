/* What the subcommands share. */
#ifndef EM_CLI_CLI_H
#define EM_CLI_CLI_H

#include "cli/options.h"

#include <stdatomic.h>

/* Exit codes. */
enum {
    EM_EXIT_OK = 0,
    EM_EXIT_SOME_FAILED = 1,
    EM_EXIT_USAGE = 2,   /* flags or job list: nothing was started */
    EM_EXIT_NOTHING = 3, /* checkpoint, output folder: nothing can run */
    EM_EXIT_DISK_FULL = 4,
    EM_EXIT_INTERRUPTED = 130,
};

/* One file a subcommand; the options are read and settled. */
int em_cmd_batch(em_options *o);
int em_cmd_run(em_options *o);
int em_cmd_plan(em_options *o);

/* Messages of the library go to standard error, prefixed by their level; JSON lines with
 * --log_json. */
em_log em_cli_log(em_options *o);

/* Model folders named, recommended settings applied and printed, the engine opened. On failure the
 * sentence is printed and the exit code returned. */
int em_cli_open_engine(em_engine **out, em_options *o, em_command command);

/* The first SIGINT or SIGTERM cancels the engine and sets the flag; the second ends the program at
 * once. */
void em_cli_catch_signals(em_engine *engine);
const atomic_bool *em_cli_interrupted(void);

/* Folder of what is installed with the program (demo-model, portraits, voices): beside the
 * program's own folder, or in the source tree that it was built in. NULL when there is none. Owned:
 * em_free. */
char *em_cli_share_dir(void);

#endif
