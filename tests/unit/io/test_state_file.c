/* What comes back is what was written, or a refusal: every bit counts, and a file that is not ours
 * is not believed even when its checksum fits. */
#include "io/state_file.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../test.h"
#include "../tmpdir.h"

enum { MOST = 4096 };

static const unsigned char key[EM_SHA256_BYTES] = {1, 2, 3}, other[EM_SHA256_BYTES] = {1, 2, 4};
static const char *const kind = "EMTEST-1";
static em_err err;

static em_state_file sample(void)
{
    em_state_file s = {.kind = kind,
                       .numbers = 3,
                       .number = {7, -1, INT64_MIN},
                       .blocks = 3,
                       .block = {{"hello", 5}, {NULL, 0}, {"12345678", 8}}};
    memcpy(s.key, key, sizeof key);
    return s;
}

static void comes_back(void **state)
{
    const char *path = tmpdir_path(state, "a");
    em_state_file s = sample(), got = {0};
    assert_ok(em_state_write(path, &s, &err), err);
    assert_ok(em_state_read(&got, path, kind, key, MOST, &err), err);
    assert_int_equal(got.numbers, 3);
    assert_memory_equal(got.number, s.number, 3 * sizeof *s.number);
    assert_int_equal(got.blocks, 3);
    assert_int_equal(got.block[0].size_bytes, 5);
    assert_memory_equal(got.block[0].data, "hello", 5);
    assert_int_equal(got.block[1].size_bytes, 0);
    assert_memory_equal(got.block[2].data, "12345678", 8);
    assert_int_equal((uintptr_t)got.block[2].data % 8, 0);
    em_state_close(&got);
    em_state_close(&got);
    em_state_close(NULL);

    s.numbers = s.blocks = 0;
    assert_ok(em_state_write(path, &s, &err), err);
    assert_ok(em_state_read(&got, path, kind, key, MOST, &err), err);
    assert_int_equal(got.numbers + got.blocks, 0);
    em_state_close(&got);
    assert_int_equal(tmpdir_count(state), 1);
}

static void knows_its_own(void **state)
{
    const char *path = tmpdir_path(state, "b");
    em_state_file s = sample(), got = {.numbers = 99};
    assert_ok(em_state_write(path, &s, &err), err);
    assert_int_equal(em_state_read(&got, path, kind, other, MOST, &err), EM_MISMATCH);
    assert_int_equal(em_state_read(&got, path, "EMTEST-2", key, MOST, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "another kind"));
    assert_int_equal(em_state_read(&got, path, kind, key, 64, &err), EM_FORMAT);
    assert_int_equal(em_state_read(&got, tmpdir_path(state, "none"), kind, key, MOST, &err), EM_IO);
    assert_int_equal(got.numbers, 99); /* untouched by failures */
}

/* A file of these bytes, its checksum made to fit if `sealed`. */
static em_status read_bytes(void **state, unsigned char *data, size_t n, bool sealed)
{
    em_state_file got = {0};
    if (sealed) {
        em_sha256 h;
        em_sha256_start(&h);
        em_sha256_add(&h, data, n - EM_SHA256_BYTES);
        em_sha256_end(&h, data + n - EM_SHA256_BYTES);
    }
    const char *path = tmpdir_path(state, "c");
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    em_status st = em_state_read(&got, path, kind, key, MOST, &err);
    size_t all = 0; /* reads every byte that it was promised: ASan watches */
    for (size_t i = 0; i < got.blocks; i++)
        for (size_t k = 0; k < got.block[i].size_bytes; k++)
            all += ((const unsigned char *)got.block[i].data)[k] != 0;
    assert_true(all <= n);
    em_state_close(&got);
    return st;
}

static void every_bit_counts(void **state)
{
    const char *path = tmpdir_path(state, "d");
    const em_state_file s = sample();
    char *data = NULL;
    size_t n = 0;
    assert_ok(em_state_write(path, &s, &err), err);
    assert_ok(em_file_read(&data, &n, path, MOST, &err), err);
    for (size_t i = 0; i < n; i++) {
        data[i] ^= 1 << i % 8;
        assert_int_equal(read_bytes(state, (unsigned char *)data, n, false), EM_FORMAT);
        data[i] ^= 1 << i % 8;
        assert_int_equal(read_bytes(state, (unsigned char *)data, i, false), EM_FORMAT);
    }
    assert_ok(read_bytes(state, (unsigned char *)data, n, false), err);
    em_free(data);
}

/* Counts and sizes that lie under a checksum that fits. */
static void lies_are_found(void **state)
{
    enum { AT_NUMBERS = 8, AT_BLOCKS = 12, AT_SIZES = 48 + 3 * 8 };
    static const uint64_t lie[] = {0, 1, 2, 4, 6, 9, 16, 17, 64, UINT32_MAX, INT64_MAX, UINT64_MAX};
    const char *path = tmpdir_path(state, "e");
    const em_state_file s = sample();
    char *data = NULL;
    size_t n = 0;
    assert_ok(em_state_write(path, &s, &err), err);
    for (size_t i = 0; i < sizeof lie / sizeof *lie; i++) {
        for (int where = 0; where < 5; where++) {
            const int at[] = {AT_NUMBERS, AT_BLOCKS, AT_SIZES, AT_SIZES + 8, AT_SIZES + 16};
            assert_ok(em_file_read(&data, &n, path, MOST, &err), err);
            memcpy(data + at[where], &lie[i], where < 2 ? 4 : 8);
            em_status st = read_bytes(state, (unsigned char *)data, n, true);
            /* some lies tell the truth, or keep every block where it was */
            bool fine = where == 2 && (lie[i] == 6 || lie[i] == 1 || lie[i] == 2 || lie[i] == 4);
            if (where == 3 && lie[i] == 0) fine = true;
            if (where == 4 && (lie[i] == 1 || lie[i] == 2 || lie[i] == 4 || lie[i] == 6))
                fine = true;
            if (st != (fine ? EM_OK : EM_FORMAT))
                fail_msg("%llu at %d: status %d", (unsigned long long)lie[i], at[where], st);
            em_free(data);
        }
    }
}

static void all_or_nothing(void **state)
{
    em_state_file s = sample(), got = {0};
    const char *path = tmpdir_path(state, "f");
    assert_ok(em_state_write(path, &s, &err), err);
    s.number[0] = 8;
    em_status st = EM_NOMEM;
    for (uint64_t k = 1; st; k++) {
        em_alloc_fail_at(k, false);
        st = em_state_write(path, &s, &err);
        em_alloc_fail_at(0, false);
        if (st) assert_int_equal(st, EM_NOMEM);
        assert_ok(em_state_read(&got, path, kind, key, MOST, &err), err);
        assert_int_equal(got.number[0], st ? 7 : 8);
        em_state_close(&got);
        assert_true(k < 50);
    }
    em_alloc_fail_at(1, false);
    assert_int_equal(em_state_read(&got, path, kind, key, MOST, &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_int_equal(em_state_write(tmpdir_path(state, "no/such/folder"), &s, &err), EM_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(knows_its_own, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(every_bit_counts, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(lies_are_found, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(all_or_nothing, tmpdir_setup, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
