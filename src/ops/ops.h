/* Every operation the five models are made of: formula, shapes, types.
 *
 * Conventions
 *   x (M, K)      any leading dimensions count as rows; the last one is the channel
 *   weights       in the checkpoint's layout and any float type (F32, F16, BF16); an op widens,
 *                 narrows or reorders what it needs inside its own scratch, so that nobody holds a
 *                 second copy
 *   vectors       (norm weights, biases, modulation) any float type
 *   results       fresh scratch of the run; the type of x unless said otherwise. "-> run" means the
 *                 run's working type: statistics and residual streams are float32, matrix operands
 *                 are not
 *   accumulation  float32 or better, whatever the operands are
 *   in place      said so; everything else leaves its inputs alone
 * Shapes are checked once, in ops.c; kernels trust them. The result of an op does not depend on the
 * number of threads.
 */
#ifndef EM_OPS_OPS_H
#define EM_OPS_OPS_H

#include "ops/run.h"

typedef enum em_act {
    EM_ACT_NONE,
    EM_ACT_RELU,
    EM_ACT_SILU,      /* x / (1 + e^-x) */
    EM_ACT_GELU_ERF,  /* x (1 + erf(x / sqrt 2)) / 2 */
    EM_ACT_GELU_TANH, /* x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 */
    EM_ACT_HARD_TANH, /* x clamped to [-1, 1]; NaN stays */
} em_act;

/* ---- matrix products ------------------------------------------------------------------------- */

/* act(x W^T + b)        x (…, K)   w (N, K)   b (N) or empty   -> (…, N) */
em_tensor em_linear(em_run *r, em_tensor x, em_tensor w, em_tensor b, em_act act);

/* The same x through n layers of one shape (queries, keys, values), one product where the table
 * has one for that: y[i] = x W_i^T + b_i.   x (M, K)   w[i] (N, K)   b[i] (N) or all empty
 * -> y[0..n) (M, N) */
void em_linears(em_run *r, int n, em_tensor *y, em_tensor x, const em_tensor *w,
                const em_tensor *b);

typedef struct em_attn {
    int heads;   /* C = heads * head_dim */
    float scale; /* on q k^T; 1 for T5 */
    /* empty, or F32 (heads, Nq + Nk - 1): entry [h][j - i + Nq - 1] is added to the score of query
     * i and key j (T5's bias depends on j - i alone) */
    em_tensor rel_bias;
} em_attn;

/* softmax(scale q k^T + bias) v, per batch entry and head, softmax in float32, in tiles: no Nq x Nk
 * buffer.
 * q (B, Nq, C)   k, v (B, Nk, C), one type   -> (B, Nq, C).  Two dimensions mean B = 1. */
em_tensor em_attention(em_run *r, em_tensor q, em_tensor k, em_tensor v, const em_attn *a);
/* The same into y, of q's type and count, which overlaps none of the others. */
void em_attention_to(em_run *r, em_tensor y, em_tensor q, em_tensor k, em_tensor v,
                     const em_attn *a);

typedef struct em_conv_spec {
    int stride[3];     /* time, height, width; 0 means 1 */
    int pad_before[3]; /* zeros in front of the data (and of `past`) */
    int pad_after[3];
    int groups;       /* 0 means 1 */
    bool upsample_2x; /* nearest x2 in height and width before the convolution */
} em_conv_spec;

/* Convolution, channels last.   x (T, H, W, C)   w (O, C/groups, kt, kh, kw)   b (O) or empty
 * past (P, H, W, C) or empty: frames that precede x (a causal cache)           -> (T', H', W', O)
 * Two-dimensional weights w (O, C/g, kh, kw) have kt = 1; one-dimensional ones w (O, C/g, k) take x
 * (T, C) and give (T', O), with index 2 of the spec's arrays for their only axis. */
em_tensor em_conv(em_run *r, em_tensor x, em_tensor past, em_tensor w, em_tensor b,
                  const em_conv_spec *spec);
/* The same into y, of x's type and the result's count, which overlaps none of the others. */
void em_conv_to(em_run *r, em_tensor y, em_tensor x, em_tensor past, em_tensor w, em_tensor b,
                const em_conv_spec *spec);

/* wav2vec2's weight norm: w[:,:,k] = g[k] v[:,:,k] / ||v[:,:,k]||   g (1, 1, K)   v (O, I, K) ->
 * F32 */
em_tensor em_weight_norm(em_run *r, em_tensor g, em_tensor v);

/* ---- norms: statistics in float32 over the last dimension ------------------------------------ */

/* (x - mean) / sqrt(var + eps) * w + b, population variance; w, b (C) or empty   -> run */
em_tensor em_layer_norm(em_run *r, em_tensor x, em_tensor w, em_tensor b, float eps);
/* LN(x) (1 + scale) + shift, LN without affine; scale, shift (C)                 -> run */
em_tensor em_norm_modulate(em_run *r, em_tensor x, em_tensor scale, em_tensor shift, float eps);
/* x / sqrt(mean(x^2) + eps) * w                                                  -> run */
em_tensor em_rms_norm(em_run *r, em_tensor x, em_tensor w, float eps);
/* The same in x's place and type: the same bits where x has the run's type. */
void em_rms_norm_inplace(em_run *r, em_tensor x, em_tensor w, float eps);
/* act(x / max(||x||, 1e-12) * sqrt(C) * gamma): the Wan VAE's RMS norm           -> run */
em_tensor em_l2_norm(em_run *r, em_tensor x, em_tensor gamma, em_act act);
/* The same in x's place and type. */
void em_l2_norm_inplace(em_run *r, em_tensor x, em_tensor gamma, em_act act);
/* Each channel over time, (x - mean_t) / sqrt(var_t + eps) * w + b: group norm with one group a
 * channel.
 * x (T, C)                                                                       -> run */
em_tensor em_time_norm(em_run *r, em_tensor x, em_tensor w, em_tensor b, float eps);

/* ---- elementwise, in place ------------------------------------------------------------------- */

void em_act_inplace(em_run *r, em_tensor x, em_act act);
void em_add(em_run *r, em_tensor x, em_tensor y);                       /* x += y, same count */
void em_mul(em_run *r, em_tensor x, em_tensor y);                       /* x *= y, same count */
void em_gated_add(em_run *r, em_tensor x, em_tensor y, em_tensor gate); /* x += y gate; gate (C) */
void em_scale_shift(em_run *r, em_tensor x, em_tensor scale,
                    em_tensor shift); /* x = x scale + shift;
                                                                                  (C) each */
void em_fill(em_run *r, em_tensor x, float value);
/* Rotates pairs (2i, 2i+1) of every head of x (N, heads*d) by the angle whose (cos, sin) is table
 * F32 (N, d/2, 2). */
void em_rope(em_run *r, em_tensor x, em_tensor table, int heads);

/* y = sum_i c[i] x[i], float32 throughout, n <= EM_LINCOMB_MAX; all F32 of one shape (samplers,
 * guidance) */
enum { EM_LINCOMB_MAX = 8 };
em_tensor em_lincomb(em_run *r, int n, const em_tensor *x, const float *c);

/* ---- movement -------------------------------------------------------------------------------- */

void em_copy(em_run *r, em_tensor dst,
             em_tensor src); /* same count; converts between float types */
/* Columns [src_col, src_col + cols) of src to [dst_col, dst_col + cols) of dst; same rows. Joins
 * and splits channels; converts between float types. */
void em_copy_cols(em_run *r, em_tensor dst, int64_t dst_col, em_tensor src, int64_t src_col,
                  int64_t cols);
em_tensor em_cast(em_run *r, em_tensor x,
                  em_dtype dtype); /* x itself when it has the type already */
/* (A, …) -> (…, A) and back: channel-first latents to channel-last activations.
 * em_channels_last(x (C, T, H, W)) -> (T, H, W, C);  em_channels_first is its inverse. */
em_tensor em_channels_last(em_run *r, em_tensor x);
em_tensor em_channels_first(em_run *r, em_tensor x);
/* Rows idx[0..n) (host array, borrowed for the call) of table (R, …) -> (n, …) of the table's
 * type */
em_tensor em_gather(em_run *r, em_tensor table, const int32_t *idx, int64_t n);
/* The same of a table in host memory, on every device; only the rows travel. */
em_tensor em_gather_host(em_run *r, em_tensor table, const int32_t *idx, int64_t n);
/* x (T, H, W, C) -> (T*(H/ph)*(W/pw), C*ph*pw): a patch's values in the order (C, ph, pw) */
em_tensor em_patchify(em_run *r, em_tensor x, int ph, int pw);
/* x (T*h*w, ph*pw*C) -> (T, h*ph, w*pw, C): a token's values in the order (ph, pw, C) */
em_tensor em_unpatchify(em_run *r, em_tensor x, int64_t t, int64_t h, int64_t w, int ph, int pw);
/* Host bytes to a fresh tensor, and a tensor's bytes to the host (zeros from a plan). */
em_tensor em_upload(em_run *r, const void *host, em_dtype dtype, const int64_t *dim, int ndim);
void em_download(em_run *r, em_tensor x, void *host);

/* ---- resampling and pictures ----------------------------------------------------------------- */

/* Linear interpolation along time with aligned corners: output i reads position i (T-1)/(n-1),
 * positions
 * in float32 as in torch.   x (T, C) -> (n, C) */
em_tensor em_lerp_time(em_run *r, em_tensor x, int64_t n);
/* torch interpolate(mode="bicubic", align_corners=False, antialias off), a = -0.75.
 * x (H, W, C) F32 -> (oh, ow, C) */
em_tensor em_resize_bicubic(em_run *r, em_tensor x, int64_t oh, int64_t ow);
/* [-1, 1] to bytes: (x/2 + 0.5) clamped to [0, 1], times 255, truncated. NaN gives 0.   -> U8,
 * shape of x */
em_tensor em_to_u8(em_run *r, em_tensor x);

#endif
