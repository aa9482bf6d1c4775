#include "base/hash.h"

#include "../test.h"

#include <stdlib.h>
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

/* The check value of every CRC catalogue, and one that goes through the table. */
static void crc_known_values(void **state)
{
    (void)state;
    assert_int_equal(em_crc32(0, "", 0), 0);
    assert_int_equal(em_crc32(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(em_crc32(em_crc32(0, "1234", 4), "56789", 5), 0xcbf43926u);
    unsigned char *zeros = calloc(1, 32768);
    assert_int_equal(em_crc32(0, zeros, 32768), 0x011ffca6u);
    free(zeros);
}

/* A long stretch by the table is what the same bytes give one at a time. */
static void crc_pieces(void **state)
{
    (void)state;
    unsigned char bytes[10007];
    uint32_t crc = 0;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * i >> 3);
    for (size_t i = 0; i < sizeof bytes; i++) crc = em_crc32(crc, &bytes[i], 1);
    assert_int_equal(em_crc32(0, bytes, sizeof bytes), crc);
    for (size_t n = 0; n <= sizeof bytes; n += 1 + n / 3) {
        uint32_t first = em_crc32(0, bytes, n), second = em_crc32(0, bytes + n, sizeof bytes - n);
        assert_int_equal(em_crc32_join(first, second, sizeof bytes - n), crc);
    }
}

static const char *sha_of(char hex[EM_SHA256_HEX_BYTES], const void *data, size_t n, size_t piece)
{
    em_sha256 h;
    unsigned char sum[EM_SHA256_BYTES];
    em_sha256_start(&h);
    for (size_t at = 0; at < n; at += piece)
        em_sha256_add(&h, (const char *)data + at, n - at < piece ? n - at : piece);
    em_sha256_end(&h, sum);
    em_sha256_hex(hex, sum);
    return hex;
}

/* The vectors of FIPS 180-4's examples and of the validation suite that goes with it. */
static void sha256_vectors(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const char four[] = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                               "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    char hex[EM_SHA256_HEX_BYTES];
    assert_string_equal(sha_of(hex, "", 0, 1),
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_string_equal(sha_of(hex, "abc", 3, 3),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(sha_of(hex, two, sizeof two - 1, 100),
                        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    assert_string_equal(sha_of(hex, four, sizeof four - 1, 1000),
                        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    assert_string_equal(sha_of(hex, "\xbd", 1, 1),
                        "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    assert_string_equal(sha_of(hex, million, 1000000, 999),
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Every length around the block's, and every way to cut one in two. */
static void sha256_pieces(void **state)
{
    (void)state;
    char bytes[200], whole[EM_SHA256_HEX_BYTES], cut[EM_SHA256_HEX_BYTES];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 7);
    for (size_t n = 1; n <= sizeof bytes; n++) {
        sha_of(whole, bytes, n, n);
        for (size_t piece = 1; piece < n; piece += 1 + piece / 9)
            assert_string_equal(sha_of(cut, bytes, n, piece), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),     cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(crc_known_values), cmocka_unit_test(crc_pieces),
        cmocka_unit_test(sha256_vectors),   cmocka_unit_test(sha256_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
