#include "video_in.h"

#include "base/alloc.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <string.h>

typedef struct reader {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scale;
    int stream;
} reader;

static void close_reader(reader *r)
{
    sws_freeContext(r->scale);
    av_frame_free(&r->frame);
    av_packet_free(&r->packet);
    avcodec_free_context(&r->codec);
    avformat_close_input(&r->format);
}

static em_status open_reader(reader *r, const char *path, em_err *err)
{
    const AVCodec *codec = NULL;
    if (avformat_open_input(&r->format, path, NULL, NULL) < 0 ||
        avformat_find_stream_info(r->format, NULL) < 0)
        return em_fail(err, EM_FORMAT, "'%s' is not a video that can be read", path);
    r->stream = av_find_best_stream(r->format, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    r->codec = r->stream < 0 ? NULL : avcodec_alloc_context3(codec);
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    if (!r->codec || !r->packet || !r->frame ||
        avcodec_parameters_to_context(r->codec, r->format->streams[r->stream]->codecpar) < 0 ||
        avcodec_open2(r->codec, codec, NULL) < 0)
        return em_fail(err, EM_FORMAT, "'%s' has no picture track that can be decoded", path);
    return EM_OK;
}

/* Appends the decoder's frame as RGB. */
static em_status append(reader *r, demo_video *v, em_err *err)
{
    const AVFrame *f = r->frame;
    size_t bytes = (size_t)f->width * (size_t)f->height * 3;
    if (v->frames && (f->width != v->width || f->height != v->height))
        return em_fail(err, EM_FORMAT, "the picture's size changes");
    v->width = f->width;
    v->height = f->height;
    uint8_t *grown = em_realloc_array(v->rgb, (size_t)v->frames + 1, bytes);
    r->scale =
        sws_getCachedContext(r->scale, f->width, f->height, (enum AVPixelFormat)f->format, f->width,
                             f->height, AV_PIX_FMT_RGB24,
                             SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    if (grown) v->rgb = grown;
    if (!grown || !r->scale) return em_fail(err, EM_NOMEM, "no memory for the frames");
    uint8_t *const to[4] = {v->rgb + (size_t)v->frames * bytes};
    const int stride[4] = {f->width * 3};
    sws_scale(r->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height, to, stride);
    v->frames++;
    return EM_OK;
}

static em_status drain(reader *r, demo_video *v, em_err *err)
{
    em_status st = EM_OK;
    while (!st && avcodec_receive_frame(r->codec, r->frame) == 0) st = append(r, v, err);
    return st;
}

em_status demo_video_load(demo_video *out, const char *path, em_err *err)
{
    reader r = {0};
    demo_video v = {0};
    em_status st = open_reader(&r, path, err);
    while (!st && av_read_frame(r.format, r.packet) == 0) {
        if (r.packet->stream_index == r.stream && avcodec_send_packet(r.codec, r.packet) == 0)
            st = drain(&r, &v, err);
        av_packet_unref(r.packet);
    }
    if (!st && avcodec_send_packet(r.codec, NULL) == 0) st = drain(&r, &v, err);
    if (!st && !v.frames) st = em_fail(err, EM_FORMAT, "'%s' holds no frames", path);
    close_reader(&r);
    if (st)
        em_free(v.rgb);
    else
        *out = v;
    return st;
}
