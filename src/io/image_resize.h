/* Size and scale a portrait exactly as the reference does. */
#ifndef EM_IO_IMAGE_RESIZE_H
#define EM_IO_IMAGE_RESIZE_H

#include "base/status.h"
#include "io/image_in.h"

/* The size at which a width x height picture enters the model: both sides multiples of 16, the
 * shape kept, the area at most sample_h * sample_w, never enlarged. A side may come out as 0:
 * em_image_check_size. All arguments are positive. */
void em_image_target_size(int width, int height, int sample_h, int sample_w, int *target_w,
                          int *target_h);

/* EM_INVAL, with a sentence about `name`, when a side is under 16 pixels, or gets there because
 * the picture is so long and thin. */
em_status em_image_check_size(const char *name, int width, int height, int sample_h, int sample_w,
                              em_err *err);

/* Pillow's resize((width, height), LANCZOS) of an RGB image, to the byte. *out is a new image, a
 * copy when the size is that of `in`; width and height are positive. EM_NOMEM is the only
 * failure. */
em_status em_image_resize_lanczos(em_image *out, const em_image *in, int width, int height,
                                  em_err *err);

#endif
