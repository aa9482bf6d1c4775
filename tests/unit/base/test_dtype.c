#include "base/dtype.h"

#include "../test.h"

#include <math.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_round_trip),
        cmocka_unit_test(f16_rounding),
        cmocka_unit_test(bf16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
