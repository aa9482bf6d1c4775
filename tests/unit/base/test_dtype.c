#include "base/dtype.h"

#include "../test.h"

#include <math.h>
#include <string.h>

/* Every half-precision value survives the way to float32 and back. */
static void f16_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = em_f16_to_f32((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(em_f16_to_f32(em_f32_to_f16(f))));
        } else {
            assert_int_equal(em_f32_to_f16(f), h);
        }
    }
}

/* Midpoints go to the even neighbour, anything above to the upper one. */
static void f16_rounding(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = em_f16_to_f32((uint16_t)h), b = em_f16_to_f32((uint16_t)(h + 1));
        float mid = 0.5f * (a + b);
        assert_int_equal(em_f32_to_f16(mid), h & 1 ? h + 1 : h);
        assert_int_equal(em_f32_to_f16(nextafterf(mid, b)), h + 1);
        assert_int_equal(em_f32_to_f16(nextafterf(mid, a)), h);
    }
    assert_int_equal(em_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(em_f32_to_f16(65520.0f), 0x7c00);
}

static void bf16_rounding(void **state)
{
    (void)state;
    assert_int_equal(em_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(em_f32_to_bf16(1.00390625f), 0x3f80); /* 1 + 2^-8: a tie, to even */
    assert_int_equal(em_f32_to_bf16(1.01171875f), 0x3f82); /* 1 + 3 * 2^-8: a tie, to even */
    assert_int_equal(em_f32_to_bf16(3.4e38f), 0x7f80);     /* above the largest: infinity */
    assert_true(isnan(em_bf16_to_f32(em_f32_to_bf16(NAN))));
}

/* Many values at once are each value by itself, to the bit: every pattern of two bytes, and one in
 * 257 of four. */
static void many_are_each(void **state)
{
    (void)state;
    enum { N = 1 << 16, STEP = 257 };
    static const em_dtype type[] = {EM_F32, EM_BF16, EM_F16};
    static uint32_t in[N], out[N];
    static unsigned char want[4 * N];
    for (int s = 0; s < 3; s++) {
        bool wide = type[s] == EM_F32;
        for (int64_t first = 0; first < (wide ? (int64_t)1 << 32 : 1); first += (int64_t)N * STEP) {
            for (int i = 0; i < N; i++) {
                uint16_t two = (uint16_t)i;
                if (wide)
                    in[i] = (uint32_t)(first + (int64_t)i * STEP);
                else
                    memcpy((uint16_t *)(void *)in + i, &two, sizeof two);
            }
            for (int d = 0; d < 3; d++) {
                if (s == d) continue;
                em_convert(out, type[d], in, type[s], N - 3); /* no multiple of anything */
                for (size_t i = 0; i < N - 3; i++)
                    em_store_f32(want, type[d], i, em_load_f32(in, type[s], i));
                assert_memory_equal(out, want, (N - 3) * em_dtype_bytes(type[d]));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_round_trip),
        cmocka_unit_test(f16_rounding),
        cmocka_unit_test(bf16_rounding),
        cmocka_unit_test(many_are_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
