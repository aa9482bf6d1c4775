/* The encoder of UMT5-XXL (arXiv 2304.09151; T5 is arXiv 1910.10683).
 *
 * Upstream: src/wan_text_encoder.py, classes WanT5EncoderModel and T5SelfAttention.
 *
 *     ids (L) -> embedding rows (L, 4096) -> 24 blocks -> RMS norm -> (L, 4096)
 *     block:  x += attention(RMS(x));  x += fc2(fc1(n) GELU(gate(n))), n = RMS(x)
 *
 * No bias anywhere, no scaling of the scores, no absolute positions: where a token is enters
 * through a number per head and distance that is added to the scores.
 *
 * What differs from the papers' T5: every block has a distance table of its own (UMT5), and the
 * released file is Wan's renaming of it.
 *
 * Quirks we reproduce
 *   - distance buckets are computed with float32 logarithms
 *
 * Upstream pads to 512 tokens and masks; masked keys weigh nothing and padded rows are cut off
 * behind, so the same rows come from the real tokens alone.
 *
 * 5.7 G parameters: a block's weights are pinned for that block only. */
#include "models/umt5.h"

#include "base/alloc.h"
#include "models/nn.h"
#include "models/sizes.h"

#include <math.h>
#include <stdlib.h>

static const float eps = 1e-6f;
enum { MAX_DISTANCE = 128 }; /* all greater distances share the last bucket */

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct block_weights {
    em_tensor norm1, norm2;
    em_nn_attn attn;
    em_tensor distance; /* (buckets, heads) */
    em_nn_dense gate, fc1, fc2;
} block_weights;

struct em_umt5 {
    em_umt5_config cfg;
    em_tensor embedding; /* (vocab, dim) */
    em_tensor norm;
    block_weights *block; /* owned, cfg.layers */
    em_group *group;      /* owned: one a block, then the embedding's and the final norm's */
    int32_t *bucket; /* owned: entry max_tokens - 1 + d is the bucket of distance d = key - query */
};

enum { VOCAB = EM_SYM(0), DIM = EM_SYM(1), ATTN = EM_SYM(2), FFN = EM_SYM(3) };
enum { BUCKETS = EM_SYM(4), HEADS = EM_SYM(5) };

static const em_bind embedding_rows[] = {
    EM_BIND(em_umt5, embedding, "token_embedding.weight", VOCAB, DIM),
};
static const em_bind block_rows[] = {
    EM_BIND(block_weights, norm1, "norm1.weight", DIM),
    EM_BIND(block_weights, attn.q.w, "attn.q.weight", ATTN, DIM),
    EM_BIND(block_weights, attn.k.w, "attn.k.weight", ATTN, DIM),
    EM_BIND(block_weights, attn.v.w, "attn.v.weight", ATTN, DIM),
    EM_BIND(block_weights, attn.o.w, "attn.o.weight", DIM, ATTN),
    EM_BIND(block_weights, norm2, "norm2.weight", DIM),
    EM_BIND(block_weights, gate.w, "ffn.gate.0.weight", FFN, DIM),
    EM_BIND(block_weights, fc1.w, "ffn.fc1.weight", FFN, DIM),
    EM_BIND(block_weights, fc2.w, "ffn.fc2.weight", DIM, FFN),
    EM_BIND(block_weights, distance, "pos_embedding.embedding.weight", BUCKETS, HEADS),
};
static const em_bind norm_rows[] = {
    EM_BIND(em_umt5, norm, "norm.weight", DIM),
};

static em_group *embedding_group(const em_umt5 *m)
{
    return &m->group[m->cfg.layers];
}

static em_group *norm_group(const em_umt5 *m)
{
    return &m->group[m->cfg.layers + 1];
}

/* The whole checkpoint; m is NULL in a visit. */
static void walk(em_binder *b, const em_umt5_config *c, em_umt5 *m)
{
    const int64_t sizes[] = {c->vocab, c->dim, c->dim_attn, c->dim_ffn, c->buckets, c->heads};
    em_binder_sizes(b, sizes, EM_COUNT(sizes));
    for (int64_t i = 0; m && i < c->layers + 2; i++) m->group[i].rule = EM_WEIGHTS_WIDE;
    if (m) embedding_group(m)->rule = EM_WEIGHTS_ON_HOST;
    em_binder_group(b, m ? embedding_group(m) : NULL);
    em_binder_rows(b, embedding_rows, EM_COUNT(embedding_rows), m, "%s", "");
    for (int i = 0; i < c->layers; i++) {
        em_binder_group(b, m ? &m->group[i] : NULL);
        em_binder_rows(b, block_rows, EM_COUNT(block_rows), m ? &m->block[i] : NULL, "blocks.%d.",
                       i);
    }
    em_binder_group(b, m ? norm_group(m) : NULL);
    em_binder_rows(b, norm_rows, EM_COUNT(norm_rows), m, "%s", "");
    em_binder_sizes(b, NULL, 0);
}

void em_umt5_visit(em_binder *b, const em_umt5_config *cfg)
{
    walk(b, cfg, NULL);
}

/* ---- config ---------------------------------------------------------------------------------- */

em_umt5_config em_umt5_config_default(void)
{
    return (em_umt5_config){
        .heads = 64,
        .max_tokens = 512,
        .vocab = 256384,
        .dim = 4096,
        .dim_attn = 4096,
        .dim_ffn = 10240,
        .layers = 24,
        .buckets = 32,
    };
}

em_status em_umt5_config_read(em_umt5_config *cfg, const em_ckpt *ckpt, em_err *err)
{
    em_umt5_config c = *cfg;
    em_sizes s = {.ckpt = ckpt, .model = "t5"};
    c.vocab = em_sizes_dim(&s, "token_embedding.weight", 2, 0);
    c.dim = em_sizes_dim(&s, "token_embedding.weight", 2, 1);
    c.layers = em_sizes_blocks(&s, "blocks.");
    c.dim_attn = em_sizes_dim(&s, "blocks.0.attn.q.weight", 2, 0);
    c.dim_ffn = em_sizes_dim(&s, "blocks.0.ffn.fc1.weight", 2, 0);
    c.buckets = em_sizes_dim(&s, "blocks.0.pos_embedding.embedding.weight", 2, 0);
    em_sizes_require(&s, c.heads >= 1 && c.dim_attn % c.heads == 0,
                     "config.yaml gives %lld heads, which do not divide the attention width %lld",
                     (long long)c.heads, (long long)c.dim_attn);
    /* Half of the buckets a direction, half of those for one distance each: four at least. */
    em_sizes_require(&s, c.buckets >= 4 && c.buckets / 4 < MAX_DISTANCE,
                     "%lld distance buckets, expected 4 to %d", (long long)c.buckets,
                     4 * MAX_DISTANCE - 1);
    em_sizes_require(&s, c.max_tokens >= 1 && c.max_tokens <= INT32_MAX / 2,
                     "config.yaml gives a text_length of %lld tokens", (long long)c.max_tokens);
    em_status st = em_sizes_finish(&s, err);
    if (!st) *cfg = c;
    return st;
}

/* T5's buckets for both directions: keys behind the query take the first half, keys ahead the
 * second. In a half, small distances have a bucket each, greater ones share buckets that widen
 * logarithmically. The arithmetic is float32, as upstream's. */
static int32_t distance_bucket(int64_t d, int64_t buckets)
{
    int64_t half = buckets / 2, exact = half / 2, ahead = d > 0 ? half : 0;
    d = llabs(d);
    if (d < exact) return (int32_t)(ahead + d);
    float octaves =
        logf((float)d / (float)exact) / (float)log((double)MAX_DISTANCE / (double)exact);
    int64_t shared = exact + (int64_t)(octaves * (float)(half - exact));
    return (int32_t)(ahead + (shared < half ? shared : half - 1));
}

em_status em_umt5_open(em_umt5 **out, const em_umt5_config *cfg, const em_ckpt *ckpt,
                       const em_log *log, em_err *err)
{
    em_binder *b = NULL;
    em_status st = EM_NOMEM;
    em_umt5 *m = em_alloc(sizeof *m);
    if (m) {
        m->cfg = *cfg;
        m->block = em_alloc_array((size_t)cfg->layers, sizeof *m->block);
        m->group = em_alloc_array((size_t)cfg->layers + 2, sizeof *m->group);
        m->bucket = em_alloc_array(2 * (size_t)cfg->max_tokens - 1, sizeof *m->bucket);
    }
    if (!m || !m->block || !m->group || !m->bucket) {
        em_fail(err, EM_NOMEM, "no memory to open the text encoder");
        goto fail;
    }
    for (int64_t d = 1 - cfg->max_tokens; d < cfg->max_tokens; d++)
        m->bucket[cfg->max_tokens - 1 + d] = distance_bucket(d, cfg->buckets);
    st = em_binder_open(&b, ckpt, "t5", log, err);
    if (st) goto fail;
    walk(b, cfg, m);
    st = em_binder_finish(&b, err);
    if (st) goto fail;
    *out = m;
    return EM_OK;

fail:
    em_umt5_close(&m);
    return st;
}

void em_umt5_close(em_umt5 **model)
{
    if (!model || !*model) return;
    em_umt5 *m = *model;
    for (int64_t i = 0; m->group && i < m->cfg.layers + 2; i++) em_group_close(&m->group[i]);
    em_free(m->bucket);
    em_free(m->group);
    em_free(m->block);
    em_free(m);
    *model = NULL;
}

const em_umt5_config *em_umt5_sizes(const em_umt5 *m)
{
    return &m->cfg;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* What a block adds to the scores of n queries and n keys: (heads, 2n - 1), by key - query. */
static em_tensor distance_bias(em_run *r, const em_umt5 *m, const block_weights *b, int64_t n)
{
    const int32_t *bucket = m->bucket + (m->cfg.max_tokens - n);
    em_tensor rows = em_gather(r, b->distance, bucket, 2 * n - 1); // (2n - 1, heads)
    return em_cast(r, em_channels_first(r, rows), EM_F32);         // (heads, 2n - 1)
}

/* fc2(fc1(x) GELU(gate(x)))   x (L, dim) -> (L, dim) */
static em_tensor feed_forward(em_run *r, const block_weights *b, em_tensor x)
{
    em_tensor gate = em_nn_linear(r, x, &b->gate, EM_ACT_GELU_TANH); // (L, ffn)
    em_tensor h = em_nn_linear(r, x, &b->fc1, EM_ACT_NONE);          // (L, ffn)
    em_mul(r, h, gate);
    return em_nn_linear(r, h, &b->fc2, EM_ACT_NONE); // (L, dim)
}

/* x F32 (L, dim), in place */
static void block(em_run *r, const em_umt5 *m, const block_weights *b, em_tensor x)
{
    em_mark mark = em_run_mark(r);
    em_attn a = {.heads = (int)m->cfg.heads, .scale = 1};
    a.rel_bias = distance_bias(r, m, b, em_rows(x));

    em_tensor n = em_rms_norm(r, x, b->norm1, eps); // (L, dim)
    em_add(r, x, em_nn_self_attention(r, n, &b->attn, &a));
    n = em_rms_norm(r, x, b->norm2, eps); // (L, dim)
    em_add(r, x, feed_forward(r, b, n));
    em_run_release(r, mark);
}

/* The tokens' rows to x F32 (L, dim). The table, 2 GB, stays on the host. */
static void embed(em_run *r, const em_umt5 *m, em_tensor x, const int32_t *ids)
{
    em_mark mark = em_run_mark(r);
    em_run_pin(r, embedding_group(m));
    em_copy(r, x, em_gather_host(r, m->embedding, ids, em_rows(x)));
    em_run_unpin(r, embedding_group(m));
    em_run_release(r, mark);
}

/* ---- entry ----------------------------------------------------------------------------------- */

em_tensor em_umt5_forward(em_run *r, const em_umt5 *m, const int32_t *ids, int64_t n)
{
    if (em_run_stopped(r)) return (em_tensor){0};
    if (n < 1 || n > m->cfg.max_tokens)
        return em_run_fail(r, EM_INVAL, "t5: %lld tokens, expected 1 to %lld", (long long)n,
                           (long long)m->cfg.max_tokens);
    em_dtype working = r->dtype;
    if (working == EM_F16) r->dtype = EM_BF16;
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(n, m->cfg.dim));
    em_mark mark = em_run_mark(r);

    embed(r, m, x, ids); // (L, dim)
    for (int64_t i = 0; i < m->cfg.layers; i++) {
        em_run_pin(r, &m->group[i]);
        block(r, m, &m->block[i], x);
        em_run_unpin(r, &m->group[i]);
    }
    em_run_pin(r, norm_group(m));
    r->dtype = EM_F32;
    em_copy(r, x, em_rms_norm(r, x, m->norm, eps)); // (L, dim)
    r->dtype = working;
    em_run_unpin(r, norm_group(m));
    em_run_release(r, mark);
    return em_run_stopped(r) ? (em_tensor){0} : x;
}
