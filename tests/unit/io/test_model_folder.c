#include "io/model_folder.h"

#include "base/alloc.h"

#include "../test.h"
#include "../tmpdir.h"

static em_err err;

static const char transformer_json[] =
    "{\"_class_name\": \"WanModel\", \"model_type\": \"i2v\", \"dim\": 256, \"hidden_size\": 256,"
    " \"in_dim\": 36, \"ffn_dim\": 512, \"num_heads\": 2, \"num_layers\": 3, \"freq_dim\": 64,"
    " \"text_dim\": 64, \"eps\": 1e-06}";
static const char wav2vec2_json[] =
    "{\"model_type\": \"wav2vec2\", \"hidden_size\": 64, \"num_hidden_layers\": 4,"
    " \"num_attention_heads\": 4, \"intermediate_size\": 128, \"conv_dim\": [32,32,32,32,32,32,32],"
    " \"num_conv_pos_embeddings\": 16, \"num_conv_pos_embedding_groups\": 4}";

/* A complete folder as `synth` writes it, of empty files: nothing here opens a weight. */
static em_model_source make_folder(void **state)
{
    tmpdir_text(state, "m/config.json", transformer_json);
    tmpdir_text(state, "m/diffusion_pytorch_model.safetensors", "");
    tmpdir_text(state, "m/Wan2.1_VAE.safetensors", "");
    tmpdir_text(state, "m/models_t5_umt5-xxl-enc-bf16.safetensors", "");
    tmpdir_text(state, "m/models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors", "");
    tmpdir_text(state, "m/google/umt5-xxl/spiece.model", "");
    tmpdir_text(state, "w/config.json", wav2vec2_json);
    tmpdir_text(state, "w/preprocessor_config.json",
                "{\"do_normalize\": false, \"sampling_rate\": 16000}");
    tmpdir_text(state, "w/model.safetensors", "");
    return (em_model_source){.model_dir = tmpdir_path(state, "m"),
                             .wav2vec_dir = tmpdir_path(state, "w")};
}

static em_model_config *open_ok(const em_model_source *src)
{
    em_model_config *m = NULL;
    assert_ok(em_model_folder_open(&m, src, &err), err);
    return m;
}

/* Fails with `code` and a sentence that holds `expect`. */
static void assert_refused(const em_model_source *src, em_status code, const char *expect)
{
    em_model_config *m = NULL;
    err = (em_err){0};
    em_status st = em_model_folder_open(&m, src, &err);
    assert_null(m);
    if (st != code || !strstr(err.msg, expect)) {
        fail_msg("expected '%s', got %s: %s", expect, em_status_text(st), err.msg);
    }
}

static void assert_ends(const char *path, const char *tail)
{
    size_t n = strlen(path), k = strlen(tail);
    if (n < k || strcmp(path + n - k, tail) != 0) fail_msg("'%s' does not end in '%s'", path, tail);
}

static void resolves(void **state)
{
    em_model_source src = make_folder(state);
    em_model_config *m = open_ok(&src);
    assert_int_equal(m->transformer.dim, 256);
    assert_int_equal(m->transformer.num_heads, 2);
    assert_int_equal(m->transformer.text_dim, 64);
    assert_int_equal(m->transformer.text_len, 512);
    assert_int_equal(m->transformer.out_dim, 16);
    assert_int_equal(m->transformer.patch[2], 2);
    assert_true(m->transformer.eps == 1e-6);
    assert_int_equal(m->wav2vec2.hidden, 64);
    assert_int_equal(m->wav2vec2.conv_dim[6], 32);
    assert_int_equal(m->wav2vec2.conv_stride[0], 5);
    assert_int_equal(m->wav2vec2.pos_conv_groups, 4);
    assert_false(m->wav2vec2.do_normalize);
    assert_int_equal(m->t5_num_heads, 64);
    assert_int_equal(m->t5_text_length, 512);
    assert_int_equal(m->clip_num_heads, 16);
    assert_true(m->scheduler_shift == 5);
    assert_int_equal(m->recommended_count, 0);
    assert_null(m->config_path);
    assert_int_equal(m->files.transformer_count, 1);
    assert_ends(m->files.transformer[0], "/m/diffusion_pytorch_model.safetensors");
    assert_ends(m->files.vae, "/m/Wan2.1_VAE.safetensors");
    assert_ends(m->files.t5, "/m/models_t5_umt5-xxl-enc-bf16.safetensors");
    assert_ends(m->files.tokenizer, "/m/google/umt5-xxl/spiece.model");
    assert_ends(m->files.wav2vec2, "/w/model.safetensors");
    em_model_folder_close(&m);
    assert_null(m);
    em_model_folder_close(&m);
}

/* The tail of the i-th transformer file is want[i]. */
static void assert_transformer(const em_model_source *src, const char *const *want, size_t n)
{
    em_model_config *m = open_ok(src);
    assert_int_equal(m->files.transformer_count, n);
    for (size_t i = 0; i < n; i++) assert_ends(m->files.transformer[i], want[i]);
    em_model_folder_close(&m);
}

static void transformer_files(void **state)
{
    em_model_source src = make_folder(state);
    tmpdir_text(state, "m/diffusion_pytorch_model.bin", "");
    tmpdir_text(state, "m/shard-2.safetensors", "");
    tmpdir_text(state, "m/shard-1.safetensors", "");
    assert_transformer(&src, (const char *const[]){"/diffusion_pytorch_model.bin"}, 1);

    src.transformer_path = tmpdir_text(state, "flash/checkpoint-7.safetensors", "");
    assert_transformer(&src,
                       (const char *const[]){"/diffusion_pytorch_model.bin",
                                             "/flash/checkpoint-7.safetensors"},
                       2);
    remove(tmpdir_path(state, "m/diffusion_pytorch_model.bin"));
    src.transformer_path = tmpdir_path(state, "flash");
    src.ckpt_idx = 7;
    assert_transformer(&src,
                       (const char *const[]){"/diffusion_pytorch_model.safetensors",
                                             "/flash/checkpoint-7.safetensors"},
                       2);
    src.ckpt_idx = 8;
    tmpdir_text(state, "flash/diffusion_pytorch_model.safetensors", "");
    assert_refused(&src, EM_IO,
                   "tried 'checkpoint-8.pth', 'checkpoint-8.pth.index.json', "
                   "'checkpoint-8.safetensors'");
    src.ckpt_idx = 0;
    assert_transformer(&src,
                       (const char *const[]){"/diffusion_pytorch_model.safetensors",
                                             "/flash/diffusion_pytorch_model.safetensors"},
                       2);
    remove(tmpdir_path(state, "flash/diffusion_pytorch_model.safetensors"));
    assert_refused(&src, EM_IO, "tried 'checkpoint-50000.pth'");

    /* shards: with their index, and without; what is another model's is none */
    remove(tmpdir_path(state, "m/diffusion_pytorch_model.safetensors"));
    src.transformer_path = NULL;
    tmpdir_text(state, "m/diffusion_pytorch_model.safetensors.index.json", "{}");
    assert_transformer(&src,
                       (const char *const[]){"/diffusion_pytorch_model.safetensors.index.json"}, 1);
    remove(tmpdir_path(state, "m/diffusion_pytorch_model.safetensors.index.json"));
    assert_transformer(&src, (const char *const[]){"/shard-1.safetensors", "/shard-2.safetensors"},
                       2);

    remove(tmpdir_path(state, "m/shard-1.safetensors"));
    remove(tmpdir_path(state, "m/shard-2.safetensors"));
    assert_refused(&src, EM_IO, "no --transformer_path is given");
    src.transformer_path = tmpdir_path(state, "flash/checkpoint-7.safetensors");
    assert_transformer(&src, (const char *const[]){"/flash/checkpoint-7.safetensors"}, 1);
    src.transformer_path = tmpdir_path(state, "flash/none");
    assert_refused(&src, EM_IO, "flash/none' does not exist");
}

static void other_files(void **state)
{
    em_model_source src = make_folder(state);
    src.vae_path = tmpdir_text(state, "v/my.pth", "");
    em_model_config *m = open_ok(&src);
    assert_ends(m->files.vae, "/v/my.pth");
    em_model_folder_close(&m);
    src.vae_path = tmpdir_path(state, "v/none.pth");
    assert_refused(&src, EM_IO, "the VAE is missing in '.': tried '");
    src.vae_path = tmpdir_path(state, "v");
    assert_refused(&src, EM_IO, "(one is a folder, a file was expected)");
    src.vae_path = NULL;

    tmpdir_text(state, "m/Wan2.1_VAE.pth", ""); /* both: the configured name is taken */
    m = open_ok(&src);
    assert_ends(m->files.vae, "/m/Wan2.1_VAE.pth");
    em_model_folder_close(&m);
    remove(tmpdir_path(state, "m/Wan2.1_VAE.pth"));
    m = open_ok(&src);
    assert_ends(m->files.vae, "/m/Wan2.1_VAE.safetensors");
    em_model_folder_close(&m);
    remove(tmpdir_path(state, "m/Wan2.1_VAE.safetensors"));
    assert_refused(&src, EM_IO,
                   "/m': tried 'Wan2.1_VAE.pth', 'Wan2.1_VAE.pth.index.json', "
                   "'Wan2.1_VAE.safetensors', 'Wan2.1_VAE.safetensors.index.json'");
    tmpdir_text(state, "m/Wan2.1_VAE.safetensors.index.json", "{}");
    m = open_ok(&src);
    assert_ends(m->files.vae, "/m/Wan2.1_VAE.safetensors.index.json");
    em_model_folder_close(&m);

    tmpdir_text(state, "m/config.yaml",
                "vae_kwargs: {vae_subpath: vae/one.safetensors}\n"
                "transformer_additional_kwargs: {transformer_subpath: ./}\n"
                "text_encoder_kwargs: {text_encoder_subpath: models_t5_umt5-xxl-enc-bf16.pth,"
                " tokenizer_subpath: google/umt5-xxl}\n"
                "image_encoder_kwargs: {image_encoder_subpath: "
                "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth}\n");
    tmpdir_text(state, "m/one.pth", ""); /* not where the configuration says, nor in that format */
    m = open_ok(&src);
    assert_ends(m->files.vae, "/m/one.pth");
    em_model_folder_close(&m);
    remove(tmpdir_path(state, "m/config.yaml"));

    rename(tmpdir_path(state, "w/model.safetensors"), tmpdir_path(state, "w/pytorch_model.bin"));
    m = open_ok(&src);
    assert_ends(m->files.wav2vec2, "/w/pytorch_model.bin");
    em_model_folder_close(&m);
    remove(tmpdir_path(state, "w/pytorch_model.bin"));
    assert_refused(&src, EM_IO,
                   "/w': tried 'model.safetensors', 'model.safetensors.index.json', "
                   "'pytorch_model.bin', 'pytorch_model.bin.index.json'");
    tmpdir_text(state, "w/model.safetensors", "");
    remove(tmpdir_path(state, "m/google/umt5-xxl/spiece.model"));
    assert_refused(&src, EM_IO, "tried 'google/umt5-xxl/spiece.model'");
    tmpdir_text(state, "m/spiece.model", "");
    m = open_ok(&src);
    assert_ends(m->files.tokenizer, "/m/spiece.model");
    em_model_folder_close(&m);
}

static void wrong_folders(void **state)
{
    em_model_source src = make_folder(state);
    src.model_dir = tmpdir_path(state, "none");
    assert_refused(&src, EM_IO, "there is no such folder");
    src.model_dir = tmpdir_path(state, "m/config.json");
    assert_refused(&src, EM_IO, "it is a file");
    src.model_dir = tmpdir_path(state, "m/google");
    assert_refused(&src, EM_IO, "did you mean the folder that it lies in?");
    mkdir(tmpdir_path(state, "far"), 0777);
    mkdir(tmpdir_path(state, "far/away"), 0777);
    src.model_dir = tmpdir_path(state, "far/away");
    assert_refused(&src, EM_IO, "it is another folder, or incomplete");
    rename(tmpdir_path(state, "m"), tmpdir_path(state, "far/m"));
    src.model_dir = tmpdir_path(state, "far");
    assert_refused(&src, EM_IO, "far/m', one folder further down?");
    for (const char *c = "hkcatxobz"; *c; c++) { /* of several the first by name, not by the disk */
        char name[32];
        snprintf(name, sizeof name, "far/%c/config.json", *c);
        tmpdir_text(state, name, "{}");
    }
    assert_refused(&src, EM_IO, "far/a', one folder further down?");
    src.model_dir = NULL;
    assert_refused(&src, EM_INVAL, "--model_name is needed");
    src.model_dir = tmpdir_path(state, "far/m");
    src.wav2vec_dir = "";
    assert_refused(&src, EM_INVAL, "--wav2vec_model_dir is needed");
    src.wav2vec_dir = tmpdir_path(state, "far");
    assert_refused(&src, EM_IO, "--wav2vec_model_dir");
}

/* A configuration file, and what is said about it. */
typedef struct bad_config {
    const char *file, *text, *expect;
} bad_config;

static void bad_configs(void **state)
{
    static const bad_config rows[] = {
        {"m/config.json", "{", "is not valid JSON"},
        {"m/config.json", "[]", "must hold an object, it holds an array"},
        {"m/config.json", "{\"num_heads\": 2}",
         "'model_type' is 'not given': only models with 'i2v'"},
        {"m/config.json", "{\"model_type\": \"t2v\", \"num_heads\": 2}", "'model_type' is 't2v'"},
        {"m/config.json", "{\"model_type\": \"i2v\"}", "'num_heads' is missing"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 0}", "it must be 1 to"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": -2}", "it must be 1 to"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": \"2\"}",
         "'num_heads' must be an integer"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 3, \"dim\": 256}",
         "does not make 3 heads"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 2, \"dim\": 6}",
         "heads of an even size"},
        {"m/config.json",
         "{\"model_type\": \"i2v\", \"num_heads\": 2, \"dim\": 8, \"hidden_size\": 16}",
         "'dim' is 8 but 'hidden_size' is 16"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 2, \"patch_size\": [1, 2]}",
         "'patch_size' must be an array of 3"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 2, \"eps\": 0}", "'eps' is 0"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 2, \"qk_norm\": false}",
         "'qk_norm' is false"},
        {"m/config.json", "{\"model_type\": \"i2v\", \"num_heads\": 2, \"num_heads\": 2}",
         "duplicate"},
        {"w/config.json", "{\"feat_extract_norm\": \"layer\"}", "'feat_extract_norm' is 'layer'"},
        {"w/config.json", "{\"conv_bias\": true}", "'conv_bias' is true"},
        {"w/config.json", "{\"do_stable_layer_norm\": true}", "'do_stable_layer_norm' is true"},
        {"w/config.json", "{\"hidden_act\": \"relu\"}", "'hidden_act' is 'relu'"},
        {"w/config.json", "{\"model_type\": \"hubert\"}", "'model_type' is 'hubert'"},
        {"w/config.json", "{\"hidden_size\": 10, \"num_attention_heads\": 4}", "not a multiple"},
        {"w/config.json", "{\"conv_dim\": [1]}", "an array of 7"},
        {"w/preprocessor_config.json", "{\"sampling_rate\": 8000}", "only 16000 is supported"},
        {"w/preprocessor_config.json", "{\"do_normalize\": 1}", "must be true or false"},
        {"m/config.yaml", "a: *b", "aliases"},
        {"m/config.yaml", "vae_kwargs: 3", "'vae_kwargs' must be a section"},
        {"m/config.yaml", "vae_kwargs: {vae_subpath: 3}",
         "vae_kwargs: 'vae_subpath' must be a string"},
        {"m/config.yaml", "vae_kwargs: {spatial_compression_ratio: 16}", "is 16: only 8"},
        {"m/config.yaml", "scheduler_kwargs: {shift: 0}", "'shift' is 0"},
        {"m/config.yaml", "scheduler_kwargs: {shift: five}", "'shift' must be a number"},
        {"m/config.yaml", "scheduler_kwargs: {use_dynamic_shifting: true}", "use_dynamic_shifting"},
        {"m/config.yaml", "text_encoder_kwargs: {shared_pos: True}", "'shared_pos' is true"},
        {"m/config.yaml", "text_encoder_kwargs: {text_length: 1024}", "must be 1 to 512"},
        {"m/config.yaml", "recommended: {fps: {a: 1}}", "'fps' must be a value or a list"},
        {"m/config.yaml", "recommended: {fps: []}", "'fps' must be a value or a list"},
        {"m/config.yaml", "recommended: {fps: [[1]]}", "'fps' must be a value or a list"},
        {"m/config.yaml", "a: 1", "the VAE is missing in '"}, /* fallbacks: vae, text_encoder, … */
    };
    em_model_source src = make_folder(state);
    tmpdir_text(state, "m/transformer/config.json", transformer_json);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        em_model_config *m = NULL;
        make_folder(state);
        remove(tmpdir_path(state, "m/config.yaml"));
        tmpdir_text(state, rows[i].file, rows[i].text);
        em_status st = em_model_folder_open(&m, &src, &err);
        em_model_folder_close(&m);
        if (st == EM_OK || !strstr(err.msg, rows[i].expect)) {
            fail_msg("%s: %s: expected '%s', got: %s", rows[i].file, rows[i].text, rows[i].expect,
                     st ? err.msg : "ok");
        }
    }
}

static const char yaml[] = "vae_kwargs:\n  vae_subpath: my_vae.pth\n"
                           "transformer_additional_kwargs:\n  transformer_subpath: ./\n"
                           "text_encoder_kwargs:\n"
                           "  text_encoder_subpath: models_t5_umt5-xxl-enc-bf16.pth\n"
                           "  tokenizer_subpath: google/umt5-xxl\n"
                           "  num_heads: 4\n"
                           "image_encoder_kwargs:\n  num_heads: 5\n"
                           "  image_encoder_subpath: "
                           "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth\n"
                           "scheduler_kwargs:\n  scheduler_subpath: null\n  shift: 3\n";

static void own_config(void **state)
{
    char text[2048];
    em_model_source src = make_folder(state);
    snprintf(text, sizeof text,
             "%srecommended:\n  num_inference_steps: 12\n  sample_size: [384, 512]\n"
             "  audio_guidance_scale: 2.5\n  enable_riflex: true\n  prompt: 'a b'\n",
             yaml);
    tmpdir_text(state, "m/config.yaml", text);
    tmpdir_text(state, "m/my_vae.safetensors", "");
    em_model_config *m = open_ok(&src);
    static const char *const want[][2] = {{"num_inference_steps", "12"},
                                          {"sample_size", "384 512"},
                                          {"audio_guidance_scale", "2.5"},
                                          {"enable_riflex", "true"},
                                          {"prompt", "a b"}};
    assert_ends(m->config_path, "/m/config.yaml");
    assert_ends(m->files.vae, "/m/my_vae.safetensors");
    assert_int_equal(m->t5_num_heads, 4);
    assert_int_equal(m->clip_num_heads, 5);
    assert_true(m->scheduler_shift == 3);
    assert_int_equal(m->recommended_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(m->recommended[i].flag, want[i][0]);
        assert_string_equal(m->recommended[i].value, want[i][1]);
    }
    em_model_folder_close(&m);

    /* a configuration that is given wins; the folder's recommendations stay unless it has its
     * own */
    src.config_path = tmpdir_text(state, "given.yaml", yaml);
    tmpdir_text(state, "m/config.yaml", "recommended: {fps: 30}");
    m = open_ok(&src);
    assert_ends(m->config_path, "/given.yaml");
    assert_int_equal(m->recommended_count, 1);
    assert_string_equal(m->recommended[0].value, "30");
    em_model_folder_close(&m);
    src.config_path = tmpdir_path(state, "none.yaml");
    assert_refused(&src, EM_IO, "none.yaml' does not exist");
}

/* Names of upstream's other spelling; no preprocessor file. */
static void aliases_and_defaults(void **state)
{
    em_model_source src = make_folder(state);
    tmpdir_text(
        state, "m/config.json",
        "{\"model_type\": \"i2v\", \"num_heads\": 2, \"hidden_size\": 8, \"in_channels\": 36}");
    tmpdir_text(state, "w/config.json", "{}");
    remove(tmpdir_path(state, "w/preprocessor_config.json"));
    em_model_config *m = open_ok(&src);
    assert_int_equal(m->transformer.dim, 8);
    assert_int_equal(m->transformer.in_dim, 36);
    assert_int_equal(m->transformer.ffn_dim, 0);
    assert_int_equal(m->transformer.text_dim, 4096);
    assert_int_equal(m->wav2vec2.hidden, 768);
    assert_true(m->wav2vec2.do_normalize);
    em_model_folder_close(&m);
}

static void every_allocation(void **state)
{
    em_model_source src = make_folder(state);
    char text[2048];
    snprintf(text, sizeof text, "%srecommended: {fps: 30, sample_size: [1, 2]}\n", yaml);
    tmpdir_text(state, "m/config.yaml", text);
    tmpdir_text(state, "m/my_vae.safetensors", "");
    remove(tmpdir_path(state, "m/diffusion_pytorch_model.safetensors"));
    tmpdir_text(state, "m/shard-1.safetensors", "");
    src.config_path = tmpdir_text(state, "given.yaml", yaml);
    src.transformer_path = tmpdir_path(state, "f");
    tmpdir_text(state, "f/checkpoint-50000.pth", "");
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_model_config *m = NULL;
            em_alloc_fail_at(n, sticky);
            st = em_model_folder_open(&m, &src, &err);
            em_alloc_fail_at(0, false);
            if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
            if (st) assert_null(m);
            em_model_folder_close(&m);
        }
    }
    src.model_dir = ((tmpdir *)*state)->path; /* and on the way to "did you mean" */
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st == EM_NOMEM; n++) {
        em_model_config *m = NULL;
        em_alloc_fail_at(n, false);
        st = em_model_folder_open(&m, &src, &err);
        em_alloc_fail_at(0, false);
        assert_null(m);
    }
    assert_non_null(strstr(err.msg, "one folder further down?"));
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TMPDIR(resolves),
        IN_TMPDIR(transformer_files),
        IN_TMPDIR(other_files),
        IN_TMPDIR(wrong_folders),
        IN_TMPDIR(bad_configs),
        IN_TMPDIR(own_config),
        IN_TMPDIR(aliases_and_defaults),
        IN_TMPDIR(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
