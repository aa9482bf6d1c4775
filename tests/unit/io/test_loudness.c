#include "io/loudness.h"

#include "base/alloc.h"
#include "io/audio.h"

#include "../golden.h"

/* loudness.json: the first N samples of a golden, short last blocks among them; 1e-5 LU. */
static void measures_as_pyloudnorm(void **state)
{
    (void)state;
    em_safetensors *golden = golden_tensors("media/audio.safetensors");
    json_t *doc = golden_json("media/loudness.json"), *row;
    size_t i;
    json_array_foreach(doc, i, row)
    {
        const char *of = json_string_value(json_object_get(row, "of"));
        size_t n = (size_t)json_integer_value(json_object_get(row, "first_samples"));
        double want = json_real_value(json_object_get(row, "lufs")), got = 0.0;
        const em_safetensors_entry *x = golden_find(golden, of, "");
        em_err err = {0};
        assert_non_null(x);
        assert_ok(em_loudness_measure(&got, x->data, n, EM_AUDIO_MODEL_HZ, &err), err);
        if (fabs(got - want) > 1e-5) fail_msg("%s, %zu samples: %.9f, not %.9f", of, n, got, want);
    }
    assert_int_equal(i, 6);
    json_decref(doc);
    em_safetensors_close(&golden);
}

/* Every NAME.mono16k becomes NAME.normalised and, standardised, NAME.input_values; 1e-6
 * relative. The loudness itself is in notes.json. */
static void normalises_as_reference(void **state)
{
    (void)state;
    em_safetensors *golden = golden_tensors("media/audio.safetensors");
    json_t *notes = golden_json("media/notes.json");
    int seen = 0;
    for (size_t i = 0; i < em_safetensors_count(golden); i++) {
        const em_safetensors_entry *mono = em_safetensors_at(golden, i);
        const char *dot = strstr(mono->name, ".mono16k");
        if (!dot) continue;
        char name[128], key[160];
        snprintf(name, sizeof name, "%.*s", (int)(dot - mono->name), mono->name);
        snprintf(key, sizeof key, "audio.%s", name);
        const em_safetensors_entry *loud = golden_find(golden, name, ".normalised");
        const em_safetensors_entry *values = golden_find(golden, name, ".input_values");
        size_t n = (size_t)mono->dim[0];
        float *x = em_alloc(mono->size_bytes);
        double lufs = 0.0,
               want = json_real_value(json_object_get(json_object_get(notes, key), "lufs"));
        em_err err = {0};
        em_loudness_result result = EM_LOUDNESS_SILENT;
        memcpy(x, mono->data, mono->size_bytes);
        assert_ok(em_loudness_measure(&lufs, x, n, EM_AUDIO_MODEL_HZ, &err), err);
        assert_true(fabs(lufs - want) <= 1e-5);
        assert_ok(em_loudness_normalise(x, n, EM_AUDIO_MODEL_HZ, &result, &err), err);
        assert_int_equal(result, EM_LOUDNESS_SCALED);
        double d = golden_distance(x, loud->data, n);
        em_audio_standardise(x, n);
        double e = golden_distance(x, values->data, n);
        print_message("%s: normalised %.1e, input_values %.1e\n", name, d, e);
        assert_true(d <= 1e-6 && e <= 1e-6);
        em_free(x);
        seen++;
    }
    assert_int_equal(seen, 8);
    json_decref(notes);
    em_safetensors_close(&golden);
}

static void edges(void **state)
{
    (void)state;
    float *x = em_alloc_array(6400, sizeof *x);
    double lufs = 1.0;
    em_err err = {0};
    em_loudness_result result = EM_LOUDNESS_SCALED;
    assert_ok(em_loudness_measure(&lufs, x, 6400, 16000, &err), err);
    assert_true(isinf(lufs) && lufs < 0);
    assert_ok(em_loudness_normalise(x, 6400, 16000, &result, &err), err);
    assert_int_equal(result, EM_LOUDNESS_SILENT);
    assert_int_equal(em_loudness_measure(&lufs, x, 6399, 16000, &err), EM_INVAL);
    x[0] = 0.25f;
    assert_ok(em_loudness_normalise(x, 6399, 16000, &result, &err), err);
    assert_int_equal(result, EM_LOUDNESS_TOO_SHORT);
    assert_true(x[0] == 0.25f && err.code == EM_OK);
    for (uint64_t k = 1; k <= 2; k++) {
        em_alloc_fail_at(k, false);
        assert_int_equal(em_loudness_normalise(x, 6400, 16000, NULL, &err), EM_NOMEM);
        em_alloc_fail_at(0, false);
        assert_true(x[0] == 0.25f);
    }
    em_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measures_as_pyloudnorm),
        cmocka_unit_test(normalises_as_reference),
        cmocka_unit_test(edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
