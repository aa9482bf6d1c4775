/* Pictures out: 8-bit RGB PNG. */
#ifndef EM_IO_IMAGE_OUT_H
#define EM_IO_IMAGE_OUT_H

#include "base/status.h"
#include "io/image_in.h"

/* Writes `image` to `path`, complete or not at all (temporary name, then rename). The same
 * picture gives the same bytes with one version of zlib. */
em_status em_image_write_png(const char *path, const em_image *image, em_err *err);

#endif
