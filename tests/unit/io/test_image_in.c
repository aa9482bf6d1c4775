#include "io/image_in.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/image_codec.h"
#include "io/image_out.h"

#include "../golden.h"

#include <unistd.h>

static const char *const samples[] = {
    "alpha.webp",
    "bilevel.png",
    "i16.png",
    "interlaced_like.png",
    "jpeg_cmyk.jpg",
    "jpeg_exif1.jpg",
    "jpeg_exif3.jpg",
    "jpeg_exif6.jpg",
    "jpeg_exif8.jpg",
    "jpeg_gray.jpg",
    "jpeg_progressive.jpg",
    "jpeg_sub0.jpg",
    "jpeg_sub1.jpg",
    "jpeg_sub2.jpg",
    "l.png",
    "la.png",
    "lossless.webp",
    "lossy.webp",
    "palette.png",
    "palette_trns.png",
    "rgb.png",
    "rgb16.png",
    "rgba.png",
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static const char *sample_path(char out[GOLDEN_PATH_BYTES], const char *name)
{
    char local[128];
    snprintf(local, sizeof local, "media/images/%s", name);
    return golden_path(out, local);
}

static char *read_sample(const char *name, size_t *n)
{
    char path[GOLDEN_PATH_BYTES], *data = NULL;
    em_err err = {0};
    assert_ok(em_file_read(&data, n, sample_path(path, name), EM_IMAGE_MAX_BYTES, &err), err);
    return data;
}

/* Every sample gives Pillow's pixels. */
static void pixels_are_pillows(void **state)
{
    (void)state;
    em_safetensors *golden = golden_tensors("media/images.safetensors");
    for (int i = 0; i < SAMPLES; i++) {
        char path[GOLDEN_PATH_BYTES];
        em_err err = {0};
        em_image image = {0};
        assert_ok(em_image_load(&image, sample_path(path, samples[i]), EM_IMAGE_AS_STORED, &err),
                  err);
        const em_safetensors_entry *want = golden_find(golden, samples[i], ".rgb");
        assert_non_null(want);
        assert_int_equal(image.height, want->dim[0]);
        assert_int_equal(image.width, want->dim[1]);
        size_t wrong = 0;
        for (size_t j = 0; j < want->size_bytes; j++) {
            wrong += image.rgb[j] != ((const uint8_t *)want->data)[j];
        }
        if (wrong) fail_msg("%s: %zu of %zu bytes differ", samples[i], wrong, want->size_bytes);
        em_image_free(&image);
    }
    em_safetensors_close(&golden);
}

/* The jpeg_exifN samples hold one picture of 150 x 113; orientation 6 and 8 turn it. */
static void exif_turns(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int orientation, width, height;
    } cases[] = {{"jpeg_exif1.jpg", 1, 150, 113},
                 {"jpeg_exif3.jpg", 3, 150, 113},
                 {"jpeg_exif6.jpg", 6, 113, 150},
                 {"jpeg_exif8.jpg", 8, 113, 150}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[GOLDEN_PATH_BYTES];
        em_err err = {0};
        em_image stored = {0}, turned = {0};
        sample_path(path, cases[i].name);
        assert_ok(em_image_load(&stored, path, EM_IMAGE_AS_STORED, &err), err);
        assert_ok(em_image_load(&turned, path, EM_IMAGE_UPRIGHT, &err), err);
        assert_int_equal(turned.width, cases[i].width);
        assert_int_equal(turned.height, cases[i].height);
        assert_ok(em_image_turn(&stored, cases[i].orientation, &err), err);
        assert_memory_equal(stored.rgb, turned.rgb, 150 * 113 * 3);
        em_image_free(&stored);
        em_image_free(&turned);
    }
}

/* What each orientation does to the 3 x 2 picture   1 2 3
 *                                                    4 5 6 */
static void orientations(void **state)
{
    (void)state;
    static const uint8_t want[9][6] = {
        [1] = {1, 2, 3, 4, 5, 6}, [2] = {3, 2, 1, 6, 5, 4}, [3] = {6, 5, 4, 3, 2, 1},
        [4] = {4, 5, 6, 1, 2, 3}, [5] = {1, 4, 2, 5, 3, 6}, [6] = {4, 1, 5, 2, 6, 3},
        [7] = {6, 3, 5, 2, 4, 1}, [8] = {3, 6, 2, 5, 1, 4},
    };
    for (int o = 1; o <= 8; o++) {
        em_err err = {0};
        em_image image = {.rgb = em_alloc(18), .width = 3, .height = 2};
        for (int i = 0; i < 18; i++) image.rgb[i] = (uint8_t)(i / 3 + 1);
        assert_ok(em_image_turn(&image, o, &err), err);
        assert_int_equal(image.width, o < 5 ? 3 : 2);
        assert_int_equal(image.height, o < 5 ? 2 : 3);
        for (int i = 0; i < 6; i++) assert_int_equal(image.rgb[3 * i], want[o][i]);
        em_image_free(&image);
    }
}

static void exif_hostile(void **state)
{
    (void)state;
    const uint8_t good[] = {'M',  'M', 0, '*', 0, 0, 0, 8, 0, 1, 1,
                            0x12, 0,   3, 0,   0, 0, 1, 0, 6, 0, 0};
    assert_int_equal(em_exif_orientation(good, sizeof good), 6);
    for (size_t n = 0; n < 20; n++) assert_int_equal(em_exif_orientation(good, n), 1);
    uint8_t bad[sizeof good];
    memcpy(bad, good, sizeof good);
    memset(bad + 4, 0xff, 4); /* directory far outside */
    assert_int_equal(em_exif_orientation(bad, sizeof bad), 1);
    memcpy(bad, good, sizeof good);
    memset(bad + 8, 0xff, 2), bad[11] = 0; /* 65535 entries, none ours */
    assert_int_equal(em_exif_orientation(bad, sizeof bad), 1);
    memcpy(bad, good, sizeof good);
    bad[19] = 9; /* no such orientation */
    assert_int_equal(em_exif_orientation(bad, sizeof bad), 1);
}

/* Data that is no picture, and a word that the sentence must have. */
static void bad_files(void **state)
{
    (void)state;
#define BYTES(s) s, sizeof(s) - 1
    static const struct {
        const char *data;
        size_t n;
        const char *says;
    } cases[] = {
        {BYTES(""), "0 bytes"},
        {BYTES("Just a note, named face.png\n"), "is text"},
        {BYTES("\xef\xbb\xbf \n<!DOCTYPE html><html></html>"), "HTML page"},
        {BYTES("<?xml version='1.0'?><Error>AccessDenied</Error>"), "XML text"},
        {BYTES("{\"error\": 1}"), "JSON text"},
        {BYTES("<svg xmlns='x'/>"), "SVG"},
        {BYTES("%PDF-1.7\n"), "PDF"},
        {BYTES("GIF89a\1\0\1\0"), "GIF"},
        {BYTES("BM\x36\0\0\0\0\0"), "BMP"},
        {BYTES("II*\0\x08\0\0\0"), "TIFF"},
        {BYTES("\0\0\0\x18"
               "ftypheic\0\0\0\0"),
         "HEIC"},
        {BYTES("\0\0\0\x18"
               "ftypavif\0\0\0\0"),
         "AVIF"},
        {BYTES("\0\0\0\x18"
               "ftypisom\0\0\0\0"),
         "MP4"},
        {BYTES("RIFF\x24\0\0\0WAVEfmt "), "WAV"},
        {BYTES("\1\2\3\4\5\6\7\0"), "unknown kind"},
        {BYTES("\xff\xd8\xff\xe0"), "JPEG"},
        {BYTES("\x89PNG\r\n\x1a\n"), "truncated PNG"},
        {BYTES("RIFF\x24\0\0\0WEBPVP8 "), "WebP"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_err err = {0};
        em_image image = {.width = 7};
        em_status st =
            em_image_decode(&image, cases[i].data, cases[i].n, "face.png", EM_IMAGE_UPRIGHT, &err);
        assert_int_equal(st, EM_FORMAT);
        assert_int_equal(image.width, 7);
        if (!strstr(err.msg, cases[i].says) || !strstr(err.msg, "'face.png'")) {
            fail_msg("case %zu lacks \"%s\": %s", i, cases[i].says, err.msg);
        }
    }
    em_err err = {0};
    em_image image = {0};
    assert_int_equal(em_image_load(&image, "/nonexistent/face.png", EM_IMAGE_UPRIGHT, &err), EM_IO);
    assert_non_null(strstr(err.msg, "'/nonexistent/face.png' does not exist"));
}

/* An exact-size copy, so that AddressSanitizer sees the first byte too far. */
static em_status decode_copy(const void *data, size_t n, em_err *err)
{
    em_image image = {0};
    void *copy = em_alloc(n ? n : 1);
    memcpy(copy, data, n);
    em_status st = em_image_decode(&image, copy, n, "cut", EM_IMAGE_UPRIGHT, err);
    em_image_free(&image);
    em_free(copy);
    return st;
}

/* PPM: a header of numbers, white space and comments, one white space, bytes. */
static void ppm(void **state)
{
    (void)state;
    static const char file[] = "P6\n# by hand\n2 1 # wide\n255\nabcdefgh";
    static const char *const bad[] = {"P6\n2 1\n255\nabcde",
                                      "P6\n2 1\n65535\nabcdefabcdef",
                                      "P6\n2 1\n255",
                                      "P6\n2 x\n255\nabcdef",
                                      "P6\n0 1\n255\nabcdef",
                                      "P6\n99999999999 1\n255\nab",
                                      "P6\n# only"};
    em_image image = {0};
    em_err err = {0};
    assert_ok(em_image_decode(&image, file, sizeof file - 1, "p", EM_IMAGE_UPRIGHT, &err), err);
    assert_int_equal(image.width, 2);
    assert_int_equal(image.height, 1);
    assert_memory_equal(image.rgb, "abcdef", 6);
    em_image_free(&image);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(decode_copy(bad[i], strlen(bad[i]), &err), EM_FORMAT);
}

/* A picture that ends early is an error wherever it ends, never a crash. */
static void truncated(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (size_t cut = 0; cut < n; cut += 100) {
            em_err err = {0};
            if (decode_copy(data, cut, &err) != EM_FORMAT) {
                fail_msg("%s cut at %zu of %zu: %s", samples[i], cut, n, err.msg);
            }
            assert_true(err.msg[0] != 0);
        }
        em_free(data);
    }
}

/* Flipped bytes may give a picture or an error, never a crash or a leak. */
static void damaged(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (size_t at = 0; at < n; at += n / 97 + 1) {
            em_err err = {0};
            data[at] ^= 0x55;
            em_status st = decode_copy(data, n, &err);
            assert_true(st == EM_OK || st == EM_FORMAT);
            data[at] ^= 0x55;
        }
        em_free(data);
    }
}

/* The CRC of a PNG chunk: its type and data. */
static void put_crc(uint8_t *out, const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int b = 0; b < 8; b++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(~crc >> (24 - 8 * i));
}

/* A PNG header that declares 900 megapixels is refused before it costs memory. */
static void too_large(void **state)
{
    (void)state;
    enum { IHDR = 12 }; /* where its type stands */
    static const uint8_t size[] = {0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30};
    size_t n;
    char *data = read_sample("rgb.png", &n);
    memcpy(data + IHDR + 4, size, sizeof size);
    put_crc((uint8_t *)data + IHDR + 17, (const uint8_t *)data + IHDR, 17);
    em_err err = {0};
    assert_int_equal(decode_copy(data, n, &err), EM_FORMAT);
    assert_non_null(strstr(err.msg, "30000 x 30000"));
    em_free(data);
}

/* An EXIF block that says: turn by 90 degrees. */
static const uint8_t exif_6[] = {'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0,
                                 3,   0,   0, 0,   1, 0, 6, 0, 0, 0, 0, 0,    0};

static void expect_turned(const void *data, size_t n)
{
    em_err err = {0};
    em_image image = {0};
    assert_ok(em_image_decode(&image, data, n, "x", EM_IMAGE_UPRIGHT, &err), err);
    assert_int_equal(image.width, 113);
    assert_int_equal(image.height, 150);
    em_image_free(&image);
}

/* PNG keeps EXIF in a chunk of its own, before or after the pixels. */
static void exif_in_png(void **state)
{
    (void)state;
    enum { AFTER_IHDR = 33, IEND_BYTES = 12, CHUNK_BYTES = 12 + sizeof exif_6 };
    uint8_t chunk[CHUNK_BYTES] = {0, 0, 0, sizeof exif_6, 'e', 'X', 'I', 'f'};
    memcpy(chunk + 8, exif_6, sizeof exif_6);
    put_crc(chunk + 8 + sizeof exif_6, chunk + 4, 4 + sizeof exif_6);
    size_t n;
    char *data = read_sample("rgb.png", &n), *with = em_alloc(n + CHUNK_BYTES);
    const size_t places[] = {AFTER_IHDR, n - IEND_BYTES};
    for (int i = 0; i < 2; i++) {
        memcpy(with, data, places[i]);
        memcpy(with + places[i], chunk, CHUNK_BYTES);
        memcpy(with + places[i] + CHUNK_BYTES, data + places[i], n - places[i]);
        expect_turned(with, n + CHUNK_BYTES);
    }
    em_free(data);
    em_free(with);
}

/* WebP: RIFF, then VP8X (flags, canvas - 1), the picture, EXIF. */
static void exif_in_webp(void **state)
{
    (void)state;
    enum { RIFF_BYTES = 12, VP8X_BYTES = 18, EXIF_BYTES = 8 + sizeof exif_6 };
    static const uint8_t vp8x[VP8X_BYTES] = {'V', 'P', '8', 'X', 10, 0, 0,   0, 0x08,
                                             0,   0,   0,   149, 0,  0, 112, 0, 0};
    size_t n;
    char *data = read_sample("lossless.webp", &n);
    size_t total = n + VP8X_BYTES + EXIF_BYTES;
    uint8_t *with = em_alloc(total), *p = with + RIFF_BYTES;
    memcpy(with, data, RIFF_BYTES);
    for (int i = 0; i < 4; i++) with[4 + i] = (uint8_t)((total - 8) >> (8 * i));
    memcpy(p, vp8x, VP8X_BYTES);
    memcpy(p + VP8X_BYTES, data + RIFF_BYTES, n - RIFF_BYTES);
    p += VP8X_BYTES + n - RIFF_BYTES;
    memcpy(p, "EXIF", 4);
    p[4] = sizeof exif_6;
    memcpy(p + 8, exif_6, sizeof exif_6);
    expect_turned(with, total);
    em_free(data);
    em_free(with);
}

/* Each allocation of each decoder fails once, then for good. */
static void out_of_memory(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        size_t n;
        char *data = read_sample(samples[i], &n);
        for (int sticky = 0; sticky < 2; sticky++) {
            for (uint64_t k = 1;; k++) {
                em_err err = {0};
                em_image image = {0};
                uint64_t before = em_alloc_calls();
                em_alloc_fail_at(k, sticky);
                em_status st = em_image_decode(&image, data, n, "x", EM_IMAGE_UPRIGHT, &err);
                em_alloc_fail_at(0, false);
                bool reached = em_alloc_calls() - before >= k;
                em_image_free(&image);
                if (!reached) {
                    assert_int_equal(st, EM_OK);
                    break;
                }
                if (st != EM_NOMEM) fail_msg("%s, allocation %d: %s", samples[i], (int)k, err.msg);
            }
        }
        em_free(data);
    }
}

/* What image_out writes, image_in reads back. */
static void png_round_trip(void **state)
{
    (void)state;
    char in[GOLDEN_PATH_BYTES], out[] = "test_image_in.png";
    em_err err = {0};
    em_image a = {0}, b = {0};
    assert_ok(em_image_load(&a, sample_path(in, "rgb.png"), EM_IMAGE_UPRIGHT, &err), err);
    assert_ok(em_image_write_png(out, &a, &err), err);
    assert_ok(em_image_load(&b, out, EM_IMAGE_UPRIGHT, &err), err);
    assert_int_equal(b.width, 150);
    assert_memory_equal(a.rgb, b.rgb, 150 * 113 * 3);
    em_image_free(&b);
    unlink(out);
    for (uint64_t k = 1;; k++) {
        uint64_t before = em_alloc_calls();
        em_alloc_fail_at(k, false);
        em_status st = em_image_write_png(out, &a, &err);
        em_alloc_fail_at(0, false);
        if (em_alloc_calls() - before < k) break;
        assert_int_equal(st, EM_NOMEM);
        assert_int_not_equal(access(out, F_OK), 0);
    }
    unlink(out);
    em_image_free(&a);
    assert_int_equal(em_image_write_png("/nonexistent/x.png", &(em_image){0}, &err), EM_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_are_pillows), cmocka_unit_test(exif_turns),
        cmocka_unit_test(orientations),       cmocka_unit_test(exif_hostile),
        cmocka_unit_test(bad_files),          cmocka_unit_test(ppm),
        cmocka_unit_test(truncated),          cmocka_unit_test(damaged),
        cmocka_unit_test(too_large),          cmocka_unit_test(out_of_memory),
        cmocka_unit_test(exif_in_png),        cmocka_unit_test(exif_in_webp),
        cmocka_unit_test(png_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
