#include "io/audio_in.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/time.h"
#include "io/file.h"
#include "io/media_sniff.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
#include <libavutil/log.h>
#include <libavutil/mem.h>
#include <string.h>

/* Short lists: each entry is code that hostile bytes reach. */
#define FORMATS "wav,mp3,flac,ogg,mov,aac"
#define CODECS                                                                                     \
    "pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,mp3float,flac,"   \
    "vorbis,opus,aac,alac"
#define EXPECTED "WAV, MP3, FLAC, Ogg or M4A"

enum {
    IO_BUFFER_BYTES = 32768,
    MIN_RATE_HZ = 4000,
    MAX_RATE_HZ = 384000,
    MAX_FLOATS = 1 << 29 /* 2 GiB of samples: silence compresses well */
};

typedef struct decoder {
    const uint8_t *data; /* the file; borrowed */
    size_t size_bytes, pos;
    const char *name;
    double max_seconds, timeout_s, deadline_ms;
    const atomic_bool *cancel;

    AVIOContext *io;
    AVFormatContext *format;
    AVStream *stream; /* the format's */
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;

    em_audio audio; /* grows; owned until success */
    size_t cap;     /* floats */
    em_err *err;
} decoder;

/* ---- the file as FFmpeg sees it: one buffer, nothing else ---- */

static bool cancelled(const decoder *d)
{
    return d->cancel && atomic_load(d->cancel);
}

static int out_of_time(void *opaque)
{
    const decoder *d = opaque;
    return cancelled(d) || em_now_ms() > d->deadline_ms;
}

static int read_bytes(void *opaque, uint8_t *out, int want)
{
    decoder *d = opaque;
    size_t n = d->size_bytes - d->pos;
    if (out_of_time(d)) return AVERROR_EXIT;
    if (n == 0) return AVERROR_EOF;
    if (n > (size_t)want) n = (size_t)want;
    memcpy(out, d->data + d->pos, n);
    d->pos += n;
    return (int)n;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    decoder *d = opaque;
    if (whence & AVSEEK_SIZE) return (int64_t)d->size_bytes;
    whence &= ~AVSEEK_FORCE;
    int64_t base = whence == SEEK_CUR   ? (int64_t)d->pos
                   : whence == SEEK_END ? (int64_t)d->size_bytes
                                        : 0;
    if (offset < -base || offset > (int64_t)d->size_bytes - base) return AVERROR(EINVAL);
    d->pos = (size_t)(base + offset);
    return (int64_t)d->pos;
}

static int refuse_open(AVFormatContext *format, AVIOContext **io, const char *url, int flags,
                       AVDictionary **options)
{
    (void)format, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

/* ---- sentences ---- */

/* FFmpeg also says ENOMEM to a size in the file that nothing could satisfy. */
static em_status no_memory(decoder *d)
{
    return em_fail(d->err, EM_NOMEM,
                   "'%s' needs more memory than there is: it is too large, or damaged", d->name);
}

static em_status fail_av(decoder *d, int code, const char *doing)
{
    char why[AV_ERROR_MAX_STRING_SIZE];
    if (cancelled(d)) return em_fail(d->err, EM_CANCELLED, "cancelled");
    if (code == AVERROR(ENOMEM)) return no_memory(d);
    if (code == AVERROR_EXIT || out_of_time(d)) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s': decoding takes more than %.0f s: give a shorter or "
                       "simpler file",
                       d->name, d->timeout_s);
    }
    av_strerror(code, why, sizeof why);
    return em_fail(d->err, EM_FORMAT,
                   "'%s' is damaged or not a sound that can be read (%s: %s): "
                   "expected " EXPECTED,
                   d->name, doing, why);
}

/* ---- opening ---- */

static em_status open_format(decoder *d)
{
    static const char *const options[][2] = {
        {"protocol_whitelist", "none"}, {"format_whitelist", FORMATS},  {"codec_whitelist", CODECS},
        {"probesize", "5000000"},       {"analyzeduration", "5000000"}, {"max_streams", "8"},
        {"max_probe_packets", "2500"},  {"indexmem", "16777216"},
    };
    AVDictionary *set = NULL;
    uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);
    if (buffer)
        d->io = avio_alloc_context(buffer, IO_BUFFER_BYTES, 0, d, read_bytes, NULL, seek_bytes);
    if (!d->io) av_free(buffer);
    d->format = avformat_alloc_context();
    if (!d->io || !d->format) return no_memory(d);
    d->format->pb = d->io;
    d->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    d->format->io_open = refuse_open;
    d->format->interrupt_callback = (AVIOInterruptCB){out_of_time, d};

    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (av_dict_set(&set, options[i][0], options[i][1], 0) < 0) {
            av_dict_free(&set);
            return no_memory(d);
        }
    }
    int rc = avformat_open_input(&d->format, NULL, NULL, &set); /* frees the context on failure */
    av_dict_free(&set);
    if (rc < 0) return fail_av(d, rc, "opening");
    rc = avformat_find_stream_info(d->format, NULL);
    return rc < 0 ? fail_av(d, rc, "probing") : EM_OK;
}

/* The first sound track; the demuxer is told to skip everything else. */
static em_status choose_stream(decoder *d)
{
    for (unsigned i = 0; i < d->format->nb_streams; i++) {
        AVStream *s = d->format->streams[i];
        bool sound = s->codecpar->codec_type == AVMEDIA_TYPE_AUDIO;
        if (sound && !d->stream) {
            d->stream = s;
        } else {
            s->discard = AVDISCARD_ALL;
        }
    }
    if (d->stream) return EM_OK;
    return em_fail(d->err, EM_FORMAT, "'%s' has no sound track: give a file with sound", d->name);
}

static em_status open_codec(decoder *d)
{
    const AVCodecParameters *par = d->stream->codecpar;
    const AVCodec *codec = avcodec_find_decoder(par->codec_id);
    d->codec = avcodec_alloc_context3(codec);
    d->packet = av_packet_alloc();
    d->frame = av_frame_alloc();
    if (!d->codec || !d->packet || !d->frame) return no_memory(d);
    int rc = avcodec_parameters_to_context(d->codec, par);
    if (rc < 0) return fail_av(d, rc, "setting up the decoder");

    d->codec->pkt_timebase = d->stream->time_base; /* encoder delay is cut by time */
    d->codec->thread_count = 1;
    AVDictionary *set = NULL;
    bool ok = codec && av_dict_set(&set, "codec_whitelist", CODECS, 0) >= 0 &&
              av_dict_set(&set, "max_samples", "1048576", 0) >= 0 &&
              avcodec_open2(d->codec, codec, &set) >= 0;
    av_dict_free(&set);
    if (!ok) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s' holds sound in the format %s, which is not supported: "
                       "expected " EXPECTED,
                       d->name, avcodec_get_name(par->codec_id));
    }
    /* libsndfile, through which the reference reads, knows none of these; its second way gives
     * 16 bits */
    d->audio.via_s16 = par->codec_id == AV_CODEC_ID_AAC || strstr(d->format->iformat->name, "mp4");
    return EM_OK;
}

/* ---- samples ---- */

/* n samples of one channel to every `step`-th float of out; in_step is 1 for planar formats. */
static bool put_channel(float *out, size_t step, const void *in, size_t in_step, size_t n,
                        enum AVSampleFormat packed)
{
#define PUT(type, value)                                                                           \
    for (size_t i = 0; i < n; i++) {                                                               \
        type v = ((const type *)in)[i * in_step];                                                  \
        out[i * step] = (float)(value);                                                            \
    }                                                                                              \
    return true
    switch (packed) {
    case AV_SAMPLE_FMT_U8: PUT(uint8_t, (v - 128) / 128.0f);
    case AV_SAMPLE_FMT_S16: PUT(int16_t, v / 32768.0f);
    case AV_SAMPLE_FMT_S32: PUT(int32_t, v / 2147483648.0);
    case AV_SAMPLE_FMT_FLT: PUT(float, v);
    case AV_SAMPLE_FMT_DBL: PUT(double, v);
    default: return false;
    }
#undef PUT
}

/* Rate and channels come from the first frame (HE-AAC's container does not know them) and must
 * stay. */
static em_status check_frame(decoder *d)
{
    em_audio *a = &d->audio;
    int rate = d->frame->sample_rate, channels = d->frame->ch_layout.nb_channels;
    if (a->channels && (a->channels != channels || a->rate_hz != rate)) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s' changes from %d Hz, %d channels to %d Hz, %d channels "
                       "in the middle: convert it to one format",
                       d->name, a->rate_hz, a->channels, rate, channels);
    }
    if (channels < 1 || channels > 8 || channels == 7) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s' has %d channels, expected 1 to 6, or 8: mix it down to "
                       "mono or stereo",
                       d->name, channels);
    }
    if (rate < MIN_RATE_HZ || rate > MAX_RATE_HZ) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s' declares %d samples a second, expected %d to %d: "
                       "convert it to 48000",
                       d->name, rate, MIN_RATE_HZ, MAX_RATE_HZ);
    }
    a->rate_hz = rate;
    a->channels = channels;
    return EM_OK;
}

static em_status append_frame(decoder *d)
{
    em_status st = check_frame(d);
    if (st) return st;
    em_audio *a = &d->audio;
    size_t channels = (size_t)a->channels, n = (size_t)d->frame->nb_samples;
    size_t used = a->n * channels;
    if ((double)(a->n + n) > d->max_seconds * a->rate_hz || used + n * channels > MAX_FLOATS) {
        return em_fail(d->err, EM_FORMAT,
                       "'%s' is longer than the %.0f s (or %d million samples) that "
                       "are read: cut it",
                       d->name, d->max_seconds, MAX_FLOATS / 1000000);
    }
    if (!em_array_grow((void **)&a->samples, &d->cap, used, n * channels, sizeof *a->samples)) {
        return no_memory(d);
    }
    enum AVSampleFormat format = d->frame->format;
    bool planar = av_sample_fmt_is_planar(format), known = true;
    size_t bytes = (size_t)av_get_bytes_per_sample(format);
    for (size_t c = 0; c < channels && known; c++) {
        const uint8_t *in =
            planar ? d->frame->extended_data[c] : d->frame->extended_data[0] + c * bytes;
        known = put_channel(a->samples + used + c, channels, in, planar ? 1 : channels, n,
                            av_get_packed_sample_fmt(format));
    }
    if (!known) return em_fail(d->err, EM_FORMAT, "'%s' holds samples of an unknown kind", d->name);
    a->n += n;
    return EM_OK;
}

/* Takes what the decoder has ready. A damaged packet costs its samples, not the file:
 * check_whole asks later how much is missing. */
static em_status drain(decoder *d)
{
    for (;;) {
        int rc = avcodec_receive_frame(d->codec, d->frame);
        if (rc == AVERROR(ENOMEM)) return no_memory(d);
        if (rc < 0) return EM_OK;
        em_status st = append_frame(d);
        av_frame_unref(d->frame);
        if (st) return st;
    }
}

static em_status decode_all(decoder *d)
{
    em_status st = EM_OK;
    int rc = 0;
    while (!st && (rc = av_read_frame(d->format, d->packet)) >= 0) {
        if (out_of_time(d)) {
            st = fail_av(d, AVERROR_EXIT, "decoding");
        } else if (d->packet->stream_index == d->stream->index) {
            rc = avcodec_send_packet(d->codec, d->packet);
            st = rc == AVERROR(ENOMEM) ? no_memory(d) : drain(d);
        }
        av_packet_unref(d->packet);
    }
    if (st) return st;
    if (rc == AVERROR(ENOMEM) || rc == AVERROR_EXIT) return fail_av(d, rc, "reading");
    avcodec_send_packet(d->codec, NULL);
    return drain(d);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Bytes that the data chunk of a WAV declares beyond the end of the file; FFmpeg forgives them
 * silently. Programs that write to a pipe declare 0xffffffff, and RF64 does always. */
static size_t wav_missing_bytes(const uint8_t *data, size_t n)
{
    size_t at = 12; /* after RIFF, size, WAVE */
    while (at + 8 <= n) {
        size_t size = u32_at(data + at + 4), left = n - at - 8;
        if (memcmp(data + at, "data", 4) == 0) {
            return size != UINT32_MAX && size > left ? size - left : 0;
        }
        if (size > left) break;
        at += 8 + size + (size & 1);
    }
    return 0;
}

/* Seconds that the file declares; 0 when it does not (a bit rate's estimate is no declaration). */
static double declared_seconds(const decoder *d)
{
    int64_t bytes_per_s = d->stream->codecpar->bit_rate / 8;
    if (strcmp(d->format->iformat->name, "wav") == 0 && bytes_per_s > 0) {
        size_t missing = wav_missing_bytes(d->data, d->size_bytes);
        return (double)d->audio.n / d->audio.rate_hz + (double)missing / (double)bytes_per_s;
    }
    bool declared = d->format->duration_estimation_method == AVFMT_DURATION_FROM_STREAM &&
                    d->stream->duration != AV_NOPTS_VALUE;
    return declared ? (double)d->stream->duration * av_q2d(d->stream->time_base) : 0.0;
}

/* Codecs' padding and careless headers differ from what is there by a few hundredths of a
 * second. */
static em_status check_whole(decoder *d)
{
    const double slack_s = 0.1;
    if (d->audio.n == 0) {
        return em_fail(d->err, EM_FORMAT, "'%s' holds no sound (0 samples): give another recording",
                       d->name);
    }
    double declared = declared_seconds(d), found = (double)d->audio.n / d->audio.rate_hz;
    if (found + slack_s >= declared) return EM_OK;
    return em_fail(
        d->err, EM_FORMAT,
        "'%s' is truncated or damaged: it declares %.2f s of sound, %.2f s are there: give "
        "the whole file",
        d->name, declared, found);
}

static void decoder_close(decoder *d)
{
    av_frame_free(&d->frame);
    av_packet_free(&d->packet);
    avcodec_free_context(&d->codec);
    avformat_close_input(&d->format);
    if (d->io) av_freep(&d->io->buffer); /* FFmpeg may have replaced ours */
    avio_context_free(&d->io);
    em_audio_free(&d->audio);
}

em_status em_audio_decode(em_audio *out, const void *data, size_t size_bytes, const char *name,
                          const em_audio_limits *limits, em_err *err)
{
    if (size_bytes == 0) {
        return em_fail(err, EM_FORMAT, "'%s' is empty (0 bytes): expected " EXPECTED, name);
    }
    const char *found;
    if (em_media_sniff(data, size_bytes, &found) != EM_MEDIA_SOUND) {
        return em_fail(err, EM_FORMAT,
                       "'%s' is not a sound that can be read: expected " EXPECTED ", found %s",
                       name, found);
    }
    em_audio_limits use = limits ? *limits : (em_audio_limits){0};
    decoder d = {.data = data, .size_bytes = size_bytes, .name = name, .err = err};
    d.max_seconds = use.max_seconds > 0 ? use.max_seconds : 3600.0;
    d.timeout_s = use.timeout_s > 0 ? use.timeout_s : 300.0;
    d.cancel = use.cancel;
    d.deadline_ms = em_now_ms() + d.timeout_s * 1000.0;
    av_log_set_level(AV_LOG_QUIET); /* a library prints nothing; what matters is in our sentences */

    em_status st = open_format(&d);
    if (!st) st = choose_stream(&d);
    if (!st) st = open_codec(&d);
    if (!st) st = decode_all(&d);
    if (!st) st = check_whole(&d);
    if (!st) {
        *out = d.audio;
        d.audio = (em_audio){0};
    }
    decoder_close(&d);
    return st;
}

em_status em_audio_load(em_audio *out, const char *path, const em_audio_limits *limits, em_err *err)
{
    char *data;
    size_t size_bytes;
    em_status st = em_file_read(&data, &size_bytes, path, EM_AUDIO_MAX_BYTES, err);
    if (st) return st;
    st = em_audio_decode(out, data, size_bytes, path, limits, err);
    em_free(data);
    return st;
}
