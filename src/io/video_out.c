#include "io/video_out.h"

#include "base/alloc.h"
#include "base/str.h"
#include "io/audio.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
#include <libavutil/imgutils.h>
#include <libavutil/log.h>
#include <libavutil/mem.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IO_BUFFER_BYTES = 65536, X264_THREADS = 2 };

typedef struct track {
    AVCodecContext *codec;
    AVStream *stream; /* the muxer's */
} track;

struct em_video_out {
    em_video_params params; /* params.audio is NULL here: the samples are below */
    const em_log *log;
    char *path;

    em_file_writer *file;
    uint64_t pos, end; /* of the part file */
    em_err io_err;     /* the first failed write, which FFmpeg reduces to a number */

    AVFormatContext *mux;
    AVIOContext *io;
    AVPacket *packet;
    track video, sound;
    struct SwsContext *to_yuv;
    AVFrame *rgb, *yuv, *block;

    float *samples; /* (samples_n, channels) at the codec's rate; owned */
    size_t samples_n, samples_done;
    int pushed;
    bool complete;
};

/* ---- the part file as FFmpeg sees it ---- */

static int write_bytes(void *opaque, uint8_t *data, int n)
{
    em_video_out *v = opaque;
    if (v->io_err.code) return AVERROR(EIO);
    if (em_file_writer_write(v->file, v->pos, data, (size_t)n, &v->io_err)) return AVERROR(EIO);
    v->pos += (uint64_t)n;
    if (v->end < v->pos) v->end = v->pos;
    return n;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    em_video_out *v = opaque;
    if (whence & AVSEEK_SIZE) return (int64_t)v->end;
    whence &= ~AVSEEK_FORCE;
    int64_t base = whence == SEEK_CUR ? (int64_t)v->pos : whence == SEEK_END ? (int64_t)v->end : 0;
    if (base + offset < 0) return AVERROR(EINVAL);
    v->pos = (uint64_t)(base + offset);
    return (int64_t)v->pos;
}

/* faststart: when all is written the muxer moves the media data down to make room for the index
 * in front, and reads the file back through a second handle. */
typedef struct reader {
    int fd;
    int64_t pos;
} reader;

static int reader_read(void *opaque, uint8_t *out, int n)
{
    reader *r = opaque;
    ssize_t got;
    do {
        got = pread(r->fd, out, (size_t)n, r->pos);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return AVERROR(errno);
    r->pos += got;
    return got ? (int)got : AVERROR_EOF;
}

static int64_t reader_seek(void *opaque, int64_t offset, int whence)
{
    reader *r = opaque;
    if ((whence & ~AVSEEK_FORCE) != SEEK_SET || offset < 0) return AVERROR(ENOSYS);
    return r->pos = offset;
}

static int reader_open(AVFormatContext *mux, AVIOContext **out, const char *url, int flags,
                       AVDictionary **options)
{
    (void)url, (void)options;
    const em_video_out *v = mux->opaque;
    if (flags != AVIO_FLAG_READ) return AVERROR(EPERM);
    reader *r = em_alloc(sizeof *r);
    uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);
    if (!r || !buffer) goto fail;
    r->fd = open(em_file_writer_part(v->file), O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) goto fail;
    *out = avio_alloc_context(buffer, IO_BUFFER_BYTES, 0, r, reader_read, NULL, reader_seek);
    if (*out) return 0;
    close(r->fd);

fail:
    em_free(r);
    av_free(buffer);
    return AVERROR(EIO);
}

static int reader_close(AVFormatContext *mux, AVIOContext *io)
{
    (void)mux;
    reader *r = io->opaque;
    close(r->fd);
    em_free(r);
    av_freep(&io->buffer);
    avio_context_free(&io);
    return 0;
}

/* ---- sentences ---- */

static em_status no_memory(const em_video_out *v, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory writing '%s'", v->path);
}

static em_status fail_av(const em_video_out *v, int code, const char *doing, em_err *err)
{
    char why[AV_ERROR_MAX_STRING_SIZE];
    if (v->io_err.code) return em_fail(err, v->io_err.code, "%s", v->io_err.msg);
    if (code == AVERROR(ENOMEM)) return no_memory(v, err);
    av_strerror(code, why, sizeof why);
    return em_fail(err, EM_IO, "cannot write '%s' (%s: %s)", v->path, doing, why);
}

/* ---- opening ---- */

static em_status check_params(const char *path, const em_video_params *p, em_err *err)
{
    if (p->width < 2 || p->height < 2 || p->width % 2 || p->height % 2) {
        return em_fail(err, EM_INVAL,
                       "'%s': a video of %d x %d pixels cannot be, both must be even", path,
                       p->width, p->height);
    }
    if (p->fps < 1 || p->frames < 1 || p->crf < 0 || p->crf > 51) {
        return em_fail(err, EM_INVAL, "'%s': %d frames at %d fps with crf %d cannot be", path,
                       p->frames, p->fps, p->crf);
    }
    if (!p->audio) return EM_OK;
    if (p->audio_rate_hz < 1 || p->audio_channels < 1 || p->audio_channels > 8 ||
        p->audio_channels == 7) {
        return em_fail(err, EM_INVAL,
                       "'%s': AAC holds no %d channels at %d Hz, expected 1 to 6, or 8", path,
                       p->audio_channels, p->audio_rate_hz);
    }
    return EM_OK;
}

static em_status open_muxer(em_video_out *v, em_err *err)
{
    em_status st = em_file_writer_open(&v->file, v->path, err);
    if (st) return st;
    uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);
    if (buffer)
        v->io = avio_alloc_context(buffer, IO_BUFFER_BYTES, 1, v, NULL, write_bytes, seek_bytes);
    if (!v->io) av_free(buffer);
    avformat_alloc_output_context2(&v->mux, NULL, "mp4", NULL);
    v->packet = av_packet_alloc();
    if (!v->io || !v->mux || !v->packet) return no_memory(v, err);
    v->mux->pb = v->io;
    v->mux->opaque = v;
    v->mux->io_open = reader_open;
    v->mux->io_close2 = reader_close;
    v->mux->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT;
    return EM_OK;
}

/* Opens the track's encoder with its settings, adds its stream. */
static em_status open_track(em_video_out *v, track *t, AVDictionary **options, em_err *err)
{
    t->codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
    int rc = avcodec_open2(t->codec, t->codec->codec, options);
    if (rc < 0) return fail_av(v, rc, "opening the encoder", err);
    t->stream = avformat_new_stream(v->mux, NULL);
    if (!t->stream) return no_memory(v, err);
    t->stream->time_base = t->codec->time_base;
    rc = avcodec_parameters_from_context(t->stream->codecpar, t->codec);
    return rc < 0 ? fail_av(v, rc, "describing the stream", err) : EM_OK;
}

static em_status new_encoder(em_video_out *v, track *t, const char *name, em_err *err)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(name);
    if (!codec) {
        return em_fail(err, EM_INVAL,
                       "cannot write '%s': the FFmpeg libraries here have no %s encoder: "
                       "install a build that has",
                       v->path, name);
    }
    t->codec = avcodec_alloc_context3(codec);
    return t->codec ? EM_OK : no_memory(v, err);
}

/* No macroblock tree: x264 164's vector code for it reads uninitialised memory where the width
 * is no multiple of 128, and the bits that it chooses then depend on what the heap held. */
static em_status open_video(em_video_out *v, em_err *err)
{
    const em_video_params *p = &v->params;
    em_status st = new_encoder(v, &v->video, "libx264", err);
    if (st) return st;
    AVCodecContext *c = v->video.codec;
    c->width = p->width;
    c->height = p->height;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->time_base = (AVRational){1, p->fps};
    c->framerate = (AVRational){p->fps, 1};
    c->thread_count = X264_THREADS;
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_SMPTE170M;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;

    AVDictionary *set = NULL;
    if (av_dict_set(&set, "preset", "medium", 0) < 0 ||
        av_dict_set_int(&set, "crf", p->crf, 0) < 0 || av_dict_set(&set, "mbtree", "0", 0) < 0) {
        av_dict_free(&set);
        return no_memory(v, err);
    }
    st = open_track(v, &v->video, &set, err);
    av_dict_free(&set);
    if (!st) v->video.stream->avg_frame_rate = c->framerate;
    return st;
}

static em_status new_frame(em_video_out *v, AVFrame **out, enum AVPixelFormat format, em_err *err)
{
    *out = av_frame_alloc();
    if (!*out) return no_memory(v, err);
    (*out)->format = format;
    (*out)->width = v->params.width;
    (*out)->height = v->params.height;
    return av_frame_get_buffer(*out, 0) < 0 ? no_memory(v, err) : EM_OK;
}

/* Bit-exact and accurate: the plain C result on every processor. */
static em_status open_pictures(em_video_out *v, em_err *err)
{
    int w = v->params.width, h = v->params.height;
    em_status st = new_frame(v, &v->rgb, AV_PIX_FMT_RGB24, err);
    if (!st) st = new_frame(v, &v->yuv, AV_PIX_FMT_YUV420P, err);
    if (st) return st;
    v->to_yuv = sws_getContext(w, h, AV_PIX_FMT_RGB24, w, h, AV_PIX_FMT_YUV420P,
                               SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
    return v->to_yuv ? EM_OK : no_memory(v, err);
}

static int nearest_rate(const int *rates, int want)
{
    int best = rates[0];
    for (; *rates; rates++) {
        if (abs(*rates - want) < abs(best - want)) best = *rates;
    }
    return best;
}

/* Channels in the order that AAC stores; a file's own order of three and more is taken for this
 * one. */
static AVChannelLayout layout_of(int channels)
{
    static const uint64_t mask[9] = {
        [1] = AV_CH_LAYOUT_MONO,         [2] = AV_CH_LAYOUT_STEREO,
        [3] = AV_CH_LAYOUT_SURROUND,     [4] = AV_CH_LAYOUT_4POINT0,
        [5] = AV_CH_LAYOUT_5POINT0_BACK, [6] = AV_CH_LAYOUT_5POINT1_BACK,
        [8] = AV_CH_LAYOUT_7POINT1,
    };
    AVChannelLayout layout = {0};
    av_channel_layout_from_mask(&layout, mask[channels]);
    return layout;
}

/* The samples that are played, at a rate that the codec has. */
static em_status take_samples(em_video_out *v, const em_video_params *p, int rate_hz, em_err *err)
{
    uint64_t length = (uint64_t)p->frames * (uint64_t)p->audio_rate_hz / (uint64_t)p->fps;
    size_t n = length < p->audio_n ? (size_t)length : p->audio_n;
    if (rate_hz != p->audio_rate_hz) {
        em_logf(v->log, EM_LOG_INFO, "'%s': AAC has no rate of %d Hz, the sound becomes %d Hz",
                v->path, p->audio_rate_hz, rate_hz);
    }
    return em_audio_resample(&v->samples, &v->samples_n, p->audio, n, p->audio_channels,
                             p->audio_rate_hz, rate_hz, err);
}

static em_status open_sound(em_video_out *v, const em_video_params *p, em_err *err)
{
    if (!p->audio || p->audio_n == 0) return EM_OK;
    em_status st = new_encoder(v, &v->sound, "aac", err);
    if (st) return st;
    AVCodecContext *c = v->sound.codec;
    c->sample_rate = nearest_rate(c->codec->supported_samplerates, p->audio_rate_hz);
    c->sample_fmt = AV_SAMPLE_FMT_FLTP;
    c->ch_layout = layout_of(p->audio_channels);
    c->time_base = (AVRational){1, c->sample_rate};
    int per_channel =
        c->sample_rate < 16000 ? 6 * c->sample_rate : 96000; /* AAC-LC's ceiling is near */
    c->bit_rate = (int64_t)per_channel * p->audio_channels;
    st = open_track(v, &v->sound, NULL, err);
    if (!st) st = take_samples(v, p, c->sample_rate, err);
    if (st) return st;

    v->block = av_frame_alloc();
    if (!v->block) return no_memory(v, err);
    v->block->format = c->sample_fmt;
    v->block->sample_rate = c->sample_rate;
    v->block->nb_samples = c->frame_size;
    v->block->ch_layout = c->ch_layout; /* native order: nothing to free */
    return av_frame_get_buffer(v->block, 0) < 0 ? no_memory(v, err) : EM_OK;
}

static em_status write_header(em_video_out *v, em_err *err)
{
    AVDictionary *set = NULL;
    if (av_dict_set(&set, "movflags", "+faststart", 0) < 0) return no_memory(v, err);
    int rc = avformat_write_header(v->mux, &set);
    av_dict_free(&set);
    return rc < 0 ? fail_av(v, rc, "writing the header", err) : EM_OK;
}

em_status em_video_out_open(em_video_out **out, const char *path, const em_video_params *params,
                            const em_log *log, em_err *err)
{
    em_status st = check_params(path, params, err);
    if (st) return st;
    av_log_set_level(AV_LOG_QUIET); /* a library prints nothing; what matters is in our sentences */
    em_video_out *v = em_alloc(sizeof *v);
    if (!v) return em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
    v->params = *params;
    v->params.audio = NULL;
    v->log = log;
    v->path = em_strdup(path);
    if (!v->path) {
        st = em_fail(err, EM_NOMEM, "out of memory writing '%s'", path);
        goto fail;
    }

    st = open_muxer(v, err);
    if (!st) st = open_video(v, err);
    if (!st) st = open_pictures(v, err);
    if (!st) st = open_sound(v, params, err);
    if (!st) st = write_header(v, err);
    if (st) goto fail;
    *out = v;
    return EM_OK;

fail:
    em_video_out_close(&v);
    return st;
}

/* ---- frames ---- */

/* Gives `frame` (NULL: the end) to the track's encoder and its packets to the muxer. */
static em_status encode(em_video_out *v, track *t, AVFrame *frame, em_err *err)
{
    int rc = avcodec_send_frame(t->codec, frame);
    if (rc < 0) return fail_av(v, rc, "encoding", err);
    while ((rc = avcodec_receive_packet(t->codec, v->packet)) >= 0) {
        v->packet->stream_index = t->stream->index;
        av_packet_rescale_ts(v->packet, t->codec->time_base, t->stream->time_base);
        rc = av_interleaved_write_frame(v->mux, v->packet); /* takes the packet */
        if (rc < 0 || v->io_err.code) return fail_av(v, rc, "writing", err);
    }
    return rc == AVERROR(EAGAIN) || rc == AVERROR_EOF ? EM_OK : fail_av(v, rc, "encoding", err);
}

/* The next block of sound, n samples. */
static em_status encode_block(em_video_out *v, size_t n, em_err *err)
{
    size_t channels = (size_t)v->params.audio_channels;
    if (av_frame_make_writable(v->block) < 0) return no_memory(v, err);
    const float *from = v->samples + v->samples_done * channels;
    for (size_t c = 0; c < channels; c++) {
        float *to = (float *)v->block->extended_data[c];
        for (size_t i = 0; i < n; i++) to[i] = from[i * channels + c];
    }
    v->block->nb_samples = (int)n;
    v->block->pts = (int64_t)v->samples_done;
    v->samples_done += n;
    return encode(v, &v->sound, v->block, err);
}

/* Whole blocks of the sound up to the end of the frames pushed so far, so that the two tracks
 * lie side by side in the file; with `all`, the rest. */
static em_status encode_sound(em_video_out *v, bool all, em_err *err)
{
    if (!v->sound.codec) return EM_OK;
    size_t block = (size_t)v->sound.codec->frame_size;
    uint64_t due =
        (uint64_t)v->pushed * (uint64_t)v->sound.codec->sample_rate / (uint64_t)v->params.fps;
    em_status st = EM_OK;
    while (!st && v->samples_done < v->samples_n) {
        size_t n = v->samples_n - v->samples_done;
        if (n > block) n = block;
        if (!all && (n < block || v->samples_done + n > due)) break;
        st = encode_block(v, n, err);
    }
    return st;
}

char *em_video_out_name(const char *path)
{
    return em_strdup(path);
}

em_status em_video_out_push(em_video_out *v, const uint8_t *rgb, em_err *err)
{
    int w = v->params.width, h = v->params.height;
    if (v->pushed == v->params.frames) {
        return em_fail(err, EM_INVAL, "'%s' was opened for %d frames and gets more", v->path,
                       v->pushed);
    }
    if (av_frame_make_writable(v->yuv) < 0) return no_memory(v, err);
    /* swscale's vector code may read a little beyond a row: not the caller's memory */
    av_image_copy_plane(v->rgb->data[0], v->rgb->linesize[0], rgb, 3 * w, 3 * w, h);
    sws_scale(v->to_yuv, (const uint8_t *const *)v->rgb->data, v->rgb->linesize, 0, h, v->yuv->data,
              v->yuv->linesize);
    v->yuv->pts = v->pushed++;
    em_status st = encode(v, &v->video, v->yuv, err);
    return st ? st : encode_sound(v, false, err);
}

em_status em_video_out_finish(em_video_out *v, em_err *err)
{
    if (v->pushed != v->params.frames) {
        return em_fail(err, EM_INVAL, "'%s' was opened for %d frames and got %d", v->path,
                       v->params.frames, v->pushed);
    }
    em_status st = encode_sound(v, true, err);
    if (!st) st = encode(v, &v->video, NULL, err);
    if (!st && v->sound.codec) st = encode(v, &v->sound, NULL, err);
    if (st) return st;
    int rc = av_write_trailer(v->mux);
    avio_flush(v->io);
    if (rc >= 0) rc = v->io->error;
    if (rc < 0 || v->io_err.code) return fail_av(v, rc, "completing", err);
    v->complete = true;
    return EM_OK;
}

const char *em_video_out_part(const em_video_out *v)
{
    return em_file_writer_part(v->file);
}

em_status em_video_out_commit(em_video_out **video, em_err *err)
{
    em_video_out *v = *video;
    em_status st = EM_OK;
    if (!v->complete) {
        st = em_fail(err, EM_INVAL, "'%s' is not complete", v->path);
    } else {
        st = em_file_writer_commit(&v->file, err);
    }
    em_video_out_close(video);
    return st;
}

static void close_track(track *t)
{
    avcodec_free_context(&t->codec);
}

void em_video_out_close(em_video_out **video)
{
    if (!video || !*video) return;
    em_video_out *v = *video;
    close_track(&v->video);
    close_track(&v->sound);
    sws_freeContext(v->to_yuv);
    av_frame_free(&v->rgb);
    av_frame_free(&v->yuv);
    av_frame_free(&v->block);
    av_packet_free(&v->packet);
    avformat_free_context(v->mux);
    if (v->io) av_freep(&v->io->buffer);
    avio_context_free(&v->io);
    em_file_writer_close(&v->file);
    em_free(v->samples);
    em_free(v->path);
    em_free(v);
    *video = NULL;
}

/* ---- looking back ---- */

static double seconds_of(const AVStream *s)
{
    return s->duration == AV_NOPTS_VALUE ? 0.0 : (double)s->duration * av_q2d(s->time_base);
}

/* What the index says of the tracks; returns how many packets it promises. */
static int64_t describe(em_video_info *info, int *video, const AVFormatContext *f)
{
    int64_t packets = 0;
    for (unsigned i = 0; i < f->nb_streams; i++) {
        const AVStream *s = f->streams[i];
        packets += s->nb_frames;
        if (s->codecpar->codec_type == AVMEDIA_TYPE_VIDEO && info->video_streams++ == 0) {
            *video = (int)i;
            info->width = s->codecpar->width;
            info->height = s->codecpar->height;
            info->fps = av_q2d(s->avg_frame_rate);
            info->video_seconds = seconds_of(s);
        } else if (s->codecpar->codec_type == AVMEDIA_TYPE_AUDIO && info->audio_streams++ == 0) {
            info->audio_seconds = seconds_of(s);
        }
    }
    return packets;
}

/* Walks all packets: a file whose index points beyond its end shows here. */
static em_status count(em_video_info *info, AVFormatContext *f, const char *path, em_err *err)
{
    int video = -1;
    int64_t missing = describe(info, &video, f);
    AVPacket *packet = av_packet_alloc();
    if (!packet) return em_fail(err, EM_NOMEM, "out of memory checking '%s'", path);
    while (av_read_frame(f, packet) >= 0) {
        info->frames += packet->stream_index == video;
        missing -= !(packet->flags & AV_PKT_FLAG_CORRUPT);
        av_packet_unref(packet);
    }
    av_packet_free(&packet);
    if (missing == 0 && info->frames > 0) return EM_OK;
    return em_fail(err, EM_FORMAT, "'%s' is truncated or damaged: make it again", path);
}

em_status em_video_check(em_video_info *info, const char *path, em_err *err)
{
    struct stat file;
    if (stat(path, &file) != 0) return em_fail_errno(err, errno, "cannot examine '%s'", path);
    em_video_info found = {.size_bytes = (uint64_t)file.st_size};
    AVFormatContext *f = NULL;
    AVDictionary *set = NULL;
    em_str url = {0};
    em_status st = EM_OK;
    av_log_set_level(AV_LOG_QUIET);
    em_str_printf(&url, "file:%s", path);
    if (url.failed || av_dict_set(&set, "format_whitelist", "mov", 0) < 0 ||
        av_dict_set(&set, "protocol_whitelist", "file", 0) < 0) {
        st = em_fail(err, EM_NOMEM, "out of memory checking '%s'", path);
    } else if (avformat_open_input(&f, em_str_text(&url), NULL, &set) < 0) {
        st = em_fail(err, EM_FORMAT, "'%s' is not a whole MP4: make it again", path);
    } else {
        st = count(&found, f, path, err);
    }
    avformat_close_input(&f);
    av_dict_free(&set);
    em_str_free(&url);
    if (!st) *info = found;
    return st;
}
