#include "base/synthetic.h"

#include "../test.h"

#include "base/hash.h"

#include <math.h>

/* The check values that the format's description gives. */
static void check_values(void **state)
{
    (void)state;
    assert_true(em_fnv1a64(EM_FNV1A64_INIT, "a", 1) == 0xaf63dc4c8601ec8cull);

    const float u[] = {0.31537473f, 0.15419793f, 0.317585f, 0.04142463f};
    uint64_t key = em_synth_key("", "input.x", 7);
    for (int i = 0; i < 4; i++)
        assert_float_equal(em_synth_unit(key, (uint64_t)i), u[i], 5e-9); /* 8 digits are given */

    const float norm[] = {1.0546875f, 1.046875f, 0.98828125f, 0.93359375f};
    const int64_t dim[] = {4096};
    em_synth_rule rule = em_synth_rule_of("t5", "blocks.0.norm1.weight", dim, 1);
    key = em_synth_key("t5", "blocks.0.norm1.weight", 7);
    float out[4];
    em_synth_values(out, EM_F32, key, rule, 0, 4);
    for (int i = 0; i < 4; i++) assert_true(out[i] == norm[i]);
}

/* A range from the middle is the same values, in every float type: bfloat16 values are exact in
 * float32, and these, with exponents near zero, in half precision too. */
static void ranges_and_types(void **state)
{
    (void)state;
    uint64_t key = em_synth_key("vae", "conv1.weight", 1);
    em_synth_rule rule = {0, 0.5f};
    float whole[64], part[16];
    uint16_t bf16[64];
    em_synth_values(whole, EM_F32, key, rule, 0, 64);
    em_synth_values(part, EM_F32, key, rule, 40, 16);
    em_synth_values(bf16, EM_BF16, key, rule, 0, 64);
    assert_memory_equal(part, whole + 40, sizeof part);
    for (int i = 0; i < 64; i++) assert_true(em_bf16_to_f32(bf16[i]) == whole[i]);
}

static void expect_rule(const char *model, const char *name, const int64_t *dim, int ndim,
                        float offset, float scale)
{
    em_synth_rule r = em_synth_rule_of(model, name, dim, ndim);
    if (r.offset != offset || r.scale != scale)
        fail_msg("%s/%s: offset %g scale %g, expected %g %g", model, name, (double)r.offset,
                 (double)r.scale, (double)offset, (double)scale);
}

static void rule_table(void **state)
{
    (void)state;
    const int64_t v[] = {8}, m[] = {8, 48}, c[] = {8, 3, 1, 2, 2}, p[] = {1, 6, 8};
    expect_rule("transformer", "blocks.0.self_attn.q.bias", v, 1, 0, 0.02f);
    expect_rule("vae", "encoder.head.0.gamma", c, 4, 1, 0.1f);
    expect_rule("wav2vec2", "encoder.pos_conv_embed.conv.weight_g", p, 3, 1, 0.1f);
    expect_rule("wav2vec2", "encoder.pos_conv_embed.conv.parametrizations.weight.original0", p, 3,
                1, 0.1f);
    expect_rule("clip", "visual.pre_norm.weight", v, 1, 1, 0.1f);
    expect_rule("transformer", "blocks.0.modulation", p, 3, 0, 0.2f);
    expect_rule("t5", "token_embedding.weight", m, 2, 0, 1);
    expect_rule("clip", "textual.token_embedding.weight", m, 2, 0, 0.25f); /* sqrt(3 / 48) */
    expect_rule("clip", "visual.pos_embedding", p, 3, 0, 0.3f);
    expect_rule("clip", "visual.cls_embedding", p, 3, 0, 0.3f);
    expect_rule("t5", "blocks.0.pos_embedding.embedding.weight", m, 2, 0, 0.5f);
    expect_rule("clip", "log_scale", NULL, 0, 0, 0);
    expect_rule("transformer", "patch_embedding.weight", c, 5, 0, 0.5f); /* sqrt(3 / 12) */
    expect_rule("t5", "blocks.0.attn.q.weight", m, 2, 0, 0.0625f);
    expect_rule("t5", "blocks.0.attn.k.weight", m, 2, 0, 0.25f);
    expect_rule("clip", "textual.blocks.0.attn.q.weight", m, 2, 0, 0.25f);
    expect_rule("wav2vec2", "masked_spec_embed", v, 1, 0, (float)sqrt(3.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_values),
        cmocka_unit_test(ranges_and_types),
        cmocka_unit_test(rule_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
