/* Job lists: what a good one says, and everything that can be wrong with one, by item and line. */
#include "base/alloc.h"
#include "batch/manifest.h"
#include "io/json.h"

#include "../test.h"
#include "../tmpdir.h"

#include <string.h>

typedef struct heard {
    char text[8192];
} heard;

static void listen(void *user, em_level level, const char *msg)
{
    heard *h = user;
    size_t n = strlen(h->text);
    snprintf(h->text + n, sizeof h->text - n, "%s%s\n", level == EM_LOG_WARN ? "warning: " : "",
             msg);
}

static em_status read_list(void **state, em_manifest *m, heard *h, bool skip, const char *text)
{
    em_params p = em_params_default();
    em_err err = {0};
    const em_manifest_options options = {.params = &p, .skip_invalid = skip, .log = {listen, h}};
    memset(h, 0, sizeof *h);
    *m = (em_manifest){0};
    em_status st = em_manifest_read(m, tmpdir_text(state, "jobs.json", text), &options, &err);
    listen(h, EM_LOG_ERROR, err.msg);
    return st;
}

static void assert_says(const heard *h, const char *words)
{
    if (!strstr(h->text, words)) fail_msg("'%s' is not in: %s", words, h->text);
}

#define MEDIA "\"portrait_image\": \"a.png\", \"portrait_audio\": \"https://x.org/a.wav?sig=1\""

static void good_list(void **state)
{
    em_manifest m;
    heard h;
    assert_int_equal(read_list(state, &m, &h, false,
                               "[{" MEDIA "},\n {" MEDIA
                               ", \"output_name\": \"b \\\"é\\\" [\",\"upload_url\": "
                               "\"https://x/b?sig=1\"},\n"
                               " {" MEDIA ", \"output_name\": null, \"prompt\": \"she sings\",\n"
                               "  \"seed\": 9223372036854775807, \"num_inference_steps\": 4,\n"
                               "  \"audio_guidance_scale\": 3, \"video_length\": 5,\n"
                               "  \"sample_size\": [64, 96], \"mood\": [1, {}]}\n]"),
                     EM_OK);
    assert_int_equal(m.count, 3);
    assert_int_equal(m.invalid, 0);
    assert_string_equal(m.job[0].name, "video_0001");
    assert_null(m.job[0].upload_url);
    assert_string_equal(m.job[1].upload_url, "https://x/b?sig=1");
    assert_string_equal(m.job[0].image, tmpdir_path(state, "a.png")); /* beside the list */
    assert_string_equal(m.job[0].audio, "https://x.org/a.wav?sig=1");
    assert_int_equal(m.job[0].params.seed, 43);
    assert_string_equal(m.job[1].name, "b \"é\" [");
    assert_int_equal(m.job[1].line, 2);
    const em_batch_job *j = &m.job[2];
    assert_int_equal(j->line, 3);
    assert_string_equal(j->name, "video_0003");
    assert_string_equal(j->params.prompt, "she sings");
    assert_true(j->params.seed == INT64_MAX);
    assert_int_equal(j->params.num_inference_steps, 4);
    assert_true(j->params.audio_guidance_scale == 3);
    assert_int_equal(j->params.sample_size[1], 96);
    assert_says(&h, "warning: ");
    assert_says(&h, "'mood' is not known");

    em_params other = em_params_default();
    other.seed = 1;
    other.fps = 30;
    other.num_inference_steps = 2;
    em_manifest_rebase(&m, &other);
    assert_int_equal(m.job[0].params.seed, 1);
    assert_int_equal(m.job[0].params.num_inference_steps, 2);
    assert_true(j->params.seed == INT64_MAX);
    assert_int_equal(j->params.num_inference_steps, 4);
    assert_int_equal(j->params.fps, 30);
    assert_string_equal(j->params.prompt, "she sings");
    em_manifest_close(&m);
}

/* One faulty item in second place, on line 2: nothing comes back, and the sentence says why. */
static void faulty_items(void **state)
{
    static const struct {
        const char *item, *words;
    } rows[] = {
        {"7", "an object was expected, it is an integer"},
        {"{\"portrait_audio\": \"a\"}", "'portrait_image' is missing"},
        {"{\"portrait_image\": \"a\"}", "'portrait_audio' is missing"},
        {"{\"portrait_image\": \"\", \"portrait_audio\": \"a\"}", "'portrait_image' is empty"},
        {"{\"portrait_image\": 3, \"portrait_audio\": \"a\"}", "must be a string"},
        {"{\"portrait_image\": \"http://x/a\", \"portrait_audio\": \"a\"}", "only https"},
        {"{\"portrait_image\": \"file:///etc/passwd\", \"portrait_audio\": \"a\"}", "only https"},
        {"{" MEDIA ", \"output_name\": \"first\"}", "that of item 1 (line 1) too"},
        {"{" MEDIA ", \"output_name\": \"FIRST\"}", "that of item 1 (line 1) too"},
        {"{" MEDIA ", \"output_name\": \"../x\"}", "slash"},
        {"{" MEDIA ", \"output_name\": \"/x\"}", "slash"},
        {"{" MEDIA ", \"output_name\": \"a/b\"}", "slash"},
        {"{" MEDIA ", \"output_name\": \"a\\\\b\"}", "slash"},
        {"{" MEDIA ", \"output_name\": \"\"}", "is empty"},
        {"{" MEDIA ", \"output_name\": \"..\"}", "dot"},
        {"{" MEDIA ", \"output_name\": \"-rf\"}", "dash"},
        {"{" MEDIA ", \"output_name\": \"a\\nb\"}", "control"},
        {"{" MEDIA ", \"output_name\": 5}", "must be a string"},
        {"{" MEDIA ", \"seed\": -1}", "'seed'"},
        {"{" MEDIA ", \"seed\": \"7\"}", "'seed' must be an integer"},
        {"{" MEDIA ", \"num_inference_steps\": 1001}", "'num_inference_steps'"},
        {"{" MEDIA ", \"video_length\": 4094}", "1 to 4093"},
        {"{" MEDIA ", \"audio_guidance_scale\": 101}", "'audio_guidance_scale'"},
        {"{" MEDIA ", \"sample_size\": 64}", "'sample_size'"},
        {"{" MEDIA ", \"sample_size\": [64, 8]}", "'sample_size'"},
        {"{" MEDIA ", \"prompt\": 1}", "'prompt'"},
        {"{" MEDIA ", \"upload_url\": \"x.mp4\"}", "'upload_url' is no address"},
        {"{" MEDIA ", \"upload_url\": \"http://x/y?sig=s3cret\"}", "'http://x/y': only https"},
        {"{" MEDIA ", \"upload_url\": 7}", "'upload_url'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[1024];
        em_manifest m;
        heard h;
        snprintf(text, sizeof text, "[{" MEDIA ", \"output_name\": \"first\"},\n%s]", rows[i].item);
        em_status st = read_list(state, &m, &h, false, text);
        if (st != EM_FORMAT && st != EM_INVAL) fail_msg("%s was taken", rows[i].item);
        assert_null(m.job);
        assert_says(&h, rows[i].words);
        assert_says(&h, "jobs.json' item 2 (line 2)");
        assert_int_equal(read_list(state, &m, &h, true, text), EM_OK);
        assert_int_equal(m.count, 2);
        assert_int_equal(m.invalid, 1);
        assert_int_equal(m.job[0].problem.code, EM_OK);
        assert_int_not_equal(m.job[1].problem.code, EM_OK);
        assert_says(&h, "warning: skipped: ");
        em_manifest_close(&m);
    }
}

static void long_names(void **state)
{
    for (int n = 200; n <= 300; n += 100) {
        char text[1024];
        em_manifest m;
        heard h;
        snprintf(text, sizeof text, "[{" MEDIA ", \"output_name\": \"%0*d\"}]", n, 0);
        assert_int_equal(read_list(state, &m, &h, false, text) == EM_OK, n == 200);
        em_manifest_close(&m);
    }
}

static void all_problems_at_once(void **state)
{
    em_manifest m;
    heard h;
    assert_int_not_equal(read_list(state, &m, &h, false,
                                   "[\n{\"output_name\": \"../x\", \"seed\": -1},\n\n null,\n"
                                   "{" MEDIA ", \"sede\": 1, \"fps\": 1}]"),
                         EM_OK);
    assert_says(&h, "item 1 (line 2): 'portrait_image'");
    assert_says(&h, "item 1 (line 2): 'portrait_audio'");
    assert_says(&h, "item 1 (line 2): 'output_name'");
    assert_says(&h, "'seed' is -1");
    assert_says(&h, "item 2 (line 4): an object");
    assert_says(&h, "5 problems");
    assert_says(&h, "did you mean 'seed'");
}

static void no_lists(void **state)
{
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"{}", "must hold a list"},
        {"[1, 2", "line 1"},
        {"", "empty"},
        {"[{\"a\": 1, \"a\": 2}]", "duplicate"},
        {"nonsense", "JSON"},
    };
    em_manifest m;
    heard h;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (read_list(state, &m, &h, true, rows[i].text) == EM_OK)
            fail_msg("'%s' was taken", rows[i].text);
        assert_says(&h, "jobs.json");
        if (*rows[i].text) assert_says(&h, rows[i].words);
    }
    assert_int_equal(read_list(state, &m, &h, false, "[]"), EM_OK);
    assert_int_equal(m.count, 0);
    em_manifest_close(&m);
}

static void paths_beside_the_list(void **state)
{
    em_manifest m;
    heard h;
    const char *beside = tmpdir_text(state, "a.png", "x");
    assert_int_equal(read_list(state, &m, &h, false, "[{" MEDIA "}]"), EM_OK);
    assert_string_equal(m.job[0].image, beside);
    em_manifest_close(&m);
}

static void one_job(void **state)
{
    em_manifest m = {0};
    em_err err = {0};
    const em_params p = em_params_default();
    (void)state;
    assert_ok(em_manifest_single(&m, "x/my.face.png", "v.wav", NULL, &p, &err), err);
    assert_string_equal(m.job[0].name, "my");
    em_manifest_close(&m);
    assert_ok(em_manifest_single(&m, "https://h/a.b.png?sig=c/d.e", "v.wav", NULL, &p, &err), err);
    assert_string_equal(m.job[0].name, "a");
    em_manifest_close(&m);
}

static void secrets_stay(void **state)
{
    char shown[32];
    (void)state;
    em_address_shown(shown, sizeof shown, "https://h/a?sig=s");
    assert_string_equal(shown, "https://h/a");
    em_address_shown(shown, sizeof shown, "what?.png");
    assert_string_equal(shown, "what?.png");
    assert_true(em_is_address("s3://x") && !em_is_address("a/b://c") && !em_is_address("a.png"));
}

/* From the first allocation behind the parser's on: jansson 2.14 itself overruns a buffer when the
 * one that holds a string cannot grow. */
static void survives_failed_allocations(void **state)
{
    static const char text[] = "[{" MEDIA "}, {" MEDIA ", \"prompt\": \"p\", \"seed\": 1}]";
    em_status st = EM_NOMEM;
    em_err err = {0};
    json_t *doc = NULL;
    uint64_t before = em_alloc_calls();
    assert_ok(em_json_load(&doc, tmpdir_text(state, "jobs.json", text), 4096, &err), err);
    uint64_t parser = em_alloc_calls() - before, n = 0;
    json_decref(doc);
    while (st) {
        em_manifest m;
        heard h;
        em_alloc_fail_at(parser + ++n, false);
        st = read_list(state, &m, &h, false, text);
        em_alloc_fail_at(0, false);
        if (st) assert_int_equal(st, EM_NOMEM);
        if (!st) em_manifest_close(&m);
        assert_true(n < 1000);
    }
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_list),
        cmocka_unit_test(faulty_items),
        cmocka_unit_test(long_names),
        cmocka_unit_test(all_problems_at_once),
        cmocka_unit_test(no_lists),
        cmocka_unit_test_setup_teardown(paths_beside_the_list, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(one_job),
        cmocka_unit_test(secrets_stay),
        cmocka_unit_test(survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, tmpdir_setup, tmpdir_teardown);
}
