#include "io/ckpt.h"

#include "base/alloc.h"

#include "../test.h"
#include "../tmpdir.h"

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
    em_ckpt_close(&c);
}

static void refuses(void **state)
{
    em_ckpt *c = NULL;
    assert_int_equal(em_ckpt_open(&c, tmpdir_text(state, "m.pth", "PK"), &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "convert it to .safetensors"));
    assert_int_equal(em_ckpt_open(&c, tmpdir_text(state, "m.bin", "PK"), &err), EM_FORMAT);
    assert_int_equal(em_ckpt_open(&c, tmpdir_path(state, "none.pth"), &err), EM_IO);
    assert_non_null(strstr(err.msg, "does not exist"));
    assert_int_equal(em_ckpt_open(&c, ((tmpdir *)*state)->path, &err), EM_IO);
    assert_null(c);
}

static em_status open_both(em_ckpt **out, const char *base, const char *flash)
{
    em_ckpt *c = NULL;
    em_status st = em_ckpt_open(&c, base, &err);
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
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_ckpt *c = NULL;
            em_alloc_fail_at(n, sticky);
            st = open_both(&c, base, flash);
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
        IN_TMPDIR(finds),  IN_TMPDIR(later_file_wins), IN_TMPDIR(strips_prefix),
        IN_TMPDIR(aligns), IN_TMPDIR(refuses),         IN_TMPDIR(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
