/* Prompts that were encoded once: found again by another process, never believed blindly, never
 * too many. */
#include "pipeline/prompt_folder.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../tiny_engine.h"
#include "../tmpdir.h"

#include <time.h>

enum { N = 3, DIM = 4 };

static char warning[1024]; /* the last one */
static int warnings;
static em_err err;

static void on_log(void *user, em_level level, const char *msg)
{
    (void)user;
    if (level != EM_LOG_WARN) return;
    snprintf(warning, sizeof warning, "%s", msg);
    warnings++;
}

static em_prompt_folder_params params(const char *dir)
{
    warning[0] = warnings = 0;
    return (em_prompt_folder_params){
        .dir = dir, .key = "t5 one", .ops = "cpu", .dtype = EM_BF16, .log = {on_log, NULL}};
}

static em_prompt_folder *opened(const em_prompt_folder_params *p)
{
    em_prompt_folder *f = NULL;
    assert_ok(em_prompt_folder_open(&f, p, &err), err);
    return f;
}

static int32_t ids[N] = {7, 300, 1};
static float rows[N * DIM];

/* A prompt as the cache holds it; its rows start at `value`. */
static em_prompt prompt(const char *text, float value)
{
    for (int i = 0; i < N * DIM; i++) rows[i] = value + (float)i;
    return (em_prompt){.text = (char *)(uintptr_t)text, .ids = ids, .n = N, .rows = rows};
}

static void save(em_prompt_folder *f, const char *text, float value)
{
    em_prompt p = prompt(text, value);
    em_prompt_folder_save(f, &p, DIM);
}

static bool finds(em_prompt_folder *f, const char *text, float value)
{
    em_prompt p = prompt(text, -1000);
    em_prompt_folder_load(f, &p, DIM);
    for (int i = 0; i < N * DIM; i++)
        if (rows[i] != (p.encoded ? value : -1000) + (float)i) fail_msg("row value %d", i);
    return p.encoded;
}

static void what_was_kept_is_found(void **state)
{
    em_prompt_folder_params p = params(tmpdir_path(state, "a/b/prompts")); /* made */
    em_prompt_folder *f = opened(&p);
    assert_false(finds(f, "hello", 0));
    save(f, "hello", 5);
    save(f, "", 6);
    assert_true(finds(f, "hello", 5));
    assert_true(finds(f, "", 6));
    assert_false(finds(f, "hell", 0));
    em_prompt_folder_close(&f);
    f = opened(&p); /* another process */
    assert_true(finds(f, "hello", 5));
    em_prompt_folder_close(&f);
    em_prompt_folder_close(&f);
    em_prompt_folder_load(NULL, NULL, DIM);
    em_prompt_folder_save(NULL, NULL, DIM);
    assert_int_equal(warnings, 0);
}

static void another_encoder_is_another_prompt(void **state)
{
    const em_prompt_folder_params p = params(tmpdir_path(state, "prompts"));
    em_prompt_folder_params q[3] = {p, p, p};
    em_prompt_folder *f = opened(&p);
    save(f, "hello", 5);
    em_prompt_folder_close(&f);
    q[0].key = "t5 two";
    q[1].ops = "cuda";
    q[2].dtype = EM_F32;
    for (int i = 0; i < 3; i++) {
        f = opened(&q[i]);
        assert_false(finds(f, "hello", 0));
        save(f, "hello", (float)i);
        assert_true(finds(f, "hello", (float)i));
        em_prompt_folder_close(&f);
    }
    f = opened(&p);
    assert_true(finds(f, "hello", 5));
    em_prompt_folder_close(&f);
    assert_int_equal(warnings, 0);
}

/* The one file of the folder. */
static char *only_file(const char *dir)
{
    static char path[512];
    DIR *d = opendir(dir);
    path[0] = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    closedir(d);
    return path;
}

static void damage_is_noticed(void **state)
{
    const char *dir = tmpdir_path(state, "prompts");
    em_prompt_folder_params p = params(dir);
    em_prompt_folder *f = opened(&p);
    char *data = NULL;
    size_t n = 0;
    save(f, "hello", 5);
    const char *path = only_file(dir);
    assert_ok(em_file_read(&data, &n, path, 4096, &err), err);
    data[n - 40] ^= 1;
    assert_ok(em_file_write(path, data, n, &err), err);
    assert_false(finds(f, "hello", 0));
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(warning, "checksum"));
    assert_non_null(strstr(warning, "encoded anew"));
    save(f, "hello", 6); /* replaces it */
    assert_true(finds(f, "hello", 6));

    ids[1]++; /* another tokenizer: the same text means other rows */
    assert_false(finds(f, "hello", 0));
    ids[1]--;
    assert_non_null(strstr(warning, "other tokens"));
    em_free(data);
    em_prompt_folder_close(&f);
}

static void a_nan_is_not_kept(void **state)
{
    em_prompt_folder_params p = params(tmpdir_path(state, "prompts"));
    em_prompt_folder *f = opened(&p);
    em_prompt q = prompt("hello", 0);
    rows[N * DIM - 1] = NAN;
    em_prompt_folder_save(f, &q, DIM);
    assert_false(finds(f, "hello", 0));
    em_prompt_folder_close(&f);
}

static void what_was_used_longest_ago_goes(void **state)
{
    enum { ROOM = 4 };
    const char *dir = tmpdir_path(state, "prompts");
    em_prompt_folder_params p = params(dir);
    em_prompt_folder *f = opened(&p);
    struct stat s;
    char text[16];
    save(f, "0", 0);
    assert_int_equal(stat(only_file(dir), &s), 0);
    em_prompt_folder_close(&f);
    p.max_bytes = ROOM * (uint64_t)s.st_size;
    f = opened(&p);
    const char *foreign = tmpdir_text(state, "prompts/notes.txt", "not ours: stays");
    for (int i = 1; i < ROOM + 2; i++) {
        const struct timespec tick = {.tv_nsec = 20000000}; /* coarser than any clock here */
        nanosleep(&tick, NULL);
        snprintf(text, sizeof text, "%d", i);
        save(f, text, (float)i);
        nanosleep(&tick, NULL);
        if (i == ROOM - 1) assert_true(finds(f, "0", 0)); /* used: younger than 1 and 2 now */
    }
    for (int i = 0; i < ROOM + 2; i++) {
        snprintf(text, sizeof text, "%d", i);
        if (finds(f, text, (float)i) != (i != 1 && i != 2)) fail_msg("prompt %d", i);
    }
    assert_int_equal(access(foreign, F_OK), 0);
    em_prompt_folder_close(&f);
    assert_int_equal(warnings, 0);
}

static void failures_are_told_once(void **state)
{
    em_prompt_folder_params p = params(tmpdir_text(state, "file", "in the way"));
    em_prompt_folder *f = NULL;
    assert_int_equal(em_prompt_folder_open(&f, &p, &err), EM_IO);
    const char *dir = tmpdir_path(state, "prompts");
    p = params(dir);
    f = opened(&p);
    assert_int_equal(rmdir(dir), 0);
    save(f, "hello", 0);
    save(f, "hello", 0);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(warning, "not kept"));
    em_prompt_folder_close(&f);

    em_status st = EM_NOMEM;
    for (uint64_t k = 1; st; k++) {
        em_alloc_fail_at(k, false);
        st = em_prompt_folder_open(&f, &p, &err);
        em_alloc_fail_at(0, false);
        assert_true(k < 20 && (st == EM_NOMEM || k > 4));
    }
    for (uint64_t k = 1; k < 20; k++) {
        em_alloc_fail_at(k, false);
        save(f, "hello", 3);
        em_alloc_fail_at(0, false);
        em_alloc_fail_at(k, false);
        finds(f, "hello", 3);
        em_alloc_fail_at(0, false);
    }
    save(f, "hello", 3);
    assert_true(finds(f, "hello", 3));
    em_prompt_folder_close(&f);
}

/* ---- the whole method ------------------------------------------------------------------------ */

static em_status hash_frame(void *user, const uint8_t *rgb, int index, em_err *e)
{
    uint64_t *h = user;
    (void)index, (void)e;
    for (int i = 0; i < TINY_SIDE * TINY_SIDE * 3; i++) *h = (*h ^ rgb[i]) * 0x100000001b3ull;
    return EM_OK;
}

static uint64_t generate(const em_engine_params *where, double *text_flops)
{
    static uint8_t rgb[TINY_SIDE * TINY_SIDE * 3];
    static float mono[TINY_SAMPLES];
    const em_picture image = {rgb, TINY_SIDE, TINY_SIDE};
    const em_sound sound = {mono, TINY_SAMPLES, TINY_RATE_HZ};
    uint64_t hash = 1;
    const em_sink sink = {.frame = hash_frame, .user = &hash};
    em_engine *e = NULL;
    em_result r = {0};
    em_params p = em_params_default();
    tiny_inputs(rgb, mono);
    p.prompt = "somebody speaks";
    p.sample_size[0] = p.sample_size[1] = TINY_SIDE;
    p.video_length = TINY_FRAMES;
    p.num_inference_steps = 1;
    assert_ok(em_engine_open(&e, where, &err), err);
    assert_ok(em_generate(e, &image, &sound, &p, &sink, &r, &err), err);
    em_engine_close(&e);
    *text_flops = r.stage[EM_STAGE_TEXT].flops;
    return hash;
}

/* The second engine's text encoder has other weights under the same name: frames that are equal
 * were made without it. */
static void the_encoder_is_not_touched(void **state)
{
    double fresh, kept, without;
    const char *first = tmpdir_path(state, "first"), *second = tmpdir_path(state, "second");
    tiny_models(first, 1);
    em_engine_params p = tiny_engine_params(first);
    uint64_t plain = generate(&p, &without);
    p.prompt_dir = tmpdir_path(state, "prompts");
    assert_true(generate(&p, &without) == plain); /* no key: not kept */
    p.prompt_key = "t5 one";
    assert_true(generate(&p, &fresh) == plain);
    assert_true(fresh == without);

    char from[512], to[512];
    static const char *const file = EM_SYNTHETIC_BASE "/models_t5_umt5-xxl-enc-bf16.safetensors";
    tiny_models(second, 2);
    snprintf(from, sizeof from, "%s/%s", second, file);
    snprintf(to, sizeof to, "%s/%s", first, file);
    assert_int_equal(rename(from, to), 0);
    assert_true(generate(&p, &kept) == plain);
    assert_true(kept < fresh && kept > 0); /* the transformer's keys and values of it remain */
    p.prompt_key = "t5 two";
    assert_true(generate(&p, &fresh) != plain);
    assert_true(fresh == without);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_kept_is_found),
        TEST(another_encoder_is_another_prompt),
        TEST(damage_is_noticed),
        TEST(a_nan_is_not_kept),
        TEST(what_was_used_longest_ago_goes),
        TEST(failures_are_told_once),
        TEST(the_encoder_is_not_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
