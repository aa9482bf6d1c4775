#include "pipeline/synthetic_model.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../golden.h"
#include "../tmpdir.h"

static void the_golden_sizes_are_the_tiny_ones(void **state)
{
    (void)state;
    em_err err = {0};
    json_t *doc = golden_json("tiny/report.json");
    em_synthetic_sizes got, want = em_synthetic_sizes_tiny();
    assert_ok(em_synthetic_sizes_read(&got, doc, "'report.json'", &err), err);
    assert_memory_equal(&got.dit, &want.dit, sizeof want.dit);
    assert_memory_equal(&got.vae, &want.vae, sizeof want.vae);
    assert_memory_equal(&got.t5, &want.t5, sizeof want.t5);
    assert_memory_equal(&got.clip, &want.clip, sizeof want.clip);
    assert_memory_equal(&got.speech, &want.speech, sizeof want.speech);
    json_decref(doc);
}

/* Sizes from text. */
static em_status from_text(em_synthetic_sizes *s, const char *text, em_err *err)
{
    json_t *doc = NULL;
    assert_ok(em_json_parse(&doc, text, strlen(text), "'sizes.json'", err), *err);
    em_status st = em_synthetic_sizes_read(s, doc, "'sizes.json'", err);
    json_decref(doc);
    return st;
}

static void what_is_absent_is_as_released(void **state)
{
    (void)state;
    em_err err = {0};
    em_synthetic_sizes got, full = em_synthetic_sizes_full();
    assert_ok(from_text(&got, "{}", &err), err);
    assert_memory_equal(&got.dit, &full.dit, sizeof full.dit);
    assert_int_equal(full.dit.dim, 1536);
    assert_ok(from_text(&got, "{\"config\": {}}", &err), err);
    assert_int_equal(got.t5.layers, full.t5.layers);
    assert_ok(from_text(&got, "{\"vae\": {\"dim\": 16}, \"t5\": {}}", &err), err);
    assert_int_equal(got.vae.dim, 16);
    assert_int_equal(got.t5.dim, full.t5.dim);
}

/* Sizes that follow from others. */
static void derived_sizes_follow(void **state)
{
    (void)state;
    em_err err = {0};
    em_synthetic_sizes s;
    assert_ok(
        from_text(&s,
                  "{\"clip\": {\"vision_dim\": 32, \"vision_mlp_ratio\": 3, \"image_size\": 56},"
                  " \"w2v\": {\"hidden_size\": 10, \"num_hidden_layers\": 3}}",
                  &err),
        err);
    assert_int_equal(s.clip.ffn, 96);
    assert_int_equal(s.clip.grid, 4);
    assert_int_equal(s.dit.clip_dim, 32);
    assert_int_equal(s.dit.audio_dim, 30);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"vae\": 3}", "'vae' must be an object"},
        {"{\"dit\": [1]}", "'dit' must be an object"},
        {"{\"dit\": {\"dim\": 0}}", "section 'dit'"},
        {"{\"dit\": {\"dim\": -4}}", "section 'dit'"},
        {"{\"dit\": {\"dim\": 1.5}}", "section 'dit'"},
        {"{\"t5\": {\"vocab\": \"many\"}}", "section 't5'"},
        {"{\"t5\": {\"vocab\": 1099511627776}}", "section 't5'"},
        {"{\"audio\": {\"context_tokens\": 0}}", "section 'audio'"},
        {"{\"w2v\": {\"num_feat_extract_layers\": 99}}", "at most"},
        {"{\"w2v\": {\"conv_dim\": [1, 2]}}", "conv_dim"},
        {"{\"w2v\": {\"conv_stride\": [5, 2, 2, 2, 2, 2, 0]}}", "conv_stride"},
        {"{\"clip\": {\"image_size\": 10}}", "image_size"},
        {"{\"config\": 5}", "must be an object"},
        {"[]", "must be an object"},
    };
    for (size_t i = 0; i < EM_COUNT(bad); i++) {
        em_err err = {0};
        em_synthetic_sizes s = {.vae = {.dim = 77}};
        if (from_text(&s, bad[i][0], &err) != EM_FORMAT) fail_msg("%s was accepted", bad[i][0]);
        if (!strstr(err.msg, bad[i][1]) || !strstr(err.msg, "'sizes.json'"))
            fail_msg("%s: %s", bad[i][0], err.msg);
        assert_int_equal(s.vae.dim, 77);
    }
}

/* Every model: written, opened, as many bytes of tensors as announced, nothing missing for its
 * reader. */
static void what_is_written_is_whole(void **state)
{
    em_synthetic_sizes s = em_synthetic_sizes_tiny();
    for (int kind = 0; kind < EM_MODEL_COUNT; kind++) {
        em_err err = {0};
        em_ckpt *ckpt = NULL;
        uint64_t announced = 0, bytes = 0;
        const char *path = tmpdir_path(state, "m.safetensors");
        assert_ok(em_synthetic_bytes(&announced, &s, (em_model_kind)kind, &err), err);
        assert_ok(em_synthetic_write(&s, (em_model_kind)kind, 1, path, NULL, &err), err);
        assert_ok(em_ckpt_open(&ckpt, path, &err), err);
        for (size_t i = 0; i < em_ckpt_count(ckpt); i++) {
            assert_int_equal(em_ckpt_at(ckpt, i)->dtype, EM_BF16);
            bytes += em_ckpt_at(ckpt, i)->size_bytes;
        }
        assert_true(bytes > 0);
        assert_int_equal(bytes, announced);
        em_ckpt_close(&ckpt);
    }
}

static uint64_t file_size(const char *path)
{
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return (uint64_t)s.st_size;
}

/* One thread or three, the same file; another seed, another one. */
static void threads_do_not_show(void **state)
{
    em_err err = {0};
    em_pool *pool = NULL;
    em_synthetic_sizes s = em_synthetic_sizes_tiny();
    const char *path[] = {tmpdir_path(state, "one"), tmpdir_path(state, "three"),
                          tmpdir_path(state, "other")};
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    assert_ok(em_synthetic_write(&s, EM_MODEL_CLIP, 1, path[0], NULL, &err), err);
    assert_ok(em_synthetic_write(&s, EM_MODEL_CLIP, 1, path[1], pool, &err), err);
    assert_ok(em_synthetic_write(&s, EM_MODEL_CLIP, 2, path[2], pool, &err), err);
    em_pool_destroy(&pool);
    em_map map[3] = {{0}};
    for (int i = 0; i < 3; i++) assert_ok(em_file_map(&map[i], path[i], false, &err), err);
    assert_int_equal(map[0].size_bytes, file_size(path[0]));
    assert_int_equal(map[0].size_bytes, map[1].size_bytes);
    assert_memory_equal(map[0].data, map[1].data, map[0].size_bytes);
    assert_int_equal(map[0].size_bytes, map[2].size_bytes);
    assert_true(memcmp(map[0].data, map[2].data, map[0].size_bytes) != 0);
    for (int i = 0; i < 3; i++) em_map_close(&map[i]);
}

static void nothing_is_left_where_nothing_can_be_written(void **state)
{
    em_err err = {0};
    em_synthetic_sizes s = em_synthetic_sizes_tiny();
    const char *path = tmpdir_path(state, "absent/m.safetensors");
    assert_int_equal(em_synthetic_write(&s, EM_MODEL_VAE, 1, path, NULL, &err), EM_IO);
    assert_int_equal(tmpdir_count(state), 0);
}

static void survives_failing_allocations(void **state)
{
    em_synthetic_sizes s = em_synthetic_sizes_tiny();
    em_status st = EM_NOMEM;
    s.vae.dim = 1;
    for (uint64_t n = 1; st; n++) {
        em_err err = {0};
        uint64_t bytes = 7;
        em_alloc_fail_at(n, true);
        st = em_synthetic_bytes(&bytes, &s, EM_MODEL_VAE, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || st == EM_NOMEM);
        assert_true(st == EM_OK || bytes == 7);
    }
    (void)state;
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_sizes_are_the_tiny_ones),
        cmocka_unit_test(what_is_absent_is_as_released),
        cmocka_unit_test(derived_sizes_follow),
        cmocka_unit_test(bad_sizes_are_refused),
        ROW(what_is_written_is_whole),
        ROW(threads_do_not_show),
        ROW(nothing_is_left_where_nothing_can_be_written),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
