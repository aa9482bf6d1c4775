/* Pictures in: JPEG, PNG, WebP and 8-bit binary PPM, by content, to 8-bit RGB with the pixels that
 * Pillow's Image.open(f).convert("RGB") yields: alpha dropped, not blended; ICC profiles ignored;
 * of an animation the first frame; CMYK as Adobe stores it, inverted; 16-bit grey clipped to 255,
 * 16-bit RGB cut to its high bytes. Unlike Pillow's, the result is turned upright (EXIF
 * orientation) unless told not to. */
#ifndef EM_IO_IMAGE_IN_H
#define EM_IO_IMAGE_IN_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* {0} is an empty image. */
typedef struct em_image {
    uint8_t *rgb; /* (height, width, 3), rows without padding; owned: em_image_free */
    int width, height;
} em_image;

void em_image_free(em_image *image); /* NULL and an empty image are allowed */

#define EM_IMAGE_MAX_PIXELS                                                                        \
    178956970 /* Pillow's limit; more is refused before anything is decoded */
#define EM_IMAGE_MAX_BYTES ((size_t)256 << 20) /* of the file */

typedef enum em_image_orient {
    EM_IMAGE_UPRIGHT,  /* apply the EXIF orientation, 1 to 8; absent or damaged counts as 1 */
    EM_IMAGE_AS_STORED /* the reference's pixels */
} em_image_orient;

/* Reads a whole file. EM_IO: it cannot be read; EM_FORMAT: empty, not a picture, a format that
 * is not supported, truncated, damaged, too large. The sentence names the file. */
em_status em_image_load(em_image *out, const char *path, em_image_orient orient, em_err *err);

/* The same from memory; `name` stands for the file in sentences. */
em_status em_image_decode(em_image *out, const void *data, size_t size_bytes, const char *name,
                          em_image_orient orient, em_err *err);

#endif
