/* Between image_in.c and the decoders: not for other layers. */
#ifndef EM_IO_IMAGE_CODEC_H
#define EM_IO_IMAGE_CODEC_H

#include "base/status.h"
#include "io/image_in.h"

#include <stddef.h>
#include <stdint.h>

/* A decoder fills *out (untouched on failure) and, when the file has an EXIF block, sets
 * *orientation from it. `name` is for sentences. */
typedef em_status (*em_image_decoder)(em_image *out, int *orientation, const uint8_t *data,
                                      size_t size_bytes, const char *name, em_err *err);

em_status em_image_decode_jpeg(em_image *out, int *orientation, const uint8_t *data,
                               size_t size_bytes, const char *name, em_err *err);
em_status em_image_decode_png(em_image *out, int *orientation, const uint8_t *data,
                              size_t size_bytes, const char *name, em_err *err);
em_status em_image_decode_webp(em_image *out, int *orientation, const uint8_t *data,
                               size_t size_bytes, const char *name, em_err *err);
em_status em_image_decode_ppm(em_image *out, int *orientation, const uint8_t *data,
                              size_t size_bytes, const char *name, em_err *err);

/* Pixels for a size that a file declares: EM_FORMAT above EM_IMAGE_MAX_PIXELS. */
em_status em_image_alloc(em_image *out, uint32_t width, uint32_t height, const char *name,
                         em_err *err);

/* The orientation (1 to 8) in an EXIF block, which is a TIFF file of its own and may be hostile;
 * 1 when it says nothing sensible. A leading "Exif\0\0" is allowed. */
int em_exif_orientation(const uint8_t *exif, size_t size_bytes);

/* Turns and mirrors so that orientation becomes 1. *image is replaced on success, else
 * untouched. */
em_status em_image_turn(em_image *image, int orientation, em_err *err);

#endif
