/* `synth`: a checkpoint of made-up weights in the released layout. */
#include "cli/command.h"
#include "cli/interrupt.h"
#include "pipeline/synthetic_model.h"

#include <string.h>

enum { SIZES_BYTES = 16 << 20 };

static em_status read_sizes(em_synthetic_sizes *s, const char *size, em_err *err)
{
    json_t *doc = NULL;
    if (!strcmp(size, "tiny")) {
        *s = em_synthetic_sizes_tiny();
        return EM_OK;
    }
    if (!strcmp(size, "full")) {
        *s = em_synthetic_sizes_full();
        return EM_OK;
    }
    size_t n = strlen(size);
    if (n < 5 || strcmp(size + n - 5, ".json") != 0)
        return em_fail(err, EM_INVAL, "--size takes tiny, full or a FILE.json, not '%s'", size);
    em_status st = em_json_load(&doc, size, SIZES_BYTES, err);
    if (!st) st = em_synthetic_sizes_read(s, doc, size, err);
    json_decref(doc);
    return st;
}

static void print_use(const char *dir)
{
    printf("echomimic batch --json_path jobs.json \\\n"
           "    --config_path %s/" EM_SYNTHETIC_CONFIG " \\\n"
           "    --model_name %s/" EM_SYNTHETIC_BASE " \\\n"
           "    --transformer_path %s/" EM_SYNTHETIC_FLASH " \\\n"
           "    --wav2vec_model_dir %s/" EM_SYNTHETIC_WAV2VEC2 "\n",
           dir, dir, dir, dir);
}

em_exit em_command_synth(em_options *o, em_terminal *t)
{
    static const char *const flags[] = {"out", NULL};
    em_err err = {0};
    em_synthetic_sizes sizes;
    em_pool *pool = NULL;
    if (em_command_need(o, flags, t, &err) || read_sizes(&sizes, o->size, &err))
        return em_command_fail(t, &err, EM_EXIT_USAGE);
    em_status st = em_pool_create(&pool, o->engine.threads, NULL, &err);
    const em_synthetic_folder to = {.dir = o->out,
                                    .seed = (uint64_t)o->synth_seed,
                                    .with_base = o->with_base,
                                    .torch = o->synth_torch == 1,
                                    .pool = pool,
                                    .log = em_terminal_log(t),
                                    .stop = em_interrupt_flag()};
    if (!st) st = em_synthetic_write_folder(&sizes, &to, &err);
    em_pool_destroy(&pool);
    if (st) return em_command_fail(t, &err, EM_EXIT_NOTHING);
    print_use(o->out);
    return EM_EXIT_OK;
}
