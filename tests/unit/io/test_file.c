#include "io/file.h"

#include "base/alloc.h"

#include "../test.h"
#include "../tmpdir.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/resource.h>

static em_err err;

static void maps(void **state)
{
    em_map map;
    assert_ok(em_file_map(&map, tmpdir_text(state, "a", "hello"), false, &err), err);
    assert_int_equal(map.size_bytes, 5);
    assert_memory_equal(map.data, "hello", 5);
    em_map_close(&map);
    assert_null(map.data);
    em_map_close(&map);
    em_map_close(NULL);
}

/* Bytes of a file without its map: the same ones, or a sentence. */
static void reads_at_places(void **state)
{
    em_map map = {0};
    char back[8] = "";
    const char *path = tmpdir_text(state, "a", "hello, world");
    assert_ok(em_file_map(&map, path, false, &err), err);
    const char *data = map.data;
    em_file_place p = em_map_place(&map, data + 7, 5, path);
    assert_string_equal(p.path, path);
    assert_ok(em_file_read_at(back, 5, &p, &err), err);
    assert_string_equal(back, "world");
    em_file_fetch(&p, 5);
    assert_non_null(em_map_place(&map, data + 12, 0, path).path);
    assert_null(em_map_place(&map, data + 8, 5, path).path); /* a byte too far */
    assert_null(em_map_place(&map, back, 5, path).path);
    assert_null(em_map_place(&map, data - 1, 5, path).path);
    assert_null(em_map_place(&(em_map){0}, NULL, 0, path).path);

    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(em_file_read_at(back, 5, &p, &err), EM_IO);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, "shorter"));
    p.fd = -1;
    assert_int_equal(em_file_read_at(back, 5, &p, &err), EM_IO);
    assert_non_null(strstr(err.msg, "cannot read"));
    em_map_close(&map);
}

static void map_refuses(void **state)
{
    em_map map = {.size_bytes = 7};
    assert_int_equal(em_file_map(&map, tmpdir_path(state, "none"), false, &err), EM_IO);
    assert_non_null(strstr(err.msg, "does not exist"));
    assert_int_equal(em_file_map(&map, ((tmpdir *)*state)->path, false, &err), EM_IO);
    assert_non_null(strstr(err.msg, "is a folder"));
    assert_int_equal(em_file_map(&map, tmpdir_text(state, "empty", ""), false, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "empty"));
    const char *pipe = tmpdir_path(state, "pipe");
    assert_int_equal(mkfifo(pipe, 0666), 0);
    assert_int_equal(em_file_map(&map, pipe, false, &err), EM_IO);
    assert_non_null(strstr(err.msg, "not a regular file"));
    assert_int_equal(em_file_map(&map, "/proc/self/mem", false, NULL), EM_FORMAT); /* size 0 */
    assert_int_equal(map.size_bytes, 7);

    assert_ok(em_file_map(&map, tmpdir_path(state, "empty"), true, &err), err);
    assert_null(map.data);
    assert_int_equal(map.size_bytes, 0);
}

/* Of mapped files, in memory now. */
static long resident_kib(void)
{
    char line[128];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "RssFile: %ld kB", &kib);
    fclose(f);
    return kib;
}

static void drop_keeps_the_bytes(void **state)
{
    enum { N = (8 << 20) + 17 };
    char *data = malloc(N);
    for (int i = 0; i < N; i++) data[i] = (char)(i * 7);
    em_map map;
    assert_ok(em_file_map(&map, tmpdir_write(state, "big", data, N), false, &err), err);
    assert_memory_equal(map.data, data, N);
    long before = resident_kib();
    em_map_drop((const char *)map.data + 100, N - 200);
    em_map_drop((const char *)map.data + 1, 1); /* no whole page in it */
    assert_true(before - resident_kib() > 6 << 10);
    assert_memory_equal(map.data, data, N);
    em_map_close(&map);
    free(data);
}

static void reads(void **state)
{
    char *text = NULL;
    size_t n = 0;
    const char *path = tmpdir_text(state, "a", "hello");
    assert_ok(em_file_read(&text, &n, path, 5, &err), err);
    assert_int_equal(n, 5);
    assert_string_equal(text, "hello");
    em_free(text);
    text = NULL;
    assert_int_equal(em_file_read(&text, &n, path, 4, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "at most 4"));
    em_alloc_fail_at(1, false);
    assert_int_equal(em_file_read(&text, &n, path, 5, &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_null(text);
}

static void joins(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"a", "b", "a/b"},        {"a/", "b", "a/b"},  {"a//", "./b", "a/b"}, {"/", "b", "/b"},
        {"a", "/b", "/b"},        {"a", "./", "a"},    {"a/", ".", "a"},      {"", "b", "b"},
        {"a", ".//b/c", "a/b/c"}, {"a", "..", "a/.."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *p = em_path_join(rows[i][0], rows[i][1]);
        assert_string_equal(p, rows[i][2]);
        em_free(p);
    }
    assert_string_equal(em_path_base("a/b.c"), "b.c");
    assert_string_equal(em_path_base("b.c"), "b.c");
}

static void makes_dirs(void **state)
{
    const char *deep = tmpdir_path(state, "x/y//z/");
    assert_ok(em_dir_create(deep, &err), err);
    assert_ok(em_dir_create(deep, &err), err);
    assert_true(em_path_is_dir(deep));
    assert_false(em_path_is_file(deep));
    tmpdir_text(state, "file", "");
    assert_true(em_path_is_file(tmpdir_path(state, "file")));
    assert_int_equal(em_dir_create(tmpdir_path(state, "file/sub"), &err), EM_IO);
    assert_int_equal(em_dir_create(tmpdir_path(state, "file"), &err), EM_IO);
    assert_non_null(strstr(err.msg, "not a folder"));
}

static void assert_content(const char *path, const char *want)
{
    char *text;
    size_t n;
    assert_ok(em_file_read(&text, &n, path, 1 << 20, &err), err);
    assert_string_equal(text, want);
    em_free(text);
}

static void writes_all_or_nothing(void **state)
{
    const char *path = tmpdir_text(state, "out", "old");
    em_file_writer *w;
    assert_ok(em_file_writer_open(&w, path, &err), err);
    assert_ok(em_file_writer_write(w, 3, "lo", 2, &err), err);
    assert_ok(em_file_writer_write(w, 0, "hel", 3, &err), err);
    assert_content(path, "old");
    assert_int_equal(tmpdir_count(state), 2);
    em_file_writer_close(&w);
    assert_null(w);
    em_file_writer_close(&w);
    assert_content(path, "old");
    assert_int_equal(tmpdir_count(state), 1);

    assert_ok(em_file_writer_open(&w, path, &err), err);
    assert_ok(em_file_writer_reserve(w, 5, &err), err);
    assert_ok(em_file_writer_write(w, 0, "hello", 5, &err), err);
    assert_ok(em_file_writer_commit(&w, &err), err);
    assert_null(w);
    assert_content(path, "hello");
    assert_int_equal(tmpdir_count(state), 1);
}

/* A file that cannot be renamed onto its target, a folder by then, leaves nothing. */
static void failed_commit_leaves_nothing(void **state)
{
    const char *path = tmpdir_path(state, "out");
    em_file_writer *w;
    assert_ok(em_file_writer_open(&w, path, &err), err);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(em_file_writer_commit(&w, &err), EM_IO);
    assert_null(w);
    assert_int_equal(tmpdir_count(state), 1);
}

static void writer_refuses(void **state)
{
    em_file_writer *w = NULL;
    assert_int_equal(em_file_writer_open(&w, tmpdir_path(state, "no/out"), &err), EM_IO);
    assert_int_equal(em_file_writer_open(&w, ((tmpdir *)*state)->path, &err), EM_IO);
    assert_int_equal(em_file_writer_open(&w, tmpdir_path(state, "x/"), &err), EM_INVAL);
    for (int n = 1; n <= 4; n++) {
        em_alloc_fail_at((uint64_t)n, false);
        assert_int_equal(em_file_writer_open(&w, tmpdir_path(state, "out"), &err), EM_NOMEM);
    }
    em_alloc_fail_at(0, false);
    assert_null(w);

    assert_ok(em_file_writer_open(&w, tmpdir_path(state, "out"), &err), err);
    assert_int_equal(em_file_writer_write(w, UINT64_MAX - 1, "abc", 3, &err), EM_INVAL);
    assert_int_equal(em_file_writer_reserve(w, UINT64_MAX, &err), EM_INVAL);
    assert_int_not_equal(em_file_writer_reserve(w, INT64_MAX, &err), EM_OK);
    em_file_writer_close(&w);
    assert_int_equal(tmpdir_count(state), 0);
}

/* What killed runs left of the same target goes; what somebody still writes, and any other file,
 * stays. */
static void left_overs(void **state)
{
    const char *path = tmpdir_path(state, "out");
    char part[64];
    snprintf(part, sizeof part, ".out.part-%ld", (long)getpid());
    em_file_writer *w, *second = NULL;
    tmpdir_text(state, part, "left over, and longer than what comes");
    tmpdir_text(state, ".out.part-999999999", "left over");
    int busy = open(tmpdir_text(state, ".out.part-888888888", "busy"), O_RDONLY);
    assert_int_equal(flock(busy, LOCK_EX), 0);
    tmpdir_text(state, ".out.part-12x", "another file");
    tmpdir_text(state, ".out2.part-12", "another file");
    assert_ok(em_file_writer_open(&w, path, &err), err);
    assert_int_equal(em_file_writer_open(&second, path, &err), EM_IO);
    assert_non_null(strstr(err.msg, "being written already"));
    assert_ok(em_file_writer_write(w, 0, "new", 3, &err), err);
    assert_ok(em_file_writer_commit(&w, &err), err);
    assert_content(path, "new");
    assert_true(em_path_is_file(tmpdir_path(state, ".out.part-888888888")));
    assert_true(em_path_is_file(tmpdir_path(state, ".out.part-12x")));
    assert_true(em_path_is_file(tmpdir_path(state, ".out2.part-12")));
    assert_int_equal(tmpdir_count(state), 4);
    close(busy);
}

enum { THREADS = 4, PIECE = 1000, PIECES = 64 };

static void *write_pieces(void *arg)
{
    static atomic_int_fast32_t next;
    char piece[PIECE];
    for (int i; (i = (int)atomic_fetch_add(&next, 1)) < PIECES;) {
        memset(piece, 'a' + i % 26, PIECE);
        if (em_file_writer_write(arg, (uint64_t)i * PIECE, piece, PIECE, NULL)) return arg;
    }
    return NULL;
}

static void writes_from_threads(void **state)
{
    const char *path = tmpdir_path(state, "out");
    em_file_writer *w;
    pthread_t thread[THREADS];
    assert_ok(em_file_writer_open(&w, path, &err), err);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, write_pieces, w), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_ok(em_file_writer_commit(&w, &err), err);

    em_map map;
    assert_ok(em_file_map(&map, path, false, &err), err);
    assert_int_equal(map.size_bytes, PIECE * PIECES);
    for (size_t i = 0; i < map.size_bytes; i++) {
        assert_int_equal(((const char *)map.data)[i], 'a' + (int)(i / PIECE) % 26);
    }
    em_map_close(&map);
}

/* The kernel takes half of a write, then refuses: the first half must not be mistaken for all of
 * it. */
static void short_write(void **state)
{
    const struct rlimit ten = {.rlim_cur = 10, .rlim_max = RLIM_INFINITY};
    struct rlimit old;
    em_file_writer *w;
    assert_ok(em_file_writer_open(&w, tmpdir_path(state, "out"), &err), err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &ten), 0);
    em_status st = em_file_writer_write(w, 0, "twenty bytes of text", 20, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(st, EM_IO);
    em_file_writer_close(&w);
}

/* More than any machine has: the claim fails before the work, and nothing stays. */
static void full_disk(void **state)
{
    (void)state;
    em_file_writer *w = NULL;
    if (access("/dev/shm", W_OK) != 0) skip();
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/em-test-%ld", (long)getpid());
    assert_ok(em_file_writer_open(&w, path, &err), err);
    assert_int_equal(em_file_writer_reserve(w, 1ull << 50, &err), EM_NOSPC);
    assert_non_null(strstr(err.msg, path));
    em_file_writer_close(&w);
    assert_false(em_path_is_file(path));
}

/* Dropping the pages of a copy must not lose it; as with memory of em_alloc it would. */
static void blocks(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 4095, 4096, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        em_block b = {0};
        assert_ok(em_block_open(&b, sizes[i], &err), err);
        assert_int_equal(((char *)b.data)[sizes[i] - 1], 0);
        memset(b.data, 7, sizes[i]);
        em_map_drop(b.data, b.size_bytes);
        for (size_t k = 0; k < sizes[i]; k++)
            if (((char *)b.data)[k] != 7) fail_msg("byte %zu of %zu is lost", k, sizes[i]);
        em_block_close(&b);
        assert_null(b.data);
        em_block_close(&b);
    }
    em_block b = {0};
    assert_int_equal(em_block_open(&b, SIZE_MAX / 2, &err), EM_NOMEM);
    assert_null(b.data);
}

static void peeks(void **state)
{
    char head[4] = "----";
    size_t n = 9;
    const char *path = tmpdir_text(state, "p", "abcdef");
    assert_ok(em_file_peek(head, &n, path, 4, &err), err);
    assert_int_equal(n, 4);
    assert_memory_equal(head, "abcd", 4);
    assert_ok(em_file_peek(head, &n, tmpdir_text(state, "q", "x"), 4, &err), err);
    assert_int_equal(n, 1);
    assert_int_equal(em_file_peek(head, &n, tmpdir_path(state, "none"), 4, &err), EM_IO);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(maps),
        IN_TMPDIR(reads_at_places),
        IN_TMPDIR(map_refuses),
        IN_TMPDIR(drop_keeps_the_bytes),
        IN_TMPDIR(reads),
        IN_TMPDIR(joins),
        IN_TMPDIR(makes_dirs),
        IN_TMPDIR(writes_all_or_nothing),
        IN_TMPDIR(failed_commit_leaves_nothing),
        IN_TMPDIR(writer_refuses),
        IN_TMPDIR(left_overs),
        IN_TMPDIR(writes_from_threads),
        IN_TMPDIR(short_write),
        IN_TMPDIR(full_disk),
        cmocka_unit_test(blocks),
        IN_TMPDIR(peeks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
