/* kill PROGRAM SHARE KILLER [--points N | --all] [--seed S]: a batch of three jobs is killed, as by
 * kill -9, and started again. Half of the points are calls that change the folder of the videos (at
 * such a call, half of a write done), half are moments at random. Each time:
 *
 *   killed  whatever has the name of a video is the video, byte for byte; the ledger is sound
 *   rerun   every video is there and equals the undisturbed run's; nothing is left over; a video
 *           that was there is not made again; no step is redone that was safe
 *
 * At every fourth point the rerun is killed, too. --all: every such call, and as many moments, at
 * least 300 in all. */
#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { JOBS = 3, STEPS = 3, LEAST = 300 };

static const char *const name[JOBS] = {"anna", "boris", "cleo"};

typedef struct torture {
    harness h;
    const char *killer, *list;
    char want[JOBS][EM_SHA256_HEX_BYTES]; /* of the undisturbed run */
    unsigned long calls;                  /* that it made */
    double seconds;                       /* that it took */
    int kept, resumed, again;             /* what the reruns found; reruns that were killed too */
} torture;

static void write_list(const torture *t)
{
    FILE *f = fopen(t->list, "w");
    if (!f) fail("cannot write %s", t->list);
    fprintf(f, "[\n");
    for (int i = 0; i < JOBS; i++)
        fprintf(f,
                "%s{\"portrait_image\": \"%s/demo/ada.png\", \"portrait_audio\": "
                "\"%s/demo/ada.wav\", \"output_name\": \"%s\", \"seed\": %d}",
                i ? ",\n" : "", t->h.share, t->h.share, name[i], i + 1);
    fprintf(f, "\n]\n");
    fclose(f);
}

static void video_path(char out[HARNESS_PATH + 64], const char *dir, int job)
{
    snprintf(out, HARNESS_PATH + 64, "%s/%s_output.mp4", dir, name[job]);
}

static pid_t run(const torture *t, const char *dir, const char *log, unsigned long kill_at,
                 const char *count)
{
    static char preload[HARNESS_PATH + 32], where[HARNESS_PATH + 32], at[64], to[HARNESS_PATH + 64];
    const char *const more[] = {"--num_inference_steps", "3", NULL};
    const char *env[] = {preload, where, at, to, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", t->killer);
    snprintf(where, sizeof where, "EM_KILL_DIR=%s", dir);
    snprintf(at, sizeof at, "EM_KILL_AT=%lu", kill_at);
    snprintf(to, sizeof to, "EM_KILL_COUNT=%s", count ? count : "/dev/null");
    return start_batch(&t->h, t->list, dir, log, more, kill_at || count ? env : NULL);
}

/* ---- undisturbed ----------------------------------------------------------------------------- */

static void measure(torture *t)
{
    char path[HARNESS_PATH + 64];
    const char *dir = harness_path(&t->h, "calm"), *count = harness_path(&t->h, "count");
    make_folder(dir);
    double start = now_s();
    int rc = wait_for(run(t, dir, harness_path(&t->h, "calm.log"), 0, count));
    if (rc) fail("the undisturbed run ended with %d", rc);
    t->seconds = now_s() - start;
    for (int i = 0; i < JOBS; i++) {
        video_path(path, dir, i);
        if (!hash_file(t->want[i], path)) fail("the undisturbed run made no %s", path);
    }
    FILE *f = fopen(count, "r");
    if (!f || fscanf(f, "%lu", &t->calls) != 1 || t->calls < 20)
        fail("the calls were not counted: is %s preloaded?", t->killer);
    fclose(f);
}

/* ---- after the kill -------------------------------------------------------------------------- */

static bool present(const torture *t, const char *dir, int job)
{
    char path[HARNESS_PATH + 64], got[EM_SHA256_HEX_BYTES];
    video_path(path, dir, job);
    if (!hash_file(got, path)) return false;
    if (strcmp(got, t->want[job]) != 0) fail("a partial or different video is named %s", path);
    return true;
}

static void copy_file(const char *from, const char *to)
{
    char block[1 << 14];
    size_t n;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    if (!out) fail("cannot write %s", to);
    while (in && (n = fread(block, 1, sizeof block, in)) > 0) fwrite(block, 1, n, out);
    if (in) fclose(in);
    fclose(out);
}

/* On a copy: the program itself is to find it as it was left. */
static void check_ledger(const torture *t, const char *dir)
{
    char from[HARNESS_PATH + 64];
    const char *db_path = harness_path(&t->h, "copy.db"), *wal = harness_path(&t->h, "copy.db-wal");
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    snprintf(from, sizeof from, "%s/echomimic.db", dir);
    if (access(from, F_OK) != 0) return;
    copy_file(from, db_path);
    snprintf(from, sizeof from, "%s/echomimic.db-wal", dir);
    copy_file(from, wal);
    unlink(harness_path(&t->h, "copy.db-shm"));
    if (sqlite3_open(db_path, &db) ||
        sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) ||
        sqlite3_step(s) != SQLITE_ROW)
        fail("the ledger is damaged: %s", sqlite3_errmsg(db));
    const char *verdict = (const char *)sqlite3_column_text(s, 0);
    if (strcmp(verdict, "ok") != 0) fail("the ledger is damaged: %s", verdict);
    sqlite3_finalize(s);
    sqlite3_close(db);
}

/* How many steps of each job must not be done again. A step is noted while the next one runs: the
 * one that was reported last may be lost, unless it is the last of all. */
static void read_progress(int steps[JOBS], const char *log)
{
    static const char stage[] = "\"stage\": \"denoise\", \"done\": ";
    char line[1024];
    FILE *f = fopen(log, "r");
    for (int i = 0; i < JOBS; i++) steps[i] = 0;
    while (f && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, stage);
        int done = at ? (int)strtol(at + sizeof stage - 1, NULL, 10) : 0;
        for (int i = 0; done > 0 && i < JOBS; i++)
            if (strstr(line, name[i])) steps[i] = done == STEPS ? done : done - 1;
    }
    if (f) fclose(f);
}

/* ---- after the rerun ------------------------------------------------------------------------- */

static void check_left_overs(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) fail("%s is gone", dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, "part-") || strstr(e->d_name, ".steps"))
            fail("left over: %s/%s", dir, e->d_name);
    closedir(d);
}

static void check_rerun(torture *t, const char *dir, const bool *was_there, const int *steps)
{
    json_t *report = read_report(dir);
    for (int i = 0; i < JOBS; i++) {
        json_t *item = report_item(report, name[i]);
        const char *state = json_string_value(json_object_get(item, "state"));
        int spared = (int)json_integer_value(json_object_get(item, "steps_resumed"));
        if (!present(t, dir, i)) fail("%s/%s_output.mp4 is lost", dir, name[i]);
        if (was_there[i] && strcmp(state, "skipped") != 0)
            fail("%s was finished and is '%s' in the rerun", name[i], state);
        if (!strcmp(state, "skipped")) {
            t->kept++;
        } else if (strcmp(state, "done") != 0) {
            fail("%s is '%s' after the rerun", name[i], state);
        } else {
            if (spared < steps[i])
                fail("%s: %d steps were done, the rerun was spared %d", name[i], steps[i], spared);
            t->resumed += spared > 0;
        }
    }
    json_decref(report);
    check_left_overs(dir);
}

/* A run that dies at a call (or, 0, after a while); false: it ended before that. */
static bool kill_once(torture *t, const char *dir, const char *log, unsigned long kill_at,
                      double after_s)
{
    double start = now_s();
    pid_t pid = run(t, dir, log, kill_at, NULL);
    if (!kill_at) {
        usleep((useconds_t)(after_s * 1e6));
        kill(pid, SIGKILL);
    }
    int rc = wait_for(pid);
    if (rc == -SIGKILL) return true;
    if (rc) fail("a run that was to be killed ended with %d", rc);
    if (!kill_at && now_s() - start < t->seconds) t->seconds = now_s() - start;
    return false;
}

/* The program is killed at `kill_at`, and, with `twice`, while it recovers from that. */
static bool try_point(torture *t, unsigned long kill_at, double after_s, bool twice)
{
    bool was_there[JOBS];
    int steps[JOBS], more[JOBS], rc;
    const char *dir = harness_path(&t->h, "videos"), *log = harness_path(&t->h, "killed.log");
    remove_folder(dir);
    make_folder(dir);
    if (!kill_once(t, dir, log, kill_at, after_s)) return false;
    read_progress(steps, log);
    if (twice && kill_once(t, dir, log, 1 + (unsigned long)(drand48() * 100), 0)) {
        t->again++;
        read_progress(more, log);
        for (int i = 0; i < JOBS; i++)
            if (more[i] > steps[i]) steps[i] = more[i];
    }
    for (int i = 0; i < JOBS; i++) was_there[i] = present(t, dir, i);
    check_ledger(t, dir);
    rc = wait_for(run(t, dir, harness_path(&t->h, "rerun.log"), 0, NULL));
    if (rc) fail("the rerun ended with %d", rc);
    check_rerun(t, dir, was_there, steps);
    return true;
}

/* Near the end a run may be over before the point comes: then an earlier one. */
static void kill_at_call(torture *t, unsigned long call, bool twice)
{
    while (call && !try_point(t, call, 0, twice)) call -= call / 20 + 1;
    if (!call) fail("no call killed the program");
}

static void say_progress(unsigned long done)
{
    enum { EVERY = 50 };
    if (done % EVERY == 0) printf("%lu points done\n", done);
}

static void kill_at_random(torture *t, bool twice)
{
    enum { TRIES = 50 };
    for (int i = 0; i < TRIES; i++)
        if (try_point(t, 0, drand48() * t->seconds, twice)) return;
    fail("no moment killed the program");
}

/* ---- all of it ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    torture t = {0};
    unsigned long points = 60, seed = (unsigned long)getpid();
    bool all = false;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 4; i < argc; i++) {
        if (!strcmp(argv[i], "--all")) all = true;
        if (!strcmp(argv[i], "--points") && i + 1 < argc) points = strtoul(argv[++i], NULL, 10);
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) seed = strtoul(argv[++i], NULL, 10);
    }
    if (argc < 4 || points < 2) {
        printf("usage: kill PROGRAM SHARE KILLER [--points N | --all] [--seed S]\n");
        return 2;
    }
    harness_open(&t.h, argv[1], argv[2]);
    t.killer = argv[3];
    t.list = strdup(harness_path(&t.h, "jobs.json"));
    write_list(&t);
    measure(&t);
    unsigned long at_calls = all ? t.calls : points / 2;
    unsigned long at_random = points - points / 2;
    if (all) at_random = t.calls > LEAST / 2 ? t.calls : LEAST - t.calls;
    printf("%lu calls, %.1f s undisturbed; %lu kills at calls, %lu at random (seed %lu)\n", t.calls,
           t.seconds, at_calls, at_random, seed);
    srand48((long)seed);
    for (unsigned long i = 0; i < at_calls; i++) {
        unsigned long span = t.calls / at_calls, first = i * t.calls / at_calls;
        kill_at_call(&t, first + 1 + (unsigned long)(drand48() * (double)span), i % 4 == 3);
        say_progress(i + 1);
    }
    for (unsigned long i = 0; i < at_random; i++) {
        kill_at_random(&t, i % 4 == 3);
        say_progress(at_calls + i + 1);
    }
    printf(
        "%lu kills and %d more while recovering; reruns kept %d finished videos and continued %d "
        "jobs; no video lost, none partial, all equal\n",
        at_calls + at_random, t.again, t.kept, t.resumed);
    free((char *)(uintptr_t)t.list);
    harness_close(&t.h);
    return 0;
}
