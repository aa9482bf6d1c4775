#include "models/tokenizer.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../test.h"
#include "../tmpdir.h"

#include <jansson.h>

#define MEDIA EM_TEST_DATA "/golden/media/"

static em_err err;

static em_tokenizer *open_golden(void)
{
    em_tokenizer *t = NULL;
    assert_ok(em_tokenizer_open(&t, MEDIA "spiece.model", &err), err);
    return t;
}

static em_status encode(const em_tokenizer *t, const char *text, size_t max_ids, int32_t *ids,
                        size_t *n)
{
    return em_tokenizer_encode(t, text, strlen(text), max_ids, ids, n, &err);
}

static void assert_ids(const em_tokenizer *t, const json_t *value, const json_t *want)
{
    const char *text = json_string_value(value);
    int32_t ids[512];
    size_t n = 0;
    assert_ok(em_tokenizer_encode(t, text, json_string_length(value), 512, ids, &n, &err), err);
    if (n != json_array_size(want)) {
        fail_msg("'%.60s': %zu ids, the golden has %zu", text, n, json_array_size(want));
    }
    for (size_t i = 0; i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(want, i));
        if (ids[i] != id)
            fail_msg("'%.60s': id %zu is %d, not %lld", text, i, ids[i], (long long)id);
    }
}

static void equals_the_goldens(void **state)
{
    (void)state;
    json_t *rows =
        json_load_file(MEDIA "tokens.json", JSON_ALLOW_NUL, NULL); /* one text holds a NUL */
    assert_true(json_array_size(rows) >= 10);
    em_tokenizer *t = open_golden();
    assert_int_equal(em_tokenizer_pad_id(t), 0);
    assert_int_equal(em_tokenizer_size(t), 359);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const json_t *text = json_object_get(row, "text");
        em_tokenizer_set_byte_fallback(t, false);
        assert_ids(t, text, json_object_get(row, "ids"));
        em_tokenizer_set_byte_fallback(t, true);
        assert_ids(t, text, json_object_get(row, "ids_byte_fallback"));
    }
    em_tokenizer_close(&t);
    assert_null(t);
    em_tokenizer_close(&t);
    json_decref(rows);
}

static void cuts_to_the_room(void **state)
{
    (void)state;
    em_tokenizer *t = open_golden();
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t n = 0;
    assert_ok(encode(t, "two spaces and trailing", 3, ids, &n), err);
    assert_int_equal(n, 3);
    assert_int_equal(ids[2], 1);
    assert_int_equal(ids[3], -7);
    assert_ok(encode(t, "two", 1, ids, &n), err);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 1);
    em_tokenizer_close(&t);
}

static void refuses_bad_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xff",         "a\x80",        "\xc0\xaf",
                                      "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "ab\xe2\x82",   "\xf0\x9f\x98"};
    em_tokenizer *t = open_golden();
    int32_t ids[8];
    size_t n = 99;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(encode(t, bad[i], 8, ids, &n), EM_INVAL);
        assert_non_null(strstr(err.msg, "not UTF-8"));
    }
    char *long_text = malloc(EM_TOKENIZER_TEXT_BYTES + 2);
    memset(long_text, 'a', EM_TOKENIZER_TEXT_BYTES + 1);
    long_text[EM_TOKENIZER_TEXT_BYTES + 1] = 0;
    assert_int_equal(encode(t, long_text, 8, ids, &n), EM_INVAL);
    assert_int_equal(n, 99);
    long_text[EM_TOKENIZER_TEXT_BYTES] = 0;
    assert_ok(encode(t, long_text, 8, ids, &n), err);
    assert_int_equal(n, 8);
    free(long_text);
    em_tokenizer_close(&t);
}

/* A copy of the model in a folder where tokenizer.json is `json`. */
static em_status open_beside(void **state, const char *json, em_tokenizer **t)
{
    char *model;
    size_t n;
    assert_ok(em_file_read(&model, &n, MEDIA "spiece.model", 1 << 20, &err), err);
    const char *path = tmpdir_write(state, "spiece.model", model, n);
    em_free(model);
    tmpdir_text(state, "tokenizer.json", json);
    return em_tokenizer_open(t, path, &err);
}

static void tokenizer_json_decides(void **state)
{
    em_tokenizer *t = NULL;
    int32_t ids[8];
    size_t n;
    assert_ok(open_beside(state, "{\"model\": {\"byte_fallback\": true}}", &t), err);
    assert_ok(encode(t, "\xe6\x89\x8b", 8, ids, &n), err); /* one CJK character */
    assert_int_equal(n, 5);                                /* _, three bytes, end */
    em_tokenizer_close(&t);
    assert_ok(open_beside(state, "{\"model\": {\"byte_fallback\": false}}", &t), err);
    assert_ok(encode(t, "\xe6\x89\x8b", 8, ids, &n), err);
    assert_int_equal(n, 3);
    assert_int_equal(ids[1], 2);
    em_tokenizer_close(&t);
    assert_ok(open_beside(state, "{}", &t), err);
    em_tokenizer_close(&t);
    assert_int_equal(open_beside(state, "{\"model\": {\"byte_fallback\": 1}}", &t), EM_FORMAT);
    assert_non_null(strstr(err.msg, "tokenizer.json"));
    assert_int_equal(open_beside(state, "[", &t), EM_FORMAT);
    assert_null(t);
}

static void refuses_bad_models(void **state)
{
    em_tokenizer *t = NULL;
    char *model;
    size_t n;
    assert_int_equal(em_tokenizer_open(&t, tmpdir_path(state, "none"), &err), EM_IO);
    assert_int_equal(em_tokenizer_open(&t, tmpdir_text(state, "a", "text"), &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "SentencePiece"));
    assert_int_equal(em_tokenizer_open(&t, tmpdir_text(state, "b", ""), &err), EM_FORMAT);
    assert_ok(em_file_read(&model, &n, MEDIA "spiece.model", 1 << 20, &err), err);
    assert_int_equal(em_tokenizer_open(&t, tmpdir_write(state, "c", model, n / 2), &err),
                     EM_FORMAT);
    em_alloc_fail_at(1, false);
    assert_int_equal(em_tokenizer_open(&t, MEDIA "spiece.model", &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_null(t);
    static const char *const gone[] = {"<pad>", "</s>"};
    for (int i = 0; i < 2; i++) { /* renamed, the piece is there no more */
        char *piece = memmem(model, n, gone[i], strlen(gone[i]));
        assert_non_null(piece);
        piece[1] = 'Q';
        assert_int_equal(em_tokenizer_open(&t, tmpdir_write(state, "d", model, n), &err),
                         EM_FORMAT);
        assert_non_null(strstr(err.msg, i ? "has no end token" : "has no padding token"));
        memcpy(piece, gone[i], strlen(gone[i]));
    }
    em_free(model);
    assert_null(t);
}

/* A model of 300 bytes, cut at every byte and with every byte bent: a sentence with the file's
 * name, or a model that works. */
static void every_byte(void **state)
{
    char *model;
    size_t n, refused = 0, tried = 0;
    assert_ok(em_file_read(&model, &n, EM_TEST_DATA "/fuzz/corpus/spiece/unigram", 1000, &err),
              err);
    const char *path = tmpdir_path(state, "m");
    for (size_t i = 0; i < 2 * n; i++) {
        em_tokenizer *t = NULL;
        int32_t ids[8];
        size_t count = 0;
        char kept = model[i % n];
        model[i % n] = (char)~kept;
        tmpdir_write(state, "m", model, i < n ? i : n);
        em_status st = em_tokenizer_open(&t, path, &err);
        tried++;
        if (st) {
            refused++;
            if (st != EM_FORMAT || !strstr(err.msg, path)) fail_msg("%zu: %s", i, err.msg);
        } else if (encode(t, "spe", 8, ids, &count) == EM_OK) {
            for (size_t k = 0; k < count; k++) assert_in_range(ids[k], 0, em_tokenizer_size(t) - 1);
        }
        em_tokenizer_close(&t);
        model[i % n] = kept;
    }
    if (refused < tried / 2) fail_msg("only %zu of %zu were refused", refused, tried);
    em_free(model);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_goldens), cmocka_unit_test(cuts_to_the_room),
        cmocka_unit_test(refuses_bad_text),   IN_TMPDIR(tokenizer_json_decides),
        IN_TMPDIR(refuses_bad_models),        IN_TMPDIR(every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
