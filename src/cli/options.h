/* The command line: one table of flags, from which parsing, ranges and --help come.
 *
 * Every flag is taken with `_` and with `-` between words, as `--flag value` and `--flag=value`.
 * Whoever said something last, in this order, is heard: the default, the model's recommendation,
 * the file of --config, the command line. */
#ifndef EM_CLI_OPTIONS_H
#define EM_CLI_OPTIONS_H

#include "base/problems.h"
#include "base/str.h"
#include "io/model_folder.h"

#include <stdio.h>

/* Bits: a flag may belong to several. */
typedef enum em_command {
    EM_COMMAND_BATCH = 1,
    EM_COMMAND_RUN = 2,
    EM_COMMAND_PLAN = 4,
    EM_COMMAND_INSPECT = 8,
    EM_COMMAND_SYNTH = 16,
} em_command;

typedef enum em_option_source {
    EM_SOURCE_DEFAULT,
    EM_SOURCE_RECOMMENDED,
    EM_SOURCE_CONFIG,
    EM_SOURCE_COMMAND_LINE,
} em_option_source;

enum { EM_OPTIONS_MAX = 96 };

/* The values of a flag that may have several. */
typedef struct em_texts {
    const char **item; /* the array is owned, the texts are as below */
    size_t count, cap;
} em_texts;

/* Strings are borrowed from argv or kept in `kept`. */
typedef struct em_options {
    em_command command;
    em_params params;
    em_engine_params engine;
    bool teacache; /* params.teacache holds the mode until em_options_finish */
    bool riflex;
    const char *json_path, *save_path, *temp_dir, *output;
    const char *image_path, *audio_path;
    const char *config; /* more flags, in YAML */
    bool keep_temp, force, retry_failed, dry_run, skip_invalid, demo_model;
    em_texts only, allow_private;
    int parallel_jobs;
    int shard[2]; /* which, from 1, of how many; 0 0: all */
    bool quiet, log_json, json, help, version;
    const char *size, *out, *path; /* synth, inspect */
    int64_t synth_seed;
    bool with_base;
    int synth_torch; /* of `formats`: as released */
    bool verify;
    /* accepted so that old command lines work */
    const char *unused;
    bool unused_switch;
    int ulysses_degree, ring_degree;
    const char *lora_path, *gpu_memory_mode;

    em_option_source source[EM_OPTIONS_MAX]; /* one a row of the table */
    char **kept;                             /* owned texts of files */
    size_t kept_count, kept_cap;
} em_options;

/* Every default of `command`. Close it whatever follows. */
void em_options_open(em_options *o, em_command command);
void em_options_close(em_options *o);

/* argv[0 … argc) is what follows the subcommand. Reads the file of --config too. All problems go to
 * the log at once. --help ends the reading. */
em_status em_options_parse(em_options *o, int argc, char *const *argv, const em_log *log,
                           em_err *err);

/* Flags that nobody gave take the model's recommendations; `told` (may be NULL) becomes
 * "--flag value, …" of those taken. */
em_status em_options_recommend(em_options *o, const em_model_config *model, em_str *told,
                               const em_log *log, em_err *err);

/* Combines what several flags say about one thing, and says once which flags have no effect. */
em_status em_options_finish(em_options *o, const em_log *log, em_err *err);

/* Whether someone said more about a flag than its default. */
bool em_options_given(const em_options *o, const char *flag);

/* The text of a TEXT flag; NULL when there is none or it is empty. */
const char *em_options_text(const em_options *o, const char *flag);

/* *to becomes a copy of `text` that lives as long as the options; false when out of memory. */
bool em_options_keep(em_options *o, const char **to, const char *text);

/* The table as text, for one subcommand. */
void em_options_help(FILE *to, em_command command);

#endif
