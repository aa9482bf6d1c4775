#include "io/pth_writer.h"

#include "base/alloc.h"
#include "io/pth.h"

#include "../test.h"
#include "../tmpdir.h"

static em_err err;

enum { N = EM_DTYPE_COUNT + 2 };

/* A tensor of every type, one empty, one scalar. */
static size_t fill(em_safetensors_spec spec[N])
{
    static const char *const name[N] = {"f32", "f16", "bf16", "f64",  "i64",   "i32",
                                        "i16", "i8",  "u8",   "bool", "empty", "scalar"};
    for (int i = 0; i < N; i++)
        spec[i] = (em_safetensors_spec){.name = name[i],
                                        .dtype = (em_dtype)i,
                                        .ndim = 2,
                                        .dim = {3, 300}};
    spec[N - 2].dtype = spec[N - 1].dtype = EM_F32;
    spec[N - 2].dim[0] = 0;
    spec[N - 1].ndim = 0;
    return N;
}

static size_t bytes_of(const em_safetensors_spec *s)
{
    size_t n = em_dtype_bytes(s->dtype);
    for (int d = 0; d < s->ndim; d++) n *= (size_t)s->dim[d];
    return n;
}

static unsigned char byte_at(size_t tensor, size_t i)
{
    return (unsigned char)(tensor * 37 + i * 11);
}

/* In two pieces, the second one first. */
static em_status write_tensor(em_pth_writer *w, const em_safetensors_spec *s, size_t i)
{
    unsigned char bytes[8 * 900];
    size_t n = bytes_of(s), half = n / 2;
    for (size_t k = 0; k < n; k++) bytes[k] = byte_at(i, k);
    em_status st = em_pth_write(w, i, half, bytes + half, n - half, &err);
    return st || !half ? st : em_pth_write(w, i, 0, bytes, half, &err);
}

static em_status write_file(const char *path, const em_safetensors_spec *spec, size_t n)
{
    em_pth_writer *w = NULL;
    em_status st = em_pth_create(&w, path, spec, n, &err);
    for (size_t i = n; !st && i-- > 0;) st = write_tensor(w, &spec[i], i);
    if (!st) return em_pth_commit(&w, &err);
    em_pth_writer_close(&w);
    return st;
}

static void reads_back(void **state)
{
    em_safetensors_spec spec[N];
    size_t n = fill(spec);
    em_pth *f = NULL;
    const char *path = tmpdir_path(state, "model.v2.pth");
    assert_ok(write_file(path, spec, n), err);
    assert_int_equal(tmpdir_count(state), 1);
    assert_ok(em_pth_open(&f, path, &err), err);
    assert_int_equal(em_pth_count(f), n);
    for (size_t i = 0; i < n; i++) {
        const em_pth_entry *e = em_pth_at(f, i);
        size_t k = 0;
        while (strcmp(spec[k].name, e->name) != 0) k++;
        assert_int_equal(e->dtype, spec[k].dtype);
        assert_int_equal(e->ndim, spec[k].ndim);
        assert_memory_equal(e->dim, spec[k].dim, sizeof(int64_t) * (size_t)e->ndim);
        assert_int_equal(e->size_bytes, bytes_of(&spec[k]));
        for (size_t b = 0; b < e->size_bytes; b++)
            if (((const unsigned char *)e->data)[b] != byte_at(k, b))
                fail_msg("%s [%zu]", e->name, b);
    }
    const em_zip *z = em_pth_archive(f);
    assert_string_equal(em_zip_first(z)->name, "model.v2/data.pkl");
    for (size_t i = 0; i < em_zip_count(z); i++) {
        const em_zip_member *m = em_zip_at(z, i);
        assert_ok(em_zip_check(z, m, &err), err);
        assert_int_equal((uintptr_t)m->data % 64, 0);
    }
    assert_non_null(em_zip_find(z, "model.v2/byteorder"));
    em_pth_close(&f);
}

static void refuses(void **state)
{
    em_safetensors_spec spec[N];
    em_pth_writer *w = NULL;
    fill(spec);
    const char *path = tmpdir_path(state, "m.pth");
    assert_ok(em_pth_create(&w, path, spec, 2, &err), err);
    assert_ok(write_tensor(w, &spec[0], 0), err);
    assert_int_equal(em_pth_write(w, 1, 1799, "ab", 2, &err), EM_INVAL);
    assert_int_equal(em_pth_write(w, 1, 1801, "", 0, &err), EM_INVAL);
    assert_int_equal(em_pth_commit(&w, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "member 'm/data/1' of 1800 bytes was not written once"));
    assert_null(w);
    assert_int_equal(tmpdir_count(state), 0);

    assert_ok(em_pth_create(&w, path, spec, 1, &err), err); /* a stretch written twice */
    assert_ok(write_tensor(w, &spec[0], 0), err);
    assert_ok(em_pth_write(w, 0, 0, "twice", 5, &err), err);
    assert_int_equal(em_pth_commit(&w, &err), EM_INVAL);

    spec[0].dim[0] = -1;
    assert_int_equal(em_pth_create(&w, path, spec, 1, &err), EM_INVAL);
    spec[0].dim[0] = INT64_MAX;
    assert_int_equal(em_pth_create(&w, path, spec, 1, &err), EM_INVAL);
    assert_int_equal(em_pth_create(&w, tmpdir_path(state, "no/m.pth"), spec + 1, 1, &err), EM_IO);
    assert_null(w);
    assert_int_equal(tmpdir_count(state), 0);
}

static void every_allocation(void **state)
{
    em_safetensors_spec spec[N];
    size_t n = fill(spec);
    const char *path = tmpdir_path(state, "m.pth");
    em_status st = EM_NOMEM;
    for (uint64_t k = 1; st; k++) {
        em_alloc_fail_at(k, false);
        st = write_file(path, spec, n);
        em_alloc_fail_at(0, false);
        if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)k, err.msg);
        assert_int_equal(tmpdir_count(state), st ? 0 : 1);
    }
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {IN_TMPDIR(reads_back), IN_TMPDIR(refuses),
                                       IN_TMPDIR(every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
