#include "base/synthetic.h"

#include "base/hash.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

uint64_t em_synth_key(const char *model, const char *tensor, uint64_t seed)
{
    uint64_t h = em_fnv1a64(EM_FNV1A64_INIT, model, strlen(model));
    if (*model) h = em_fnv1a64(h, "/", 1);
    return em_fnv1a64(h, tensor, strlen(tensor)) ^ seed;
}

/* The SplitMix64 generator, entered at any index: its state advances by a constant. */
float em_synth_unit(uint64_t key, uint64_t index)
{
    uint64_t z = key + (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return (float)(z >> 40) * 0x1p-23f - 1.0f;
}

static uint16_t value(uint64_t key, em_synth_rule rule, uint64_t index)
{
    float scaled = rule.scale * em_synth_unit(key, index);
    return em_f32_to_bf16(rule.offset + scaled);
}

void em_synth_values(void *dst, em_dtype dtype, uint64_t key, em_synth_rule rule, uint64_t first,
                     size_t count)
{
    if (dtype == EM_BF16) {
        uint16_t *out = dst;
        for (size_t i = 0; i < count; i++) out[i] = value(key, rule, first + i);
        return;
    }
    for (size_t i = 0; i < count; i++)
        em_store_f32(dst, dtype, i, em_bf16_to_f32(value(key, rule, first + i)));
}

/* ---- the rule table -------------------------------------------------------------------------- */

/* How a row's text is held against a name. */
typedef enum rule_match {
    ENDS,   /* the name ends in it */
    LAST,   /* it is the name's last part, behind the last dot */
    VECTOR, /* the same, of a one-dimensional tensor */
    WHOLE,  /* it is the name */
    SCALAR, /* any tensor without dimensions */
} rule_match;

/* The first row that fits decides. Norms and gains are near one, so that signals keep their size
 * through many layers; what no row names is a matrix and gets unit variance per input (see
 * below). */
static const struct {
    rule_match match;
    const char *text;
    em_synth_rule rule;
} rules[] = {
    {ENDS, "bias", {0, 0.02f}},
    {LAST, "gamma", {1, 0.1f}},
    {LAST, "weight_g", {1, 0.1f}},
    {LAST, "original0", {1, 0.1f}},
    {VECTOR, "weight", {1, 0.1f}},
    {LAST, "modulation", {0, 0.2f}},
    {WHOLE, "token_embedding.weight", {0, 1}},
    {LAST, "pos_embedding", {0, 0.3f}},
    {LAST, "cls_embedding", {0, 0.3f}},
    {ENDS, "pos_embedding.embedding.weight", {0, 0.5f}},
    {SCALAR, "", {0, 0}},
};

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && !strcmp(s + n - t, tail);
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static bool fits(rule_match match, const char *text, const char *name, int ndim)
{
    switch (match) {
    case ENDS: return ends_in(name, text);
    case LAST: return !strcmp(last_part(name), text);
    case VECTOR: return ndim == 1 && !strcmp(last_part(name), text);
    case WHOLE: return !strcmp(name, text);
    case SCALAR: return ndim == 0;
    }
    return false;
}

em_synth_rule em_synth_rule_of(const char *model, const char *tensor, const int64_t *dim, int ndim)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (fits(rules[i].match, rules[i].text, tensor, ndim)) return rules[i].rule;
    /* Uniform in ±sqrt(3 / inputs) has variance 1 / inputs. */
    double inputs = 1;
    for (int i = 1; i < ndim; i++) inputs *= (double)dim[i];
    float scale = (float)sqrt(3.0 / inputs);
    /* T5 does not divide its scores by sqrt(head_dim): small queries keep its softmax soft. */
    if (!strcmp(model, "t5") && ends_in(tensor, "attn.q.weight")) scale *= 0.25f;
    return (em_synth_rule){0, scale};
}
