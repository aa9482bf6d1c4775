#include "cli/cli.h"

#include <curl/curl.h>
#include <string.h>

typedef struct command {
    const char *name;
    em_command id;
    int (*run)(em_options *o);
    const char *summary;
} command;

static const command commands[] = {
    {"batch", EM_CMD_BATCH, em_cmd_batch, "make a video of every job of a list"},
    {"run", EM_CMD_RUN, em_cmd_run, "make one video of one portrait and one voice"},
    {"demo", EM_CMD_DEMO, em_cmd_run, "the same with the small model that comes with the program"},
    {"plan", EM_CMD_PLAN, em_cmd_plan, "what a video would take: memory and arithmetic"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to)
{
    fprintf(to,
            "echomimic: talking-human video from portraits and voices (EchoMimicV3-Flash), in C\n\n"
            "usage: echomimic COMMAND [flags]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fprintf(
        to,
        "\nechomimic COMMAND --help lists the flags of a command; --version says what this is.\n");
}

static void print_version(void)
{
    printf(
        "echomimic %s\n"
        "Apache-2.0. This program is linked to FFmpeg libraries with x264, as Debian builds them:\n"
        "the binary as a whole is therefore under the GNU General Public License (version 2 or "
        "later\n"
        "for x264 and FFmpeg, 3 together with OpenSSL). NOTICE lists all libraries.\n",
        em_version());
}

static int run_command(const command *c, int argc, char **argv)
{
    em_options o;
    int problems = em_options_read(&o, c->id, argc, argv, stderr), code = EM_EXIT_USAGE;
    if (o.help) {
        printf("echomimic %s: %s\n\n", c->name, c->summary);
        em_options_help(c->id, stdout);
        code = EM_EXIT_OK;
    } else if (!problems) {
        em_options_settle(&o);
        code = c->run(&o);
    }
    em_options_close(&o);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) return print_help(stderr), EM_EXIT_USAGE;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        return print_help(stdout), 0;
    if (!strcmp(argv[1], "--version")) return print_version(), 0;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            int code = run_command(&commands[i], argc - 2, argv + 2);
            curl_global_cleanup();
            return code;
        }
    fprintf(stderr, "'%s' is not a command\n\n", argv[1]);
    print_help(stderr);
    return EM_EXIT_USAGE;
}
