/* Flags: both spellings, ranges, sources and who wins, everything wrong at once, --help. */
#include "cli/options.h"

#include "../test.h"
#include "../tmpdir.h"

#include <string.h>

/* All messages of a call, one after the other. */
typedef struct heard {
    char text[4096];
} heard;

static void listen(void *user, em_level level, const char *msg)
{
    heard *h = user;
    size_t n = strlen(h->text);
    (void)level;
    snprintf(h->text + n, sizeof h->text - n, "%s\n", msg);
}

static em_status parse(em_options *o, em_command command, heard *h, const char *line)
{
    static char words[2048], *argv[64];
    int argc = 0;
    em_err err = {0};
    const em_log log = {listen, h};
    memset(h, 0, sizeof *h);
    snprintf(words, sizeof words, "%s", line);
    for (char *p = words, *end; *p; p = end) {
        end = p + strcspn(p, "|");
        if (*end) *end++ = 0;
        argv[argc++] = p;
    }
    em_options_open(o, command);
    em_status st = em_options_parse(o, argc, argv, &log, &err);
    listen(h, EM_LOG_ERROR, err.msg);
    return st;
}

static void assert_says(const heard *h, const char *words)
{
    if (!strstr(h->text, words)) fail_msg("'%s' is not in: %s", words, h->text);
}

static void every_spelling(void **state)
{
    static const char *const lines[] = {
        "--video_length|81|--audio_guidance_scale|3.5|--sample_size|256|384|--no_teacache",
        "--video-length|81|--audio-guidance-scale|3.5|--sample-size|256 384|--no-teacache",
        "--video-length=81|--audio_guidance-scale=3.5|--sample_size=256x384|--enable_teacache=off",
        "--no_teacache|on|--sample_size|256,384|--video_length|81|--audio-guidance_scale|3.5",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        em_options o;
        heard h;
        if (parse(&o, EM_COMMAND_BATCH, &h, lines[i])) fail_msg("%s: %s", lines[i], h.text);
        assert_int_equal(o.params.video_length, 81);
        assert_true(o.params.audio_guidance_scale == 3.5);
        assert_int_equal(o.params.sample_size[0], 256);
        assert_int_equal(o.params.sample_size[1], 384);
        assert_false(o.teacache);
        em_options_close(&o);
    }
}

static void the_last_one_counts(void **state)
{
    em_options o;
    heard h;
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--fps|9|--fps|30"), EM_OK);
    assert_int_equal(o.params.fps, 30);
    em_options_close(&o);
}

static void words_of_choices(void **state)
{
    em_options o;
    heard h;
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_RUN, &h,
                           "--sampler_name|Flow_DPM++|--weight_dtype|float32|--memory_mode|beefy|"
                           "--rng|cpu|--teacache_mode|reference|--teacache_offload|"
                           "--audio_device|cpu"),
                     EM_OK);
    assert_int_equal(o.params.sampler, EM_SAMPLER_DPMPP);
    assert_int_equal(o.engine.dtype, EM_WEIGHT_FLOAT32);
    assert_int_equal(o.engine.memory_mode, EM_MEMORY_BEEFY);
    assert_int_equal(o.params.rng, EM_RNG_CPU);
    assert_int_equal(o.params.teacache, EM_TEACACHE_REFERENCE);
    assert_true(o.params.teacache_offload);
    assert_int_equal(o.engine.audio_device, EM_AUDIO_DEVICE_CPU);
    em_options_close(&o);
    assert_int_equal(parse(&o, EM_COMMAND_RUN, &h, "--sampler_name|Euler"), EM_INVAL);
    assert_says(&h, "Flow_Unipc, Flow_DPM++, Flow");
    em_options_close(&o);
}

static void defaults_of_the_specification(void **state)
{
    em_options o;
    heard h;
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, ""), EM_OK);
    assert_string_equal(o.save_path, "outputs");
    assert_int_equal(o.params.sampler, EM_SAMPLER_UNIPC);
    assert_int_equal(o.params.video_length, 300);
    assert_true(o.params.guidance_scale == 6 && o.params.audio_guidance_scale == 6);
    assert_int_equal(o.params.num_inference_steps, 8);
    assert_int_equal(o.params.seed, 43);
    assert_true(o.teacache && o.params.color_transfer && !o.riflex && !o.params.teacache_offload);
    assert_int_equal(o.engine.dtype, EM_WEIGHT_BFLOAT16);
    assert_int_equal(o.engine.memory_mode, EM_MEMORY_LIGHTWEIGHT);
    assert_false(em_options_given(&o, "seed"));
    em_options_close(&o);
}

/* The edges of every range: in, and one beyond. */
static void ranges(void **state)
{
    static const struct {
        const char *flag, *in[2], *out[2];
    } rows[] = {
        {"video_length", {"1", "4093"}, {"0", "4094"}},
        {"num_inference_steps", {"1", "1000"}, {"0", "1001"}},
        {"guidance_scale", {"0", "100"}, {"-0.1", "100.1"}},
        {"audio_guidance_scale", {"0", "100"}, {"-0.1", "nan"}},
        {"seed", {"0", "9223372036854775807"}, {"-1", "9223372036854775808"}},
        {"teacache_threshold", {"0", "10"}, {"-1", "10.5"}},
        {"num_skip_start_steps", {"0", "1000"}, {"-1", "1001"}},
        {"sample_size", {"16 16", "4096 4096"}, {"15 16", "16 4097"}},
        {"fps", {"1", "120"}, {"0", "121"}},
        {"shift", {"0.01", "100"}, {"0.001", "101"}},
        {"riflex_k", {"1", "22"}, {"0", "23"}},
        {"cfg_skip_ratio", {"0", "1"}, {"-0.5", "1.01"}},
        {"crf", {"0", "51"}, {"-1", "52"}},
        {"threads", {"0", "1024"}, {"-1", "1025"}},
        {"parallel_jobs", {"1", "8"}, {"0", "9"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 4; k++) {
            char line[128];
            em_options o;
            heard h;
            const char *value = k < 2 ? rows[i].in[k] : rows[i].out[k - 2];
            snprintf(line, sizeof line, "--%s=%s", rows[i].flag, value);
            em_status st = parse(&o, EM_COMMAND_BATCH, &h, line);
            if ((st == EM_OK) != (k < 2)) fail_msg("%s gives %d: %s", line, st, h.text);
            if (st) assert_says(&h, rows[i].flag);
            em_options_close(&o);
        }
}

static void everything_wrong_at_once(void **state)
{
    em_options o;
    heard h;
    (void)state;
    assert_int_equal(
        parse(&o, EM_COMMAND_BATCH, &h,
              "--vidio_length|9|--fps|fast|stray|--sample_size|64|--crf|5x|--quiet=maybe|--seed"),
        EM_INVAL);
    assert_says(&h, "did you mean --video_length");
    assert_says(&h, "--fps takes a whole number, not 'fast'");
    assert_says(&h, "'stray'");
    assert_says(&h, "--sample_size takes two numbers");
    assert_says(&h, "--crf takes a whole number, not '5x'");
    assert_says(&h, "--quiet takes true or false, not 'maybe'");
    assert_says(&h, "--seed needs a value");
    assert_says(&h, "7 problems");
    em_options_close(&o);
    assert_int_equal(parse(&o, EM_COMMAND_SYNTH, &h, "--video_length|9"), EM_INVAL);
    assert_says(&h, "there is no flag --video_length");
    em_options_close(&o);
}

/* Several values: behind one another, by naming the flag again, from a file. */
static void lists(void **state)
{
    em_options o;
    heard h;
    char line[256];
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--only|a|b c|--fps|9|--only=d,e|--force"),
                     EM_OK);
    assert_int_equal(o.only.count, 3);
    assert_string_equal(o.only.item[0], "a");
    assert_string_equal(o.only.item[1], "b c");
    assert_string_equal(o.only.item[2], "d,e");
    assert_int_equal(o.params.fps, 9);
    assert_true(o.force);
    em_options_close(&o);
    snprintf(line, sizeof line, "--only|x|--config|%s",
             tmpdir_text(state, "flags.yaml",
                         "only: [a, b c]\nallow_private: [10.0.0.0/8, '::1']\nshard: 2/3\n"));
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, line), EM_OK);
    assert_int_equal(o.only.count, 1); /* the command line is heard, and says all of it */
    assert_string_equal(o.only.item[0], "x");
    assert_int_equal(o.allow_private.count, 2);
    assert_string_equal(o.allow_private.item[1], "::1");
    assert_int_equal(o.shard[0], 2);
    assert_int_equal(o.shard[1], 3);
    em_options_close(&o);
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--only"), EM_INVAL);
    assert_says(&h, "--only needs a value");
    em_options_close(&o);
}

static void shards(void **state)
{
    static const char *const bad[] = {
        "0/3",  "4/3",  "-1/3",     "1/0",
        "1",    "1/",   "/3",       "a/b",
        "1/b",  "1/3x", "1//3",     "1/+3",
        "1/ 3", "",     "1/100001", "99999999999999999999/99999999999999999999"};
    em_options o;
    heard h;
    char line[128];
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--shard|3/3"), EM_OK);
    assert_int_equal(o.shard[0], 3);
    em_options_close(&o);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(line, sizeof line, "--shard=%s", bad[i]);
        if (parse(&o, EM_COMMAND_BATCH, &h, line) != EM_INVAL) fail_msg("'%s' was taken", bad[i]);
        assert_says(&h, "--shard takes I/N");
        em_options_close(&o);
    }
}

/* default < recommended < --config < command line. */
static void who_is_heard(void **state)
{
    em_options o;
    heard h;
    em_err err = {0};
    em_str told = {0};
    char line[256];
    const char *file = tmpdir_text(state, "flags.yaml",
                                   "crf: 30\nfps: 30\nsample-size: [64, 96]\nno_teacache: true\n");
    em_model_setting settings[] = {
        {(char *)"fps", (char *)"12"},         {(char *)"num_inference_steps", (char *)"12"},
        {(char *)"seed", (char *)"5"},         {(char *)"enable_teacache", (char *)"true"},
        {(char *)"of_nobody", (char *)"true"},
    };
    const em_model_config model = {.recommended = settings, .recommended_count = 5};
    snprintf(line, sizeof line, "--crf|20|--seed|9|--config|%s", file);
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, line), EM_OK);
    const em_log log = {listen, &h};
    assert_ok(em_options_recommend(&o, &model, &told, &log, &err), err);
    assert_int_equal(o.params.crf, 20);
    assert_int_equal(o.params.seed, 9);
    assert_int_equal(o.params.fps, 30);
    assert_int_equal(o.params.sample_size[1], 96);
    assert_false(o.teacache);
    assert_int_equal(o.params.num_inference_steps, 12);
    assert_string_equal(em_str_text(&told), "--num_inference_steps 12");
    assert_says(&h, "of_nobody");
    em_str_free(&told);
    em_options_close(&o);
}

static void bad_files_of_flags(void **state)
{
    em_options o;
    heard h;
    char line[256];
    snprintf(line, sizeof line, "--config|%s",
             tmpdir_text(state, "bad.yaml", "fps: 0\nsede: 1\ncrf: {a: 1}\n"));
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, line), EM_INVAL);
    assert_says(&h, "--fps is 0");
    assert_says(&h, "did you mean 'seed'");
    assert_says(&h, "'crf' must be a value");
    em_options_close(&o);
    assert_int_not_equal(parse(&o, EM_COMMAND_BATCH, &h, "--config|/nowhere.yaml"), EM_OK);
    assert_says(&h, "/nowhere.yaml");
    em_options_close(&o);
}

static void old_command_lines(void **state)
{
    em_options o;
    heard h;
    em_err err = {0};
    const em_log log = {listen, &h};
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_RUN, &h,
                           "--audio_scale|1.0|--neg_scale|-1.5|--neg_steps|2|--use_dynamic_cfg|"
                           "--use_un_ip_mask|--add_prompt|x|--ulysses_degree|1|--ring_degree|1|"
                           "--lora_path||--GPU_memory_mode|model_full_load|--negative_prompt|n"),
                     EM_OK);
    assert_ok(em_options_finish(&o, &log, &err), err);
    assert_says(&h, "without effect here: --negative_prompt, --audio_scale, --neg_scale");
    assert_int_equal(o.engine.memory_mode, EM_MEMORY_BEEFY);
    em_options_close(&o);
    assert_int_equal(parse(&o, EM_COMMAND_RUN, &h, "--lora_path|a.safetensors|--ulysses_degree|2"),
                     EM_OK);
    assert_int_equal(em_options_finish(&o, &log, &err), EM_INVAL);
    assert_says(&h, "a.safetensors");
    assert_says(&h, "--ulysses_degree 2");
    em_options_close(&o);
}

static void flags_that_work_together(void **state)
{
    em_options o;
    heard h;
    em_err err = {0};
    (void)state;
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--no_teacache|--riflex_k|4"), EM_OK);
    assert_ok(em_options_finish(&o, NULL, &err), err);
    assert_int_equal(o.params.teacache, EM_TEACACHE_OFF);
    assert_int_equal(o.params.riflex_k, 0);
    em_options_close(&o);
    assert_int_equal(parse(&o, EM_COMMAND_BATCH, &h, "--enable_riflex"), EM_OK);
    assert_ok(em_options_finish(&o, NULL, &err), err);
    assert_int_equal(o.params.riflex_k, 6);
    assert_int_equal(o.params.teacache, EM_TEACACHE_BRANCH);
    em_options_close(&o);
}

/* Every flag of the specification is in the help of the commands that take it. */
static void help_names_every_flag(void **state)
{
    static const char *const flags[] = {
        "json_path",
        "config_path",
        "model_name",
        "transformer_path",
        "save_path",
        "prompt",
        "wav2vec_model_dir",
        "negative_prompt",
        "sampler_name",
        "video_length",
        "guidance_scale",
        "audio_guidance_scale",
        "seed",
        "no_teacache",
        "num_inference_steps",
        "enable_teacache",
        "teacache_mode",
        "weight_dtype",
        "num_skip_start_steps",
        "teacache_threshold",
        "sample_size",
        "fps",
        "teacache_offload",
        "shift",
        "enable_riflex",
        "riflex_k",
        "cfg_skip_ratio",
        "temp_dir",
        "keep_temp",
        "memory_mode",
        "device",
        "audio_device",
        "rng",
        "color_transfer",
        "crf",
        "threads",
        "log_json",
        "quiet",
        "dry_run",
        "force",
        "skip_invalid",
        "only",
        "retry_failed",
        "shard",
        "parallel_jobs",
        "allow_private",
    };
    char *text = NULL;
    size_t size;
    (void)state;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    em_options_help(to, EM_COMMAND_BATCH);
    fclose(to);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        char line[64];
        snprintf(line, sizeof line, "  --%s ", flags[i]);
        if (!strstr(text, line)) fail_msg("--help lacks %s", line);
    }
    assert_non_null(strstr(text, "1 to 4093 [300]"));
    assert_non_null(strstr(text, "lightweight, beefy, auto [lightweight]"));
    assert_null(strstr(text, "lora"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling),
        cmocka_unit_test(the_last_one_counts),
        cmocka_unit_test(words_of_choices),
        cmocka_unit_test(defaults_of_the_specification),
        cmocka_unit_test(ranges),
        cmocka_unit_test(everything_wrong_at_once),
        cmocka_unit_test_setup_teardown(lists, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(shards),
        cmocka_unit_test_setup_teardown(who_is_heard, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(bad_files_of_flags, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test(old_command_lines),
        cmocka_unit_test(flags_that_work_together),
        cmocka_unit_test(help_names_every_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
