/* The ledger: what is put is found, by another process too; what is not ours is refused with a
 * sentence; no failure of memory or disk leaves half a row. */
#include "batch/ledger.h"

#include "base/alloc.h"
#include "batch/claim.h"

#include "../test.h"
#include "../tmpdir.h"

#include <sqlite3.h>
#include <sys/wait.h>

static em_err err;

static em_ledger *open_in(void **state)
{
    em_ledger *l = NULL;
    assert_ok(em_ledger_open(&l, tmpdir_path(state, EM_LEDGER_NAME), false, &err), err);
    return l;
}

static em_ledger_row sample(em_ledger_state s)
{
    return (em_ledger_row){.state = s,
                           .identity = "1234",
                           .image_sha256 = "aa",
                           .audio_sha256 = "bb",
                           .video = {.size_bytes = 1u << 31, .mtime_ns = -5, .sha256 = "cc"},
                           .part = ".a_output.mp4.part-7",
                           .aside = "a_output.1.mp4",
                           .about = (char *)"seed 43\nsteps 8\n",
                           .error = "it's \"so\"",
                           .target = (char *)"https://x/y",
                           .delivered = true,
                           .flops = 1e12,
                           .seconds = 4,
                           .pace = "here bfloat16"};
}

static void assert_same(const em_ledger_row *a, const em_ledger_row *b)
{
    assert_int_equal(a->state, b->state);
    assert_string_equal(a->identity, b->identity);
    assert_string_equal(a->image_sha256, b->image_sha256);
    assert_string_equal(a->audio_sha256, b->audio_sha256);
    assert_true(a->video.size_bytes == b->video.size_bytes);
    assert_true(a->video.mtime_ns == b->video.mtime_ns);
    assert_string_equal(a->video.sha256, b->video.sha256);
    assert_string_equal(a->part, b->part);
    assert_string_equal(a->aside, b->aside);
    assert_string_equal(a->about, b->about);
    assert_string_equal(a->error, b->error);
    assert_string_equal(a->target, b->target);
    assert_int_equal(a->delivered, b->delivered);
    assert_true(a->flops == b->flops && a->seconds == b->seconds);
    assert_string_equal(a->pace, b->pace);
}

static void keeps_rows(void **state)
{
    em_ledger *l = open_in(state);
    em_ledger_row row, put = sample(EM_LEDGER_COMMITTING), empty = {.state = EM_LEDGER_FOUND};
    bool found = true;
    assert_ok(em_ledger_find(l, "a", &row, &found, &err), err);
    assert_false(found);
    assert_ok(em_ledger_put(l, "a", &put, &err), err);
    assert_ok(em_ledger_put(l, "b", &empty, &err), err);
    em_ledger_close(&l);
    em_ledger_close(&l); /* a closed one is allowed */

    l = open_in(state);
    assert_ok(em_ledger_find(l, "a", &row, &found, &err), err);
    assert_true(found);
    assert_same(&row, &put);
    em_ledger_row_close(&row);
    assert_ok(em_ledger_find(l, "b", &row, &found, &err), err);
    assert_true(found);
    assert_null(row.about);
    assert_null(row.target);
    put.state = EM_LEDGER_DONE;
    put.delivered = false;
    assert_ok(em_ledger_put(l, "a", &put, &err), err);
    assert_ok(em_ledger_find(l, "a", &row, &found, &err), err);
    assert_same(&row, &put);
    em_ledger_row_close(&row);
    em_ledger_close(&l);
}

static void lists_what_was_cut_short(void **state)
{
    em_ledger *l = open_in(state);
    char name[EM_LEDGER_NAME_ROOM];
    static const struct {
        const char *name;
        em_ledger_state state;
    } rows[] = {{"a", EM_LEDGER_DONE},
                {"b", EM_LEDGER_COMMITTING},
                {"c", EM_LEDGER_FAILED},
                {"d", EM_LEDGER_COMMITTING}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        em_ledger_row row = sample(rows[i].state);
        assert_ok(em_ledger_put(l, rows[i].name, &row, &err), err);
    }
    assert_ok(em_ledger_committing(l, "", name, &err), err);
    assert_string_equal(name, "b");
    assert_ok(em_ledger_committing(l, name, name, &err), err);
    assert_string_equal(name, "d");
    assert_ok(em_ledger_committing(l, name, name, &err), err);
    assert_string_equal(name, "");
    em_ledger_close(&l);
}

static void remembers_fingerprints_while_the_file_is_the_same(void **state)
{
    em_ledger *l = open_in(state);
    char print[EM_LEDGER_HASH];
    bool found;
    em_ledger_file file = {.size_bytes = 9, .mtime_ns = 5, .sha256 = "ff"};
    assert_ok(em_ledger_remember(l, "/m", &file, &err), err);
    assert_ok(em_ledger_fingerprint(l, "/m", &file, print, &found, &err), err);
    assert_true(found);
    assert_string_equal(print, "ff");
    file.mtime_ns = 6;
    assert_ok(em_ledger_fingerprint(l, "/m", &file, print, &found, &err), err);
    assert_false(found);
    file = (em_ledger_file){.size_bytes = 8, .mtime_ns = 5};
    assert_ok(em_ledger_fingerprint(l, "/m", &file, print, &found, &err), err);
    assert_false(found);
    em_ledger_close(&l);
}

static void knows_the_pace(void **state)
{
    em_ledger *l = open_in(state);
    double pace = 1;
    assert_ok(em_ledger_pace(l, "here bfloat16", &pace, &err), err);
    assert_true(pace == 0);
    em_ledger_row row = sample(EM_LEDGER_DONE);
    assert_ok(em_ledger_put(l, "a", &row, &err), err);
    row.flops = 2e12;
    row.seconds = 2;
    assert_ok(em_ledger_put(l, "b", &row, &err), err);
    row.state = EM_LEDGER_FAILED;
    assert_ok(em_ledger_put(l, "c", &row, &err), err);
    assert_ok(em_ledger_pace(l, "here bfloat16", &pace, &err), err);
    assert_true(pace == 3e12 / 6);
    em_ledger_close(&l);
}

/* ---- what is not ours ------------------------------------------------------------------------ */

static void refuse(void **state, em_status code, const char *words)
{
    em_ledger *l = NULL;
    err = (em_err){0};
    assert_int_equal(em_ledger_open(&l, tmpdir_path(state, EM_LEDGER_NAME), false, &err), code);
    assert_null(l);
    if (!strstr(err.msg, words) || !strstr(err.msg, EM_LEDGER_NAME))
        fail_msg("'%s' does not say '%s'", err.msg, words);
}

static void change(void **state, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(tmpdir_path(state, EM_LEDGER_NAME), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refuses_other_files(void **state)
{
    tmpdir_text(state, EM_LEDGER_NAME,
                "a letter, much longer than the header of a database, "
                "and then some more of it to fill the page it is read by");
    refuse(state, EM_FORMAT, "not a ledger");
    unlink(tmpdir_path(state, EM_LEDGER_NAME));
    change(state, "CREATE TABLE people(name)");
    refuse(state, EM_FORMAT, "another program");
    change(state, "PRAGMA application_id = 7");
    refuse(state, EM_FORMAT, "another program");
}

static void refuses_other_versions(void **state)
{
    em_ledger *l = open_in(state);
    em_ledger_close(&l);
    change(state, "PRAGMA user_version = 2");
    refuse(state, EM_FORMAT, "format 2");
    change(state, "PRAGMA user_version = 1; ALTER TABLE job RENAME COLUMN state TO status");
    refuse(state, EM_FORMAT, "damaged");
}

static void refuses_what_it_does_not_write(void **state)
{
    em_ledger *l = open_in(state);
    em_ledger_row row = sample(EM_LEDGER_DONE);
    bool found = false;
    assert_ok(em_ledger_put(l, "a", &row, &err), err);
    em_ledger_close(&l);
    change(state, "UPDATE job SET state = 'fine'");
    l = open_in(state);
    assert_int_equal(em_ledger_find(l, "a", &row, &found, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "damaged"));
    assert_false(found);
    change(state, "UPDATE job SET state = 'done', identity = hex(zeroblob(64))");
    assert_int_equal(em_ledger_find(l, "a", &row, &found, &err), EM_FORMAT);
    em_ledger_close(&l);
}

/* Every page but the first in turn filled with noise: refused, or every row as it was. */
static void survives_no_damage_silently(void **state)
{
    enum { PAGE = 4096, ROWS = 40 };
    em_ledger *l = open_in(state);
    em_ledger_row row = sample(EM_LEDGER_DONE), got;
    char name[16];
    bool found;
    int refused = 0;
    for (int i = 0; i < ROWS; i++) {
        snprintf(name, sizeof name, "job %d", i);
        assert_ok(em_ledger_put(l, name, &row, &err), err);
    }
    em_ledger_close(&l);
    const char *path = tmpdir_path(state, EM_LEDGER_NAME);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long pages = ftell(f) / PAGE;
    assert_true(pages > 4);
    for (long p = 1; p < pages; p++) {
        unsigned char was[PAGE], noise[PAGE];
        for (int i = 0; i < PAGE; i++) noise[i] = (unsigned char)(i * 7 + p);
        assert_int_equal(fseek(f, p * PAGE, SEEK_SET), 0);
        assert_int_equal(fread(was, 1, PAGE, f), PAGE);
        assert_int_equal(fseek(f, p * PAGE, SEEK_SET), 0);
        assert_int_equal(fwrite(noise, 1, PAGE, f), PAGE);
        fflush(f);
        if (em_ledger_open(&l, path, true, &err)) {
            assert_int_equal(err.code, EM_FORMAT);
            refused++;
        } else {
            for (int i = 0; i < ROWS; i++) {
                snprintf(name, sizeof name, "job %d", i);
                if (em_ledger_find(l, name, &got, &found, &err)) continue;
                assert_true(found);
                assert_same(&got, &row);
                em_ledger_row_close(&got);
            }
            em_ledger_close(&l);
        }
        assert_int_equal(fseek(f, p * PAGE, SEEK_SET), 0);
        assert_int_equal(fwrite(was, 1, PAGE, f), PAGE);
        fflush(f);
    }
    fclose(f);
    assert_true(refused > 0);
    l = open_in(state);
    em_ledger_close(&l);
}

static void read_only_makes_nothing(void **state)
{
    em_ledger *l = NULL;
    assert_ok(em_ledger_open(&l, tmpdir_path(state, EM_LEDGER_NAME), true, &err), err);
    assert_null(l);
    assert_int_equal(tmpdir_count(state), 0);
    em_ledger_row row = sample(EM_LEDGER_DONE);
    bool found;
    l = open_in(state);
    assert_ok(em_ledger_put(l, "a", &row, &err), err);
    em_ledger_close(&l);
    assert_ok(em_ledger_open(&l, tmpdir_path(state, EM_LEDGER_NAME), true, &err), err);
    assert_ok(em_ledger_find(l, "a", &row, &found, &err), err);
    assert_true(found);
    em_ledger_row_close(&row);
    row = sample(EM_LEDGER_FAILED);
    assert_int_equal(em_ledger_put(l, "a", &row, &err), EM_IO);
    const em_ledger_file file = {.size_bytes = 1, .sha256 = "ff"};
    char print[EM_LEDGER_HASH];
    assert_ok(em_ledger_remember(l, "/m", &file, &err), err);
    assert_ok(em_ledger_fingerprint(l, "/m", &file, print, &found, &err), err);
    assert_false(found);
    em_ledger_close(&l);
}

static void refuses_a_folder(void **state)
{
    assert_int_equal(mkdir(tmpdir_path(state, EM_LEDGER_NAME), 0777), 0);
    refuse(state, EM_IO, "cannot be used");
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* SQLite's memory comes through em_alloc: each allocation fails once. The row is the old one or the
 * new one, and the ledger goes on. */
static void every_allocation_may_fail(void **state)
{
    em_ledger *l = open_in(state);
    em_ledger_row before = sample(EM_LEDGER_FAILED), after = sample(EM_LEDGER_DONE), row;
    bool found = false;
    assert_ok(em_ledger_put(l, "a", &before, &err), err);
    em_ledger_close(&l);
    int failures = 0;
    for (uint64_t n = 1;; n += 1 + n / 30) {
        uint64_t first = em_alloc_calls();
        em_alloc_fail_at(n, false);
        em_status st = em_ledger_open(&l, tmpdir_path(state, EM_LEDGER_NAME), false, &err);
        if (!st) st = em_ledger_put(l, "a", &after, &err);
        if (!st) st = em_ledger_find(l, "a", &row, &found, &err);
        if (!st) em_ledger_row_close(&row);
        em_ledger_close(&l);
        em_alloc_fail_at(0, false);
        bool beyond = em_alloc_calls() - first < n;
        if (st) {
            if (st != EM_NOMEM) fail_msg("allocation %llu: %s", (unsigned long long)n, err.msg);
            failures++;
        }
        l = open_in(state);
        assert_ok(em_ledger_find(l, "a", &row, &found, &err), err);
        assert_true(found);
        assert_true(row.state == EM_LEDGER_DONE || (st && row.state == EM_LEDGER_FAILED));
        em_ledger_row_close(&row);
        assert_ok(em_ledger_put(l, "a", &before, &err), err);
        em_ledger_close(&l);
        if (beyond) break; /* SQLite does without some of those before */
    }
    assert_true(failures > 20);
}

/* ---- claims ---------------------------------------------------------------------------------- */

/* Exit status of a child that tries to claim: 0 it could. */
static int claim_elsewhere(const char *path, const char *name)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = -1;
        em_err e;
        _exit(em_claim_open(&fd, path, &e) || !em_claim_take(fd, name));
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void claims_exclude_others(void **state)
{
    const char *path = tmpdir_path(state, EM_CLAIM_NAME);
    int fd = -1;
    assert_ok(em_claim_open(&fd, path, &err), err);
    assert_true(em_claim_take(fd, "a"));
    assert_true(em_claim_take(fd, "a")); /* it is ours */
    assert_int_equal(claim_elsewhere(path, "a"), 1);
    assert_int_equal(claim_elsewhere(path, "b"), 0);
    em_claim_drop(fd, "a");
    assert_int_equal(claim_elsewhere(path, "a"), 0);
    assert_true(em_claim_take(fd, "a")); /* the child's ended with it */
    em_claim_close(&fd);
    assert_int_equal(claim_elsewhere(path, "a"), 0);
    em_claim_close(&fd);
    assert_int_equal(em_claim_open(&fd, tmpdir_path(state, "no/folder"), &err), EM_IO);
}

#define IN_TMPDIR(test) cmocka_unit_test_setup_teardown(test, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(keeps_rows),
        IN_TMPDIR(lists_what_was_cut_short),
        IN_TMPDIR(remembers_fingerprints_while_the_file_is_the_same),
        IN_TMPDIR(knows_the_pace),
        IN_TMPDIR(refuses_other_files),
        IN_TMPDIR(refuses_other_versions),
        IN_TMPDIR(refuses_what_it_does_not_write),
        IN_TMPDIR(survives_no_damage_silently),
        IN_TMPDIR(read_only_makes_nothing),
        IN_TMPDIR(refuses_a_folder),
        IN_TMPDIR(every_allocation_may_fail),
        IN_TMPDIR(claims_exclude_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
