#include "memory/tensor.h"

#include "../test.h"

#include <string.h>

static float values[24];

static em_tensor cube(void)
{
    return em_tensor_of(values, EM_F32, EM_SHAPE(2, 3, 4));
}

static void counts_and_sizes(void **state)
{
    (void)state;
    em_tensor t = cube();
    assert_int_equal(em_tensor_count(t), 24);
    assert_int_equal(em_tensor_bytes(t), 96);
    assert_int_equal(em_rows(t), 6);
    assert_int_equal(em_cols(t), 4);
    t.dtype = EM_BF16;
    assert_int_equal(em_tensor_bytes(t), 48);
    em_tensor line = em_tensor_of(values, EM_F32, EM_SHAPE(5));
    assert_int_equal(em_rows(line), 1);
    assert_int_equal(em_cols(line), 5);
    em_tensor nothing = em_tensor_of(values, EM_F32, EM_SHAPE(3, 0));
    assert_false(em_tensor_is_empty(nothing)); /* a tensor of no values is a tensor */
    assert_int_equal(em_tensor_count(nothing), 0);
}

static void no_tensor_is_empty_everywhere(void **state)
{
    (void)state;
    em_tensor none = {0};
    assert_true(em_tensor_is_empty(none));
    assert_int_equal(em_tensor_count(none), 0);
    assert_int_equal(em_tensor_bytes(none), 0);
    assert_int_equal(em_rows(none), 0);
    assert_int_equal(em_cols(none), 0);
    assert_true(em_tensor_is_empty(em_view(none, EM_SHAPE(7, 7))));
    assert_true(em_tensor_is_empty(em_slice(none, 3, 9)));
    assert_true(em_tensor_is_empty(em_at(none, 3)));
}

static void views_share_the_values(void **state)
{
    (void)state;
    em_tensor v = em_view(cube(), EM_SHAPE(4, 6));
    assert_ptr_equal(v.data, values);
    assert_int_equal(v.ndim, 2);
    assert_int_equal(v.dim[0], 4);
    assert_int_equal(v.dim[1], 6);
    assert_int_equal(v.dim[2], 0);
}

static void slices_and_entries(void **state)
{
    (void)state;
    em_tensor s = em_slice(cube(), 1, 1); // (1, 3, 4)
    assert_ptr_equal(s.data, values + 12);
    assert_int_equal(s.ndim, 3);
    assert_int_equal(s.dim[0], 1);
    assert_int_equal(em_slice(cube(), 2, 0).dim[0], 0);

    em_tensor row = em_at(em_at(cube(), 1), 2); // (4)
    assert_ptr_equal(row.data, values + 20);
    assert_int_equal(row.ndim, 1);
    assert_int_equal(row.dim[0], 4);
    assert_int_equal(row.dim[1], 0);

    em_tensor half = cube();
    half.dtype = EM_BF16;
    assert_ptr_equal(em_slice(half, 1, 1).data, (char *)values + 24);
}

static void shapes_are_compared(void **state)
{
    (void)state;
    em_tensor a = cube(), b = cube();
    b.dtype = EM_F16;
    assert_true(em_same_shape(a, b));
    assert_false(em_same_shape(a, em_view(a, EM_SHAPE(2, 12))));
    assert_false(em_same_shape(a, em_view(a, EM_SHAPE(3, 2, 4))));
    assert_false(em_same_shape(a, (em_tensor){0}));
    assert_true(em_same_shape((em_tensor){0}, (em_tensor){0}));
}

static void shapes_as_text(void **state)
{
    (void)state;
    char out[80];
    assert_ptr_equal(em_shape_text(out, EM_SHAPE(512, 1536)), out);
    assert_string_equal(out, "(512, 1536)");
    assert_string_equal(em_shape_text(out, EM_SHAPE(7)), "(7)");
    assert_string_equal(em_shape_text(out, NULL, 0), "()");
    /* From a file: up to eight dimensions, of any size. Cut, never overrun. */
    int64_t wide[8];
    for (int i = 0; i < 8; i++) wide[i] = INT64_MAX - 1;
    memset(out, '#', sizeof out);
    em_shape_text(out, wide, 8);
    assert_true(strlen(out) < sizeof out);
    assert_memory_equal(out, "(9223372036854775806, 9223372036854775806, ", 43);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_sizes),       cmocka_unit_test(no_tensor_is_empty_everywhere),
        cmocka_unit_test(views_share_the_values), cmocka_unit_test(slices_and_entries),
        cmocka_unit_test(shapes_are_compared),    cmocka_unit_test(shapes_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
