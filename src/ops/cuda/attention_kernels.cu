/* Attention in tiles with the softmax carried along (Dao, arXiv 2307.08691).
 *
 * A block takes a tile of queries of one head and walks over the keys from the first to the last,
 * whatever the number of queries: a query's bits depend on nothing but itself and the keys.
 *
 * flash: 16-bit operands on tensor cores, four warps. A warp owns 16 MT queries and all that
 * belongs to them (scores, softmax, output) in registers; tiles of K and V take turns:
 *
 *     wait K_j        start V_j        S = Q K_j^T
 *     wait V_j        start K_j+1      P = 2^(S - max), rescale, O += P V_j
 *
 * so each copy has half a step to arrive in, and the second block of the multiprocessor fills what
 * is left. plain: float32 multiply-adds, any head size, for float32 and for odd sizes. */
#include "ops/cuda/attention_kernels.h"
#include "ops/cuda/common.cuh"

#define DEVICE static __device__ __forceinline__

/* ---- instructions ---------------------------------------------------------------------------- */

template <typename T> struct number;

template <> struct number<__nv_bfloat16> {
    /* c (16, 8) += a (16, 16) b (16, 8) */
    DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    DEVICE uint32_t pack(float low, float high)
    {
        uint32_t r;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
        return r;
    }
};

template <> struct number<__half> {
    DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    DEVICE uint32_t pack(float low, float high)
    {
        uint32_t r;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
        return r;
    }
};

/* 2^x; 0 for x = -inf. */
DEVICE float exp_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes from global to shared memory; zeros unless valid (the address must be good anyway). */
DEVICE void copy_16(uint32_t to, const void *from, bool valid)
{
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

DEVICE void copies_start()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* This thread's copies have landed, then everybody's have. */
DEVICE void copies_wait()
{
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
}

/* Four 8 x 8 matrices; lane l names the row l % 8 of matrix l / 8. */
DEVICE void load_matrices(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

DEVICE void load_transposed(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* ---- tiles in shared memory ------------------------------------------------------------------ */

extern __shared__ __align__(128) unsigned char shared[];

enum { THREADS = 128, WARPS = 4 };

/* Rows of D 16-bit numbers in chunks of 16 bytes. Eight rows at one column must fall into different
 * banks: where a row is a multiple of 128 bytes, chunk c of row r lies at c ^ (r % 8); elsewhere
 * rows are one chunk longer. */
template <int D> struct tile {
    static constexpr bool SWIZZLED = D % 64 == 0;
    static constexpr int CHUNKS = D / 8;
    static constexpr int ROW_BYTES = D * 2 + (SWIZZLED ? 0 : 16);

    DEVICE uint32_t at(uint32_t base, int row, int chunk)
    {
        return base + row * ROW_BYTES + ((SWIZZLED ? chunk ^ (row & 7) : chunk) << 4);
    }
    /* The address 16 k columns to the right of one in columns 0 to 15. */
    DEVICE uint32_t right(uint32_t from, int k)
    {
        return SWIZZLED ? (from ^ (k * 32 & 96)) + (k * 32 & ~127) : from + k * 32;
    }
};

/* How the block's threads share the copy of a tile: thread t takes chunks t % LANES + LANES g of
 * rows t / LANES + PASS i. */
template <int D> struct share {
    static constexpr int CHUNKS = tile<D>::CHUNKS;
    static constexpr int LANES = CHUNKS % 16 == 0 ? 16 : CHUNKS & -CHUNKS;
    static constexpr int GROUPS = CHUNKS / LANES, PASS = THREADS / LANES;

    DEVICE int row()
    {
        return (int)threadIdx.x / LANES;
    }
    DEVICE int chunk()
    {
        return (int)threadIdx.x % LANES;
    }
};

/* ROWS rows, zeros from row `left` (at least 1) on. to, from: this thread's first chunk of both
 * sides. */
template <typename T, int D, int ROWS, bool WHOLE>
DEVICE void load_rows(uint32_t to, const T *from, int left, int stride)
{
    using part = share<D>;
    static_assert(ROWS % part::PASS == 0 && (part::PASS % 8 == 0 || !tile<D>::SWIZZLED), "");
    left -= part::row();
    const T *safe = from - (int64_t)stride * part::row(); /* of the first row */
#pragma unroll
    for (int i = 0; i < ROWS / part::PASS; i++) {
        bool valid = WHOLE || i * part::PASS < left;
        const T *row = valid ? from + (int64_t)stride * (i * part::PASS) : safe;
#pragma unroll
        for (int g = 0; g < part::GROUPS; g++)
            copy_16(to + i * part::PASS * tile<D>::ROW_BYTES + g * part::LANES * 16,
                    row + g * part::LANES * 8, valid);
    }
}

template <typename T, int D, int ROWS>
DEVICE void load_tile(uint32_t to, const T *from, int left, int stride)
{
    if (left >= ROWS)
        load_rows<T, D, ROWS, true>(to, from, left, stride);
    else
        load_rows<T, D, ROWS, false>(to, from, left, stride);
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* Where a warp's scores lie: query of its first row, key of the tile's first column. */
typedef struct place {
    int query, key, nq, nk;
    const float *bias; /* of the head */
    float scale;       /* log2(e) * scale: everything below is in powers of two */
} place;

/* Scaled and biased scores, for PRE. c: accumulators of rows r, r + 8 and columns 2 l, 2 l + 1. */
template <int NT> DEVICE void add_bias(float (&s)[NT][4], const place &p, int row)
{
    const float log2e = 1.4426950408889634f;
    int lane_key = p.key + (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float v = __fmul_rn(s[n][e], p.scale); /* not fused here and apart there */
            if (p.bias) {
                int i = min(p.query + row + (e >> 1) * 8, p.nq - 1);
                int j = min(lane_key + n * 8 + (e & 1), p.nk - 1);
                v = __fmaf_rn(p.bias[j - i + p.nq - 1], log2e, v);
            }
            s[n][e] = v;
        }
}

template <int NT> DEVICE void mask_tail(float (&s)[NT][4], const place &p)
{
    int left = p.nk - p.key - (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (n * 8 + (e & 1) >= left) s[n][e] = -INFINITY;
}

/* Scores become weights 2^(s - top); returns what older sums shrink by. half: rows r or r + 8. */
template <bool PRE, int NT>
DEVICE float fold(float (&s)[NT][4], float &top, float &total, int half, float scale)
{
    float most = s[0][half * 2];
#pragma unroll
    for (int n = 0; n < NT; n++) most = fmaxf(most, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    most = fmaxf(most, top);
    float shift = PRE ? most : most * scale;
    float shrink = exp_2(PRE ? top - shift : fmaf(top, scale, -shift));
    float sum = 0;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; e++) {
            s[n][e] = exp_2(PRE ? s[n][e] - shift : fmaf(s[n][e], scale, -shift));
            sum += s[n][e];
        }
    total = fmaf(total, shrink, sum);
    top = most;
    return shrink;
}

/* ---- flash ----------------------------------------------------------------------------------- */

/* S (16 MT, BC) = Q K^T. q, k: this lane's addresses in the tiles; held: Q already in registers. */
template <typename T, int D, int MT, int NT, bool HOLD>
DEVICE void scores(float (&s)[MT][NT][4], const uint32_t (&held)[MT][HOLD ? D / 16 : 1][4],
                   uint32_t q, uint32_t k)
{
    constexpr int ROW = tile<D>::ROW_BYTES;
#pragma unroll
    for (int i = 0; i < MT * NT * 4; i++) s[i / 4 / NT][i / 4 % NT][i % 4] = 0;
#pragma unroll
    for (int ks = 0; ks < D / 16; ks++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if constexpr (HOLD) {
#pragma unroll
                for (int i = 0; i < 4; i++) a[m][i] = held[m][ks][i];
            } else {
                load_matrices(a[m], tile<D>::right(q, ks) + m * 16 * ROW);
            }
        }
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t b[4];
            load_matrices(b, tile<D>::right(k, ks) + n * 8 * ROW);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                number<T>::mma(s[m][n], a[m], b[0], b[1]);
                number<T>::mma(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* O (16 MT, D) += P V, P rounded to the operands' type. */
template <typename T, int D, int MT, int NT>
DEVICE void mix(float (&o)[MT][D / 8][4], const float (&p)[MT][NT][4], uint32_t v)
{
    constexpr int ROW = tile<D>::ROW_BYTES;
#pragma unroll
    for (int ks = 0; ks < NT / 2; ks++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = number<T>::pack(p[m][ks * 2 + i / 2][i % 2 * 2],
                                          p[m][ks * 2 + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_transposed(b, tile<D>::right(v, n / 2) + ks * 16 * ROW);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                number<T>::mma(o[m][n], a[m], b[0], b[1]);
                number<T>::mma(o[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* The warp's rows, divided by their totals, through its part of the query tile to global memory. */
template <typename T, int D, int MT>
DEVICE void finish(T *head, float (&o)[MT][D / 8][4], const float (&total)[MT][2], uint32_t to,
                   const unsigned char *rows, int row, int end, int stride)
{
    int lane = threadIdx.x & 31, left = end - row;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[m][half];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            float scale = 1 / sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                uint32_t pair =
                    number<T>::pack(o[m][n][half * 2] * scale, o[m][n][half * 2 + 1] * scale);
                uint32_t at = tile<D>::at(to, m * 16 + half * 8 + lane / 4, n) + lane % 4 * 4;
                asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pair) : "memory");
            }
        }
    __syncwarp();
    constexpr int CHUNKS = tile<D>::CHUNKS;
    for (int i = lane; i < MT * 16 * CHUNKS; i += 32) {
        int r = i / CHUNKS, c = i % CHUNKS;
        if (r >= left) break;
        *(int4 *)(head + (int64_t)(row + r) * stride + c * 8) =
            *(const int4 *)(rows + tile<D>::at(0, r, c));
    }
}

/* BC keys a step. PRE: scores are scaled before the maximum is taken, and there may be a bias;
 * otherwise the scale must be positive and is folded into the exponent. */
template <typename T, int D, int MT, int BC, bool PRE>
static __global__ void __launch_bounds__(THREADS, 2) flash(em_cuda_attn a)
{
    constexpr int BR = WARPS * MT * 16, NT = BC / 8, ROW = tile<D>::ROW_BYTES;
    constexpr bool HOLD = D <= 80; /* the queries fit into registers */
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const uint32_t q_at = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t k_at = q_at + BR * ROW, v_at = k_at + BC * ROW;
    const int nq = (int)a.nq, nk = (int)a.nk, tiles = (nq + BR - 1) / BR;
    const int bh = blockIdx.x / tiles, b = bh / a.heads, h = bh % a.heads;
    const int first = blockIdx.x % tiles * BR;
    int stride = a.heads * D;
    const int64_t q_head = (int64_t)b * nq * stride + h * D;
    const int64_t k_head = (int64_t)b * nk * stride + h * D;
    const int64_t thread_at = (int64_t)share<D>::row() * stride + share<D>::chunk() * 8;
    const T *q = (const T *)a.q + q_head + (int64_t)first * stride + thread_at;
    const T *k = (const T *)a.k + k_head + thread_at, *v = (const T *)a.v + k_head + thread_at;

    /* This thread's chunk of a copy, and its rows of the four matrices that one load takes. */
    uint32_t to = tile<D>::at(q_at, share<D>::row(), share<D>::chunk());
    uint32_t q_lane = tile<D>::at(q_at, warp * MT * 16 + (lane & 15), lane >> 4);
    uint32_t k_lane = tile<D>::at(k_at, (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    uint32_t v_lane = tile<D>::at(v_at, lane & 15, lane >> 4);

    place p = {first + warp * MT * 16, 0, nq, nk, NULL, a.scale * 1.4426950408889634f};
    if (a.rel_bias) p.bias = a.rel_bias + (int64_t)h * (nq + nk - 1);

    float o[MT][D / 8][4], top[MT][2], total[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[m][i / 4][i % 4] = 0;
        top[m][0] = top[m][1] = -INFINITY;
        total[m][0] = total[m][1] = 0;
    }

    load_tile<T, D, BR>(to, q, nq - first, stride);
    load_tile<T, D, BC>(to + BR * ROW, k, nk, stride);
    copies_start();
    uint32_t held[MT][HOLD ? D / 16 : 1][4];
    if constexpr (HOLD) {
        copies_wait();
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int ks = 0; ks < D / 16; ks++)
                load_matrices(held[m][ks], tile<D>::right(q_lane, ks) + m * 16 * ROW);
    }

    for (; p.key < nk; p.key += BC) {
        float s[MT][NT][4];
        copies_wait(); /* K is there, and nobody reads the last V any more */
        /* What derives from these is cheap to make and dear to keep. */
        asm volatile("" : "+r"(q_lane), "+r"(k_lane), "+r"(v_lane), "+r"(to), "+r"(stride));
        load_tile<T, D, BC>(to + (BR + BC) * ROW, v, nk - p.key, stride);
        v += (int64_t)stride * BC;
        copies_start();
        scores<T, D, MT, NT, HOLD>(s, held, q_lane, k_lane);
        copies_wait(); /* V is there, and nobody reads K any more */
        k += (int64_t)stride * BC;
        if (p.key + BC < nk) load_tile<T, D, BC>(to + BR * ROW, k, nk - p.key - BC, stride);
        copies_start();

        float shrink[MT][2];
        bool moved = false;
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (PRE) add_bias(s[m], p, m * 16 + lane / 4);
            if (p.key + BC > nk) mask_tail(s[m], p);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                shrink[m][half] = fold<PRE>(s[m], top[m][half], total[m][half], half, p.scale);
                moved |= shrink[m][half] != 1;
            }
        }
        /* A factor of one changes nothing, and after some tiles most are one. */
        if (__any_sync(0xffffffffu, moved)) {
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int i = 0; i < D / 2; i++) o[m][i / 4][i % 4] *= shrink[m][i % 4 / 2];
        }
        mix<T, D, MT, NT>(o, s, v_lane);
    }
    const uint32_t warp_rows = warp * MT * 16 * ROW; /* only this warp has read them */
    __syncwarp();
    finish<T, D, MT>((T *)a.y + q_head, o, total, q_at + warp_rows, shared + warp_rows, p.query, nq,
                     stride);
}

/* ---- plain ----------------------------------------------------------------------------------- */

enum { PLAIN_THREADS = 256, PLAIN_KEYS = 64, DEPTH = 32, DEPTH_PITCH = DEPTH + 4 };
enum { P_PITCH = PLAIN_KEYS + 4, V_KEYS = 16 };

/* Shared memory of plain, in floats: chunks of Q and K, in turn with rows of V; then P. */
template <int R, int C> struct plain_layout {
    static constexpr int QUERIES = 16 * R, WIDTH = 64 * C;
    static constexpr int QK = (QUERIES + PLAIN_KEYS) * DEPTH_PITCH, V = V_KEYS * WIDTH;
    static constexpr int P_AT = QK > V ? QK : V;
    static constexpr int BYTES = (P_AT + QUERIES * P_PITCH) * 4;
};

/* DEPTH columns of `rows` rows as float32; zeros from row `left` and from column `wide` on. */
template <typename T>
DEVICE void load_chunk(float *to, const T *from, int rows, int left, int wide, int stride)
{
    int c = threadIdx.x % DEPTH;
    for (int r = threadIdx.x / DEPTH; r < rows; r += PLAIN_THREADS / DEPTH)
        to[r * DEPTH_PITCH + c] = c < wide && r < left ? to_f32(from[(int64_t)r * stride + c]) : 0;
}

/* V_KEYS rows of V, 64 C columns of which `wide` exist; zeros from row `left` on. */
template <typename T, int C>
DEVICE void load_values(float *to, const T *from, int left, int wide, int stride)
{
    int c = threadIdx.x % 64;
    for (int r = threadIdx.x / 64; r < V_KEYS; r += PLAIN_THREADS / 64)
#pragma unroll
        for (int g = 0; g < C; g++) {
            bool there = r < left && c + 64 * g < wide;
            to[r * 64 * C + c + 64 * g] =
                there ? to_f32(from[(int64_t)r * stride + c + 64 * g]) : 0;
        }
}

/* A thread's part of S += Q K^T for one chunk: rows y + 16 i, columns x + 16 j. */
template <int R> DEVICE void plain_scores(float (&s)[R][4], const float *q, const float *k)
{
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 1
    for (int d = 0; d < DEPTH; d += 4) {
        float4 b[4];
#pragma unroll
        for (int j = 0; j < 4; j++) b[j] = *(const float4 *)(k + (x + 16 * j) * DEPTH_PITCH + d);
#pragma unroll
        for (int i = 0; i < R; i++) {
            float4 a = *(const float4 *)(q + (y + 16 * i) * DEPTH_PITCH + d);
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[i][j] = fmaf(a.w, b[j].w,
                               fmaf(a.z, b[j].z, fmaf(a.y, b[j].y, fmaf(a.x, b[j].x, s[i][j]))));
        }
    }
}

/* One row of a thread: scaled, biased (bias: of the tile's first key, or NULL), masked scores. */
DEVICE void plain_scale(float (&s)[4], float scale, const float *bias, int left)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int at = threadIdx.x % 16 + 16 * j;
        s[j] *= scale;
        if (bias && at < left) s[j] += bias[at];
        if (at >= left) s[j] = -INFINITY;
    }
}

/* One row of a thread: scores to weights e^(s - top), into P; returns what older sums shrink by. */
DEVICE float plain_fold(float (&s)[4], float *p, float &top, float &total)
{
    float most = top, sum = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) most = fmaxf(most, s[j]);
#pragma unroll
    for (int w = 8; w; w /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, w));
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float e = expf(s[j] - most);
        sum += e;
        p[threadIdx.x % 16 + 16 * j] = e;
    }
    float shrink = expf(top - most);
    total = fmaf(total, shrink, sum);
    top = most;
    return shrink;
}

/* O += P V for V_KEYS keys: rows y + 16 i, columns 4 x + 64 c. */
template <int R, int C> DEVICE void plain_mix(float (&o)[R][C][4], const float *p, const float *v)
{
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 1
    for (int k = 0; k < V_KEYS; k += 2) {
        float2 a[R];
#pragma unroll
        for (int i = 0; i < R; i++) a[i] = *(const float2 *)(p + (y + 16 * i) * P_PITCH + k);
#pragma unroll
        for (int c = 0; c < C; c++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float4 b = *(const float4 *)(v + (k + e) * 64 * C + 4 * x + 64 * c);
#pragma unroll
                for (int i = 0; i < R; i++) {
                    float w = e ? a[i].y : a[i].x;
                    o[i][c][0] = fmaf(w, b.x, o[i][c][0]);
                    o[i][c][1] = fmaf(w, b.y, o[i][c][1]);
                    o[i][c][2] = fmaf(w, b.z, o[i][c][2]);
                    o[i][c][3] = fmaf(w, b.w, o[i][c][3]);
                }
            }
    }
}

/* 16 R queries a block, heads of up to 64 C channels. */
template <typename T, int R, int C>
static __global__ void __launch_bounds__(PLAIN_THREADS, R *C > 16 ? 1 : 2) plain(em_cuda_attn a)
{
    using layout = plain_layout<R, C>;
    float *qs = (float *)shared, *ks = qs + layout::QUERIES * DEPTH_PITCH, *vs = qs;
    float *ps = qs + layout::P_AT;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int nq = (int)a.nq, nk = (int)a.nk, tiles = (nq + layout::QUERIES - 1) / layout::QUERIES;
    const int bh = blockIdx.x / tiles, b = bh / a.heads, h = bh % a.heads, dim = a.dim;
    const int stride = a.heads * dim, first = blockIdx.x % tiles * layout::QUERIES;
    int query = first + y;
    const int64_t q_head = ((int64_t)b * nq + first) * stride + h * dim;
    const int64_t k_head = (int64_t)b * nk * stride + h * dim;
    const T *q = (const T *)a.q + q_head, *k = (const T *)a.k + k_head,
            *v = (const T *)a.v + k_head;
    const float *bias = a.rel_bias ? a.rel_bias + (int64_t)h * (nq + nk - 1) + nq - 1 : NULL;

    float o[R][C][4] = {}, top[R], total[R];
#pragma unroll
    for (int i = 0; i < R; i++) {
        top[i] = -INFINITY;
        total[i] = 0;
    }
    for (int key = 0; key < nk; key += PLAIN_KEYS) {
        float s[R][4] = {};
        for (int d = 0; d < dim; d += DEPTH) {
            __syncthreads();
            load_chunk(qs, q + d, layout::QUERIES, nq - first, dim - d, stride);
            load_chunk(ks, k + d, PLAIN_KEYS, nk - key, dim - d, stride);
            __syncthreads();
            plain_scores(s, qs, ks);
        }
        k += (int64_t)stride * PLAIN_KEYS;
        float shrink[R];
        asm volatile("" : "+r"(query)); /* what derives from it is not worth a register */
#pragma unroll
        for (int i = 0; i < R; i++) {
            const float *row = bias ? bias + key - min(query + 16 * i, nq - 1) : NULL;
            plain_scale(s[i], a.scale, row, nk - key);
            shrink[i] = plain_fold(s[i], ps + (y + 16 * i) * P_PITCH, top[i], total[i]);
        }
#pragma unroll
        for (int i = 0; i < R * C * 4; i++) o[i / 4 / C][i / 4 % C][i % 4] *= shrink[i / 4 / C];
        for (int row = 0; row < PLAIN_KEYS; row += V_KEYS) {
            __syncthreads();
            load_values<T, C>(vs, v, nk - key - row, dim, stride);
            v += (int64_t)stride * V_KEYS;
            __syncthreads();
            plain_mix(o, ps + row, vs);
        }
    }
    T *out = (T *)a.y + q_head;
#pragma unroll
    for (int i = 0; i < R; i++) {
        float sum = total[i];
#pragma unroll
        for (int w = 8; w; w /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, w);
        int row = y + 16 * i;
        if (row >= nq - first) continue;
#pragma unroll
        for (int c = 0; c < C * 4; c++) {
            int column = c / 4 * 64 + 4 * x + c % 4;
            if (column < dim)
                out[(int64_t)row * stride + column] = from_f32<T>(o[i][c / 4][c % 4] / sum);
        }
    }
}

/* ---- launchers ------------------------------------------------------------------------------- */

typedef void (*kernel)(em_cuda_attn);

static cudaError_t launch(kernel f, const em_cuda_attn *a, int queries, int threads,
                          size_t shared_bytes, cudaStream_t stream)
{
    int64_t blocks = (a->nq + queries - 1) / queries * a->heads * a->batch;
    if (blocks <= 0) return cudaSuccess;
    if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
    cudaError_t rc =
        cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (rc) return rc;
    f<<<(unsigned)blocks, threads, shared_bytes, stream>>>(*a);
    return cudaGetLastError();
}

template <typename T, int D, int MT, int BC, bool PRE>
static cudaError_t launch_flash(const em_cuda_attn *a, cudaStream_t stream)
{
    constexpr int BR = WARPS * MT * 16;
    return launch(flash<T, D, MT, BC, PRE>, a, BR, THREADS, (BR + 2 * BC) * tile<D>::ROW_BYTES,
                  stream);
}

template <typename T, int R, int C>
static cudaError_t launch_plain(const em_cuda_attn *a, cudaStream_t stream)
{
    return launch(plain<T, R, C>, a, 16 * R, PLAIN_THREADS, plain_layout<R, C>::BYTES, stream);
}

template <typename T, int D>
static cudaError_t launch_size(const em_cuda_attn *a, bool pre, cudaStream_t stream)
{
    return pre ? launch_flash<T, D, 2, 64, true>(a, stream)
               : launch_flash<T, D, 2, 64, false>(a, stream);
}

/* Two blocks of 128 channels and 64 keys need 128 KiB of a multiprocessor's shared memory. */
static bool roomy(void)
{
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device)) return true;
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    return bytes >= 132 * 1024;
}

template <typename T> static cudaError_t launch_16(const em_cuda_attn *a, cudaStream_t stream)
{
    bool pre = a->rel_bias || !(a->scale > 0);
    if (a->dim == 384 && !pre) return launch_flash<T, 384, 1, 32, false>(a, stream);
    if (a->dim == 128 && !pre && (a->nk <= 32 || !roomy()))
        return launch_flash<T, 128, 2, 32, false>(a, stream);
    switch (a->dim) {
    case 16: return launch_size<T, 16>(a, pre, stream);
    case 32: return launch_size<T, 32>(a, pre, stream);
    case 64: return launch_size<T, 64>(a, pre, stream);
    case 80: return launch_size<T, 80>(a, pre, stream);
    case 128: return launch_size<T, 128>(a, pre, stream);
    default: return launch_plain<T, 4, 8>(a, stream);
    }
}

extern "C" cudaError_t em_cuda_attention_launch(const em_cuda_attn *a, cudaStream_t stream)
{
    const int64_t most = 0x7fffffff - 1024;
    if (a->dim < 1 || a->dim > EM_CUDA_ATTN_MAX_DIM || a->nk < 1 || a->nk > most || a->nq > most)
        return cudaErrorInvalidValue;
    switch (a->dtype) {
    case EMK_F32:
        if (a->dim <= 64) return launch_plain<float, 8, 1>(a, stream);
        if (a->dim <= 128) return launch_plain<float, 8, 2>(a, stream);
        if (a->dim <= 384) return launch_plain<float, 4, 6>(a, stream);
        return launch_plain<float, 4, 8>(a, stream);
    case EMK_F16: return launch_16<__half>(a, stream);
    case EMK_BF16: return launch_16<__nv_bfloat16>(a, stream);
    default: return cudaErrorInvalidValue;
    }
}
