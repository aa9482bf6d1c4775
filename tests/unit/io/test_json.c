#include "io/json.h"

#include "../test.h"
#include "../tmpdir.h"

static em_err err;

static json_t *parse(const char *text)
{
    json_t *doc = NULL;
    assert_ok(em_json_parse(&doc, text, strlen(text), "'t.json'", &err), err);
    return doc;
}

static void parses(void **state)
{
    static const char *const bad[] = {
        "",        "{",        "{\"a\":1,\"a\":2}",      "[1] 2",        "{\"a\":\"\xff\"}",
        "[1e999]", "\"word\"", "[99999999999999999999]", "[\"\\u0000\"]"};
    json_t *doc = parse("[{}, 1]");
    json_decref(doc);
    doc = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(em_json_parse(&doc, bad[i], strlen(bad[i]), "'t.json'", &err), EM_FORMAT);
        assert_non_null(strstr(err.msg, "'t.json' is not valid JSON: line 1"));
    }
    /* nested deeper than the parser's stack should go */
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    assert_int_equal(em_json_parse(&doc, deep, 100000, "'t.json'", &err), EM_FORMAT);
    free(deep);

    assert_ok(em_json_load(&doc, tmpdir_text(state, "a.json", "{\"k\": 1}"), 8, &err), err);
    json_decref(doc);
    doc = NULL;
    assert_int_equal(em_json_load(&doc, tmpdir_path(state, "a.json"), 7, &err), EM_FORMAT);
    assert_int_equal(em_json_load(&doc, tmpdir_path(state, "none"), 7, &err), EM_IO);
    assert_null(doc);
}

static void getters(void **state)
{
    (void)state;
    json_t *d =
        parse("{\"i\": 5, \"r\": 0.5, \"b\": true, \"s\": \"x\", \"n\": null, \"v\": [1, 2, 3]}");
    int64_t i = -1, v[3] = {0};
    double r = -1;
    bool b = false;
    const char *s = NULL;
    assert_ok(em_json_get_int(&i, d, "i", 5, 5, "t", &err), err);
    assert_int_equal(i, 5);
    assert_ok(em_json_get_double(&r, d, "r", 0, 1, "t", &err), err);
    assert_true(r == 0.5);
    assert_ok(em_json_get_double(&r, d, "i", 0, 9, "t", &err), err);
    assert_true(r == 5);
    assert_ok(em_json_get_bool(&b, d, "b", "t", &err), err);
    assert_true(b);
    assert_ok(em_json_get_string(&s, d, "s", "t", &err), err);
    assert_string_equal(s, "x");
    assert_ok(em_json_get_ints(v, 3, d, "v", 1, 3, "t", &err), err);
    assert_int_equal(v[2], 3);
    assert_true(em_json_has(d, "i"));
    assert_false(em_json_has(d, "n"));
    assert_false(em_json_has(d, "absent"));

    /* absent and null leave the fallback */
    assert_ok(em_json_get_int(&i, d, "absent", 0, 1, "t", &err), err);
    assert_ok(em_json_get_int(&i, d, "n", 0, 1, "t", &err), err);
    assert_ok(em_json_get_int(&i, NULL, "n", 0, 1, "t", &err), err);
    assert_int_equal(i, 5);
    json_decref(d);
}

static void getters_refuse(void **state)
{
    (void)state;
    json_t *d = parse("{\"i\": 5, \"r\": 0.5, \"s\": \"x\", \"v\": [1, 2.5], \"w\": [1, 9]}");
    int64_t i = -1, v[2] = {-1, -1};
    double r = -1;
    bool b = true;
    const char *s = "old";
    assert_int_equal(em_json_get_int(&i, d, "i", 6, 9, "'t.json'", &err), EM_FORMAT);
    assert_string_equal(err.msg, "'t.json': 'i' is 5, it must be 6 to 9");
    assert_int_equal(em_json_get_int(&i, d, "i", 0, 4, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_int(&i, d, "r", 0, 4, "'t.json'", &err), EM_FORMAT);
    assert_string_equal(err.msg,
                        "'t.json': 'r' must be an integer, it is a number with a fraction");
    assert_int_equal(em_json_get_double(&r, d, "r", 1, 2, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_double(&r, d, "s", 1, 2, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_bool(&b, d, "i", "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_string(&s, d, "i", "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_ints(v, 2, d, "v", 0, 9, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_ints(v, 2, d, "w", 0, 8, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_ints(v, 1, d, "w", 0, 9, "t", &err), EM_FORMAT);
    assert_int_equal(em_json_get_ints(v, 2, d, "i", 0, 9, "t", &err), EM_FORMAT);
    assert_true(i == -1 && v[0] == -1 && r == -1 && b);
    assert_string_equal(s, "old");
    json_decref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parses, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(getters),
        cmocka_unit_test(getters_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
