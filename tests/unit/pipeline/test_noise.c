#include "pipeline/noise.h"

#include "../golden.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* Bounds of spec "Quality of numbers". */
#define CPU_MAX_ABS 5e-7
#define CUDA_MAX_ABS 4e-6    /* the card uses fast sine and cosine */
#define BF16_MAX_SHARE 0.001 /* values that may land on the neighbouring bfloat16 */

static const em_noise_device h100 = {EM_NOISE_SM_COUNT, EM_NOISE_THREADS_PER_SM};

/* What a name such as "cuda.bf16.seed43.n1376256.every4099" says. */
typedef struct golden_case {
    em_rng_kind rng;
    em_dtype dtype;
    uint64_t seed;
    size_t n, every;
} golden_case;

static golden_case parse_name(const char *name)
{
    golden_case c = {.every = 1};
    char rng[8], dtype[8];
    unsigned long long seed, n, every;
    int fields =
        sscanf(name, "%7[^.].%7[^.].seed%llu.n%llu.every%llu", rng, dtype, &seed, &n, &every);
    assert_true(fields >= 4);
    c.rng = strcmp(rng, "cuda") == 0 ? EM_RNG_CUDA : EM_RNG_CPU;
    c.dtype = strcmp(dtype, "bf16") == 0 ? EM_BF16 : EM_F32;
    c.seed = seed;
    c.n = n;
    if (fields == 5) c.every = every;
    return c;
}

/* How many bfloat16 values differ; a difference of more than one step fails. */
static size_t bf16_neighbours(const float *x, const float *want, size_t n, const char *name)
{
    size_t differ = 0;
    for (size_t i = 0; i < n; i++) {
        int a = em_f32_to_bf16(x[i]), b = em_f32_to_bf16(want[i]);
        if (abs(a - b) > 1) fail_msg("%s[%zu]: %g, expected %g", name, i, x[i], want[i]);
        differ += a != b;
    }
    return differ;
}

static void torch_goldens(void **state)
{
    (void)state;
    em_ckpt *g = golden_open("tiny/rng.safetensors");
    double worst[2] = {0};
    size_t bf16_values = 0, bf16_differ = 0;
    for (size_t i = 0; i < em_ckpt_count(g); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(g, i);
        golden_case c = parse_name(t->name);
        float *x = em_alloc_array(c.n, sizeof *x);
        assert_non_null(x);
        em_noise_fill(x, c.n, c.seed, c.rng, &h100);
        em_noise_round(x, c.n, c.dtype);

        size_t count = golden_count(t);
        assert_int_equal(count, (c.n + c.every - 1) / c.every);
        for (size_t k = 0; k < count; k++) x[k] = x[k * c.every];
        if (c.dtype == EM_BF16) {
            bf16_differ += bf16_neighbours(x, t->data, count, t->name);
            bf16_values += count;
        } else {
            double d = golden_max_abs(x, t->data, count);
            if (!(d <= (c.rng == EM_RNG_CPU ? CPU_MAX_ABS : CUDA_MAX_ABS)))
                fail_msg("%s: off by %g", t->name, d);
            if (d > worst[c.rng]) worst[c.rng] = d;
        }
        em_free(x);
    }
    print_message("cpu %.3g, cuda %.3g, bf16 %zu of %zu values on the neighbour\n",
                  worst[EM_RNG_CPU], worst[EM_RNG_CUDA], bf16_differ, bf16_values);
    assert_true((double)bf16_differ <= BF16_MAX_SHARE * (double)bf16_values);
    em_ckpt_close(&g);
}

/* Fewer values than threads: the card does not matter. More: it does. */
static void grid_depends_on_the_card(void **state)
{
    (void)state;
    enum { N = 8192 };
    static float a[N], b[N];
    const em_noise_device small = {2, 1024};
    em_noise_fill(a, 2048, 7, EM_RNG_CUDA, &h100);
    em_noise_fill(b, 2048, 7, EM_RNG_CUDA, &small);
    assert_memory_equal(a, b, 2048 * sizeof *a);
    em_noise_fill(a, N, 7, EM_RNG_CUDA, &h100);
    em_noise_fill(b, N, 7, EM_RNG_CUDA, &small);
    assert_memory_not_equal(a, b, sizeof a);
}

static void seed_width(void **state)
{
    (void)state;
    float a[20], b[20];
    em_noise_fill(a, 20, 43, EM_RNG_CPU, &h100);
    em_noise_fill(b, 20, 43 + (1ull << 32), EM_RNG_CPU, &h100);
    assert_memory_equal(a, b, sizeof a);
    em_noise_fill(a, 20, 43, EM_RNG_CUDA, &h100);
    em_noise_fill(b, 20, 43 + (1ull << 32), EM_RNG_CUDA, &h100);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torch_goldens),
        cmocka_unit_test(grid_depends_on_the_card),
        cmocka_unit_test(seed_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
