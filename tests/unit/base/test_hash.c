#include "base/hash.h"

#include "../test.h"

#include <string.h>

static uint64_t of(const char *s)
{
    return em_fnv1a64(EM_FNV1A64_INIT, s, strlen(s));
}

/* From the test vectors that the authors of FNV publish. */
static void known_values(void **state)
{
    (void)state;
    assert_int_equal(of(""), 0xcbf29ce484222325ull);
    assert_int_equal(of("a"), 0xaf63dc4c8601ec8cull);
    assert_int_equal(of("b"), 0xaf63df4c8601f1a5ull);
    assert_int_equal(of("foobar"), 0x85944171f73967e8ull);
}

static void pieces_make_the_whole(void **state)
{
    (void)state;
    uint64_t h = em_fnv1a64(EM_FNV1A64_INIT, "foo", 3);
    assert_int_equal(em_fnv1a64(h, "bar", 3), of("foobar"));
    const unsigned char high[] = {0xff}; /* bytes are unsigned */
    assert_int_equal(em_fnv1a64(EM_FNV1A64_INIT, high, 1),
                     (0xcbf29ce484222325ull ^ 0xff) * 0x100000001b3ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(pieces_make_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
