/* EXIF orientation: how the camera was held. */
#include "base/alloc.h"
#include "io/image_codec.h"

#include <stdbool.h>
#include <string.h>

typedef struct tiff {
    const uint8_t *p;
    size_t n;
    bool big; /* byte order "MM" */
} tiff;

/* False when the field lies outside the block. */
static bool u16_at(const tiff *t, size_t at, unsigned *v)
{
    if (t->n < 2 || at > t->n - 2) return false;
    const uint8_t *b = t->p + at;
    *v = t->big ? (unsigned)b[0] << 8 | b[1] : (unsigned)b[1] << 8 | b[0];
    return true;
}

static bool u32_at(const tiff *t, size_t at, size_t *v)
{
    unsigned a, b;
    if (!u16_at(t, at, &a) || !u16_at(t, at + 2, &b)) return false;
    *v = t->big ? (size_t)a << 16 | b : (size_t)b << 16 | a;
    return true;
}

/* TIFF: byte order, 42, offset of the first directory: a count, then entries of 12 bytes: tag,
 * type, number of values, value. */
int em_exif_orientation(const uint8_t *exif, size_t size_bytes)
{
    enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };
    if (size_bytes >= 6 && memcmp(exif, "Exif\0\0", 6) == 0) exif += 6, size_bytes -= 6;
    if (size_bytes < 8) return 1;
    tiff t = {.p = exif, .n = size_bytes, .big = exif[0] == 'M'};
    if (memcmp(exif, t.big ? "MM\0*" : "II*\0", 4) != 0) return 1;

    size_t dir;
    unsigned entries;
    if (!u32_at(&t, 4, &dir) || !u16_at(&t, dir, &entries)) return 1;
    for (size_t i = 0; i < entries; i++) {
        size_t at = dir + 2 + i * ENTRY_BYTES;
        unsigned tag, type, value;
        if (!u16_at(&t, at, &tag) || !u16_at(&t, at + 2, &type) || !u16_at(&t, at + 8, &value)) {
            return 1;
        }
        if (tag != TAG_ORIENTATION) continue;
        return type == TYPE_SHORT && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

/* Orientation 1 to 8 says where the stored rows and columns belong. Each is a transposition or not,
 * followed by a flip of the result's columns, its rows, or both:
 *
 *     1 as it is   2 columns   3 both   4 rows
 *     5 transpose  6 transpose, columns (90° clockwise)   7 transpose, both   8 transpose, rows
 */
em_status em_image_turn(em_image *image, int orientation, em_err *err)
{
    if (orientation <= 1 || orientation > 8) return EM_OK;
    bool transpose = orientation >= 5;
    bool flip_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    bool flip_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;

    size_t in_w = (size_t)image->width, in_h = (size_t)image->height;
    size_t w = transpose ? in_h : in_w, h = transpose ? in_w : in_h;
    uint8_t *rgb = em_alloc_array(w * h, 3);
    if (!rgb) {
        return em_fail(err, EM_NOMEM, "out of memory turning a picture of %d x %d pixels",
                       image->width, image->height);
    }
    for (size_t y = 0; y < h; y++) {
        for (size_t x = 0; x < w; x++) {
            size_t u = flip_x ? w - 1 - x : x, v = flip_y ? h - 1 - y : y;
            size_t from = transpose ? u * in_w + v : v * in_w + u;
            memcpy(rgb + (y * w + x) * 3, image->rgb + from * 3, 3);
        }
    }
    em_image_free(image);
    *image = (em_image){.rgb = rgb, .width = (int)w, .height = (int)h};
    return EM_OK;
}
