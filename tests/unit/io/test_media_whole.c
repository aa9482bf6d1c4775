/* Files cut at every byte: which of them say so themselves. */
#include "io/media_whole.h"

#include "io/file.h"

#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_golden(const char *name, size_t *n)
{
    char path[600];
    char *data = NULL;
    em_err err = {0};
    snprintf(path, sizeof path, EM_TEST_DATA "/%s", name);
    assert_ok(em_file_read(&data, n, path, 64 << 20, &err), err);
    return data;
}

/* Whole as it is and with bytes behind it; cut at `n - slack` and anywhere before, it is not. */
static void check(const char *data, size_t n, em_media_kind kind, size_t slack)
{
    assert_true(em_media_whole(data, n, kind));
    char *longer = calloc(1, n + 40);
    assert_non_null(longer);
    memcpy(longer, data, n);
    assert_true(em_media_whole(longer, n + 40, kind));
    free(longer);
    for (size_t cut = 12; cut < n - slack; cut += cut < 4096 || cut + 4096 > n ? 1 : 251) {
        char *part = malloc(cut); /* so that a sanitizer sees a step too far */
        assert_non_null(part);
        memcpy(part, data, cut);
        if (em_media_whole(part, cut, kind)) fail_msg("%zu of %zu bytes count as whole", cut, n);
        free(part);
    }
}

static void test_png(void **state)
{
    (void)state;
    size_t n;
    char *data = read_golden("../share/demo/ada.png", &n);
    check(data, n, EM_MEDIA_PNG, 4); /* the checksum of the empty last chunk */
    free(data);
}

/* A JPEG made of segments: a thumbnail with an end marker of its own, a scan, an end. */
static void test_jpeg(void **state)
{
    (void)state;
    static const char file[] = "\xff\xd8"
                               "\xff\xe1\x00\x0ethumb\xff\xd8\xff\xd9xxx"
                               "\xff\xff\xdb\x00\x05qqq"
                               "\xff\xda\x00\x04ss\x12\x34\xff\x00\xff\xd0\x56\x78\xff\xd9";
    check(file, sizeof file - 1, EM_MEDIA_JPEG, 0);
}

static void test_riff(void **state)
{
    (void)state;
    size_t n;
    char *data = read_golden("../share/demo/ada.wav", &n);
    check(data, n, EM_MEDIA_SOUND, 8);
    memset(data + 4, 0xff, 4); /* a recorder that never went back */
    assert_true(em_media_whole(data, n / 2, EM_MEDIA_SOUND));
    memset(data + 4, 0, 4);
    assert_true(em_media_whole(data, n / 2, EM_MEDIA_SOUND));
    free(data);
    static const char webp[] = "RIFF\x0c\x00\x00\x00WEBPVP8 \x00\x00\x00\x00";
    check(webp, sizeof webp - 1, EM_MEDIA_WEBP, 0);
}

static void test_others(void **state)
{
    (void)state;
    assert_true(em_media_whole("fLaC", 4, EM_MEDIA_SOUND));
    assert_true(em_media_whole("RIFF", 4, EM_MEDIA_SOUND));
    assert_true(em_media_whole("ID3 and so on and so on", 23, EM_MEDIA_SOUND));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png),
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_riff),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
