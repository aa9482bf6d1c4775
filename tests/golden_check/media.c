/* Everything before the models: sound, pictures, tokens, sizes, loudness. */
#include "check.h"

#include "io/audio_in.h"
#include "io/file.h"
#include "io/image_resize.h"
#include "io/loudness.h"
#include "models/tokenizer.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "DIR/folder/name", owned. */
static char *media_path(const check *c, const char *folder, const char *name)
{
    char *dir = em_path_join(c->dir, folder), *path = dir ? em_path_join(dir, name) : NULL;
    em_free(dir);
    return path;
}

/* "rgb.png.rgb" without its last part, into out; false when there is none. */
static bool base_name(char out[256], const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    if (n <= s || n - s >= 256 || strcmp(name + n - s, suffix)) return false;
    memcpy(out, name, n - s);
    out[n - s] = 0;
    return true;
}

/* ---- sound ----------------------------------------------------------------------------------- */

static void check_sound(check *c, const em_ckpt *golden, const char *base)
{
    em_err err = {0};
    em_audio audio = {0};
    float *mono = NULL, *x = NULL;
    size_t n = 0, want_n = 0;
    char name[300];
    char *path = media_path(c, "audio", base);
    em_status st = path ? em_audio_load(&audio, path, NULL, &err) : EM_NOMEM;
    if (!st) st = em_audio_mono(&mono, &audio, &err);
    if (!st)
        st = em_audio_resample(&x, &n, mono, audio.n, 1, audio.rate_hz, EM_AUDIO_MODEL_HZ, &err);
    if (st == EM_INVAL) { /* it takes FFmpeg, which this build does without */
        report_skip(c, base, err.msg);
        goto done;
    }
    if (st) {
        report_failure(c, base, &err);
        goto done;
    }
    snprintf(name, sizeof name, "%s.mono16k", base);
    const float *want = floats_of(golden, name, &want_n);
    if (want && want_n == n)
        expect_equal(c, name, x, want, n * sizeof *x);
    else if (want)
        expect_true(c, name, false, "another number of samples");
    if (em_loudness_normalise(x, n, EM_AUDIO_MODEL_HZ, NULL, &err)) {
        report_failure(c, base, &err);
        goto done;
    }
    snprintf(name, sizeof name, "%s.normalised", base);
    expect_close(c, golden, name, x, n, 1e-6);
    em_audio_standardise(x, n);
    snprintf(name, sizeof name, "%s.input_values", base);
    expect_close(c, golden, name, x, n, 1e-6);
done:
    em_free(path);
    em_audio_free(&audio);
    em_free(mono);
    em_free(x);
}

/* Lossy files: sample count exact, RMS (all channels) within 0.1 %. */
static void check_lossy(check *c, const char *base, const json_t *note)
{
    em_err err = {0};
    em_audio audio = {0};
    double square = 0;
    char *path = media_path(c, "audio", base);
    const json_t *count = json_object_get(note, "decoded samples per channel by ffmpeg 5.1");
    const json_t *rms = json_object_get(note, "rms");
    em_status st = path ? em_audio_load(&audio, path, NULL, &err) : EM_NOMEM;
    if (st == EM_INVAL) {
        report_skip(c, base, err.msg);
    } else if (st) {
        report_failure(c, base, &err);
    } else {
        size_t values = audio.n * (size_t)audio.channels;
        for (size_t i = 0; i < values; i++) square += (double)audio.samples[i] * audio.samples[i];
        double off = sqrt(square / (double)values) / json_number_value(rms) - 1;
        expect_true(c, base, (json_int_t)audio.n == json_integer_value(count),
                    "decoded sample count");
        expect_measure(c, base, "RMS off by", fabs(off), 1e-3);
    }
    em_free(path);
    em_audio_free(&audio);
}

void check_audio(check *c)
{
    char base[256];
    const char *key;
    json_t *note, *notes = has_file(c, "notes.json") ? load_json(c, "notes.json") : NULL;
    em_ckpt *golden = open_golden(c, c->file);
    for (size_t i = 0; golden && i < em_ckpt_count(golden); i++)
        if (base_name(base, em_ckpt_at(golden, i)->name, ".mono16k")) check_sound(c, golden, base);
    json_object_foreach(notes, key, note)
    {
        if (strncmp(key, "audio.", 6) ||
            !json_object_get(note, "decoded samples per channel by ffmpeg 5.1"))
            continue;
        check_lossy(c, key + 6, note);
    }
    em_ckpt_close(&golden);
    json_decref(notes);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static void check_picture(check *c, const em_ckpt_tensor *want, const char *base)
{
    em_err err = {0};
    em_image image = {0};
    char *path = media_path(c, "images", base);
    if (!path || em_image_load(&image, path, EM_IMAGE_AS_STORED, &err))
        report_failure(c, want->name, &err);
    else if (image.height != want->dim[0] || image.width != want->dim[1])
        expect_true(c, want->name, false, "another size");
    else
        expect_equal(c, want->name, image.rgb, want->data, want->size_bytes);
    em_free(path);
    em_image_free(&image);
}

/* "lanczos.rgb.png.160x112": image rgb.png, scaled */
static void check_scaled(check *c, const em_ckpt_tensor *want)
{
    em_err err = {0};
    em_image image = {0}, out = {0};
    char base[256];
    const char *size = strrchr(want->name, '.');
    int w, h;
    if (sscanf(size, ".%dx%d", &w, &h) != 2 || w < 1 || h < 1) return;
    snprintf(base, sizeof base, "%.*s", (int)(size - want->name - 8), want->name + 8);
    char *path = media_path(c, "images", base);
    if (!path || em_image_load(&image, path, EM_IMAGE_AS_STORED, &err) ||
        em_image_resize_lanczos(&out, &image, w, h, &err))
        report_failure(c, want->name, &err);
    else
        expect_equal(c, want->name, out.rgb, want->data, want->size_bytes);
    em_free(path);
    em_image_free(&image);
    em_image_free(&out);
}

void check_images(check *c)
{
    char base[256];
    em_ckpt *golden = open_golden(c, c->file);
    for (size_t i = 0; golden && i < em_ckpt_count(golden); i++) {
        const em_ckpt_tensor *t = em_ckpt_at(golden, i);
        if (!strncmp(t->name, "lanczos.", 8))
            check_scaled(c, t);
        else if (base_name(base, t->name, ".rgb"))
            check_picture(c, t, base);
    }
    em_ckpt_close(&golden);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

enum { MAX_IDS = 512 };

static bool ids_equal(em_tokenizer *t, const json_t *text, const json_t *want)
{
    em_err err = {0};
    int32_t ids[MAX_IDS];
    size_t n = 0;
    if (em_tokenizer_encode(t, json_string_value(text), json_string_length(text), MAX_IDS, ids, &n,
                            &err))
        return false;
    bool same = n == json_array_size(want);
    for (size_t i = 0; same && i < n; i++)
        same = ids[i] == json_integer_value(json_array_get(want, i));
    return same;
}

static void check_texts(check *c, em_tokenizer *t, const json_t *doc, const char *key,
                        bool byte_fallback)
{
    size_t i, wrong = 0;
    json_t *item;
    char what[64];
    em_tokenizer_set_byte_fallback(t, byte_fallback);
    json_array_foreach(doc, i, item) wrong +=
        !ids_equal(t, json_object_get(item, "text"), json_object_get(item, key));
    snprintf(what, sizeof what, "%zu of %zu texts differ", wrong, json_array_size(doc));
    expect_true(c, key, wrong == 0, what);
}

/* Texts may hold a NUL, which em_json_load refuses on purpose. */
void check_tokens(check *c)
{
    em_err err = {0};
    em_tokenizer *t = NULL;
    char *path = em_path_join(c->dir, c->file), *model = em_path_join(c->dir, "spiece.model");
    json_t *doc = path ? json_load_file(path, JSON_ALLOW_NUL, NULL) : NULL;
    if (!model || em_tokenizer_open(&t, model, &err)) {
        report_failure(c, "spiece.model", &err);
    } else if (!json_is_array(doc)) {
        expect_true(c, "texts", false, "not a JSON array");
    } else {
        check_texts(c, t, doc, "ids", false);
        check_texts(c, t, doc, "ids_byte_fallback", true);
    }
    json_decref(doc);
    em_tokenizer_close(&t);
    em_free(path);
    em_free(model);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static int64_t int_at(const json_t *obj, const char *key)
{
    return json_integer_value(json_object_get(obj, key));
}

static int pair(const json_t *obj, const char *key, size_t i)
{
    return (int)json_integer_value(json_array_get(json_object_get(obj, key), i));
}

void check_sizes(check *c)
{
    size_t i, wrong = 0;
    json_t *row, *doc = load_json(c, c->file);
    char what[64];
    if (!doc) return;
    const json_t *sizes = json_object_get(doc, "sizes"), *frames = json_object_get(doc, "frames");
    const json_t *cut = json_object_get(doc, "audio_cut");
    json_array_foreach(sizes, i, row)
    {
        int w, h;
        em_image_target_size(pair(row, "image", 0), pair(row, "image", 1),
                             pair(row, "sample_size", 0), pair(row, "sample_size", 1), &w, &h);
        wrong += w != pair(row, "resized", 0) || h != pair(row, "resized", 1);
    }
    snprintf(what, sizeof what, "%zu of %zu differ", wrong, json_array_size(sizes));
    expect_true(c, "sizes", !wrong, what);
    wrong = 0;
    json_array_foreach(frames, i, row) wrong +=
        em_audio_frames((uint64_t)int_at(row, "samples"), (int)int_at(row, "rate"),
                        (int)int_at(row, "fps"),
                        (int)int_at(row, "video_length")) != int_at(row, "frames");
    snprintf(what, sizeof what, "%zu of %zu differ", wrong, json_array_size(frames));
    expect_true(c, "frames", !wrong, what);
    wrong = 0;
    json_array_foreach(cut, i, row) wrong +=
        (int64_t)em_audio_cut_samples((int)int_at(row, "frames")) != int_at(row, "samples");
    snprintf(what, sizeof what, "%zu of %zu differ", wrong, json_array_size(cut));
    expect_true(c, "audio_cut", !wrong, what);
    json_decref(doc);
}

void check_loudness(check *c)
{
    size_t i, n;
    json_t *row, *doc = load_json(c, c->file);
    em_ckpt *golden =
        doc && has_file(c, "audio.safetensors") ? open_golden(c, "audio.safetensors") : NULL;
    json_array_foreach(doc, i, row)
    {
        em_err err = {0};
        double lufs = 0;
        char name[64];
        const json_t *of = json_object_get(row, "of");
        size_t first = (size_t)int_at(row, "first_samples");
        const float *x =
            golden && json_is_string(of) ? floats_of(golden, json_string_value(of), &n) : NULL;
        snprintf(name, sizeof name, "first %zu", first);
        if (!x || n < first)
            report_skip(c, name, "its samples are not in audio.safetensors");
        else if (em_loudness_measure(&lufs, x, first, EM_AUDIO_MODEL_HZ, &err))
            report_failure(c, name, &err);
        else
            expect_measure(c, name, "LU off by",
                           fabs(lufs - json_number_value(json_object_get(row, "lufs"))), 1e-5);
    }
    em_ckpt_close(&golden);
    json_decref(doc);
}

/* ---- PyTorch's files ------------------------------------------------------------------------- */

/* The tensors of the golden whose names begin with "BASE/" are exactly those of pth/BASE.pth. */
static void check_torch_file(check *c, const em_ckpt *golden, const char *base)
{
    em_err err = {0};
    em_ckpt *got = NULL;
    size_t n = strlen(base), count = 0;
    char file[300];
    snprintf(file, sizeof file, "%s.pth", base);
    char *path = media_path(c, "pth", file);
    em_status st = path ? em_ckpt_open(&got, path, &err) : EM_NOMEM;
    if (st) report_failure(c, file, &err);
    for (size_t i = 0; !st && i < em_ckpt_count(golden); i++) {
        const em_ckpt_tensor *want = em_ckpt_at(golden, i);
        if (strncmp(want->name, base, n) || want->name[n] != '/') continue;
        const em_ckpt_tensor *t = em_ckpt_find(got, want->name + n + 1);
        bool same = t && t->dtype == want->dtype && t->ndim == want->ndim &&
                    !memcmp(t->dim, want->dim, sizeof t->dim);
        count++;
        if (same)
            expect_equal(c, want->name, t->data, want->data, want->size_bytes);
        else
            expect_true(c, want->name, false, t ? "another type or shape" : "not in the file");
    }
    if (!st) expect_true(c, file, em_ckpt_count(got) == count, "holds as many tensors");
    em_ckpt_close(&got);
    em_free(path);
}

/* A file of which the golden holds nothing must be refused, by name. */
static void check_torch_refused(check *c, const char *base)
{
    em_err err = {0};
    em_ckpt *got = NULL;
    char file[300];
    snprintf(file, sizeof file, "%s.pth", base);
    char *path = media_path(c, "pth", file);
    em_status st = path ? em_ckpt_open(&got, path, &err) : EM_NOMEM;
    expect_true(c, file, st == EM_FORMAT && strstr(err.msg, file), st ? err.msg : "it was read");
    em_ckpt_close(&got);
    em_free(path);
}

static bool mentions(const em_ckpt *golden, const char *base)
{
    size_t n = strlen(base);
    for (size_t i = 0; i < em_ckpt_count(golden); i++) {
        const char *name = em_ckpt_at(golden, i)->name;
        if (!strncmp(name, base, n) && name[n] == '/') return true;
    }
    return false;
}

void check_pth(check *c)
{
    char base[256], *dir = em_path_join(c->dir, "pth");
    em_ckpt *golden = open_golden(c, c->file);
    struct dirent **entry = NULL;
    int n = golden && dir ? scandir(dir, &entry, NULL, alphasort) : -1;
    if (golden && n < 0) expect_true(c, "pth", false, "there is no such folder");
    for (int i = 0; i < n; i++) {
        if (base_name(base, entry[i]->d_name, ".pth")) {
            if (mentions(golden, base))
                check_torch_file(c, golden, base);
            else
                check_torch_refused(c, base);
        }
        free(entry[i]);
    }
    free(entry);
    em_free(dir);
    em_ckpt_close(&golden);
}
