/* y = act(x W^T + b) as a grid of dense tiles.
 *
 *              N: columns of y = rows of W
 *           +--------+--------+--------+     One task: a tile of rows times a group of column
 *     M     | C tile | C tile | C tile |     tiles. K runs in chunks of at most DEPTH; one chunk
 *   rows    +--------+--------+--------+     of A, one packed tile of B and the C tiles stay in
 *   of x    |        |        |        |     the second-level cache; C gathers, in float32.
 *           +--------+--------+--------+
 *
 * Phase 1 packs W tile by tile into oneDNN's layout in the compute type; phase 2 runs the grid.
 * oneDNN wants dense operands: rows of x are used where they lie when x has the compute type, K is
 * one chunk and the tile is full, and copied into per-worker scratch otherwise.
 *
 * The same bits whatever the company. Tiles come from the shape alone, so the number of threads
 * cannot matter; and rows come only in tiles of TALL or SHORT (the last one padded), for which
 * oneDNN sums K in the same order. Tiles of any height would not do: in oneDNN 2.6, heights up to
 * 32 go another way under AVX2 than 64 and more, heights of 1 and 2 another under AMX, and there
 * every height its own once K exceeds some 2,000. So a row's result does not depend on how many
 * other rows there are; checkops holds us to that. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/dnnl.h"

#include <stdatomic.h>
#include <string.h>

enum { TALL = 128, SHORT = 64, COLS = 256, DEPTH = 1536, GROUP = 4 };

/* A chunk of K starts the sum, continues it, or is the last and perhaps shorter one. */
enum { FIRST, MIDDLE, LAST, CHUNK_KINDS };
enum { FULL, REST, WIDTHS }; /* a column tile, or what is left of N */
enum { HIGH, LOW, HEIGHTS }; /* TALL or SHORT */

typedef struct linear {
    em_tensor y, x, w;
    em_act act;
    const em_vec *vec;
    em_dtype type;      /* compute type */
    int64_t rows, n, k; /* y (rows, n), x (rows, k) */
    int64_t tile_cols, tiles, tile_depth, chunks, group, groups;
    int64_t high, low; /* number of row tiles of either height */
    em_dnnl op[HEIGHTS][WIDTHS][CHUNK_KINDS];
    size_t slot_bytes;                         /* a packed (tile, chunk) */
    size_t c_at, scratch_at, worker_bytes;     /* a worker's scratch: A or W, C, oneDNN's */
    size_t packed_at, workers_at, total_bytes; /* the workspace: bias, packed W, workers */
    unsigned char *ws;
    atomic_int status;
} linear;

static int64_t cols_of(const linear *l, int64_t tile)
{
    return em_cpu_min(l->tile_cols, l->n - tile * l->tile_cols);
}

static int64_t depth_of(const linear *l, int64_t chunk)
{
    return em_cpu_min(l->tile_depth, l->k - chunk * l->tile_depth);
}

static int height_of(const linear *l, int64_t row_tile)
{
    return row_tile < l->high ? HIGH : LOW;
}

static em_dnnl *op_of(linear *l, int height, int64_t tile, int64_t chunk)
{
    int width = cols_of(l, tile) == l->tile_cols ? FULL : REST;
    int kind = chunk == 0 ? FIRST : chunk + 1 == l->chunks ? LAST : MIDDLE;
    return &l->op[height][width][kind];
}

/* ---- opening --------------------------------------------------------------------------------- */

static void cut(linear *l)
{
    l->high = l->rows / TALL;
    l->low = em_cpu_ceil_div(l->rows % TALL, SHORT);
    l->tile_cols = em_cpu_min(l->n, COLS);
    l->tiles = em_cpu_ceil_div(l->n, l->tile_cols);
    int64_t even = em_cpu_ceil_div(l->k, em_cpu_ceil_div(l->k, DEPTH));
    l->tile_depth = l->k <= DEPTH ? l->k : em_cpu_round_up(even, 64);
    l->chunks = em_cpu_ceil_div(l->k, l->tile_depth);
    l->group = l->high + l->low > 1 ? em_cpu_min(GROUP, l->tiles) : 1;
    l->groups = em_cpu_ceil_div(l->tiles, l->group);
}

/* Opens what the grid uses at one place of it, if that is not open yet. */
static em_status open_at(linear *l, int height, int64_t tile, int64_t chunk)
{
    em_dnnl *d = op_of(l, height, tile, chunk);
    if (d->op) return EM_OK;
    bool shares = height == LOW && l->high > 0;
    return em_dnnl_open_matmul(d, &(em_dnnl_matmul){
                                      .type = l->type,
                                      .m = height == HIGH ? TALL : SHORT,
                                      .n = cols_of(l, tile),
                                      .k = depth_of(l, chunk),
                                      .step_k = 1,
                                      .step_n = l->type == l->w.dtype ? l->k : depth_of(l, chunk),
                                      .accumulate = chunk > 0,
                                      .like = shares ? op_of(l, HIGH, tile, chunk) : NULL,
                                  });
}

static void lay_out(linear *l, int workers)
{
    size_t size = em_dtype_bytes(l->type), scratch = 0;
    for (int h = 0; h < HEIGHTS; h++)
        for (int w = 0; w < WIDTHS; w++)
            for (int c = 0; c < CHUNK_KINDS; c++) {
                l->slot_bytes = em_cpu_max_bytes(l->slot_bytes, l->op[h][w][c].packed_bytes);
                scratch = em_cpu_max_bytes(scratch, l->op[h][w][c].scratch_bytes);
            }
    l->slot_bytes = em_cpu_aligned(l->slot_bytes);
    size_t height = l->high ? TALL : SHORT, depth = (size_t)l->tile_depth;
    size_t cols = (size_t)l->tile_cols;
    /* Packing is over before A and C are written: a piece of W of another type may lie over
     * both. */
    l->c_at = em_cpu_aligned(height * depth * size);
    size_t tiles = l->c_at + em_cpu_aligned((size_t)l->group * height * cols * sizeof(float));
    size_t piece = l->type == l->w.dtype ? 0 : em_cpu_aligned(cols * depth * size);
    l->scratch_at = em_cpu_max_bytes(tiles, piece);
    l->worker_bytes = l->scratch_at + em_cpu_aligned(scratch);
    l->packed_at = em_cpu_aligned((size_t)l->n * sizeof(float));
    l->workers_at = l->packed_at + (size_t)(l->tiles * l->chunks) * l->slot_bytes;
    l->total_bytes = l->workers_at + (size_t)workers * l->worker_bytes;
}

static void close_all(linear *l)
{
    for (int h = 0; h < HEIGHTS; h++)
        for (int w = 0; w < WIDTHS; w++)
            for (int c = 0; c < CHUNK_KINDS; c++) em_dnnl_close(&l->op[h][w][c]);
}

static em_status open_all(linear *l, em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    *l = (linear){.y = y, .x = x, .w = w, .type = em_cpu_product_type(x), .vec = em_vec_best()};
    l->rows = em_rows(x);
    l->n = em_cols(y);
    l->k = em_cols(x);
    cut(l);
    for (int h = 0; h < HEIGHTS; h++)
        for (int64_t last_tile = 0; last_tile < 2; last_tile++)
            for (int64_t c = 0; c < CHUNK_KINDS; c++) {
                if ((h == HIGH ? l->high : l->low) == 0) continue;
                int64_t chunk = c == LAST ? l->chunks - 1 : em_cpu_min(c, l->chunks - 1);
                em_status st = open_at(l, h, last_tile ? l->tiles - 1 : 0, chunk);
                if (st) {
                    close_all(l);
                    return st;
                }
            }
    lay_out(l, em_pool_threads(r->pool));
    return EM_OK;
}

/* ---- phase 1 --------------------------------------------------------------------------------- */

static unsigned char *packed(const linear *l, int64_t tile, int64_t chunk)
{
    return l->ws + l->packed_at + (size_t)(tile * l->chunks + chunk) * l->slot_bytes;
}

static unsigned char *worker_scratch(const linear *l, int worker)
{
    return l->ws + l->workers_at + (size_t)worker * l->worker_bytes;
}

static void note(atomic_int *status, em_status st)
{
    if (st) atomic_store(status, (int)st);
}

static void pack_piece(void *arg, size_t index, int worker)
{
    linear *l = arg;
    int64_t tile = (int64_t)index / l->chunks, chunk = (int64_t)index % l->chunks;
    unsigned char *scratch = worker_scratch(l, worker);
    int64_t cols = cols_of(l, tile), depth = depth_of(l, chunk);
    int64_t from = tile * l->tile_cols * l->k + chunk * l->tile_depth;
    const void *plain = em_cpu_at(l->w, from);
    if (l->type != l->w.dtype) {
        size_t row_bytes = (size_t)depth * em_dtype_bytes(l->type);
        for (int64_t i = 0; i < cols; i++)
            l->vec->convert(scratch + (size_t)i * row_bytes, l->type,
                            em_cpu_at(l->w, from + i * l->k), l->w.dtype, (size_t)depth);
        plain = scratch;
    }
    const em_dnnl *op = op_of(l, l->high ? HIGH : LOW, tile, chunk);
    note(&l->status, em_dnnl_pack(op, packed(l, tile, chunk), plain, scratch + l->scratch_at));
}

/* ---- phase 2 --------------------------------------------------------------------------------- */

/* One chunk of a tile of rows, dense and in the compute type: x itself where it is that already. */
static const void *rows_of_x(const linear *l, int64_t row, int64_t height, int64_t chunk,
                             unsigned char *stage)
{
    int64_t have = em_cpu_min(height, l->rows - row), depth = depth_of(l, chunk);
    int64_t from = row * l->k + chunk * l->tile_depth;
    if (l->type == l->x.dtype && depth == l->k && have == height) return em_cpu_at(l->x, from);
    size_t row_bytes = (size_t)depth * em_dtype_bytes(l->type);
    for (int64_t i = 0; i < have; i++)
        l->vec->convert(stage + (size_t)i * row_bytes, l->type, em_cpu_at(l->x, from + i * l->k),
                        l->x.dtype, (size_t)depth);
    memset(stage + (size_t)have * row_bytes, 0, (size_t)(height - have) * row_bytes);
    return stage;
}

/* Bias, activation, rounding: a finished C tile becomes part of y. */
static void finish_tile(const linear *l, float *c, int64_t row, int64_t have, int64_t tile)
{
    int64_t cols = cols_of(l, tile), col = tile * l->tile_cols;
    const float *bias = (const float *)l->ws + col;
    for (int64_t i = 0; i < have; i++, c += cols) {
        l->vec->add(c, bias, (size_t)cols);
        l->vec->act(c, l->act, (size_t)cols);
        l->vec->convert(em_cpu_at(l->y, (row + i) * l->n + col), l->y.dtype, c, EM_F32,
                        (size_t)cols);
    }
}

/* Row tiles are the fast index: neighbours in time share the packed weights. */
static void run_task(void *arg, size_t index, int worker)
{
    linear *l = arg;
    int64_t row_tiles = l->high + l->low;
    int64_t row_tile = (int64_t)index % row_tiles, group = (int64_t)index / row_tiles;
    int height = height_of(l, row_tile);
    int64_t rows = height == HIGH ? TALL : SHORT;
    int64_t row = height == HIGH ? row_tile * TALL : l->high * TALL + (row_tile - l->high) * SHORT;
    int64_t begin = group * l->group, end = em_cpu_min(begin + l->group, l->tiles);
    unsigned char *scratch = worker_scratch(l, worker);
    float *c = (float *)(scratch + l->c_at);
    for (int64_t chunk = 0; chunk < l->chunks; chunk++) {
        const void *a = rows_of_x(l, row, rows, chunk, scratch);
        for (int64_t t = begin; t < end; t++)
            note(&l->status,
                 em_dnnl_run(op_of(l, height, t, chunk), c + (t - begin) * rows * l->tile_cols, a,
                             packed(l, t, chunk), scratch + l->scratch_at));
    }
    for (int64_t t = begin; t < end; t++)
        finish_tile(l, c + (t - begin) * rows * l->tile_cols, row, em_cpu_min(rows, l->rows - row),
                    t);
}

/* ---- the kernel ------------------------------------------------------------------------------ */

size_t em_cpu_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    linear l;
    if (em_run_stopped(r) || em_tensor_count(y) == 0) return 0;
    em_status st = open_all(&l, r, y, x, w);
    if (st) {
        em_run_fail(r, st, "linear: oneDNN has no kernel for %lld x %lld x %lld",
                    (long long)em_rows(x), (long long)em_cols(y), (long long)em_cols(x));
        return 0;
    }
    close_all(&l);
    return l.total_bytes;
}

em_status em_cpu_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    linear l;
    if (em_tensor_count(y) == 0) return EM_OK;
    em_status st = open_all(&l, r, y, x, w);
    if (st) return st;
    l.act = act;
    l.ws = ws;
    if (em_tensor_is_empty(b))
        memset(ws, 0, (size_t)l.n * sizeof(float));
    else
        l.vec->convert(ws, EM_F32, b.data, b.dtype, (size_t)l.n);
    em_run_parallel(r, (size_t)(l.tiles * l.chunks), pack_piece, &l);
    if (!atomic_load(&l.status))
        em_run_parallel(r, (size_t)((l.high + l.low) * l.groups), run_task, &l);
    close_all(&l);
    return (em_status)atomic_load(&l.status);
}
