#include "memory/group.h"

#include "weights_file.h"

#include <sys/mman.h>

/* Any part of the image, and all of it on any number of threads, is what was expected. */
static void writes_the_image(void **state)
{
    weights_file f;
    em_err err = {0};
    open_weights(&f, state, "weights", 1);
    size_t size = f.group.image_bytes;
    unsigned char *out = malloc(size);
    assert_non_null(out);
    for (size_t step = 65536 + 256; step < size; step *= 3)
        for (size_t at = 0; at < size; at += step) {
            size_t n = size - at < step ? size - at : step;
            memset(out, 0xFF, n);
            assert_ok(em_group_write(&f.group, out, at, n, &err), err);
            assert_memory_equal(out, f.image + at, n);
        }
    for (int threads = 1; threads <= 5; threads += 4) {
        em_pool *pool = NULL;
        assert_ok(em_pool_create(&pool, threads, NULL, &err), err);
        memset(out, 0xFF, size);
        assert_ok(em_group_write_all(&f.group, out, pool, &err), err);
        assert_memory_equal(out, f.image, size);
        em_pool_destroy(&pool);
    }
    assert_int_equal(f.group.loose_bytes, 0);
    free(out);
    close_weights(&f);
}

/* Tensors that no file has come from memory, and are counted. */
static void writes_what_is_in_memory_alone(void **state)
{
    (void)state;
    float values[100];
    uint16_t out[128], want;
    em_err err = {0};
    em_group g = {0};
    for (int i = 0; i < 100; i++) values[i] = (float)i / 7;
    em_tensor slot = em_tensor_of(values, EM_F32, EM_SHAPE(100));
    assert_true(em_group_add(&g, &slot, NULL));
    assert_int_equal(g.loose_bytes, sizeof values);
    em_group_settle(&g, EM_BF16, false);
    assert_int_equal(g.image_bytes, sizeof out);
    assert_ok(em_group_write(&g, out, 0, sizeof out, &err), err);
    for (int i = 0; i < 128; i++) {
        want = i < 100 ? em_f32_to_bf16(values[i]) : 0;
        assert_int_equal(out[i], want);
    }
    em_group_fetch(&g); /* there is nothing to fetch */
    em_group_close(&g);
}

static void a_shorter_file_is_an_error(void **state)
{
    weights_file f;
    em_err err = {0};
    em_pool *pool = NULL;
    open_weights(&f, state, "weights", 2);
    unsigned char *out = malloc(f.group.image_bytes);
    assert_non_null(out);
    assert_int_equal(truncate(f.path, (off_t)f.size_bytes - 1), 0);
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    assert_int_equal(em_group_write_all(&f.group, out, pool, &err), EM_IO);
    assert_non_null(strstr(err.msg, f.path));
    assert_non_null(strstr(err.msg, "shorter"));
    em_pool_destroy(&pool);
    free(out);
    close_weights(&f);
}

/* How many of the file's pages the kernel has. */
static size_t cached_pages(const weights_file *f)
{
    unsigned char there[4096];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (f->size_bytes + page - 1) / page, sum = 0;
    assert_true(n <= sizeof there);
    void *map = mmap(NULL, f->size_bytes, PROT_READ, MAP_SHARED, f->fd, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, f->size_bytes, there), 0);
    munmap(map, f->size_bytes);
    for (size_t i = 0; i < n; i++) sum += there[i] & 1;
    return sum;
}

static void fetching_reads_ahead(void **state)
{
    weights_file f;
    open_weights(&f, state, "weights", 3);
    int out = open(f.path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(fsync(out), 0);
    close(out);
    posix_fadvise(f.fd, 0, 0, POSIX_FADV_DONTNEED);
    size_t before = cached_pages(&f);
    em_group_fetch(&f.group);
    for (int i = 0; i < 5000 && cached_pages(&f) * 4096 < f.size_bytes; i++) usleep(1000);
    size_t after = cached_pages(&f);
    close_weights(&f);
    if (before) skip(); /* a file system that keeps all it has */
    assert_true(after * 4096 >= f.size_bytes);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(writes_the_image),
        cmocka_unit_test(writes_what_is_in_memory_alone),
        IN_TMPDIR(a_shorter_file_is_an_error),
        IN_TMPDIR(fetching_reads_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
