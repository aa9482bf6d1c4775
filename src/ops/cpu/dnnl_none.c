/* Stands in for dnnl.c in a build without oneDNN (EM_ONEDNN=OFF): the same tiles, in float32, by
 * our own loops (vec.h). Right before it is fast: for machines where something else computes.
 *
 * Packed weights are dense: (k, n) of a product, (taps, k, n) of a convolution. */
#include "ops/cpu/dnnl.h"

#include "ops/cpu/cpu.h"

#include <string.h>

void em_cpu_thread_start(void) {}

/* ---- opening --------------------------------------------------------------------------------- */

static int64_t taps_of(const em_dnnl_conv *s)
{
    return s->kernel[0] * s->kernel[1] * s->kernel[2];
}

em_status em_dnnl_open_matmul(em_dnnl *d, const em_dnnl_matmul *s)
{
    static char is_open;
    *d = (em_dnnl){0};
    if (s->type != EM_F32) return EM_DEVICE;
    *d = (em_dnnl){.op = &is_open, .matmul = *s};
    d->packed_bytes = (size_t)(s->k * s->n) * sizeof(float);
    return EM_OK;
}

em_status em_dnnl_open_conv(em_dnnl *d, const em_dnnl_conv *s)
{
    static char is_open;
    *d = (em_dnnl){0};
    if (s->type != EM_F32) return EM_DEVICE;
    *d = (em_dnnl){.op = &is_open, .conv = *s};
    d->packed_bytes = (size_t)(taps_of(s) * s->k * s->n) * sizeof(float);
    return EM_OK;
}

void em_dnnl_close(em_dnnl *d)
{
    *d = (em_dnnl){0};
}

/* ---- running --------------------------------------------------------------------------------- */

em_status em_dnnl_pack(const em_dnnl *d, void *packed, const void *plain, void *scratch)
{
    const em_dnnl_conv *c = &d->conv;
    const float *from = plain;
    float *to = packed;
    (void)scratch;
    if (c->n == 0) {
        const em_dnnl_matmul *m = &d->matmul;
        for (int64_t k = 0; k < m->k; k++)
            for (int64_t n = 0; n < m->n; n++) *to++ = from[k * m->step_k + n * m->step_n];
        return EM_OK;
    }
    int64_t taps = taps_of(c);
    for (int64_t t = 0; t < taps; t++)
        for (int64_t k = 0; k < c->k; k++)
            for (int64_t n = 0; n < c->n; n++) *to++ = from[(n * c->k + k) * taps + t];
    return EM_OK;
}

/* A row of output positions is a product for every tap: neighbours of A lie stride columns
 * apart. */
static void run_conv(const em_dnnl_conv *s, float *c, const float *a, const float *packed)
{
    const em_vec *vec = em_vec_best();
    size_t step = (size_t)(s->stride[2] * s->k);
    for (int64_t z = 0; z < s->out[0]; z++)
        for (int64_t y = 0; y < s->out[1]; y++, c += s->out[2] * s->n) {
            const float *b = packed;
            memset(c, 0, (size_t)(s->out[2] * s->n) * sizeof *c);
            for (int64_t t = 0; t < taps_of(s); t++, b += s->k * s->n) {
                int64_t dz = t / (s->kernel[1] * s->kernel[2]);
                int64_t dy = t / s->kernel[2] % s->kernel[1], dx = t % s->kernel[2];
                int64_t row = (z * s->stride[0] + dz) * s->in[1] + y * s->stride[1] + dy;
                vec->product(c, a + (row * s->in[2] + dx) * s->k, step, b, (size_t)s->out[2],
                             (size_t)s->n, (size_t)s->k);
            }
        }
}

em_status em_dnnl_run(const em_dnnl *d, float *c, const void *a, const void *packed, void *scratch)
{
    const em_dnnl_matmul *m = &d->matmul;
    (void)scratch;
    if (d->conv.n) {
        run_conv(&d->conv, c, a, packed);
        return EM_OK;
    }
    if (!m->accumulate) memset(c, 0, (size_t)(m->m * m->n) * sizeof *c);
    em_vec_best()->product(c, a, (size_t)m->k, packed, (size_t)m->m, (size_t)m->n, (size_t)m->k);
    return EM_OK;
}

/* ---- the machine ----------------------------------------------------------------------------- */

em_isa em_dnnl_isa(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return EM_ISA_AVX512;
    return __builtin_cpu_supports("avx2") ? EM_ISA_AVX2 : EM_ISA_BASE;
}

bool em_dnnl_has_bf16(void)
{
    return false;
}
