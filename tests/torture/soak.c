/* soak PROGRAM SHARE [--jobs N]: many tiny jobs in one process, every tenth of them bad. Its
 * memory, threads and open files are looked at all the time: over the last half they are flat. */
#include "harness.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLACK_KIB = 1024, EVERY_BAD = 10 };

typedef struct sample {
    int jobs; /* that had ended */
    long rss_kib, threads, files;
} sample;

static void write_list(const harness *h, const char *path, int jobs)
{
    FILE *f = fopen(path, "w");
    if (!f) fail("cannot write %s", path);
    fprintf(f, "[\n");
    for (int i = 0; i < jobs; i++)
        fprintf(f,
                "%s{\"portrait_image\": \"%s/demo/%s.png\", \"portrait_audio\": "
                "\"%s/demo/ada.wav\", \"output_name\": \"job_%d\", \"seed\": %d}",
                i ? ",\n" : "", h->share, i % EVERY_BAD == EVERY_BAD - 1 ? "nobody" : "ada",
                h->share, i, i);
    fprintf(f, "\n]\n");
    fclose(f);
}

static bool take_sample(sample *s, pid_t pid)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    s->rss_kib = s->threads = s->files = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, "RssAnon:", 8)) s->rss_kib = strtol(line + 8, NULL, 10);
        if (!strncmp(line, "Threads:", 8)) s->threads = strtol(line + 8, NULL, 10);
    }
    if (f) fclose(f);
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    for (; d && readdir(d);) s->files++;
    if (d) closedir(d);
    return s->rss_kib > 0 && d;
}

/* Lines about finished jobs in the log from where we stopped reading. */
static int count_ends(FILE *log)
{
    char line[2048];
    int n = 0;
    while (fgets(line, sizeof line, log))
        n += strstr(line, " forwards, ") != NULL || strstr(line, "does not exist") != NULL;
    clearerr(log);
    return n;
}

static long lesser(long a, long b)
{
    return a < b ? a : b;
}

/* A sample a job: the least that was seen from the end of the one before to its own. */
static size_t watch(sample *all, size_t room, pid_t pid, const char *log_path)
{
    size_t n = 0;
    int ended = 0, status;
    sample now = {0}, least = {0};
    FILE *log = fopen(log_path, "r");
    if (!log) fail("%s is missing", log_path);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (take_sample(&now, pid))
            least = !least.rss_kib ? now
                                   : (sample){.rss_kib = lesser(now.rss_kib, least.rss_kib),
                                              .threads = lesser(now.threads, least.threads),
                                              .files = lesser(now.files, least.files)};
        int more = count_ends(log);
        ended += more;
        if (more && n < room && least.rss_kib) {
            all[n] = least;
            all[n++].jobs = ended;
            least.rss_kib = 0;
        }
        usleep(2000);
    }
    fclose(log);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
        fail("the batch ended with status %x, some failed jobs were expected", (unsigned)status);
    return n;
}

static int by_value(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* The median of the samples between two jobs. 0: there are too few. */
static long typical(const sample *all, size_t n, int from, int to, size_t offset)
{
    enum { FEW = 5 };
    size_t count = 0;
    long *v = calloc(n + 1, sizeof *v);
    if (!v) fail("no memory");
    for (size_t i = 0; i < n; i++)
        if (all[i].jobs >= from && all[i].jobs < to)
            memcpy(&v[count++], (const char *)&all[i] + offset, sizeof *v);
    qsort(v, count, sizeof *v, by_value);
    long found = count < FEW ? 0 : v[count / 2];
    free(v);
    return found;
}

/* Buffers, threads and files come and go with the stages: what a job had all the time must not
 * become more. */
static void check_flat(const sample *all, size_t n, int jobs)
{
    static const struct {
        const char *what;
        size_t offset;
        long slack;
    } row[] = {{"anonymous memory (KiB)", offsetof(sample, rss_kib), SLACK_KIB},
               {"threads", offsetof(sample, threads), 0},
               {"open files", offsetof(sample, files), 0}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        long first = typical(all, n, 0, jobs / 4, row[i].offset);
        long before = typical(all, n, jobs / 2, jobs * 3 / 4, row[i].offset);
        long after = typical(all, n, jobs * 3 / 4, jobs, row[i].offset);
        printf("%s: %ld in the first quarter, %ld in the third, %ld in the fourth\n", row[i].what,
               first, before, after);
        if (!before || !after) fail("too few samples");
        if (after > before + row[i].slack) fail("it grows");
    }
}

int main(int argc, char **argv)
{
    harness h;
    int jobs = 200;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 4 && !strcmp(argv[3], "--jobs")) jobs = (int)strtol(argv[4], NULL, 10);
    if (argc < 3 || jobs < 40) {
        printf("usage: soak PROGRAM SHARE [--jobs N]\n");
        return 2;
    }
    harness_open(&h, argv[1], argv[2]);
    /* With a heap a thread it is chance whose free memory a buffer is cut from. */
    setenv("MALLOC_ARENA_MAX", "1", 1);
    const char *list = harness_path(&h, "jobs.json"), *log = harness_path(&h, "log");
    const char *out = harness_path(&h, "videos");
    const char *const more[] = {"--num_inference_steps", "1", NULL};
    sample *all = calloc((size_t)jobs + 1, sizeof *all);
    if (!all) fail("no memory");
    fclose(fopen(log, "w"));
    write_list(&h, list, jobs);
    double start = now_s();
    size_t n = watch(all, (size_t)jobs, start_batch(&h, list, out, log, more, NULL), log);
    printf("%d jobs in %.0f s, %zu samples\n", jobs, now_s() - start, n);
    json_t *summary = json_object_get(read_report(out), "summary");
    int done = (int)json_integer_value(json_object_get(summary, "done"));
    int failed = (int)json_integer_value(json_object_get(summary, "failed"));
    if (done != jobs - jobs / EVERY_BAD || failed != jobs / EVERY_BAD)
        fail("%d done, %d failed", done, failed);
    check_flat(all, n, jobs);
    free(all);
    harness_close(&h);
    return 0;
}
