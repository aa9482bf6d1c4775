#include "io/image_out.h"

#include "base/alloc.h"
#include "io/file.h"

#include <png.h>
#include <setjmp.h>

/* What changes between setjmp and longjmp lives here. */
typedef struct writer {
    em_file_writer *file;
    uint64_t pos;
    const char *path;
    em_err *err;
    em_status st;
} writer;

static void on_error(png_structp png, png_const_charp text)
{
    writer *w = png_get_error_ptr(png);
    if (!w->st) w->st = em_fail(w->err, EM_IO, "cannot write '%s': %s", w->path, text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png, (void)text;
}

static void on_write(png_structp png, png_bytep data, size_t n)
{
    writer *w = png_get_io_ptr(png);
    w->st = em_file_writer_write(w->file, w->pos, data, n, w->err);
    if (w->st) png_error(png, "write");
    w->pos += n;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t n)
{
    writer *w = png_get_mem_ptr(png);
    void *p = em_alloc(n);
    if (!p) w->st = em_fail(w->err, EM_NOMEM, "out of memory writing '%s'", w->path);
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    em_free(p);
}

/* Runs under setjmp: libpng leaves by longjmp with w->st set. */
static void encode(png_structp png, png_infop info, writer *w, const em_image *image)
{
    png_set_write_fn(png, w, on_write, on_flush);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < image->height; y++) {
        png_write_row(png, image->rgb + (size_t)y * (size_t)image->width * 3);
    }
    png_write_end(png, info);
}

em_status em_image_write_png(const char *path, const em_image *image, em_err *err)
{
    writer *w = em_alloc(sizeof *w);
    if (!w) return em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    w->path = path;
    w->err = err;
    w->st = em_file_writer_open(&w->file, path, err);
    if (w->st) goto done;

    png_structp png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, w, on_error, on_warning, w,
                                                on_malloc, on_free);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        w->st = em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    } else if (setjmp(png_jmpbuf(png)) == 0) {
        encode(png, info, w, image);
    }
    png_destroy_write_struct(&png, &info);
    if (!w->st) w->st = em_file_writer_commit(&w->file, err);

done:;
    em_status st = w->st;
    em_file_writer_close(&w->file);
    em_free(w);
    return st;
}
