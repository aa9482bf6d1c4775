#include "io/fingerprint.h"

#include "../test.h"
#include "../tmpdir.h"

static em_err err;

enum { EDGE = EM_FINGERPRINT_EDGE_BYTES, LONG = 3 * EDGE };

typedef struct content {
    const char *name;
    em_dtype dtype;
    int64_t dim[2];
    int ndim;
    unsigned char *bytes; /* LONG + 8 of them, of which the first size_bytes count */
    size_t size_bytes;
} content;

static void fingerprint(char out[EM_SHA256_HEX_BYTES], void **state, const content *c, size_t n)
{
    const char *path = tmpdir_path(state, "m.safetensors");
    em_safetensors_spec spec[4];
    em_safetensors_writer *w = NULL;
    em_ckpt *ckpt = NULL;
    for (size_t i = 0; i < n; i++)
        spec[i] = (em_safetensors_spec){.name = c[i].name,
                                        .dtype = c[i].dtype,
                                        .ndim = c[i].ndim,
                                        .dim = {c[i].dim[0], c[i].dim[1]}};
    assert_ok(em_safetensors_create(&w, path, spec, n, &err), err);
    for (size_t i = 0; i < n; i++)
        assert_ok(em_safetensors_write(w, i, 0, c[i].bytes, c[i].size_bytes, &err), err);
    assert_ok(em_safetensors_commit(&w, &err), err);
    assert_ok(em_ckpt_open(&ckpt, path, &err), err);
    em_ckpt_fingerprint(ckpt, out);
    em_ckpt_close(&ckpt);
}

/* The definition, written down a second time and in one piece. */
static void as_defined(void **state)
{
    static unsigned char bytes[LONG + 8], text[2 * EDGE + 256];
    char got[EM_SHA256_HEX_BYTES], want[EM_SHA256_HEX_BYTES];
    for (size_t i = 0; i < LONG; i++) bytes[i] = (unsigned char)(i * 31 >> 4);
    const content c[] = {{"b", EM_U8, {LONG, 1}, 2, bytes, LONG},
                         {"a.w", EM_F32, {2}, 1, bytes, 8}};
    fingerprint(got, state, c, 2);

    static const char head_a[] = "a.w\0F32\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0";
    static const char head_b[] = "b\0U8\0\2\0\0\0\0\0\0\0\0\0\3\0\0\0\0\0\1\0\0\0\0\0\0";
    size_t n = 0;
    memcpy(text + n, head_a, sizeof head_a), n += sizeof head_a;
    memcpy(text + n, bytes, 8), n += 8;
    memcpy(text + n, head_b, sizeof head_b), n += sizeof head_b;
    memcpy(text + n, bytes, EDGE), n += EDGE;
    memcpy(text + n, bytes + LONG - EDGE, EDGE), n += EDGE;
    em_sha256 h;
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256_start(&h);
    em_sha256_add(&h, text, n);
    em_sha256_end(&h, sum);
    em_sha256_hex(want, sum);
    assert_string_equal(got, want);
}

/* Whatever differs shows, but for bytes in the middle. */
static void tells_apart(void **state)
{
    static unsigned char bytes[LONG + 8];
    char first[EM_SHA256_HEX_BYTES], other[EM_SHA256_HEX_BYTES];
    content c = {"w", EM_U8, {LONG}, 1, bytes, LONG};
    fingerprint(first, state, &c, 1);
    const size_t shows[] = {0, EDGE - 1, LONG - EDGE, LONG - 1};
    for (size_t i = 0; i < 4; i++) {
        bytes[shows[i]] ^= 1;
        fingerprint(other, state, &c, 1);
        assert_string_not_equal(first, other);
        bytes[shows[i]] ^= 1;
    }
    bytes[LONG / 2] ^= 1;
    fingerprint(other, state, &c, 1);
    assert_string_equal(first, other);

    c.name = "v";
    fingerprint(other, state, &c, 1);
    assert_string_not_equal(first, other);
    c.name = "w", c.dtype = EM_I8;
    fingerprint(other, state, &c, 1);
    assert_string_not_equal(first, other);
    c.dtype = EM_U8, c.ndim = 2, c.dim[1] = 1;
    fingerprint(other, state, &c, 1);
    assert_string_not_equal(first, other);
    c.dim[0] = 3, c.dim[1] = LONG / 3;
    char third[EM_SHA256_HEX_BYTES];
    fingerprint(third, state, &c, 1);
    assert_string_not_equal(third, other);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {IN_TMPDIR(as_defined), IN_TMPDIR(tells_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
