/* Every model's walk against the list of tensors in the released files: names and shapes, both ways. */
#include "models/clip_vit.h"
#include "models/inventory.h"
#include "models/umt5.h"
#include "models/wav2vec2.h"

#include "../golden.h"

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

/* Every row of the file is in the inventory, with its shape; as many rows as tensors, and no tensor twice:
 * then both are the same. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wav2vec2_is_listed),
        cmocka_unit_test(umt5_is_listed),
        cmocka_unit_test(clip_is_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
