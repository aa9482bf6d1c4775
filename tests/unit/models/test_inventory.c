/* Every model's walk against the list of tensors in the released files, and synthetic files. */
#include "base/alloc.h"
#include "base/synthetic.h"
#include "models/clip_vit.h"
#include "models/inventory.h"
#include "models/umt5.h"
#include "models/wan_dit.h"
#include "models/wan_vae.h"
#include "models/wav2vec2.h"

#include "../golden.h"
#include "../tmpdir.h"

#include <stdbool.h>
#include <stdlib.h>

/* "768x48x128", "scalar" */
static void shape_text(char out[80], const em_safetensors_spec *s)
{
    size_t n = 0;
    snprintf(out, 80, "scalar");
    for (int i = 0; i < s->ndim; i++)
        n += (size_t)snprintf(out + n, 80 - n, "%s%lld", i ? "x" : "", (long long)s->dim[i]);
}

static const em_safetensors_spec *find(const em_inventory *inv, const char *name)
{
    for (size_t i = 0; i < inv->count; i++)
        if (!strcmp(inv->spec[i].name, name)) return &inv->spec[i];
    return NULL;
}

/* Every row of the file is in the inventory, with its shape; as many rows as tensors, and no tensor
 * twice: then both are the same. */
static void expect_listed(const em_inventory *inv, const char *model)
{
    char path[GOLDEN_PATH_BYTES], line[256], in_model[32], name[160], shape[64], mine[80];
    FILE *f = fopen(golden_path(path, "checkpoint-tensors.tsv"), "r");
    assert_non_null(f);
    size_t rows = 0;
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(sscanf(line, "%31[^\t]\t%159[^\t]\t%63[^\n]", in_model, name, shape), 3);
        if (strcmp(in_model, model)) continue;
        rows++;
        const em_safetensors_spec *s = find(inv, name);
        if (!s) fail_msg("%s: '%s' is not in the walk", model, name);
        shape_text(mine, s);
        if (strcmp(mine, shape)) fail_msg("%s: '%s' is %s, not %s", model, name, mine, shape);
    }
    fclose(f);
    assert_int_equal(rows, inv->count);
    for (size_t i = 0; i < inv->count; i++)
        assert_ptr_equal(find(inv, inv->spec[i].name), &inv->spec[i]);
}

static em_binder *begin(em_inventory *inv)
{
    em_err err = {0};
    em_binder *b = NULL;
    assert_ok(em_binder_open_visit(&b, em_inventory_item, inv, &err), err);
    return b;
}

static void end(em_binder **b, em_inventory *inv, const char *model)
{
    em_err err = {0};
    assert_ok(em_binder_finish(b, &err), err);
    expect_listed(inv, model);
    em_inventory_close(inv);
}

static void wav2vec2_is_listed(void **state)
{
    (void)state;
    em_inventory inv = {0};
    em_binder *b = begin(&inv);
    em_wav2vec2_config cfg = em_wav2vec2_config_default();
    em_wav2vec2_visit(b, &cfg);
    end(&b, &inv, "wav2vec2");
}

static void umt5_is_listed(void **state)
{
    (void)state;
    em_inventory inv = {0};
    em_binder *b = begin(&inv);
    em_umt5_config cfg = em_umt5_config_default();
    em_umt5_visit(b, &cfg);
    end(&b, &inv, "t5");
}

static void clip_is_listed(void **state)
{
    (void)state;
    em_inventory inv = {0};
    em_binder *b = begin(&inv);
    em_clip_vit_config cfg = em_clip_vit_config_default();
    em_clip_vit_visit(b, &cfg);
    end(&b, &inv, "clip");
}

static void transformer_is_listed(void **state)
{
    (void)state;
    em_inventory inv = {0};
    em_binder *b = begin(&inv);
    em_dit_config cfg = em_dit_config_default();
    em_dit_visit(b, &cfg);
    end(&b, &inv, "transformer");
}

static void vae_is_listed(void **state)
{
    (void)state;
    em_inventory inv = {0};
    em_binder *b = begin(&inv);
    em_vae_config cfg = {.dim = 96};
    em_vae_visit(b, &cfg);
    end(&b, &inv, "vae");
}

/* ---- the synthetic file ---------------------------------------------------------------------- */

enum { ROWS = 700, COLS = 1000 }; /* several pieces, the last one not whole */

static void list_toy(em_inventory *inv)
{
    em_err err = {0};
    const em_bind_item items[] = {
        {.name = "log_scale"},
        {.name = "big.weight", .ndim = 2, .dim = {ROWS, COLS}},
        {.name = "norm.weight", .ndim = 1, .dim = {8}},
    };
    for (size_t i = 0; i < EM_COUNT(items); i++)
        assert_ok(em_inventory_item(inv, &items[i], &err), err);
}

static void expect_values(const em_safetensors *file, const char *name, em_synth_rule rule)
{
    const em_safetensors_entry *e = golden_find(file, name, "");
    assert_non_null(e);
    assert_int_equal(e->dtype, EM_BF16);
    size_t n = e->size_bytes / 2;
    uint16_t *want = malloc(n * sizeof *want);
    em_synth_values(want, EM_BF16, em_synth_key("toy", name, 3), rule, 0, n);
    assert_memory_equal(e->data, want, e->size_bytes);
    free(want);
}

static void writes_the_values(void **state)
{
    em_err err = {0};
    em_inventory inv = {0};
    em_pool *pool = NULL;
    em_safetensors *file = NULL;
    const char *path = tmpdir_path(state, "toy.safetensors");
    list_toy(&inv);
    assert_ok(em_pool_create(&pool, 3, NULL, &err), err);
    assert_ok(em_inventory_synthesize(&inv, "toy", 3, EM_BF16, path, pool, &err), err);
    assert_ok(em_safetensors_open(&file, path, 0, &err), err);
    assert_int_equal(em_safetensors_count(file), inv.count);
    expect_values(file, "log_scale", (em_synth_rule){0, 0});
    expect_values(file, "big.weight", (em_synth_rule){0, (float)sqrt(3.0 / COLS)});
    expect_values(file, "norm.weight", (em_synth_rule){1, 0.1f});
    em_safetensors_close(&file);
    em_pool_destroy(&pool);
    em_inventory_close(&inv);
    assert_int_equal(remove(path), 0);
}

/* A failing allocation is a status, and leaves neither a file nor a leak. */
static void fails_cleanly(void **state)
{
    em_inventory inv = {0};
    const char *path = tmpdir_path(state, "toy.safetensors");
    em_status st = EM_NOMEM;
    list_toy(&inv);
    for (uint64_t n = 1; st; n++) {
        em_err err = {0};
        em_alloc_fail_at(n, false);
        st = em_inventory_synthesize(&inv, "toy", 3, EM_F32, path, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_true(st == EM_OK || err.msg[0]);
        assert_int_equal(tmpdir_count(state), st == EM_OK);
    }
    em_inventory_close(&inv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wav2vec2_is_listed),
        cmocka_unit_test(umt5_is_listed),
        cmocka_unit_test(clip_is_listed),
        cmocka_unit_test(transformer_is_listed),
        cmocka_unit_test(vae_is_listed),
        cmocka_unit_test_setup_teardown(writes_the_values, tmpdir_setup, tmpdir_teardown),
        cmocka_unit_test_setup_teardown(fails_cleanly, tmpdir_setup, tmpdir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
