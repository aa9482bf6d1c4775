#include "io/image_resize.h"

#include "base/alloc.h"

#include "../golden.h"

static em_image load_rgb_png(void)
{
    char path[GOLDEN_PATH_BYTES];
    em_err err = {0};
    em_image image = {0};
    golden_path(path, "media/images/rgb.png");
    assert_ok(em_image_load(&image, path, EM_IMAGE_AS_STORED, &err), err);
    return image;
}

/* lanczos.rgb.png.WxH: shrunk, enlarged, both ways at once. */
static void lanczos_is_pillows(void **state)
{
    (void)state;
    em_image image = load_rgb_png();
    em_safetensors *golden = golden_tensors("media/images.safetensors");
    int seen = 0;
    for (size_t i = 0; i < em_safetensors_count(golden); i++) {
        const em_safetensors_entry *want = em_safetensors_at(golden, i);
        if (strncmp(want->name, "lanczos.", 8) != 0) continue;
        em_err err = {0};
        em_image got = {0};
        int h = (int)want->dim[0], w = (int)want->dim[1];
        assert_ok(em_image_resize_lanczos(&got, &image, w, h, &err), err);
        assert_int_equal(got.width, w);
        assert_int_equal(got.height, h);
        if (memcmp(got.rgb, want->data, want->size_bytes) != 0) fail_msg("%s differs", want->name);
        em_image_free(&got);
        seen++;
    }
    assert_int_equal(seen, 5);
    em_safetensors_close(&golden);
    em_image_free(&image);
}

static void same_size_is_a_copy(void **state)
{
    (void)state;
    em_image image = load_rgb_png(), copy = {0};
    em_err err = {0};
    assert_ok(em_image_resize_lanczos(&copy, &image, image.width, image.height, &err), err);
    assert_ptr_not_equal(copy.rgb, image.rgb);
    assert_memory_equal(copy.rgb, image.rgb, 150 * 113 * 3);
    em_image_free(&copy);
    em_image_free(&image);
}

static void out_of_memory(void **state)
{
    (void)state;
    em_image image = load_rgb_png();
    for (uint64_t k = 1;; k++) {
        em_err err = {0};
        em_image got = {0};
        uint64_t before = em_alloc_calls();
        em_alloc_fail_at(k, false);
        em_status st = em_image_resize_lanczos(&got, &image, 32, 64, &err);
        em_alloc_fail_at(0, false);
        bool reached = em_alloc_calls() - before >= k;
        em_image_free(&got);
        if (!reached) break;
        assert_int_equal(st, EM_NOMEM);
    }
    em_image_free(&image);
}

static int int_at(const json_t *array, size_t i)
{
    return (int)json_integer_value(json_array_get(array, i));
}

/* sizes.json: [width, height] and sample_size [height, width] -> [width, height]. */
static void target_sizes(void **state)
{
    (void)state;
    json_t *doc = golden_json("media/sizes.json"), *row;
    size_t i;
    json_array_foreach(json_object_get(doc, "sizes"), i, row)
    {
        const json_t *image = json_object_get(row, "image"),
                     *sample = json_object_get(row, "sample_size");
        const json_t *want = json_object_get(row, "resized");
        int w = -1, h = -1;
        em_image_target_size(int_at(image, 0), int_at(image, 1), int_at(sample, 0),
                             int_at(sample, 1), &w, &h);
        assert_int_equal(w, int_at(want, 0));
        assert_int_equal(h, int_at(want, 1));
    }
    assert_int_equal(i, 55);
    json_decref(doc);
}

static void too_small(void **state)
{
    (void)state;
    em_err err = {0};
    assert_ok(em_image_check_size("f.png", 16, 16, 512, 512, &err), err);
    assert_int_equal(em_image_check_size("f.png", 15, 300, 512, 512, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "'f.png' has 15 x 300"));
    assert_int_equal(em_image_check_size("f.png", 17, 300, 64, 64, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "long and thin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanczos_is_pillows), cmocka_unit_test(same_size_is_a_copy),
        cmocka_unit_test(out_of_memory),      cmocka_unit_test(target_sizes),
        cmocka_unit_test(too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
