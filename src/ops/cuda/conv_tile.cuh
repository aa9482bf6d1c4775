/* What the convolution kernels share: where an input value lies, and how a tile of results becomes
 * part of y. */
#ifndef EM_OPS_CUDA_CONV_TILE_CUH
#define EM_OPS_CUDA_CONV_TILE_CUH

#include "ops/cuda/common.cuh"
#include "ops/cuda/conv_kernels.h"

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- where an input value lies --------------------------------------------------------------- */

/* A job as kernels use it: small numbers, and pointers that make (past, x) one run of frames. */
struct geometry {
    const void *x, *past;
    int frames, past_frames, height, width; /* frames: with the past ones; the others as stored */
    int rows, cols;                         /* height and width, doubled or not */
    int shift;                              /* 1: doubled */
    int64_t channels, frame_step;           /* elements a pixel, a frame */
    int kernel[3];
};

/* The corner of an output position's field: frame, row, column of tap (0, 0, 0). */
struct corner {
    int t, h, w;
};

static __device__ __forceinline__ corner corner_of(const emk_conv_job &j, int64_t position)
{
    int64_t total = j.out[0] * j.out[1] * j.out[2];
    if (position >= total) return corner{INT32_MIN / 2, 0, 0}; /* no frame: reads as zero */
    int64_t w = position % j.out[2], rest = position / j.out[2];
    int64_t h = rest % j.out[1], t = rest / j.out[1];
    return corner{(int)(t * j.stride[0] - j.pad[0]), (int)(h * j.stride[1] - j.pad[1]),
                  (int)(w * j.stride[2] - j.pad[2])};
}

/* Channel 0 of the input pixel; NULL: outside, a zero. */
template <typename T>
static __device__ __forceinline__ const T *pixel_at(const geometry &g, int t, int h, int w)
{
    if ((unsigned)t >= (unsigned)g.frames || (unsigned)h >= (unsigned)g.rows ||
        (unsigned)w >= (unsigned)g.cols)
        return NULL;
    const T *frame = t < g.past_frames ? (const T *)g.past + t * g.frame_step
                                       : (const T *)g.x + (t - g.past_frames) * g.frame_step;
    return frame + ((int64_t)(h >> g.shift) * g.width + (w >> g.shift)) * g.channels;
}

static inline geometry geometry_of(const emk_conv_job *j)
{
    geometry g = {};
    g.x = j->x;
    g.past = j->past;
    g.past_frames = (int)j->past_frames;
    g.frames = (int)(j->frames + j->past_frames);
    g.height = (int)j->height;
    g.width = (int)j->width;
    g.shift = j->upsample_2x ? 1 : 0;
    g.rows = g.height << g.shift;
    g.cols = g.width << g.shift;
    g.channels = j->channels;
    g.frame_step = j->height * j->width * j->channels;
    for (int i = 0; i < 3; i++) g.kernel[i] = j->kernel[i];
    return g;
}

/* A tap, and its place in the kernel. */
struct tap {
    int t, h, w;
};

static __device__ __forceinline__ void next_tap(tap *a, const geometry &g)
{
    if (++a->w < g.kernel[2]) return;
    a->w = 0;
    if (++a->h < g.kernel[1]) return;
    a->h = 0;
    a->t++;
}

static __device__ __forceinline__ tap tap_of(int i, const geometry &g)
{
    return tap{i / (g.kernel[2] * g.kernel[1]), i / g.kernel[2] % g.kernel[1], i % g.kernel[2]};
}

/* A thread's share of an input tile: the same 16-byte piece of ROWS rows. It walks along k: channel
 * c of a tap, and for each row the pixel that the tap names. A tap has `step` channels; those past
 * the input's are zeros. */
template <typename T, int ROWS> struct walk {
    corner at[ROWS];
    const T *pixel[ROWS];
    tap now;
    int c;
};

template <typename T, int ROWS>
static __device__ __forceinline__ void find_pixels(walk<T, ROWS> *w, const geometry &g)
{
    bool there = w->now.t < g.kernel[0];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
        w->pixel[i] = there ? pixel_at<T>(g, w->at[i].t + w->now.t, w->at[i].h + w->now.h,
                                          w->at[i].w + w->now.w)
                            : NULL;
}

template <typename T, int ROWS>
static __device__ __forceinline__ void advance(walk<T, ROWS> *w, const geometry &g, int step, int k)
{
    w->c += k;
    if (w->c < step) return;
    do {
        w->c -= step;
        next_tap(&w->now, g);
    } while (w->c >= step);
    find_pixels(w, g);
}

/* k = 8 * piece, and the first pixels. */
template <typename T, int ROWS>
static __device__ __forceinline__ void start(walk<T, ROWS> *w, const geometry &g, int step, int k)
{
    w->now = tap_of(k / step, g);
    w->c = k % step;
    find_pixels(w, g);
}

static inline bool aligned(const emk_conv_job *j)
{
    uintptr_t at = (uintptr_t)j->x | (j->past_frames ? (uintptr_t)j->past : 0);
    return j->channels % 8 == 0 && at % 16 == 0;
}

/* Bias, rounding; a lane has two neighbouring channels of two rows, eight apart. */
template <typename T, int WM, int WN>
static __device__ __forceinline__ void store_tile(const emk_conv_job &j, float (*sum)[WN / 8][4],
                                                  int64_t m, int64_t n)
{
    int lane = (int)threadIdx.x % 32;
    int64_t total = j.out[0] * j.out[1] * j.out[2], outs = j.out_channels;
#pragma unroll
    for (int o = 0; o < WN / 8; o++) {
        int64_t col = n + o * 8 + lane % 4 * 2;
        if (col >= outs) continue;
        bool both = col + 1 < outs;
        float b0 = vector_at(j.bias, col, 0);
        float b1 = both ? vector_at(j.bias, col + 1, 0) : 0.0f;
#pragma unroll
        for (int i = 0; i < WM / 16 * 2; i++) {
            int64_t row = m + i * 8 + lane / 4;
            if (row >= total) continue;
            T *to = (T *)j.y + row * outs + col;
            pack<T, 2> v = {from_f32<T>(sum[i / 2][o][i % 2 * 2] + b0),
                            from_f32<T>(sum[i / 2][o][i % 2 * 2 + 1] + b1)};
            if (both && outs % 2 == 0) {
                *(pack<T, 2> *)to = v;
            } else {
                to[0] = v.v[0];
                if (both) to[1] = v.v[1];
            }
        }
    }
}

#endif
