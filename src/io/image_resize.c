#include "io/image_resize.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

enum { STEP = 16 }; /* the VAE shrinks by 8, the transformer's patches by 2 */

void em_image_target_size(int width, int height, int sample_h, int sample_w, int *target_w,
                          int *target_h)
{
    double w = width, h = height, area = w * h;
    if ((double)sample_h * sample_w < area) {
        double r =
            sqrt(area / sample_h / sample_w); /* one division would round some to another size */
        w /= r;
        h /= r;
    }
    *target_w = (int)floor(w / STEP) * STEP;
    *target_h = (int)floor(h / STEP) * STEP;
}

em_status em_image_check_size(const char *name, int width, int height, int sample_h, int sample_w,
                              em_err *err)
{
    int w, h;
    if (width < STEP || height < STEP) {
        return em_fail(
            err, EM_INVAL,
            "'%s' has %d x %d pixels, at least %d a side are needed: give a larger picture", name,
            width, height, STEP);
    }
    em_image_target_size(width, height, sample_h, sample_w, &w, &h);
    if (w >= STEP && h >= STEP) return EM_OK;
    return em_fail(
        err, EM_INVAL,
        "'%s' (%d x %d pixels) is so long and thin that it shrinks below %d pixels a side at "
        "--sample_size %d %d: crop it, or raise the sample size",
        name, width, height, STEP, sample_h, sample_w);
}

/* ---- Lanczos ----
 *
 * Each output sample is a weighted sum of the input samples within 3 (times the shrink factor)
 * of its centre; rows first, rounded to 8 bits, then columns. Pillow does this in fixed point:
 * weights are computed and normalised in double, then rounded to 22 fractional bits. */

enum { WEIGHT_BITS = 32 - 8 - 2 }; /* 8 for the sample, 2 for overshoot and sign */

typedef struct weights {
    int *first;    /* (n) first input sample of each output sample */
    int *count;    /* (n) how many */
    int32_t *fix;  /* (n, taps) */
    double *exact; /* (taps) scratch */
    size_t taps;
} weights;

static void weights_free(weights *w)
{
    em_free(w->first);
    em_free(w->count);
    em_free(w->fix);
    em_free(w->exact);
}

static double sinc(double x)
{
    if (x == 0.0) return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos3(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

/* The weights of output sample i. */
static void weights_of(weights *w, size_t i, int in, double scale)
{
    double stretch = scale < 1.0 ? 1.0 : scale, support = 3.0 * stretch;
    double centre = ((double)i + 0.5) * scale, sum = 0.0, step = 1.0 / stretch;
    int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
    if (lo < 0) lo = 0;
    if (hi > in) hi = in;
    for (int x = lo; x < hi; x++) {
        w->exact[x - lo] = lanczos3((x - centre + 0.5) * step);
        sum += w->exact[x - lo];
    }
    for (int x = lo; x < hi; x++) {
        double k = w->exact[x - lo];
        if (sum != 0.0) k /= sum;
        w->fix[i * w->taps + (size_t)(x - lo)] =
            (int32_t)(k * (1 << WEIGHT_BITS) + (k < 0 ? -0.5 : 0.5));
    }
    w->first[i] = lo;
    w->count[i] = hi - lo;
}

static em_status weights_make(weights *w, int in, int out, em_err *err)
{
    double scale = (double)in / out, stretch = scale < 1.0 ? 1.0 : scale;
    size_t n = (size_t)out;
    *w = (weights){.taps = (size_t)ceil(3.0 * stretch) * 2 + 1};
    w->first = em_alloc_array(n, sizeof *w->first);
    w->count = em_alloc_array(n, sizeof *w->count);
    w->fix = em_alloc_array(n, w->taps * sizeof *w->fix);
    w->exact = em_alloc_array(w->taps, sizeof *w->exact);
    if (!w->first || !w->count || !w->fix || !w->exact) {
        weights_free(w);
        return em_fail(err, EM_NOMEM, "out of memory scaling a picture");
    }
    for (size_t i = 0; i < n; i++) weights_of(w, i, in, scale);
    return EM_OK;
}

static uint8_t to_u8(int32_t sum)
{
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Scales one axis: in (outer, n_in, inner) -> out (outer, n_out, inner), bytes. For rows inner is 3
 * (colours) and outer the height; for columns inner is a whole row and outer 1. */
static void scale_axis(uint8_t *out, const uint8_t *in, size_t outer, size_t n_in, size_t n_out,
                       size_t inner, const weights *w)
{
    for (size_t o = 0; o < outer; o++) {
        for (size_t i = 0; i < n_out; i++) {
            const int32_t *k = w->fix + i * w->taps;
            const uint8_t *from = in + (o * n_in + (size_t)w->first[i]) * inner;
            for (size_t c = 0; c < inner; c++) {
                int32_t sum = 1 << (WEIGHT_BITS - 1);
                for (int x = 0; x < w->count[i]; x++) sum += k[x] * from[(size_t)x * inner + c];
                *out++ = to_u8(sum);
            }
        }
    }
}

/* One axis of *image, in place of it; nothing to do when the size stays. */
static em_status resize_axis(em_image *image, int size, int horizontal, em_err *err)
{
    int old = horizontal ? image->width : image->height;
    if (size == old) return EM_OK;
    weights w;
    em_status st = weights_make(&w, old, size, err);
    if (st) return st;

    em_image to = {.width = horizontal ? size : image->width,
                   .height = horizontal ? image->height : size};
    size_t row = (size_t)to.width * 3;
    to.rgb = em_alloc_array((size_t)to.height, row);
    if (to.rgb) {
        size_t outer = horizontal ? (size_t)image->height : 1, inner = horizontal ? 3 : row;
        scale_axis(to.rgb, image->rgb, outer, (size_t)old, (size_t)size, inner, &w);
        em_image_free(image);
        *image = to;
    } else {
        st = em_fail(err, EM_NOMEM, "out of memory scaling a picture to %d x %d", to.width,
                     to.height);
    }
    weights_free(&w);
    return st;
}

em_status em_image_resize_lanczos(em_image *out, const em_image *in, int width, int height,
                                  em_err *err)
{
    size_t bytes = (size_t)in->width * (size_t)in->height * 3;
    em_image image = {.rgb = em_alloc(bytes), .width = in->width, .height = in->height};
    if (!image.rgb) return em_fail(err, EM_NOMEM, "out of memory scaling a picture");
    memcpy(image.rgb, in->rgb, bytes);

    em_status st = resize_axis(&image, width, 1, err);
    if (!st) st = resize_axis(&image, height, 0, err);
    if (st) {
        em_image_free(&image);
        return st;
    }
    *out = image;
    return EM_OK;
}
