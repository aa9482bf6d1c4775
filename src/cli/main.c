/* echomimic: the program. Finds the subcommand, parses its flags, and answers its exit status. */
#include "cli/command.h"
#include "cli/interrupt.h"

#include <malloc.h>
#include <string.h>

static const struct {
    const char *name;
    em_command command;
    em_exit (*run)(em_options *o, em_terminal *t);
    const char *help;
} commands[] = {
    {"batch", EM_COMMAND_BATCH, em_command_batch, "a list of jobs to videos"},
    {"run", EM_COMMAND_RUN, em_command_run, "one portrait and one voice to a video"},
    {"demo", EM_COMMAND_RUN, em_command_demo, "the same with the small model that comes along"},
    {"plan", EM_COMMAND_PLAN, em_command_plan, "what a job would take, without running it"},
    {"inspect", EM_COMMAND_INSPECT, em_command_inspect, "what a checkpoint holds and lacks"},
    {"synth", EM_COMMAND_SYNTH, em_command_synth, "write a checkpoint of made-up weights"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_version(void)
{
    printf("echomimic %s\n"
           "Source: Apache License 2.0. Uses the FFmpeg libraries, x264, oneDNN, libjpeg-turbo, "
           "libpng, libwebp,\nlibsoxr, SentencePiece, jansson, libyaml, libcurl and SQLite.\n"
           "A binary that was built with x264, or with an FFmpeg that contains it, is under the "
           "GNU General\nPublic License when it is passed on.\n",
           em_version());
}

static void print_help(FILE *to)
{
    fprintf(to, "echomimic: talking-human video from a portrait and a voice\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  echomimic %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n  echomimic COMMAND --help    its flags, with defaults and ranges\n"
                "  echomimic --version\n");
}

static void print_command_help(int i)
{
    bool takes_path = commands[i].command == EM_COMMAND_INSPECT;
    printf("echomimic %s%s [FLAG...]: %s\n\n", commands[i].name, takes_path ? " PATH" : "",
           commands[i].help);
    em_options_help(stdout, commands[i].command);
}

static em_exit run_command(int i, int argc, char *const *argv)
{
    em_options o;
    em_terminal t;
    em_err err = {0};
    em_exit rc = EM_EXIT_OK;
    em_options_open(&o, commands[i].command);
    em_terminal_open(&t, false, false);
    const em_log log = em_terminal_log(&t);
    if (em_options_parse(&o, argc, argv, &log, &err)) {
        rc = em_command_fail(&t, &err, EM_EXIT_USAGE);
    } else if (o.help) {
        print_command_help(i);
    } else if (o.version) {
        print_version();
    } else {
        em_terminal_close(&t);
        em_terminal_open(&t, o.quiet, o.log_json);
        rc = commands[i].run(&o, &t);
    }
    em_terminal_close(&t);
    em_options_close(&o);
    return rc;
}

/* A batch starts threads for every job. Each would get a heap of its own, up to eight a core, and
 * large buffers, once they come from there, leave holes: memory in use would creep up for hundreds
 * of jobs. */
static void set_up_memory(void)
{
    enum { HEAPS = 2, LARGE_BYTES = 256 << 10 };
    mallopt(M_ARENA_MAX, HEAPS);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES); /* from there on: given back when freed */
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "--help";
    set_up_memory();
    em_interrupt_install();
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        print_help(argc > 1 ? stdout : stderr);
        return argc > 1 ? EM_EXIT_OK : EM_EXIT_USAGE;
    }
    if (!strcmp(word, "--version")) {
        print_version();
        return EM_EXIT_OK;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(word, commands[i].name)) return run_command(i, argc - 2, argv + 2);
    fprintf(stderr, "error: there is no command '%s': see echomimic --help\n", word);
    return EM_EXIT_USAGE;
}
