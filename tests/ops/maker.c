/* Inputs of a case, made on the host: a seeded generator, and tensors with NaN around them. */
#include "checkops.h"

uint64_t maker_next(maker *m)
{
    uint64_t z = m->state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t maker_pick(maker *m, const int64_t *from, int count)
{
    return from[maker_next(m) % (uint64_t)count];
}

em_dtype maker_float_type(maker *m)
{
    static const em_dtype type[] = {EM_F32, EM_F16, EM_BF16};
    return type[maker_next(m) % 3];
}

/* Uniform in +-sqrt(3): unit variance. */
em_tensor maker_tensor(maker *m, em_dtype dtype, float scale, const int64_t *dim, int ndim)
{
    em_tensor t = em_tensor_of(NULL, dtype, dim, ndim);
    em_arena_take(&m->arena, GUARD, false);
    t.data = em_arena_take(&m->arena, em_tensor_bytes(t), false);
    em_arena_take(&m->arena, GUARD, false);
    for (int64_t i = 0; i < em_tensor_count(t); i++) {
        float v = (float)(maker_next(m) >> 40) * (float)0x1p-23 - 1;
        em_store_f32(t.data, dtype, (size_t)i, v * 1.7320508f * scale);
    }
    return t;
}

static em_tensor moved(em_tensor t, const maker *m, void *base)
{
    if (t.data) t.data = (char *)base + ((unsigned char *)t.data - m->arena.base);
    return t;
}

inputs inputs_at(const inputs *in, const maker *m, void *base)
{
    inputs out = *in;
    out.host = in->t[0].data;
    for (int i = 0; i < MAX_INPUTS; i++) out.t[i] = moved(in->t[i], m, base);
    out.attn.rel_bias = moved(in->attn.rel_bias, m, base);
    return out;
}
