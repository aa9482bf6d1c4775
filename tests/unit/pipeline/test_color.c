#include "pipeline/color.h"

#include "../golden.h"
#include "base/alloc.h"

#include <string.h>

/* The reference's own frames, to the byte; and a restart makes the next frame a first one. */
static void golden_video(void **state)
{
    (void)state;
    em_ckpt *g = golden_open("tiny/pipeline.safetensors");
    const em_ckpt_tensor *in = golden_get(g, "color_transfer.in", EM_U8);
    const em_ckpt_tensor *out = golden_get(g, "color_transfer.out", EM_U8);
    assert_int_equal(in->size_bytes, out->size_bytes);
    size_t frames = (size_t)in->dim[0], pixels = (size_t)(in->dim[1] * in->dim[2]);
    uint8_t *rgb = em_alloc(3 * pixels);
    em_color *c = NULL;
    em_err err = {0};
    assert_non_null(rgb);
    assert_ok(em_color_open(&c, &err), err);
    for (int video = 0; video < 2; video++) {
        em_color_restart(c);
        size_t changed = 0;
        for (size_t i = 0; i < frames; i++) {
            const uint8_t *before = (const uint8_t *)in->data + i * 3 * pixels;
            memcpy(rgb, before, 3 * pixels);
            em_color_frame(c, rgb, pixels);
            assert_memory_equal(rgb, (const uint8_t *)out->data + i * 3 * pixels, 3 * pixels);
            for (size_t k = 0; k < 3 * pixels; k++) changed += rgb[k] != before[k];
        }
        assert_true(changed > frames * pixels); /* the golden is about something */
    }
    em_free(rgb);
    em_color_close(&c);
    em_ckpt_close(&g);
}

/* A frame of one colour has no deviation to divide by: it becomes the first frame's mean. */
static void flat_frame(void **state)
{
    (void)state;
    em_color *c = NULL;
    em_err err = {0};
    assert_ok(em_color_open(&c, &err), err);
    uint8_t first[6] = {0, 0, 0, 255, 255, 255}, flat[6] = {10, 10, 10, 10, 10, 10};
    const uint8_t untouched[6] = {0, 0, 0, 255, 255, 255};
    em_color_frame(c, first, 2);
    assert_memory_equal(first, untouched, sizeof first);
    em_color_frame(c, flat, 2);
    for (int i = 0; i < 6; i++) assert_in_range(flat[i], 117, 121); /* L = 127.5: a mid grey */
    em_color_close(&c);
}

static void out_of_memory(void **state)
{
    (void)state;
    em_color *c = NULL;
    em_err err = {0};
    em_alloc_fail_at(1, false);
    assert_int_equal(em_color_open(&c, &err), EM_NOMEM);
    em_alloc_fail_at(0, false);
    assert_null(c);
    em_color_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_video),
        cmocka_unit_test(flat_frame),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
