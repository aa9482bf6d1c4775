/* Video out without FFmpeg (EM_MEDIA=OFF): NAME.y4m and, for the sound, NAME.wav beside it. The
 * contract is video_out.h's.
 *
 * Y4M: one header line, then each frame as "FRAME\n", the plane of luma (height, width), and two of
 * chroma (height/2, width/2). BT.601, limited range, as the MP4s have it, by this rule:
 *
 *     Y  = floor( 16 + (16829 R + 33039 G +  6416 B) / 2^16 + 1/2)         for each pixel
 *     Cb = floor(128 + (-9714 r - 19070 g + 28784 b) / 2^18 + 1/2)         r, g, b: the sums of R,
 *     Cr = floor(128 + (28784 r - 24103 g -  4681 b) / 2^18 + 1/2)         G, B over 2 x 2 pixels
 *
 * (the factors are BT.601's times 2^16 / 255, rounded so that grey has Cb = Cr = 128; chroma lies
 * in the middle of its four pixels: C420jpeg). The sound is the source's own samples as float32.
 *
 * Two files cannot get their names at once: the sound gets its name first, so that whoever finds a
 * NAME.y4m finds it whole. */
#include "io/video_out.h"

#include "base/alloc.h"
#include "base/str.h"
#include "io/file.h"
#include "io/wav.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char frame_mark[] = "FRAME\n";
enum { MARK_BYTES = sizeof frame_mark - 1, MAX_SIDE = 1 << 16 };

struct em_video_out {
    em_video_params params;
    char *path;                    /* owned */
    em_file_writer *video, *sound; /* owned; sound NULL: none */
    uint8_t *frame;                /* owned: mark and planes */
    size_t frame_bytes;
    uint64_t pos;
    int pushed;
    bool complete;
};

/* ---- names ----------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcasecmp(s + n - k, suffix) == 0;
}

char *em_video_out_name(const char *path)
{
    em_str name = {0};
    size_t n = strlen(path);
    if (ends_with(path, ".y4m")) return em_strdup(path);
    if (ends_with(path, ".mp4")) n -= 4;
    em_str_printf(&name, "%.*s.y4m", (int)n, path);
    char *out = name.failed ? NULL : em_strdup(em_str_text(&name));
    em_str_free(&name);
    return out;
}

/* The name of the sound beside a .y4m, final ("a.y4m") or not yet (".a.y4m.part-7"). Owned. */
static char *sound_name(const char *video)
{
    char *name = em_strdup(video), *at = NULL;
    for (char *p = name; p && (p = strstr(p, ".y4m")); p++) at = p;
    if (at) memcpy(at, ".wav", 4);
    return name;
}

/* ---- writing --------------------------------------------------------------------------------- */

static em_status put(em_video_out *v, const void *data, size_t n, em_err *err)
{
    em_status st = em_file_writer_write(v->video, v->pos, data, n, err);
    v->pos += n;
    return st;
}

/* The sound up to the end of the last frame. */
static em_status write_sound(em_video_out *v, em_err *err)
{
    const em_video_params *p = &v->params;
    uint64_t n = (uint64_t)p->frames * (uint64_t)p->audio_rate_hz / (uint64_t)p->fps;
    if (n > p->audio_n) n = p->audio_n;
    size_t bytes = (size_t)n * (size_t)p->audio_channels * sizeof(float);
    uint8_t header[EM_WAV_HEADER_BYTES];
    char *path = sound_name(v->path);
    if (!path) return em_fail(err, EM_NOMEM, "'%s': out of memory", v->path);
    em_status st = bytes > UINT32_MAX - EM_WAV_HEADER_BYTES
                       ? em_fail(err, EM_INVAL, "'%s': a WAV cannot hold that much sound", path)
                       : em_file_writer_open(&v->sound, path, err);
    em_free(path);
    if (st) return st;
    em_wav_header(header, p->audio_rate_hz, p->audio_channels, (uint32_t)bytes);
    st = em_file_writer_write(v->sound, 0, header, sizeof header, err);
    return st ? st : em_file_writer_write(v->sound, sizeof header, p->audio, bytes, err);
}

static em_status open_all(em_video_out *v, em_err *err)
{
    const em_video_params *p = &v->params;
    size_t pixels = (size_t)p->width * (size_t)p->height;
    char header[128];
    v->frame_bytes = MARK_BYTES + pixels * 3 / 2;
    v->frame = em_alloc(v->frame_bytes);
    if (!v->path || !v->frame) return em_fail(err, EM_NOMEM, "out of memory for a video");
    memcpy(v->frame, frame_mark, MARK_BYTES);
    int n = snprintf(header, sizeof header,
                     "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n", p->width,
                     p->height, p->fps);
    em_status st = em_file_writer_open(&v->video, v->path, err);
    if (!st)
        st = em_file_writer_reserve(v->video,
                                    (uint64_t)n + (uint64_t)p->frames * (uint64_t)v->frame_bytes,
                                    err);
    if (!st) st = put(v, header, (size_t)n, err);
    if (!st && p->audio) st = write_sound(v, err);
    v->params.audio = NULL; /* borrowed during open only */
    return st;
}

em_status em_video_out_open(em_video_out **out, const char *path, const em_video_params *params,
                            const em_log *log, em_err *err)
{
    (void)log;
    if (params->width < 2 || params->height < 2 || params->width % 2 || params->height % 2 ||
        params->fps < 1 || params->frames < 1)
        return em_fail(err, EM_INVAL, "'%s': no video has %d frames of %d x %d at %d fps", path,
                       params->frames, params->width, params->height, params->fps);
    em_video_out *v = em_alloc(sizeof *v);
    if (!v) return em_fail(err, EM_NOMEM, "out of memory for a video");
    v->params = *params;
    v->path = em_video_out_name(path);
    em_status st = open_all(v, err);
    if (st)
        em_video_out_close(&v);
    else
        *out = v;
    return st;
}

static uint8_t luma(const uint8_t *p)
{
    return (uint8_t)((16829 * p[0] + 33039 * p[1] + 6416 * p[2] + (16 << 16) + (1 << 15)) >> 16);
}

/* p: the upper left of four pixels, `row` bytes a row. */
static void chroma(uint8_t *cb, uint8_t *cr, const uint8_t *p, size_t row)
{
    int s[3];
    for (int k = 0; k < 3; k++)
        s[k] = p[k] + p[k + 3] + p[row + (size_t)k] + p[row + (size_t)k + 3];
    const int half = (128 << 18) + (1 << 17); /* also keeps the sum positive */
    *cb = (uint8_t)((-9714 * s[0] - 19070 * s[1] + 28784 * s[2] + half) >> 18);
    *cr = (uint8_t)((28784 * s[0] - 24103 * s[1] - 4681 * s[2] + half) >> 18);
}

em_status em_video_out_push(em_video_out *v, const uint8_t *rgb, em_err *err)
{
    size_t w = (size_t)v->params.width, h = (size_t)v->params.height;
    uint8_t *y = v->frame + MARK_BYTES, *cb = y + w * h, *cr = cb + w * h / 4;
    if (v->pushed == v->params.frames)
        return em_fail(err, EM_INVAL, "'%s' was opened for %d frames and gets more", v->path,
                       v->pushed);
    for (size_t i = 0; i < w * h; i++) y[i] = luma(rgb + 3 * i);
    for (size_t i = 0; i < h; i += 2)
        for (size_t j = 0; j < w; j += 2) chroma(cb++, cr++, rgb + 3 * (i * w + j), 3 * w);
    v->pushed++;
    return put(v, v->frame, v->frame_bytes, err);
}

em_status em_video_out_finish(em_video_out *v, em_err *err)
{
    if (v->pushed != v->params.frames)
        return em_fail(err, EM_INVAL, "'%s' was opened for %d frames and got %d", v->path,
                       v->params.frames, v->pushed);
    v->complete = true;
    return EM_OK;
}

const char *em_video_out_part(const em_video_out *v)
{
    return em_file_writer_part(v->video);
}

em_status em_video_out_commit(em_video_out **video, em_err *err)
{
    em_video_out *v = *video;
    em_status st = EM_OK;
    if (!v->complete) st = em_fail(err, EM_INVAL, "'%s' is not complete", v->path);
    if (!st && v->sound) st = em_file_writer_commit(&v->sound, err);
    if (!st) st = em_file_writer_commit(&v->video, err);
    em_video_out_close(video);
    return st;
}

void em_video_out_close(em_video_out **video)
{
    if (!video || !*video) return;
    em_video_out *v = *video;
    em_file_writer_close(&v->sound);
    em_file_writer_close(&v->video);
    em_free(v->frame);
    em_free(v->path);
    em_free(v);
    *video = NULL;
}

/* ---- looking back ---------------------------------------------------------------------------- */

/* The header as we write it; *begin: where the first frame is. */
static bool read_header(em_video_info *info, size_t *begin, const em_map *file)
{
    enum { MOST = 127 };
    char line[MOST + 1];
    size_t n = file->size_bytes < MOST ? file->size_bytes : MOST;
    int fps = 0;
    memcpy(line, file->data, n);
    line[n] = 0;
    char *end = strchr(line, '\n');
    if (!end || sscanf(line, "YUV4MPEG2 W%d H%d F%d:1 ", &info->width, &info->height, &fps) != 3)
        return false;
    info->fps = fps;
    *begin = (size_t)(end + 1 - line);
    return info->width > 0 && info->width <= MAX_SIDE && info->height > 0 &&
           info->height <= MAX_SIDE && fps > 0;
}

static em_status count_frames(em_video_info *info, const em_map *file, const char *path,
                              em_err *err)
{
    size_t at = 0;
    if (!read_header(info, &at, file))
        return em_fail(err, EM_FORMAT, "'%s' is not a Y4M of this program: make it again", path);
    const uint8_t *data = file->data;
    size_t frame = MARK_BYTES + (size_t)info->width * (size_t)info->height * 3 / 2;
    for (; file->size_bytes - at >= frame; at += frame) {
        if (memcmp(data + at, frame_mark, MARK_BYTES) != 0) break;
        info->frames++;
    }
    if (at != file->size_bytes || info->frames == 0)
        return em_fail(err, EM_FORMAT, "'%s' is truncated or damaged: make it again", path);
    info->video_streams = 1;
    info->video_seconds = (double)info->frames / info->fps;
    return EM_OK;
}

static em_status examine_sound(em_video_info *info, const char *path, em_err *err)
{
    em_map file = {0};
    em_wav w;
    if (!em_path_is_file(path)) return EM_OK;
    em_status st = em_file_map(&file, path, false, err);
    if (!st) st = em_wav_parse(&w, file.data, file.size_bytes, path, err);
    if (!st) {
        info->audio_streams = 1;
        info->size_bytes += file.size_bytes;
        info->audio_seconds =
            (double)(w.size_bytes / ((size_t)w.channels * (size_t)w.bits / 8)) / w.rate_hz;
    }
    em_map_close(&file);
    return st;
}

em_status em_video_check(em_video_info *info, const char *path, em_err *err)
{
    em_map file = {0};
    em_video_info found = {0};
    em_status st = em_file_map(&file, path, false, err);
    if (st) return st;
    found.size_bytes = file.size_bytes;
    st = count_frames(&found, &file, path, err);
    em_map_close(&file);
    char *sound = st ? NULL : sound_name(path);
    if (!st && !sound) st = em_fail(err, EM_NOMEM, "out of memory checking '%s'", path);
    if (!st && strcmp(sound, path) != 0) st = examine_sound(&found, sound, err);
    em_free(sound);
    if (!st) *info = found;
    return st;
}
