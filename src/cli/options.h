/* The command line: one table of flags, read from arguments, from a YAML file, and from what a
 * model's makers recommend. --help is printed from the same rows. */
#ifndef EM_CLI_OPTIONS_H
#define EM_CLI_OPTIONS_H

#include "echomimic.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef enum em_command {
    EM_CMD_BATCH = 1,
    EM_CMD_RUN = 2,
    EM_CMD_PLAN = 4,
    EM_CMD_INSPECT = 8,
    EM_CMD_SYNTH = 16,
    EM_CMD_DEMO = 32,
} em_command;

/* Everything that any subcommand takes, with its defaults. Strings are borrowed from the arguments
 * or owned by the options. */
typedef struct em_options {
    em_engine_params engine;
    em_params params;
    const char *json_path, *image_path, *audio_path, *output, *save_path, *temp_dir, *config;
    const char *memory_report, *size, *out, *path, *lora_path;
    int ulysses_degree, ring_degree;
    bool teacache_on, no_teacache;
    int teacache_mode, color_transfer;
    bool enable_riflex;
    int riflex_k;
    bool keep_temp, dry_run, force, skip_invalid, quiet, log_json, json, with_base, demo_model,
        help;
    int64_t synth_seed;
    /* which flags were given, by row of the table; owned strings */
    unsigned char *given;
    char **owned;
    size_t n_owned, cap_owned;
} em_options;

/* Defaults, then argv[0 … argc) for one command. Every problem is one line on `to`; returns their
 * number. Close in any case. */
int em_options_read(em_options *o, em_command command, int argc, char **argv, FILE *to);
void em_options_close(em_options *o);

/* A setting from elsewhere, for a flag that was not given; false when there is no such flag or the
 * value is not one of its values. */
bool em_options_recommend(em_options *o, em_command command, const char *flag, const char *value);

/* What follows from several flags together: call after the last setting. */
void em_options_settle(em_options *o);

/* Flags without effect that were given: one line each on `to`. */
void em_options_tell_unused(const em_options *o, FILE *to);

void em_options_help(em_command command, FILE *to);

#endif
