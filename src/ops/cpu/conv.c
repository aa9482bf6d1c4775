/* Convolution as dense pieces.
 *
 * A piece is a band of rows (and, where a row is long, a part of its columns) of one output frame.
 * Its receptive field is gathered into a slab in the compute type:
 *
 *     past | x          frames t s - pad … + kt      zero frames, rows, columns outside the data,
 *     +-----------+     each with                    frames of `past` in front of x,
 *     |  ~~~~~~~  |     (band - 1) s + kh rows and   every row and column twice under nearest x2,
 *     |  ~~~~~~~  |     (cols - 1) s + kw columns,   one group's channels
 *     +-----------+     channels last
 *
 * so that oneDNN sees one thing only: a dense convolution without padding, on one thread. Causal
 * caches, upsampling and groups cost one copy, which the kh kw O uses of each value pay for. Pieces
 * all have the same size; the last ones reach past the edge of y and the surplus is dropped, so one
 * shape of primitive serves a whole call and no result depends on where its piece ends.
 *
 * Output channels are cut into slices of at most SLICE inside each group: a slice's packed weights
 * stay in the second-level cache, and slices are packed in parallel. A 1x1x1 convolution is a
 * linear layer. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/dnnl.h"

#include <stdatomic.h>
#include <string.h>

enum {
    POSITIONS = 512, /* output positions of a piece, about: it fits the second-level cache */
    SLICE = 128,     /* output channels at a time */
    FEW_PIECES = 64, /* with fewer pieces than this, slices become tasks of their own */
};

typedef struct conv {
    const em_conv_args *a;
    em_tensor y;
    const em_vec *vec;
    em_dtype type;
    int64_t in_channels, out_channels, taps; /* of one group; taps = kt kh kw */
    int64_t rows, cols, bands, parts;        /* a piece; how many down and across */
    int64_t slab_rows, slab_cols;
    int64_t slice, slices;                     /* output channels of a slice; slices of a group */
    bool split;                                /* a task is one slice of a piece, not all */
    em_dnnl op[2];                             /* a full slice, the last one */
    size_t slot_bytes;                         /* a packed slice */
    size_t c_at, scratch_at, worker_bytes;     /* a worker's scratch: slab or W, C, oneDNN's */
    size_t packed_at, workers_at, total_bytes; /* the workspace: bias, packed W, workers */
    unsigned char *ws;
    atomic_int status;
} conv;

static bool is_linear(const em_conv_args *a)
{
    bool one = a->groups == 1 && !a->upsample_2x && em_tensor_is_empty(a->past);
    for (int i = 0; i < 3; i++)
        one = one && a->w.dim[2 + i] == 1 && a->stride[i] == 1 && a->pad_before[i] == 0 &&
              a->pad_after[i] == 0;
    return one;
}

static em_tensor as_matrix(em_tensor w)
{
    return em_view(w, EM_SHAPE(w.dim[0], w.dim[1]));
}

static int64_t slice_channels(const conv *v, int64_t slice)
{
    return em_cpu_min(v->slice, v->out_channels - slice * v->slice);
}

static const em_dnnl *op_of(const conv *v, int64_t slice)
{
    return &v->op[slice_channels(v, slice) == v->slice ? 0 : 1];
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Pieces as equal as they can be, for the fewest surplus rows and columns. */
static void cut(conv *v)
{
    const em_conv_args *a = v->a;
    int64_t height = v->y.dim[1], width = v->y.dim[2];
    v->parts = em_cpu_ceil_div(width, POSITIONS);
    v->cols = em_cpu_ceil_div(width, v->parts);
    int64_t rows = v->cols < POSITIONS ? POSITIONS / v->cols : 1;
    v->bands = em_cpu_ceil_div(height, rows);
    v->rows = em_cpu_ceil_div(height, v->bands);
    v->slab_rows = (v->rows - 1) * a->stride[1] + a->w.dim[3];
    v->slab_cols = (v->cols - 1) * a->stride[2] + a->w.dim[4];
    v->in_channels = a->w.dim[1];
    v->out_channels = a->w.dim[0] / a->groups;
    v->taps = a->w.dim[2] * a->w.dim[3] * a->w.dim[4];
    int64_t slices = em_cpu_ceil_div(v->out_channels, SLICE);
    int64_t even = em_cpu_ceil_div(v->out_channels, slices);
    v->slice = slices == 1 ? even : em_cpu_round_up(even, 16);
    v->slices = em_cpu_ceil_div(v->out_channels, v->slice);
    v->split = v->y.dim[0] * v->bands * v->parts * a->groups < FEW_PIECES;
}

static void lay_out(conv *v, int workers)
{
    size_t size = em_dtype_bytes(v->type);
    size_t frame = (size_t)(v->slab_rows * v->slab_cols * v->in_channels);
    size_t slab = (size_t)v->a->w.dim[2] * frame * size;
    size_t c = (size_t)(v->rows * v->cols * v->slice) * sizeof(float);
    size_t w = v->type == v->a->w.dtype ? 0 : (size_t)(v->slice * v->in_channels * v->taps) * size;
    v->slot_bytes = em_cpu_aligned(em_cpu_max_bytes(v->op[0].packed_bytes, v->op[1].packed_bytes));
    /* Packing is over before the slab and C are written: weights of another type may lie over
     * both. */
    v->c_at = em_cpu_aligned(slab);
    v->scratch_at = em_cpu_max_bytes(v->c_at + em_cpu_aligned(c), em_cpu_aligned(w));
    v->worker_bytes = v->scratch_at + em_cpu_aligned(em_cpu_max_bytes(v->op[0].scratch_bytes,
                                                                      v->op[1].scratch_bytes));
    v->packed_at = em_cpu_aligned((size_t)em_cols(v->y) * sizeof(float));
    v->workers_at = v->packed_at + (size_t)(v->a->groups * v->slices) * v->slot_bytes;
    v->total_bytes = v->workers_at + (size_t)workers * v->worker_bytes;
}

static void close_all(conv *v)
{
    em_dnnl_close(&v->op[0]);
    em_dnnl_close(&v->op[1]);
}

static em_status open_all(conv *v, em_run *r, em_tensor y, const em_conv_args *a)
{
    *v = (conv){.a = a, .y = y, .type = em_cpu_product_type(a->x), .vec = em_vec_best()};
    cut(v);
    em_dnnl_conv s = {
        .type = v->type,
        .n = v->slice,
        .k = v->in_channels,
        .in = {a->w.dim[2], v->slab_rows, v->slab_cols},
        .out = {1, v->rows, v->cols},
        .kernel = {a->w.dim[2], a->w.dim[3], a->w.dim[4]},
        .stride = {1, a->stride[1], a->stride[2]},
    };
    em_status st = em_dnnl_open_conv(&v->op[0], &s);
    s.n = slice_channels(v, v->slices - 1);
    if (!st && s.n != v->slice) st = em_dnnl_open_conv(&v->op[1], &s);
    if (st)
        close_all(v);
    else
        lay_out(v, em_pool_threads(r->pool));
    return st;
}

/* ---- phase 1: weights ------------------------------------------------------------------------ */

static unsigned char *packed(const conv *v, int64_t group, int64_t slice)
{
    return v->ws + v->packed_at + (size_t)(group * v->slices + slice) * v->slot_bytes;
}

static unsigned char *worker_scratch(const conv *v, int worker)
{
    return v->ws + v->workers_at + (size_t)worker * v->worker_bytes;
}

static void note(conv *v, em_status st)
{
    if (st) atomic_store(&v->status, (int)st);
}

static void pack_slice(void *arg, size_t index, int worker)
{
    conv *v = arg;
    int64_t group = (int64_t)index / v->slices, slice = (int64_t)index % v->slices;
    unsigned char *scratch = worker_scratch(v, worker);
    int64_t out = group * v->out_channels + slice * v->slice, size = v->in_channels * v->taps;
    const void *plain = em_cpu_at(v->a->w, out * size);
    if (v->type != v->a->w.dtype) {
        v->vec->convert(scratch, v->type, plain, v->a->w.dtype,
                        (size_t)(slice_channels(v, slice) * size));
        plain = scratch;
    }
    note(v, em_dnnl_pack(op_of(v, slice), packed(v, group, slice), plain, scratch + v->scratch_at));
}

/* ---- phase 2: pieces ------------------------------------------------------------------------- */

typedef struct piece {
    int64_t frame, row, col; /* first output position */
    int64_t group;
} piece;

/* n pixels of a source row, one group's channels, as slab values. */
static void copy_pixels(const conv *v, unsigned char *to, em_tensor src, int64_t pixel, int64_t n,
                        int64_t group)
{
    int64_t channels = v->in_channels, all = src.dim[3], from = pixel * all + group * channels;
    size_t step = (size_t)channels * em_dtype_bytes(v->type);
    if (channels == all) {
        v->vec->convert(to, v->type, em_cpu_at(src, from), src.dtype, (size_t)(n * channels));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        v->vec->convert(to + (size_t)i * step, v->type, em_cpu_at(src, from + i * all), src.dtype,
                        (size_t)channels);
}

/* One row of the slab: columns [left, left + slab_cols) of the padded, perhaps upsampled, input row
 * whose pixels start at `pixel` of src. */
static void gather_row(const conv *v, unsigned char *to, em_tensor src, int64_t pixel, int64_t left,
                       int64_t group)
{
    int64_t zoom = v->a->upsample_2x ? 2 : 1, width = v->a->x.dim[2] * zoom;
    size_t step = (size_t)v->in_channels * em_dtype_bytes(v->type);
    int64_t begin = left < 0 ? em_cpu_min(-left, v->slab_cols) : 0;
    int64_t end = em_cpu_min(v->slab_cols, width - left);
    if (end < begin) end = begin;
    memset(to, 0, (size_t)begin * step);
    if (zoom == 1)
        copy_pixels(v, to + (size_t)begin * step, src, pixel + left + begin, end - begin, group);
    else
        for (int64_t i = begin; i < end; i++)
            copy_pixels(v, to + (size_t)i * step, src, pixel + (left + i) / 2, 1, group);
    memset(to + (size_t)end * step, 0, (size_t)(v->slab_cols - end) * step);
}

static void gather(const conv *v, unsigned char *slab, const piece *p)
{
    const em_conv_args *a = v->a;
    int64_t past = em_tensor_is_empty(a->past) ? 0 : a->past.dim[0];
    int64_t zoom = a->upsample_2x ? 2 : 1, height = a->x.dim[1];
    size_t row_bytes = (size_t)(v->slab_cols * v->in_channels) * em_dtype_bytes(v->type);
    int64_t left = p->col * a->stride[2] - a->pad_before[2];
    for (int64_t z = 0; z < a->w.dim[2]; z++) {
        int64_t t = p->frame * a->stride[0] - a->pad_before[0] + z;
        em_tensor src = t < past ? a->past : a->x;
        int64_t frame = t < past ? t : t - past;
        for (int64_t i = 0; i < v->slab_rows; i++, slab += row_bytes) {
            int64_t h = p->row * a->stride[1] - a->pad_before[1] + i;
            if (frame < 0 || frame >= src.dim[0] || h < 0 || h >= height * zoom)
                memset(slab, 0, row_bytes);
            else
                gather_row(v, slab, src, (frame * height + h / zoom) * a->x.dim[2], left, p->group);
        }
    }
}

/* Bias and rounding: the positions of C that lie inside y. */
static void finish_piece(const conv *v, float *c, const piece *p, int64_t slice)
{
    int64_t n = slice_channels(v, slice), height = v->y.dim[1], width = v->y.dim[2];
    int64_t out = p->group * v->out_channels + slice * v->slice;
    const float *bias = (const float *)v->ws + out;
    for (int64_t i = 0; i < v->rows && p->row + i < height; i++)
        for (int64_t j = 0; j < v->cols && p->col + j < width; j++) {
            float *at = c + (i * v->cols + j) * n;
            int64_t pixel = (p->frame * height + p->row + i) * width + p->col + j;
            v->vec->add(at, bias, (size_t)n);
            v->vec->convert(em_cpu_at(v->y, pixel * em_cols(v->y) + out), v->y.dtype, at, EM_F32,
                            (size_t)n);
        }
}

/* Slices are the slow index: tasks that run at the same time share packed weights. */
static void run_task(void *arg, size_t index, int worker)
{
    conv *v = arg;
    int64_t i = (int64_t)index, begin = 0, end = v->slices;
    int64_t pieces = v->y.dim[0] * v->bands * v->parts;
    piece p = {.group = i / pieces};
    if (v->split) {
        begin = p.group % v->slices;
        end = begin + 1;
        p.group /= v->slices;
    }
    i %= pieces;
    p.col = i % v->parts * v->cols;
    p.row = i / v->parts % v->bands * v->rows;
    p.frame = i / v->parts / v->bands;
    unsigned char *scratch = worker_scratch(v, worker);
    float *c = (float *)(scratch + v->c_at);
    gather(v, scratch, &p);
    for (int64_t s = begin; s < end; s++) {
        note(v,
             em_dnnl_run(op_of(v, s), c, scratch, packed(v, p.group, s), scratch + v->scratch_at));
        finish_piece(v, c, &p, s);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------ */

size_t em_cpu_conv_workspace(em_run *r, em_tensor y, const em_conv_args *a)
{
    conv v;
    if (em_run_stopped(r) || em_tensor_count(y) == 0) return 0;
    if (is_linear(a)) return em_cpu_linear_workspace(r, y, a->x, as_matrix(a->w));
    em_status st = open_all(&v, r, y, a);
    if (st) {
        char sx[80], sw[80];
        em_run_fail(r, st, "conv: oneDNN has no kernel for %s with weights %s",
                    em_shape_text(sx, a->x.dim, 4), em_shape_text(sw, a->w.dim, 5));
        return 0;
    }
    close_all(&v);
    return v.total_bytes;
}

em_status em_cpu_conv(em_run *r, em_tensor y, const em_conv_args *a, void *ws)
{
    conv v;
    if (em_tensor_count(y) == 0) return EM_OK;
    if (is_linear(a)) return em_cpu_linear(r, y, a->x, as_matrix(a->w), a->b, EM_ACT_NONE, ws);
    em_status st = open_all(&v, r, y, a);
    if (st) return st;
    v.ws = ws;
    if (em_tensor_is_empty(a->b))
        memset(ws, 0, (size_t)em_cols(y) * sizeof(float));
    else
        v.vec->convert(ws, EM_F32, a->b.data, a->b.dtype, (size_t)em_cols(y));
    int64_t tasks = a->groups * v.y.dim[0] * v.bands * v.parts * (v.split ? v.slices : 1);
    em_run_parallel(r, (size_t)(a->groups * v.slices), pack_slice, &v);
    if (!atomic_load(&v.status)) em_run_parallel(r, (size_t)tasks, run_task, &v);
    close_all(&v);
    return (em_status)atomic_load(&v.status);
}
