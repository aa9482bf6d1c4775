#include "base/status.h"

#include "../test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ROOM = sizeof((em_err *)0)->msg };

static void every_code_has_a_text(void **state)
{
    (void)state;
#define X(name, text) assert_string_equal(em_status_text(EM_##name), text);
    EM_STATUS_MAP(X)
#undef X
    assert_string_equal(em_status_text((em_status)9999), "unknown status");
    assert_string_equal(em_status_text((em_status)-1), "unknown status");
}

static void code_and_sentence(void **state)
{
    (void)state;
    em_err err = {0};
    assert_int_equal(em_fail(&err, EM_FORMAT, "'%s': %d heads", "a.safetensors", 5), EM_FORMAT);
    assert_int_equal(err.code, EM_FORMAT);
    assert_string_equal(err.msg, "'a.safetensors': 5 heads");
    assert_int_equal(em_fail(NULL, EM_IO, "nobody listens"), EM_IO);
}

/* `pad` bytes, then one character of several bytes that does not fit any more. */
static void check_cut(size_t pad, const char *character, size_t kept)
{
    em_err err = {0};
    char text[2 * ROOM];
    memset(text, 'x', pad);
    text[pad] = 0;
    em_fail(&err, EM_IO, "%s%s%s%s", text, character, character, "and more and more and more");
    assert_int_equal(strlen(err.msg), kept);
    for (size_t i = 0; i < pad && i < kept; i++) assert_int_equal(err.msg[i], 'x');
}

/* A sentence that is too long never ends in half a character. */
static void a_cut_respects_characters(void **state)
{
    (void)state;
    const char *const character[] = {"x", "é", "語", "🙂"};
    for (size_t bytes = 1; bytes <= 4; bytes++) {
        const char *c = character[bytes - 1];
        assert_int_equal(strlen(c), bytes);
        for (size_t left = 0; left < bytes; left++) /* bytes of it that would fit */
            check_cut(ROOM - 1 - left, c, ROOM - 1 - left);
        check_cut(ROOM - 1 - bytes, c, ROOM - 1); /* it just fits */
    }
}

static void errno_becomes_a_code(void **state)
{
    (void)state;
    const struct {
        int e;
        em_status want;
    } row[] = {{ENOSPC, EM_NOSPC}, {EDQUOT, EM_NOSPC}, {ENOMEM, EM_NOMEM},
               {ENOENT, EM_IO},    {EACCES, EM_IO},    {0, EM_IO}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        em_err err = {0};
        char want[128];
        assert_int_equal(em_fail_errno(&err, row[i].e, "cannot write '%s'", "x.mp4"), row[i].want);
        assert_int_equal(err.code, row[i].want);
        snprintf(want, sizeof want, "cannot write 'x.mp4': %s", strerror(row[i].e));
        assert_string_equal(err.msg, want);
        assert_int_equal(em_fail_errno(NULL, row[i].e, "silent"), row[i].want);
    }
}

static void a_prefix_goes_in_front(void **state)
{
    (void)state;
    em_err err = {0};
    em_fail(&err, EM_FORMAT, "no number");
    assert_int_equal(em_err_prefix(&err, "job %d", 3), EM_FORMAT);
    assert_string_equal(err.msg, "job 3: no number");
    char longest[2 * ROOM];
    memset(longest, 'y', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(em_err_prefix(&err, "%s", longest), EM_FORMAT);
    assert_int_equal(strlen(err.msg), ROOM - 1);
    assert_int_equal(em_err_prefix(NULL, "nobody"), EM_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_text),     cmocka_unit_test(code_and_sentence),
        cmocka_unit_test(a_cut_respects_characters), cmocka_unit_test(errno_becomes_a_code),
        cmocka_unit_test(a_prefix_goes_in_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
