#include "io/image_in.h"

#include "base/alloc.h"
#include "io/file.h"
#include "io/image_codec.h"
#include "io/media_sniff.h"

void em_image_free(em_image *image)
{
    if (!image) return;
    em_free(image->rgb);
    *image = (em_image){0};
}

em_status em_image_alloc(em_image *out, uint32_t width, uint32_t height, const char *name,
                         em_err *err)
{
    uint64_t pixels = (uint64_t)width * height;
    if (pixels == 0) return em_fail(err, EM_FORMAT, "'%s': the picture has no pixels", name);
    if (pixels > EM_IMAGE_MAX_PIXELS) {
        return em_fail(
            err, EM_FORMAT,
            "'%s': the picture declares %u x %u pixels, at most %d are read: scale it down", name,
            width, height, EM_IMAGE_MAX_PIXELS);
    }
    uint8_t *rgb = em_alloc_array((size_t)pixels, 3);
    if (!rgb) {
        return em_fail(err, EM_NOMEM, "'%s': out of memory for a picture of %u x %u pixels", name,
                       width, height);
    }
    *out = (em_image){.rgb = rgb, .width = (int)width, .height = (int)height};
    return EM_OK;
}

static em_status refuse(em_media_kind kind, const char *found, const char *name, em_err *err)
{
    if (kind == EM_MEDIA_UNKNOWN) {
        return em_fail(err, EM_FORMAT,
                       "'%s' is not a picture that can be read: expected JPEG, PNG "
                       "or WebP, found %s",
                       name, found);
    }
    return em_fail(err, EM_FORMAT,
                   "'%s' is %s: convert it to JPEG, PNG or WebP, or give another "
                   "portrait",
                   name, found);
}

em_status em_image_decode(em_image *out, const void *data, size_t size_bytes, const char *name,
                          em_image_orient orient, em_err *err)
{
    static const em_image_decoder decoders[] = {
        [EM_MEDIA_JPEG] = em_image_decode_jpeg,
        [EM_MEDIA_PNG] = em_image_decode_png,
        [EM_MEDIA_WEBP] = em_image_decode_webp,
        [EM_MEDIA_PPM] = em_image_decode_ppm,
    };
    if (size_bytes == 0) {
        return em_fail(err, EM_FORMAT,
                       "'%s' is empty (0 bytes): expected a JPEG, PNG or WebP picture", name);
    }
    const char *found;
    em_media_kind kind = em_media_sniff(data, size_bytes, &found);
    if (kind >= sizeof decoders / sizeof *decoders || !decoders[kind]) {
        return refuse(kind, found, name, err);
    }

    em_image image = {0};
    int orientation = 1;
    em_status st = decoders[kind](&image, &orientation, data, size_bytes, name, err);
    if (!st && orient == EM_IMAGE_UPRIGHT) st = em_image_turn(&image, orientation, err);
    if (st) {
        em_image_free(&image);
        return st;
    }
    *out = image;
    return EM_OK;
}

em_status em_image_load(em_image *out, const char *path, em_image_orient orient, em_err *err)
{
    char *data;
    size_t size_bytes;
    em_status st = em_file_read(&data, &size_bytes, path, EM_IMAGE_MAX_BYTES, err);
    if (st) return st;
    st = em_image_decode(out, data, size_bytes, path, orient, err);
    em_free(data);
    return st;
}
