#include "base/log.h"

#include "../test.h"

#include <string.h>

typedef struct heard {
    int lines;
    em_level level;
    char text[2048];
} heard;

static void listen(void *user, em_level level, const char *msg)
{
    heard *h = user;
    h->lines++;
    h->level = level;
    assert_true(strlen(msg) < sizeof h->text);
    memcpy(h->text, msg, strlen(msg) + 1);
}

static void lines_arrive(void **state)
{
    (void)state;
    heard h = {0};
    em_log log = {listen, &h};
    em_logf(&log, EM_LOG_WARN, "%s is cut to %d frames", "voice.wav", 300);
    assert_int_equal(h.lines, 1);
    assert_int_equal(h.level, EM_LOG_WARN);
    assert_string_equal(h.text, "voice.wav is cut to 300 frames");
}

static void nobody_needs_to_listen(void **state)
{
    (void)state;
    em_log deaf = {0};
    em_logf(NULL, EM_LOG_ERROR, "%d", 1);
    em_logf(&deaf, EM_LOG_ERROR, "%d", 1);
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    heard h = {0};
    em_log log = {listen, &h};
    char text[3000];
    memset(text, 'z', sizeof text - 1);
    text[sizeof text - 1] = 0;
    em_logf(&log, EM_LOG_INFO, "%s", text);
    assert_int_equal(h.lines, 1);
    assert_int_equal(strlen(h.text), 1023);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_arrive),
        cmocka_unit_test(nobody_needs_to_listen),
        cmocka_unit_test(long_lines_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
