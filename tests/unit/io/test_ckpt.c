#include "io/ckpt.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/fingerprint.h"

#include "../test.h"
#include "../tmpdir.h"
#include "../torch_file.h"

static em_err err;

/* A file of float scalars: names[i] holds first + i. */
static const char *make(void **state, const char *file, const char *const *names, size_t n,
                        float first)
{
    const char *path = tmpdir_path(state, file);
    em_safetensors_spec specs[8];
    em_safetensors_writer *w = NULL;
    for (size_t i = 0; i < n; i++)
        specs[i] = (em_safetensors_spec){.name = names[i], .dtype = EM_F32};
    assert_ok(em_safetensors_create(&w, path, specs, n, &err), err);
    for (size_t i = 0; i < n; i++) {
        float v = first + (float)i;
        assert_ok(em_safetensors_write(w, i, 0, &v, sizeof v, &err), err);
    }
    assert_ok(em_safetensors_commit(&w, &err), err);
    return path;
}

static float value(const em_ckpt *c, const char *name)
{
    const em_ckpt_tensor *t = em_ckpt_find(c, name);
    return t ? *(const float *)t->data : -1;
}

static const char *const base_names[] = {"c", "a", "b"};
static const char *const flash_names[] = {"d", "b"};

static void finds(void **state)
{
    em_ckpt *c = NULL;
    const char *path = make(state, "m.safetensors", base_names, 3, 10);
    assert_ok(em_ckpt_open(&c, path, &err), err);
    assert_int_equal(em_ckpt_count(c), 3);
    assert_string_equal(em_ckpt_at(c, 0)->name, "a");
    assert_string_equal(em_ckpt_at(c, 2)->name, "c");
    assert_true(value(c, "a") == 11 && value(c, "b") == 12 && value(c, "c") == 10);
    assert_null(em_ckpt_find(c, "A"));
    assert_null(em_ckpt_find(c, ""));
    assert_string_equal(em_ckpt_find(c, "a")->file, path);
    em_ckpt_close(&c);
    assert_null(c);
    em_ckpt_close(&c);
}

/* What its place holds is what its pointer shows; a copy has no place. */
static void assert_place(const em_ckpt_tensor *t, bool copied)
{
    char bytes[64];
    assert_true(t->size_bytes <= sizeof bytes);
    assert_true(copied == (t->place.path == NULL));
    if (copied) return;
    assert_string_equal(t->place.path, t->file);
    assert_ok(em_file_read_at(bytes, t->size_bytes, &t->place, &err), err);
    assert_memory_equal(bytes, t->data, t->size_bytes);
}

static void later_file_wins(void **state)
{
    em_ckpt *c = NULL;
    const char *base = make(state, "base.safetensors", base_names, 3, 10);
    const char *flash = make(state, "flash.safetensors", flash_names, 2, 20);
    assert_ok(em_ckpt_create(&c, &err), err);
    assert_int_equal(em_ckpt_count(c), 0);
    assert_null(em_ckpt_find(c, "a"));
    assert_ok(em_ckpt_overlay(c, base, &err), err);
    assert_ok(em_ckpt_overlay(c, flash, &err), err);
    assert_int_equal(em_ckpt_count(c), 4);
    assert_true(value(c, "a") == 11 && value(c, "b") == 21 && value(c, "c") == 10 &&
                value(c, "d") == 20);
    assert_string_equal(em_ckpt_find(c, "b")->file, flash);
    for (size_t i = 0; i < em_ckpt_count(c); i++) assert_place(em_ckpt_at(c, i), false);
    assert_string_equal(em_ckpt_find(c, "a")->file, base);
    for (size_t i = 1; i < 4; i++) {
        assert_true(strcmp(em_ckpt_at(c, i - 1)->name, em_ckpt_at(c, i)->name) < 0);
    }
    /* a file that fails changes nothing */
    assert_int_equal(em_ckpt_overlay(c, tmpdir_text(state, "bad.safetensors", "nonsense"), &err),
                     EM_FORMAT);
    assert_int_equal(em_ckpt_count(c), 4);
    assert_true(value(c, "b") == 21);
    em_ckpt_close(&c);
}

static void strips_prefix(void **state)
{
    static const char *const names[] = {"wav2vec2.z", "wav2vec2.b", "lm_head", "wav2vec2"};
    static const char *const clash[] = {"wav2vec2.b", "b"};
    em_ckpt *c = NULL;
    assert_ok(em_ckpt_open(&c, make(state, "m.safetensors", names, 4, 0), &err), err);
    assert_ok(em_ckpt_strip_prefix(c, "wav2vec2.", &err), err);
    assert_int_equal(em_ckpt_count(c), 4);
    assert_true(value(c, "z") == 0 && value(c, "b") == 1 && value(c, "lm_head") == 2);
    assert_true(value(c, "wav2vec2") == 3);
    assert_null(em_ckpt_find(c, "wav2vec2.b"));
    assert_string_equal(em_ckpt_at(c, 0)->name, "b");
    assert_ok(em_ckpt_strip_prefix(c, "absent.", &err), err);
    em_ckpt_close(&c);

    assert_ok(em_ckpt_open(&c, make(state, "n.safetensors", clash, 2, 0), &err), err);
    assert_int_equal(em_ckpt_strip_prefix(c, "wav2vec2.", &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "tensor 'b' is there with and without 'wav2vec2.'"));
    assert_true(value(c, "wav2vec2.b") == 0);
    em_ckpt_close(&c);
}

/* A header that is not padded: "b" starts at an odd address in the file. */
static const char *make_odd(void **state)
{
    const char *header = "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                         "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}";
    char file[256] = {0};
    size_t n = strlen(header) | 1;
    memset(file + 8, ' ', n);
    memcpy(file + 8, header, strlen(header));
    file[0] = (char)n;
    memcpy(file + 8 + n, (float[]){21, -3}, 8);
    return tmpdir_write(state, "odd.safetensors", file, 8 + n + 8);
}

static void aligns(void **state)
{
    em_ckpt *c = NULL;
    assert_ok(em_ckpt_open(&c, make_odd(state), &err), err);
    const em_ckpt_tensor *b = em_ckpt_find(c, "b");
    assert_int_equal((uintptr_t)b->data % sizeof(float), 0);
    assert_memory_equal(b->data, ((float[]){21, -3}), 8);
    assert_place(b, true);
    em_ckpt_close(&c);
}

/* What a file is, its content tells; each of these has a name that says something else. */
static void refuses(void **state)
{
    static char tar[600] = "checkpoint";
    memcpy(tar + 257, "ustar", 5);
    const struct {
        const char *path, *expect;
        em_status code;
    } row[] = {
        {tmpdir_text(state, "m.pth", "PK"), "2 bytes are too few", EM_FORMAT},
        {tmpdir_text(state, "m.bin", "PK\3\4"), "its end record is not there", EM_FORMAT},
        {tmpdir_text(state, "a.safetensors", "PK\5\6"), "its end record is not there", EM_FORMAT},
        {tmpdir_write(state, "b.safetensors", "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 15),
         "in the old form", EM_FORMAT},
        {tmpdir_write(state, "c.pth", "\x80\4\x95\x10\0\0\0\0\0\0\0}\x94.", 14), "torch.save(",
         EM_FORMAT},
        {tmpdir_write(state, "d.pth", tar, sizeof tar), "in the old form", EM_FORMAT},
        {tmpdir_text(state, "e.pth", "version https://git-lfs.github.com/spec/v1\noid"),
         "git lfs pull", EM_FORMAT},
        {tmpdir_text(state, "f.pth", "<!DOCTYPE html><html>"), "not a safetensors file", EM_FORMAT},
        {tmpdir_text(state, "g.pth", ""), "0 bytes", EM_FORMAT},
        {tmpdir_path(state, "none.pth"), "does not exist", EM_IO},
        {((tmpdir *)*state)->path, "is a folder", EM_IO},
    };
    em_ckpt *c = NULL;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_status st = em_ckpt_open(&c, row[i].path, &err);
        if (st != row[i].code || !strstr(err.msg, row[i].expect) || !strstr(err.msg, row[i].path))
            fail_msg("row %zu: expected '%s', got %s", i, row[i].expect, err.msg);
    }
    assert_null(c);
}

/* ---- PyTorch's files ------------------------------------------------------------------------- */

/* {"b": F32 21, "t": F32 (2, 2) transposed} */
static const char *make_torch(void **state, const char *file)
{
    static const char program[] = PK_BEGIN "}" PK_STR1("\1", "b")
        PK_TENSOR(PK_STORAGE("FloatStorage", "0", "K\1"), "K\0", ")", ")") "s" PK_STR1("\1", "t")
            PK_TENSOR(PK_STORAGE("FloatStorage", "1", "K\4"), "K\0", "K\2K\2\x86",
                      "K\1K\2\x86") "s.";
    torch_file f = {0};
    torch_member(&f, "m/data.pkl", program, sizeof program - 1);
    torch_member(&f, "m/data/0", (float[]){21}, 4);
    torch_member(&f, "m/data/1", (float[]){1, 2, 3, 4}, 16);
    torch_finish(&f, false);
    const char *path = tmpdir_write(state, file, f.data, f.size);
    torch_free(&f);
    return path;
}

static void torch_files(void **state)
{
    em_ckpt *c = NULL;
    assert_ok(em_ckpt_open(&c, make(state, "base.pth", base_names, 3, 10), &err), err);
    const char *torch = make_torch(state, "flash.safetensors");
    assert_ok(em_ckpt_overlay(c, torch, &err), err);
    assert_int_equal(em_ckpt_count(c), 4);
    assert_true(value(c, "a") == 11 && value(c, "b") == 21 && value(c, "c") == 10);
    assert_string_equal(em_ckpt_find(c, "b")->file, torch);
    const em_ckpt_tensor *t = em_ckpt_find(c, "t");
    assert_int_equal(t->ndim, 2);
    assert_memory_equal(t->data, ((float[]){1, 3, 2, 4}), 16);
    for (size_t i = 0; i < em_ckpt_count(c); i++)
        assert_place(em_ckpt_at(c, i), em_ckpt_at(c, i) == t); /* it is transposed */
    em_ckpt_close(&c);
}

/* The same weights are the same, whoever wrote them. */
static void same_fingerprint(void **state)
{
    static const char *const names[] = {"t", "b"};
    char torch[EM_SHA256_HEX_BYTES], plain[EM_SHA256_HEX_BYTES];
    const char *path = tmpdir_path(state, "m.safetensors");
    const em_safetensors_spec spec[] = {
        {.name = names[0], .dtype = EM_F32, .ndim = 2, .dim = {2, 2}},
        {.name = names[1], .dtype = EM_F32}};
    em_safetensors_writer *w = NULL;
    em_ckpt *c = NULL;
    assert_ok(em_safetensors_create(&w, path, spec, 2, &err), err);
    assert_ok(em_safetensors_write(w, 0, 0, (float[]){1, 3, 2, 4}, 16, &err), err);
    assert_ok(em_safetensors_write(w, 1, 0, (float[]){21}, 4, &err), err);
    assert_ok(em_safetensors_commit(&w, &err), err);
    for (int verify = 0; verify < 2; verify++) {
        assert_ok(em_ckpt_open(&c, path, &err), err);
        em_ckpt_fingerprint(c, plain);
        if (verify) assert_ok(em_ckpt_verify(c, NULL, plain, &err), err);
        em_ckpt_close(&c);
        assert_ok(em_ckpt_open(&c, make_torch(state, "m.pth"), &err), err);
        em_ckpt_fingerprint(c, torch);
        if (verify) assert_ok(em_ckpt_verify(c, NULL, torch, &err), err);
        em_ckpt_close(&c);
        assert_string_equal(plain, torch);
    }
}

/* A changed byte: the archive's CRC finds it, or the sum is another. */
static void verify(void **state)
{
    char first[EM_SHA256_HEX_BYTES], other[EM_SHA256_HEX_BYTES], *bytes = NULL;
    size_t n = 0;
    em_ckpt *c = NULL;
    em_pool *pool = NULL;
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    const char *path = make_torch(state, "m.pth");
    assert_ok(em_ckpt_open(&c, path, &err), err);
    assert_ok(em_ckpt_verify(c, pool, first, &err), err);
    assert_ok(em_ckpt_verify(c, NULL, other, &err), err);
    assert_string_equal(first, other);
    em_ckpt_close(&c);
    assert_ok(em_file_read(&bytes, &n, path, 1 << 20, &err), err);
    char *at = memmem(bytes, n, (float[]){1, 2, 3, 4}, 16);
    at[15] ^= 1;
    assert_ok(em_ckpt_open(&c, tmpdir_write(state, "n.pth", bytes, n), &err), err);
    assert_int_equal(em_ckpt_verify(c, pool, other, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "member 'm/data/1' is damaged"));
    em_ckpt_close(&c);
    em_free(bytes);

    path = make(state, "p.safetensors", base_names, 3, 10);
    assert_ok(em_ckpt_open(&c, path, &err), err);
    assert_ok(em_ckpt_verify(c, pool, first, &err), err);
    em_ckpt_close(&c);
    assert_ok(em_file_read(&bytes, &n, path, 1 << 20, &err), err);
    bytes[n - 1] ^= 1;
    assert_ok(em_ckpt_open(&c, tmpdir_write(state, "q.safetensors", bytes, n), &err), err);
    assert_ok(em_ckpt_verify(c, pool, other, &err), err);
    assert_string_not_equal(first, other);
    em_ckpt_close(&c);
    em_free(bytes);
    em_pool_destroy(&pool);
}

/* ---- shards ---------------------------------------------------------------------------------- */

static void shards(void **state)
{
    static const char *const one[] = {"a", "b"}, *const two[] = {"c"};
    em_ckpt *c = NULL;
    make(state, "s-1.safetensors", one, 2, 1);
    make(state, "s-2.safetensors", two, 1, 7);
    make_torch(state, "s-3.bin");
    const char *index = tmpdir_text(state, "s.index.json",
                                    "{\"metadata\": {\"total_size\": 12}, \"weight_map\": "
                                    "{\"a\": \"s-1.safetensors\", \"b\": \"s-1.safetensors\","
                                    " \"c\": \"s-2.safetensors\"}}");
    assert_ok(em_ckpt_open(&c, index, &err), err);
    assert_int_equal(em_ckpt_count(c), 3);
    assert_true(value(c, "a") == 1 && value(c, "b") == 2 && value(c, "c") == 7);
    assert_ok(em_ckpt_overlay(c, index, &err), err);
    assert_int_equal(em_ckpt_count(c), 3);
    assert_true(value(c, "b") == 2);

    static const char *const rows[][2] = {
        {"{\"weight_map\": 1}      ", "no index of shards: 'weight_map' is an integer"},
        {"{\"weight_map\": {}}     ", "'weight_map' is empty"},
        {"{\"model_type\": \"i2v\"}", "'weight_map' is nothing"},
        {"{\"weight_map\": {\"a\": 1}}", "'a' must name a file, it is an integer"},
        {"{\"weight_map\": {\"a\": \"\"}}", "'a' is in '', which is no file beside it"},
        {"{\"weight_map\": {\"a\": \"../s\"}}", "'a' is in '../s', which is no file beside it"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "which is no file beside it"},
        {"{\"weight_map\": {\"a\": \"s-9.safetensors\"}}", "s-9.safetensors' does not exist"},
        {"{\"weight_map\": {\"a\": \"s.index.json\"}}",
         "names 's.index.json', which is an index too"},
        {"{\"weight_map\": {\"x\": \"s-1.safetensors\"}}",
         "tensor 'x' is not in 's-1.safetensors'"},
        {"{\"weight_map\": {\"a\": \"s-1.safetensors\", \"c\": \"s-1.safetensors\"}}",
         "tensor 'c' is not in 's-1.safetensors'"},
        {"{\"weight_map\": {\"a\": \"s-1.safetensors\", \"t\": \"s-3.bin\"}}",
         "a tensor is in two of its shards"},
        {"{\"weight_map\": {\"a\": ", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *bad = tmpdir_text(state, "bad.json", rows[i][0]);
        if (em_ckpt_overlay(c, bad, &err) == EM_OK || !strstr(err.msg, rows[i][1]))
            fail_msg("row %zu: expected '%s', got '%s'", i, rows[i][1], err.msg);
    }
    assert_int_equal(em_ckpt_count(c), 3);
    em_ckpt_close(&c);
}

static em_status open_all(em_ckpt **out, const char *base, const char *index, const char *flash)
{
    em_ckpt *c = NULL;
    em_status st = em_ckpt_open(&c, base, &err);
    if (!st) st = em_ckpt_overlay(c, index, &err);
    if (!st) st = em_ckpt_overlay(c, flash, &err);
    if (!st) st = em_ckpt_strip_prefix(c, "x.", &err);
    if (st) {
        em_ckpt_close(&c);
    } else {
        *out = c;
    }
    return st;
}

static void every_allocation(void **state)
{
    const char *base = make(state, "base.safetensors", base_names, 3, 10);
    const char *flash = make_odd(state);
    make_torch(state, "t.bin");
    const char *index = tmpdir_text(state, "t.json", "{\"weight_map\": {\"t\": \"t.bin\"}}");
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_ckpt *c = NULL;
            em_alloc_fail_at(n, sticky);
            st = open_all(&c, base, index, flash);
            em_alloc_fail_at(0, false);
            if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
            if (!st) assert_true(value(c, "b") == 21);
            em_ckpt_close(&c);
        }
    }
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(finds),       IN_TMPDIR(later_file_wins),  IN_TMPDIR(strips_prefix),
        IN_TMPDIR(aligns),      IN_TMPDIR(refuses),          IN_TMPDIR(every_allocation),
        IN_TMPDIR(torch_files), IN_TMPDIR(same_fingerprint), IN_TMPDIR(verify),
        IN_TMPDIR(shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
