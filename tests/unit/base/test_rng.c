#include "base/rng.h"

#include "../test.h"

#include <string.h>

/* The C++ standard fixes the 10,000th value of a default-seeded mt19937 (26.6.6, rand.predef). */
static void mt19937_standard_value(void **state)
{
    (void)state;
    em_mt19937 g;
    em_mt19937_seed(&g, 5489);
    for (int i = 1; i < 10000; i++) em_mt19937_next(&g);
    em_mt19937 copy = g;
    assert_int_equal(em_mt19937_next(&g), 4123659995u);
    assert_int_equal(em_mt19937_next(&copy), 4123659995u);
}

/* Known answers for ten rounds that the authors publish with Random123. */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t out[4];
        em_philox4x32(out, rows[i].counter, rows[i].key);
        assert_memory_equal(out, rows[i].out, sizeof out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mt19937_standard_value),
        cmocka_unit_test(philox_known_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
