/* WebP by libwebp, through its animation decoder as Pillow does: a still picture is an animation
 * of one frame, and of a longer one the first frame counts. */
#include "base/alloc.h"
#include "io/image_codec.h"

#include <webp/decode.h>
#include <webp/demux.h>

static void read_exif(int *orientation, const WebPDemuxer *demux)
{
    WebPChunkIterator chunk;
    if (!WebPDemuxGetChunk(demux, "EXIF", 1, &chunk)) return;
    *orientation = em_exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
}

static em_status damaged(const char *name, em_err *err)
{
    return em_fail(err, EM_FORMAT, "'%s' is a damaged or truncated WebP: give the original file",
                   name);
}

em_status em_image_decode_webp(em_image *out, int *orientation, const uint8_t *data,
                               size_t size_bytes, const char *name, em_err *err)
{
    em_status st;
    em_image image = {0};
    WebPAnimDecoder *decoder = NULL;
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(data, size_bytes, &features) != VP8_STATUS_OK) return damaged(name, err);
    st = em_image_alloc(&image, (uint32_t)features.width, (uint32_t)features.height, name, err);
    if (st) return st;

    WebPAnimDecoderOptions options;
    WebPData file = {.bytes = data, .size = size_bytes};
    WebPAnimInfo info;
    uint8_t *rgba; /* (height, width, 4), the decoder's */
    int shown_ms;
    if (!WebPAnimDecoderOptionsInit(&options)) {
        st =
            em_fail(err, EM_INVAL, "'%s': the libwebp at run time is not the one built with", name);
        goto fail;
    }
    decoder = WebPAnimDecoderNew(&file, &options);
    if (!decoder || !WebPAnimDecoderGetInfo(decoder, &info) ||
        info.canvas_width != (uint32_t)image.width ||
        info.canvas_height != (uint32_t)image.height ||
        !WebPAnimDecoderGetNext(decoder, &rgba, &shown_ms)) {
        st = damaged(name, err);
        goto fail;
    }
    size_t pixels = (size_t)image.width * (size_t)image.height;
    for (size_t i = 0; i < pixels; i++) {
        for (int c = 0; c < 3; c++) image.rgb[3 * i + c] = rgba[4 * i + c];
    }
    read_exif(orientation, WebPAnimDecoderGetDemuxer(decoder));
    WebPAnimDecoderDelete(decoder);
    *out = image;
    return EM_OK;

fail:
    WebPAnimDecoderDelete(decoder);
    em_image_free(&image);
    return st;
}
