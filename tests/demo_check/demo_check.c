/* How well the mouths of finished demo videos follow their voices, and whether the pictures hold.
 *
 *     demo_check PORTRAITS.json [--strip FILE.png] [--least C] [--most O] VIDEO.mp4 AUDIO NAME …
 *
 * NAME is a portrait of PORTRAITS.json. For every clip: the correlation of the mouth's opening,
 * measured in the decoded frames, with what the drawing takes from the sound; the same with the
 * next clip's sound; the gradient energy of the last frames over the first's; the drift of the mean
 * colour in levels. --least and --most make mean correlations below and above them a failure. */
#include "base/alloc.h"
#include "io/audio_in.h"
#include "io/image_out.h"
#include "io/json.h"
#include "lipsync.h"
#include "video_in.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLIPS = 64, LAST = 5 };

typedef struct clip {
    const char *video_path, *audio_path, *name;
    demo_face face;
    demo_video video;
    double *opening, *truth; /* (video.frames) */
} clip;

static size_t frame_bytes(const clip *c)
{
    return (size_t)c->video.width * (size_t)c->video.height * 3;
}

static const uint8_t *frame_of(const clip *c, int i)
{
    return c->video.rgb + (size_t)i * frame_bytes(c);
}

/* ---- loading --------------------------------------------------------------------------------- */

static em_status read_face(demo_face *f, const json_t *portraits, const char *name, em_err *err)
{
    const json_t *p = json_object_get(json_object_get(portraits, name), "parameters");
    const json_t *lips = json_object_get(p, "lips");
    double cy = 0, dy = 0;
    if (!json_is_object(p) || json_array_size(lips) != 3)
        return em_fail(err, EM_INVAL, "'%s' is not a portrait of the list", name);
    em_status st = em_json_get_double(&f->mouth_x, p, "cx", 0, 256, name, err);
    if (!st) st = em_json_get_double(&cy, p, "cy", 0, 256, name, err);
    if (!st) st = em_json_get_double(&dy, p, "mouth_dy", -256, 256, name, err);
    if (!st) st = em_json_get_double(&f->mouth_half_width, p, "mouth_w", 0, 256, name, err);
    f->mouth_y = cy + dy;
    for (int i = 0; i < 3; i++) f->lips[i] = json_number_value(json_array_get(lips, (size_t)i));
    return st;
}

static em_status load_truth(clip *c, em_err *err)
{
    em_audio audio = {0};
    float *mono = NULL, *wave = NULL;
    size_t n = 0;
    em_status st = em_audio_load(&audio, c->audio_path, NULL, err);
    if (!st) st = em_audio_mono(&mono, &audio, err);
    if (!st) st = em_audio_resample(&wave, &n, mono, audio.n, 1, audio.rate_hz, DEMO_HZ, err);
    if (!st) st = demo_truth(c->truth, c->video.frames, wave, n, err);
    em_audio_free(&audio);
    em_free(mono);
    em_free(wave);
    return st;
}

static em_status load_clip(clip *c, const json_t *portraits, em_err *err)
{
    em_status st = read_face(&c->face, portraits, c->name, err);
    if (!st) st = demo_video_load(&c->video, c->video_path, err);
    if (st) return st;
    if (c->video.width != DEMO_SIDE || c->video.height != DEMO_SIDE)
        return em_fail(err, EM_INVAL, "'%s' is %d x %d, only %d x %d can be measured",
                       c->video_path, c->video.width, c->video.height, DEMO_SIDE, DEMO_SIDE);
    c->opening = em_alloc_array((size_t)c->video.frames, sizeof *c->opening);
    c->truth = em_alloc_array((size_t)c->video.frames, sizeof *c->truth);
    if (!c->opening || !c->truth)
        return em_fail(err, EM_NOMEM, "no memory for '%s'", c->video_path);
    for (int i = 0; i < c->video.frames; i++)
        c->opening[i] = demo_opening(frame_of(c, i), &c->face);
    return load_truth(c, err);
}

/* ---- measures -------------------------------------------------------------------------------- */

/* Frame 0 is the given portrait and does not count. */
static double follow(const clip *c, const clip *sound)
{
    int n = c->video.frames < sound->video.frames ? c->video.frames : sound->video.frames;
    return demo_correlation(c->opening + 1, sound->truth + 1, n - 1);
}

static double gradient_energy(const clip *c, int frame)
{
    const uint8_t *p = frame_of(c, frame);
    int w = c->video.width, h = c->video.height;
    double sum = 0;
    for (int y = 0; y + 1 < h; y++)
        for (int x = 0; x < (w - 1) * 3; x++) {
            double right = p[y * w * 3 + x + 3] - p[y * w * 3 + x];
            double down = p[(y + 1) * w * 3 + x] - p[y * w * 3 + x];
            sum += right * right + down * down;
        }
    return sum;
}

/* The mean of the last frames, so that a blink or one open mouth does not decide. */
static double sharpness(const clip *c)
{
    double sum = 0;
    int n = c->video.frames < LAST ? c->video.frames : LAST;
    for (int i = 1; i <= n; i++) sum += gradient_energy(c, c->video.frames - i) / n;
    return sum / gradient_energy(c, 0);
}

static double mean_colour(const clip *c, int frame, int channel)
{
    const uint8_t *p = frame_of(c, frame);
    double sum = 0;
    for (size_t i = (size_t)channel; i < frame_bytes(c); i += 3) sum += p[i];
    return sum / (double)(frame_bytes(c) / 3);
}

/* Levels, averaged over the channels; the largest of all frames. */
static double colour_drift(const clip *c)
{
    double worst = 0;
    for (int f = 1; f < c->video.frames; f++) {
        double d = 0;
        for (int k = 0; k < 3; k++) d += fabs(mean_colour(c, f, k) - mean_colour(c, 0, k)) / 3;
        worst = fmax(worst, d);
    }
    return worst;
}

/* How far the mouth stays open in frames that have no sound, as a share of its wide opening; 0 when
 * there are none. */
static double open_in_silence(const clip *c)
{
    double sum = 0, widest = 1;
    int silent = 0;
    for (int i = 1; i < c->video.frames; i++) {
        widest = fmax(widest, c->opening[i]);
        if (c->truth[i] >= 0.02) continue;
        sum += c->opening[i];
        silent++;
    }
    return silent ? sum / silent / widest : 0;
}

/* ---- film strip ------------------------------------------------------------------------------ */

enum { STRIP_FRAMES = 9, THUMB = DEMO_SIDE / 2 };

static void put_thumb(uint8_t *strip, const clip *c, int frame, int row, int col)
{
    const uint8_t *p = frame_of(c, frame);
    for (int y = 0; y < THUMB; y++)
        for (int x = 0; x < THUMB * 3; x++) {
            int sx = x / 3 * 6 + x % 3, at = 2 * y * DEMO_SIDE * 3 + sx;
            int sum = p[at] + p[at + 3] + p[at + DEMO_SIDE * 3] + p[at + DEMO_SIDE * 3 + 3];
            strip[((row * THUMB + y) * STRIP_FRAMES + col) * THUMB * 3 + x] = (uint8_t)(sum / 4);
        }
}

static em_status write_strip(const char *path, const clip *clips, int n, em_err *err)
{
    em_image strip = {.width = STRIP_FRAMES * THUMB, .height = n * THUMB};
    strip.rgb = em_alloc_array((size_t)strip.width * (size_t)strip.height, 3);
    if (!strip.rgb) return em_fail(err, EM_NOMEM, "no memory for '%s'", path);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < STRIP_FRAMES; k++)
            put_thumb(strip.rgb, &clips[i], k * (clips[i].video.frames - 1) / (STRIP_FRAMES - 1), i,
                      k);
    em_status st = em_image_write_png(path, &strip, err);
    em_image_free(&strip);
    return st;
}

/* ---- program --------------------------------------------------------------------------------- */

typedef struct options {
    const char *portraits, *strip;
    double least, most;
    clip clip[MAX_CLIPS];
    int clips;
} options;

static bool read_options(options *o, int argc, char **argv)
{
    int i = 1;
    o->least = -1;
    o->most = 1;
    if (i < argc) o->portraits = argv[i++];
    for (; i + 1 < argc && !strncmp(argv[i], "--", 2); i += 2) {
        if (!strcmp(argv[i], "--strip"))
            o->strip = argv[i + 1];
        else if (!strcmp(argv[i], "--least"))
            o->least = strtod(argv[i + 1], NULL);
        else if (!strcmp(argv[i], "--most"))
            o->most = strtod(argv[i + 1], NULL);
        else
            return false;
    }
    for (; i + 2 < argc && o->clips < MAX_CLIPS; i += 3)
        o->clip[o->clips++] =
            (clip){.video_path = argv[i], .audio_path = argv[i + 1], .name = argv[i + 2]};
    return o->clips > 0 && i == argc;
}

static bool report(const options *o)
{
    double own = 0, other = 0;
    for (int i = 0; i < o->clips; i++) {
        const clip *c = &o->clip[i], *next = &o->clip[(i + 1) % o->clips];
        double a = follow(c, c), b = o->clips > 1 ? follow(c, next) : 0;
        printf("%-8s %3d frames: mouth follows the voice %.2f, another voice %5.2f; sharpness at "
               "the end %.2f, "
               "colour drift %.1f levels, open in silence %.3f\n",
               c->name, c->video.frames, a, b, sharpness(c), colour_drift(c), open_in_silence(c));
        own += a / o->clips;
        other += b / o->clips;
    }
    printf(
        "mean correlation of the mouth with its voice %.3f, with another voice %.3f (%d clips)\n",
        own, other, o->clips);
    if (own >= o->least && other <= o->most) return true;
    printf("FAIL: at least %.2f and at most %.2f were asked for\n", o->least, o->most);
    return false;
}

int main(int argc, char **argv)
{
    static options o;
    em_err err = {0};
    json_t *portraits = NULL;
    if (!read_options(&o, argc, argv)) {
        fprintf(stderr,
                "usage: demo_check PORTRAITS.json [--strip FILE.png] [--least C] [--most O] "
                "VIDEO.mp4 AUDIO NAME [VIDEO AUDIO NAME …]\n");
        return 2;
    }
    em_status st = em_json_load(&portraits, o.portraits, 1 << 20, &err);
    for (int i = 0; i < o.clips && !st; i++) st = load_clip(&o.clip[i], portraits, &err);
    if (!st && o.strip) st = write_strip(o.strip, o.clip, o.clips, &err);
    bool good = !st && report(&o);
    if (st) fprintf(stderr, "demo_check: %s\n", err.msg);
    for (int i = 0; i < o.clips; i++) {
        em_free(o.clip[i].video.rgb);
        em_free(o.clip[i].opening);
        em_free(o.clip[i].truth);
    }
    json_decref(portraits);
    return good ? 0 : 1;
}
