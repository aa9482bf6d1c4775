#include "io/yaml.h"

#include "base/alloc.h"

#include "../test.h"
#include "../tmpdir.h"

static em_err err;

static em_status parse(json_t **doc, const char *text)
{
    err = (em_err){0};
    return em_yaml_parse(doc, text, strlen(text), "'c.yaml'", &err);
}

/* Text in YAML, what it means in JSON. */
static void means(void **state)
{
    (void)state;
    static const char *const row[][2] = {
        {"a: 1", "{\"a\":1}"},
        {"a:\n  b: c\n  d:\n    e: -7 # note\nf: ./",
         "{\"a\":{\"b\":\"c\",\"d\":{\"e\":-7}},\"f\":\"./\"}"},
        {"a: [512, 512]\nb: {c: d}", "{\"a\":[512,512],\"b\":{\"c\":\"d\"}}"},
        {"a:\n  - x\n  - 2\n  -\n", "{\"a\":[\"x\",2,null]}"},
        {"a: null\nb: ~\nc:\nd: 'null'", "{\"a\":null,\"b\":null,\"c\":null,\"d\":\"null\"}"},
        {"a: true\nb: False\nc: \"true\"\nd: on\ne: no",
         "{\"a\":true,\"b\":false,\"c\":\"true\",\"d\":\"on\",\"e\":\"no\"}"},
        {"a: 5.0\nb: 1.15\nc: .5\nd: 1e-3\ne: +2.",
         "{\"a\":5.0,\"b\":1.15,\"c\":0.5,\"d\":0.001,\"e\":2.0}"},
        {"a: 010\nb: 0\nc: 0x10\nd: 1_000\ne: 1.2.3\nf: .\ng: +\nh: .inf\ni: 1e",
         "{\"a\":\"010\",\"b\":0,\"c\":\"0x10\",\"d\":\"1_000\",\"e\":\"1.2.3\",\"f\":\".\",\"g\":"
         "\"+\",\"h\":\".inf\",\"i\":\"1e\"}"},
        {"a: 9223372036854775807\nb: 9223372036854775808",
         "{\"a\":9223372036854775807,\"b\":\"9223372036854775808\"}"},
        {"a: 1e999", "{\"a\":\"1e999\"}"},
        {"---\na: Wan2.1_VAE.pth\n...\n", "{\"a\":\"Wan2.1_VAE.pth\"}"},
        {"{}", "{}"},
        {"a: |\n  two\n  lines\n", "{\"a\":\"two\\nlines\\n\"}"},
        {"a: \xc3\xa9", "{\"a\":\"\xc3\xa9\"}"},
        {"a: {b: {c: {d: {e: {f: {g: 1}}}}}}",
         "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":1}}}}}}}"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        json_t *doc = NULL, *want = json_loads(row[i][1], 0, NULL);
        assert_non_null(want);
        if (parse(&doc, row[i][0])) fail_msg("%s: %s", row[i][0], err.msg);
        if (!json_equal(doc, want)) {
            char *got = json_dumps(doc, JSON_COMPACT);
            fail_msg("%s: got %s", row[i][0], got);
        }
        json_decref(doc);
        json_decref(want);
    }
}

static void refuses(void **state)
{
    (void)state;
    static const char *const row[][2] = {
        {"", "no settings"},
        {"# nothing", "no settings"},
        {"word", "'key: value' lines are expected"},
        {"- a\n- b", "'key: value' lines are expected"},
        {"a: &x 1\nb: *x", "line 1: anchors"},
        {"a: 1\nb: *x", "line 2: aliases"},
        {"*x : 1", "aliases"},
        {"a: &x {b: 1}", "anchors"},
        {"a: &x [1]", "anchors"},
        {"&x a: 1", "anchors"},
        {"a: !!int 1", "tags"},
        {"a: ! 1", "tags"},
        {"a: !!map {b: 1}", "tags"},
        {"a: !!python/object/apply:os.system [ls]", "tags"},
        {"!x a: 1", "tags"},
        {"a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"},
        {"a: {b: 1, 'b': 2}", "the key 'b' is there twice"},
        {"<<: {b: 1}", "merge keys"},
        {"? [a]\n: 1", "a key must be a word"},
        {"? {a: b}\n: 1", "a key must be a word"},
        {"a: 1\n---\nb: 2", "a second document"},
        {"a: 1\n...\nb: 2", "not valid YAML"},
        {"a: \"x\\0y\"", "NUL"},
        {"\"x\\0y\": 1", "NUL"},
        {"a: \"open", "not valid YAML"},
        {"a: [1", "not valid YAML"},
        {"a:\n\t- b", "not valid YAML"},
        {"a: \xff", "not valid YAML"},
        {"a: \x01", "not valid YAML"},
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}", "more than 8 levels"},
        {"a: [[[[[[[[1]]]]]]]]", "more than 8 levels"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        json_t *doc = NULL;
        em_status st = parse(&doc, row[i][0]);
        assert_null(doc);
        if (st != EM_FORMAT || !strstr(err.msg, row[i][1]) || !strstr(err.msg, "'c.yaml'")) {
            fail_msg("%s: expected '%s', got %s: %s", row[i][0], row[i][1], em_status_text(st),
                     err.msg);
        }
    }
}

static void size_limit(void **state)
{
    json_t *doc = NULL;
    char *text = malloc(EM_YAML_BYTES + 1);
    memset(text, '#', EM_YAML_BYTES + 1);
    memcpy(text, "a: 1\n", 5);
    assert_int_equal(em_yaml_parse(&doc, text, EM_YAML_BYTES + 1, "'c.yaml'", &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "at most 1048576"));
    assert_int_equal(em_yaml_load(&doc, tmpdir_write(state, "c", text, EM_YAML_BYTES + 1), &err),
                     EM_FORMAT);
    assert_null(doc);
    assert_ok(em_yaml_load(&doc, tmpdir_write(state, "c", text, EM_YAML_BYTES), &err), err);
    json_decref(doc);
    free(text);
}

static void every_allocation(void **state)
{
    (void)state;
    const char *text = "a: {b: [1, two, 3.5, null]}\n'c': d\n";
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        json_t *doc = NULL;
        em_alloc_fail_at(n, false);
        st = parse(&doc, text);
        em_alloc_fail_at(0, false);
        if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
        if (st) assert_null(doc);
        json_decref(doc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means),
        cmocka_unit_test(refuses),
        cmocka_unit_test_setup_teardown(size_limit, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
