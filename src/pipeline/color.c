#include "pipeline/color.h"

#include "base/alloc.h"

#include <math.h>
#include <stdbool.h>

/* Fixed point. Linear light has 11 bits (0..2040 = 8 * 255) on the way to Lab and 12 on the way
 * back; x, y, z there are in units of 1/BASE of the white point's. */
enum { LINEAR_MAX = 2040, LINEAR_BACK = 4096, BASE = 16384 };

typedef struct stats {
    double mean[3], deviation[3];
} stats;

struct em_color {
    uint16_t linear[256];               /* sRGB to LINEAR_MAX */
    uint16_t cube_root[LINEAR_MAX + 1]; /* Lab's f, times 2^15 */
    uint16_t y[256], fy[256];           /* of L, times BASE */
    uint8_t srgb[LINEAR_BACK];
    stats first; /* of the video's first frame */
    bool measured;
};

/* ---- tables ---------------------------------------------------------------------------------- */

/* IEC 61966-2-1 */
static double srgb_to_linear(double v)
{
    return v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
}

static double linear_to_srgb(double v)
{
    return v <= 0.0031308 ? v * 12.92 : 1.055 * pow(v, 1 / 2.4) - 0.055;
}

/* CIE 15: f(t) = t^(1/3), continued by a line below (6/29)^3. */
static double lab_f(double t)
{
    return t < 216.0 / 24389 ? t * 841 / 108 + 16.0 / 116 : cbrt(t);
}

static void build_tables(em_color *c)
{
    for (int i = 0; i < 256; i++)
        c->linear[i] = (uint16_t)lrint(LINEAR_MAX * srgb_to_linear(i / 255.0));
    for (int i = 0; i <= LINEAR_MAX; i++)
        c->cube_root[i] = (uint16_t)lrint(32768 * lab_f((double)i / LINEAR_MAX));
    c->cube_root[49] = 9454; /* OpenCV rounds these two the other way */
    c->cube_root[628] = 22126;

    for (int l = 0; l < 256; l++) {
        if (l <= 20) { /* L* <= 8: the line */
            c->y[l] = (uint16_t)lrint(BASE * (l * 180.0 / (17.0 * 29 * 29 * 29)));
            c->fy[l] = (uint16_t)lrint(BASE * (16.0 / 116 + l * 5.0 / (3.0 * 17 * 29)));
        } else {
            double f = (100.0 * l / 255 + 16) / 116;
            c->y[l] = (uint16_t)lrint(BASE * f * f * f);
            c->fy[l] = (uint16_t)lrint(BASE * f);
        }
    }
    for (int i = 0; i < LINEAR_BACK; i++)
        c->srgb[i] = (uint8_t)lrint(255 * linear_to_srgb((double)i / LINEAR_BACK));
}

/* ---- one pixel ------------------------------------------------------------------------------- */

/* v / 2^n rounded to nearest; a right shift of a negative number is arithmetic on every compiler we
 * build with. */
static int descale(int v, int n)
{
    return (v + (1 << (n - 1))) >> n;
}

static uint8_t clip_u8(int v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void rgb_to_lab(const em_color *c, const uint8_t rgb[3], uint8_t lab[3])
{
    int r = c->linear[rgb[0]], g = c->linear[rgb[1]], b = c->linear[rgb[2]];
    int fx = c->cube_root[descale(1777 * r + 1541 * g + 778 * b, 12)];
    int fy = c->cube_root[descale(871 * r + 2929 * g + 296 * b, 12)];
    int fz = c->cube_root[descale(73 * r + 448 * g + 3575 * b, 12)];
    lab[0] = clip_u8(descale(296 * fy - 1336934, 15));
    lab[1] = clip_u8(descale(500 * (fx - fy) + 128 * 32768, 15));
    lab[2] = clip_u8(descale(200 * (fy - fz) + 128 * 32768, 15));
}

/* The inverse of Lab's f in units of 1/BASE; divisions truncate toward zero. */
static int lab_f_inverse(int v)
{
    return v <= 3390 ? v * 108 / 841 - 290 : v * v / BASE * v / BASE;
}

static uint8_t to_srgb(const em_color *c, int v)
{
    int o = descale(v, 14);
    return c->srgb[o < 0 ? 0 : o > LINEAR_BACK - 1 ? LINEAR_BACK - 1 : o];
}

static void lab_to_rgb(const em_color *c, const uint8_t lab[3], uint8_t rgb[3])
{
    int y = c->y[lab[0]], fy = c->fy[lab[0]];
    int ad = ((5 * lab[1] * 53687 + 128) >> 13) - 4194;
    int bd = ((lab[2] * 41943 + 16) >> 9) - 10485 + 1;
    int x = lab_f_inverse(fy + ad), z = lab_f_inverse(fy - bd);
    rgb[0] = to_srgb(c, 12615 * x - 6296 * y - 2223 * z);
    rgb[1] = to_srgb(c, -3773 * x + 7684 * y + 185 * z);
    rgb[2] = to_srgb(c, 217 * x - 836 * y + 4715 * z);
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Exact sums of one channel's bytes. */
typedef struct sums {
    uint64_t sum, squares;
} sums;

static void add_pixel(sums s[3], const uint8_t lab[3])
{
    for (int k = 0; k < 3; k++) {
        s[k].sum += lab[k];
        s[k].squares += (uint64_t)lab[k] * lab[k];
    }
}

/* Mean and population deviation, rounded to two decimals as the reference rounds them. */
static stats measure(const sums s[3], size_t pixels)
{
    stats out;
    double n = (double)pixels;
    for (int k = 0; k < 3; k++) {
        double mean = (double)s[k].sum / n;
        double variance = (double)s[k].squares / n - mean * mean;
        out.mean[k] = rint(mean * 100) / 100;
        out.deviation[k] = rint(sqrt(variance > 0 ? variance : 0) * 100) / 100;
    }
    return out;
}

/* map[k][v]: where value v of channel k goes. A channel without deviation keeps its scale. */
static void build_map(uint8_t map[3][256], const stats *from, const stats *to)
{
    for (int k = 0; k < 3; k++) {
        double s = from->deviation[k] > 0 ? to->deviation[k] / from->deviation[k] : 1;
        for (int v = 0; v < 256; v++)
            map[k][v] = clip_u8((int)lrint((v - from->mean[k]) * s + to->mean[k]));
    }
}

static void measure_first(em_color *c, const uint8_t *rgb, size_t pixels)
{
    sums s[3] = {{0}};
    for (size_t i = 0; i < pixels; i++) {
        uint8_t lab[3];
        rgb_to_lab(c, rgb + 3 * i, lab);
        add_pixel(s, lab);
    }
    c->first = measure(s, pixels);
    c->measured = true;
}

void em_color_frame(em_color *c, uint8_t *rgb, size_t pixels)
{
    if (!c->measured) {
        measure_first(c, rgb, pixels);
        return;
    }
    sums s[3] = {{0}};
    for (size_t i = 0; i < pixels; i++) { /* the frame becomes its own Lab picture … */
        rgb_to_lab(c, rgb + 3 * i, rgb + 3 * i);
        add_pixel(s, rgb + 3 * i);
    }
    uint8_t map[3][256];
    stats frame = measure(s, pixels);
    build_map(map, &frame, &c->first);
    for (size_t i = 0; i < pixels; i++) { /* … and RGB again */
        uint8_t *p = rgb + 3 * i;
        const uint8_t lab[3] = {map[0][p[0]], map[1][p[1]], map[2][p[2]]};
        lab_to_rgb(c, lab, p);
    }
}

/* ---- object ---------------------------------------------------------------------------------- */

em_status em_color_open(em_color **out, em_err *err)
{
    em_color *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "colour transfer: no memory for its tables");
    build_tables(c);
    *out = c;
    return EM_OK;
}

void em_color_close(em_color **c)
{
    em_free(*c);
    *c = NULL;
}

void em_color_restart(em_color *c)
{
    c->measured = false;
}
