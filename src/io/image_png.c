/* PNG by libpng, with the transformations that give Pillow's convert("RGB"). */
#include "base/alloc.h"
#include "io/image_codec.h"

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

/* As in image_jpeg.c: what changes between setjmp and longjmp lives in this struct. */
typedef struct reader {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size_bytes, pos;
    em_image image;  /* owned until success */
    uint8_t *wide;   /* whole 16-bit grey picture; owned */
    png_bytep *rows; /* owned; into image.rgb or wide */
    int orientation;
    const char *name;
    em_err *err;
    em_status st;
} reader;

static void on_error(png_structp png, png_const_charp text)
{
    reader *r = png_get_error_ptr(png);
    if (!r->st) {
        r->st = em_fail(r->err, EM_FORMAT, "'%s' is a damaged PNG (%s): give the original file",
                        r->name, text);
    }
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png, (void)text; /* Pillow lets the same things pass */
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    reader *r = png_get_io_ptr(png);
    if (n > r->size_bytes - r->pos) {
        r->st = em_fail(r->err, EM_FORMAT,
                        "'%s' is a truncated PNG: the end of the file is missing", r->name);
        png_error(png, "truncated");
    }
    memcpy(out, r->data + r->pos, n);
    r->pos += n;
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t n)
{
    reader *r = png_get_mem_ptr(png);
    void *p = em_alloc(n);
    if (!p) r->st = em_fail(r->err, EM_NOMEM, "'%s': out of memory reading the PNG", r->name);
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    em_free(p);
}

/* To 8-bit RGB, all but 16-bit grey: Pillow holds that as integers and clips them to 255 instead
 * of taking the high byte, as it does for 16-bit colour. Grey with alpha is not of that kind:
 * high bytes again. */
static bool set_transforms(reader *r)
{
    int colour = png_get_color_type(r->png, r->info), depth = png_get_bit_depth(r->png, r->info);
    if (colour == PNG_COLOR_TYPE_GRAY && depth == 16) return true;
    png_set_strip_16(r->png);
    png_set_strip_alpha(r->png);
    png_set_packing(r->png);
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(r->png);
    if (!(colour & PNG_COLOR_MASK_COLOR)) {
        if (depth < 8) png_set_expand_gray_1_2_4_to_8(r->png);
        png_set_gray_to_rgb(r->png);
    }
    return false;
}

static void clip_grey(uint8_t *rgb, const uint8_t *wide, size_t n)
{
    for (size_t i = 0; i < n; i++) memset(rgb + 3 * i, wide[2 * i] ? 255 : wide[2 * i + 1], 3);
}

static void read_exif(reader *r)
{
    png_bytep exif;
    png_uint_32 n;
    if (png_get_eXIf_1(r->png, r->info, &n, &exif)) r->orientation = em_exif_orientation(exif, n);
}

/* Runs under setjmp: libpng leaves by longjmp with r->st set. */
static em_status decode(reader *r)
{
    png_set_read_fn(r->png, r, on_read);
    png_set_user_limits(r->png, 0x7fffffff,
                        0x7fffffff); /* the area is what em_image_alloc bounds */
    png_read_info(r->png, r->info);
    size_t width = png_get_image_width(r->png, r->info);
    size_t height = png_get_image_height(r->png, r->info);
    em_status st = em_image_alloc(&r->image, (uint32_t)width, (uint32_t)height, r->name, r->err);
    if (st) return st;

    bool grey16 = set_transforms(r);
    if (grey16) r->wide = em_alloc_array(width * height, 2);
    r->rows = em_alloc_array(height, sizeof *r->rows);
    if (!r->rows || (grey16 && !r->wide)) {
        return em_fail(r->err, EM_NOMEM, "'%s': out of memory", r->name);
    }
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != width * (grey16 ? 2 : 3)) {
        return em_fail(r->err, EM_FORMAT, "'%s' is a PNG of an unknown kind", r->name);
    }
    for (size_t y = 0; y < height; y++) {
        r->rows[y] = grey16 ? r->wide + y * width * 2 : r->image.rgb + y * width * 3;
    }
    png_read_image(r->png, r->rows);
    png_read_end(r->png, r->info); /* an eXIf chunk may follow the pixels */
    if (grey16) clip_grey(r->image.rgb, r->wide, width * height);
    read_exif(r);
    return EM_OK;
}

em_status em_image_decode_png(em_image *out, int *orientation, const uint8_t *data,
                              size_t size_bytes, const char *name, em_err *err)
{
    em_status st;
    reader *r = em_alloc(sizeof *r);
    if (!r) return em_fail(err, EM_NOMEM, "'%s': out of memory", name);
    *r = (reader){.data = data,
                  .size_bytes = size_bytes,
                  .name = name,
                  .err = err,
                  .orientation = *orientation};
    r->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error, on_warning, r, on_malloc,
                                      on_free);
    if (r->png) r->info = png_create_info_struct(r->png);
    if (!r->info) {
        st = em_fail(err, EM_NOMEM, "'%s': out of memory", name);
    } else if (setjmp(png_jmpbuf(r->png))) {
        st = r->st;
    } else {
        st = decode(r);
    }
    png_destroy_read_struct(&r->png, &r->info, NULL);
    if (!st) {
        *out = r->image;
        *orientation = r->orientation;
    } else {
        em_image_free(&r->image);
    }
    em_free(r->wide);
    em_free(r->rows);
    em_free(r);
    return st;
}
