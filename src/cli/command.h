/* The subcommands, and what they share. Each gets its options parsed, prints its result on stdout,
 * everything else through the terminal, and answers the exit status. */
#ifndef EM_CLI_COMMAND_H
#define EM_CLI_COMMAND_H

#include "base/status.h"
#include "cli/options.h"
#include "cli/terminal.h"

typedef enum em_exit {
    EM_EXIT_OK,
    EM_EXIT_SOME_FAILED,
    EM_EXIT_USAGE,   /* flags or job list */
    EM_EXIT_NOTHING, /* nothing could run: checkpoint, output folder, no usable job */
    EM_EXIT_DISK_FULL,
    EM_EXIT_INTERRUPTED = 130,
} em_exit;

em_exit em_command_batch(em_options *o, em_terminal *t);
em_exit em_command_run(em_options *o, em_terminal *t);
/* run, with the demo model, and a portrait and a voice of share where none is given */
em_exit em_command_demo(em_options *o, em_terminal *t);
em_exit em_command_plan(em_options *o, em_terminal *t);
em_exit em_command_inspect(em_options *o, em_terminal *t);
em_exit em_command_synth(em_options *o, em_terminal *t);

/* Says why, and answers the exit status: `fallback`, or what a full disk or an interrupt have of
 * their own. */
em_exit em_command_fail(em_terminal *t, const em_err *err, em_exit fallback);
/* Texts without which the subcommand means nothing: every flag of the list (it ends in NULL) that
 * is missing is a problem. --demo_model puts its own folders in. */
em_status em_command_need(em_options *o, const char *const *flags, em_terminal *t, em_err *err);

/* The settings that the model recommends; *models (may be NULL) becomes the model's configuration,
 * owned by the caller (em_model_folder_close). */
em_status em_command_settings(em_model_config **models, em_options *o, em_terminal *t, em_err *err);
/* What an engine is opened for. */
typedef struct em_command_lane {
    int lane, lanes;        /* as in em_engine_params; 0 lanes: --parallel_jobs */
    const em_log *log;      /* NULL: the terminal's */
    const char *prompt_key; /* what names the text encoder: prompts are kept in the user's cache
                             * folder; NULL: they are not */
} em_command_lane;

/* The first of the lanes says what will run where. */
em_status em_command_engine(em_engine **out, const em_options *o, const em_command_lane *at,
                            em_terminal *t, em_err *err);

#endif
