/* JPEG by libjpeg-turbo with its defaults (ISLOW, fancy upsampling), which are Pillow's. */
#include "base/alloc.h"
#include "io/image_codec.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// clang-format off
#include <jpeglib.h> /* needs size_t and FILE declared before it */
#include <jerror.h>
// clang-format on

/* Everything that changes between setjmp and longjmp lives here: the struct is the caller's, so
 * its fields keep their values. */
typedef struct reader {
    struct jpeg_error_mgr errors; /* first: libjpeg hands this pointer back */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf escape;
    em_image image; /* owned until success */
    uint8_t *row;   /* one line of CMYK or grey; owned */
    int orientation;
    const char *name;
    em_err *err;
    em_status st;
} reader;

_Noreturn static void escape(reader *r)
{
    longjmp(r->escape, 1);
}

static void on_error(j_common_ptr jpeg)
{
    reader *r = (reader *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    r->errors.format_message(jpeg, text);
    bool nomem = r->errors.msg_code == JERR_OUT_OF_MEMORY;
    r->st = em_fail(r->err, nomem ? EM_NOMEM : EM_FORMAT,
                    nomem ? "'%s': out of memory reading the JPEG (%s)"
                          : "'%s' is a damaged JPEG (%s): give the original file",
                    r->name, text);
    escape(r);
}

/* Warnings are libjpeg's word for damage that it can paint over. Pillow lets them pass, all but
 * the end of the file before the end of the picture. */
static void on_message(j_common_ptr jpeg, int level)
{
    reader *r = (reader *)jpeg->err;
    if (level >= 0 || r->errors.msg_code != JWRN_JPEG_EOF) return;
    r->st = em_fail(r->err, EM_FORMAT, "'%s' is a truncated JPEG: the end of the file is missing",
                    r->name);
    escape(r);
}

/* A small progressive file can ask for thousands of passes over a huge picture. */
static void on_progress(j_common_ptr jpeg)
{
    enum { MAX_SCANS = 500 };
    reader *r = (reader *)jpeg->err;
    if (r->jpeg.input_scan_number <= MAX_SCANS) return;
    r->st =
        em_fail(r->err, EM_FORMAT, "'%s' is a JPEG of more than %d scans, which no encoder writes",
                r->name, MAX_SCANS);
    escape(r);
}

static void read_exif(reader *r)
{
    for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m; m = m->next) {
        if (m->marker != JPEG_APP0 + 1 || m->data_length < 6) continue;
        if (memcmp(m->data, "Exif\0\0", 6) != 0) continue;
        r->orientation = em_exif_orientation(m->data, m->data_length);
        return;
    }
}

/* a * b / 255, rounded, by Pillow's shifts. */
static unsigned mul_255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* Stored inverted, as Adobe does: s = 255 - ink. Pillow: 255 - k - ink * (255 - k). */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++, s += 4, rgb += 3) {
        unsigned white = s[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(white - mul_255(255u - s[c], white));
    }
}

static void grey_to_rgb(uint8_t *rgb, const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++) memset(rgb + 3 * i, s[i], 3);
}

/* Chooses what libjpeg converts to; the rest of the way to RGB is ours. */
static em_status choose_colours(reader *r)
{
    switch (r->jpeg.num_components) {
    case 1: r->jpeg.out_color_space = JCS_GRAYSCALE; return EM_OK;
    case 3: r->jpeg.out_color_space = JCS_RGB; return EM_OK;
    case 4: r->jpeg.out_color_space = JCS_CMYK; return EM_OK;
    default:
        return em_fail(r->err, EM_FORMAT,
                       "'%s' is a JPEG of %d colour components, expected 1, 3 or 4", r->name,
                       r->jpeg.num_components);
    }
}

static void read_rows(reader *r)
{
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    size_t width = jpeg->output_width;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *rgb = r->image.rgb + (size_t)jpeg->output_scanline * width * 3;
        JSAMPROW row = r->row ? r->row : rgb;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (jpeg->output_components == 4) cmyk_to_rgb(rgb, row, width);
        if (jpeg->output_components == 1) grey_to_rgb(rgb, row, width);
    }
}

/* Runs under setjmp: libjpeg leaves by escape() with r->st set. */
static em_status decode(reader *r, const uint8_t *data, size_t size_bytes)
{
    jpeg_create_decompress(&r->jpeg);
    r->progress.progress_monitor = on_progress;
    r->jpeg.progress = &r->progress;
    jpeg_mem_src(&r->jpeg, data, size_bytes);
    jpeg_save_markers(&r->jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&r->jpeg, TRUE);
    read_exif(r);

    em_status st = choose_colours(r);
    if (st) return st;
    st = em_image_alloc(&r->image, r->jpeg.image_width, r->jpeg.image_height, r->name, r->err);
    if (st) return st;
    jpeg_start_decompress(&r->jpeg);
    if (r->jpeg.output_components != 3) {
        r->row = em_alloc_array(r->jpeg.output_width, (size_t)r->jpeg.output_components);
        if (!r->row) return em_fail(r->err, EM_NOMEM, "'%s': out of memory", r->name);
    }
    read_rows(r);
    jpeg_finish_decompress(&r->jpeg);
    return EM_OK;
}

em_status em_image_decode_jpeg(em_image *out, int *orientation, const uint8_t *data,
                               size_t size_bytes, const char *name, em_err *err)
{
    reader *r = em_alloc(sizeof *r);
    if (!r) return em_fail(err, EM_NOMEM, "'%s': out of memory", name);
    r->name = name;
    r->err = err;
    r->orientation = *orientation;
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;

    em_status st;
    if (setjmp(r->escape)) {
        st = r->st;
    } else {
        st = decode(r, data, size_bytes);
    }
    jpeg_destroy_decompress(&r->jpeg);
    if (!st) {
        *out = r->image;
        *orientation = r->orientation;
    } else {
        em_image_free(&r->image);
    }
    em_free(r->row);
    em_free(r);
    return st;
}
