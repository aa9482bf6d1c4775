#include "base/str.h"

#include "base/alloc.h"

#include "../test.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void text_is_appended(void **state)
{
    (void)state;
    em_str s = {0};
    assert_string_equal(em_str_text(&s), "");
    em_str_append(&s, "ab\0c", 4); /* bytes, not a C string */
    em_str_printf(&s, "%d-%s", 42, "x");
    assert_int_equal(s.len, 8);
    assert_memory_equal(em_str_text(&s), "ab\0c42-x", 9);
    for (int i = 0; i < 500; i++) em_str_printf(&s, "%03d", i);
    assert_false(s.failed);
    assert_int_equal(s.len, 8 + 1500);
    assert_int_equal(strlen(s.data + 8), 1500);
    assert_memory_equal(s.data + 8 + 1497, "499", 4);
    em_str_free(&s);
    assert_null(s.data);
    assert_int_equal(s.len, 0);
}

static void a_failure_sticks_and_keeps_the_text(void **state)
{
    (void)state;
    em_str s = {0};
    em_str_append(&s, "kept", 4);
    char large[200] = {0};
    memset(large, 'x', sizeof large - 1);
    em_alloc_fail_at(1, false);
    em_str_printf(&s, "%s", large);
    em_alloc_fail_at(0, false);
    assert_true(s.failed);
    em_str_append(&s, "!", 1);
    em_str_printf(&s, "!");
    assert_string_equal(em_str_text(&s), "kept");
    em_str_free(&s);
    assert_false(s.failed);
}

/* Lengths that no memory holds: refused, whether they overflow a sum or only the doubling. */
static void absurd_lengths_are_refused(void **state)
{
    (void)state;
    const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 2};
    for (size_t i = 0; i < 3; i++) {
        em_str s = {0};
        em_str_append(&s, "", absurd[i]);
        assert_true(s.failed);
        assert_null(s.data);
    }
}

static void check_bytes(unsigned long long bytes, const char *want)
{
    char out[16];
    assert_ptr_equal(em_format_bytes(out, bytes), out);
    assert_string_equal(out, want);
}

static void bytes_for_people(void **state)
{
    (void)state;
    check_bytes(0, "0 B");
    check_bytes(1023, "1023 B");
    check_bytes(1024, "1.0 KiB");
    check_bytes(1536, "1.5 KiB");
    check_bytes((1ull << 20) - 1, "1.0 MiB"); /* never "1024.0 KiB" */
    check_bytes(3435973837ull, "3.2 GiB");
    check_bytes((1ull << 40) - 1, "1.0 TiB");
    check_bytes(1ull << 50, "1.0 PiB");
    check_bytes(~0ull, "16.0 EiB");
}

static void check_seconds(double seconds, const char *want)
{
    char out[24];
    assert_ptr_equal(em_format_seconds(out, seconds), out);
    assert_string_equal(out, want);
}

static void seconds_for_people(void **state)
{
    (void)state;
    check_seconds(0, "0.0 s");
    check_seconds(12.34, "12.3 s");
    check_seconds(59.94, "59.9 s");
    check_seconds(59.96, "1 min 00 s"); /* never "60.0 s" */
    check_seconds(60, "1 min 00 s");
    check_seconds(245, "4 min 05 s");
    check_seconds(3599.9, "59 min 59 s");
    check_seconds(3600, "1 h 00 min");
    check_seconds(2 * 3600 + 3 * 60 + 59, "2 h 03 min");
    check_seconds(1e6, "277 h 46 min");
    check_seconds(DBL_MAX, "1000000000 h 00 min");
    check_seconds(INFINITY, "1000000000 h 00 min");
    check_seconds(NAN, "1000000000 h 00 min");
}

/* Held against every sequence's definition: encode all code points, then break them. */
static void utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xc0\xaf",
                                      "\xc1\xbf",
                                      "\xc3",
                                      "\xc3(",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xe2\x82",
                                      "\xe2\x28\xa1",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xf0\x9f\x98",
                                      "\xff",
                                      "a\xfe"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (em_utf8_valid(bad[i], strlen(bad[i]))) fail_msg("row %zu is not UTF-8", i);
    for (uint32_t c = 1; c < 0x110000; c++) {
        char s[5] = {0};
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = 0; i < n; i++)
            s[i] = (char)((i ? 0x80 : lead[n]) | (c >> 6 * (n - 1 - i) & (i ? 0x3f : 0xff)));
        bool surrogate = c >= 0xd800 && c < 0xe000;
        if (em_utf8_valid(s, n) == surrogate) fail_msg("U+%04X", (unsigned)c);
    }
    assert_true(em_utf8_valid("", 0));
    assert_true(em_utf8_valid("a\0b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_appended),
        cmocka_unit_test(a_failure_sticks_and_keeps_the_text),
        cmocka_unit_test(absurd_lengths_are_refused),
        cmocka_unit_test(bytes_for_people),
        cmocka_unit_test(seconds_for_people),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
