#include "models/wan_vae.h"

#include "base/synthetic.h"

#include "../tiny_checkpoint.h"

#include <inttypes.h>

static const em_vae_config tiny = {.dim = 8};

typedef struct fixture {
    em_ckpt *ckpt;
    em_vae *model;
    em_safetensors *goldens;
} fixture;

static int setup(void **state)
{
    em_err err = {0};
    em_vae_config cfg = {0};
    em_inventory list = {0};
    fixture *f = calloc(1, sizeof *f);
    em_binder *walk = tiny_walk_begin(&list);
    em_vae_visit(walk, &tiny);
    f->ckpt = tiny_walk_end(&walk, &list, "vae", EM_BF16);
    assert_ok(em_vae_config_read(&cfg, f->ckpt, &err), err);
    assert_int_equal(cfg.dim, tiny.dim);
    assert_ok(em_vae_open(&f->model, &cfg, f->ckpt, NULL, &err), err);
    f->goldens = golden_tensors("tiny/vae.safetensors");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    em_safetensors_close(&f->goldens);
    em_vae_close(&f->model);
    em_ckpt_close(&f->ckpt);
    free(f);
    return 0;
}

/* ---- whole clips ----------------------------------------------------------------------------- */

typedef em_tensor vae_chunk(em_run *r, const em_vae *m, em_vae_stream *s, em_tensor x);

/* x (T, …) through the stream: one entry, then `step` at a time, into out (T', …). */
static void stream(em_run *r, const em_vae *m, vae_chunk *chunk, em_tensor x, int64_t step,
                   em_tensor out)
{
    em_vae_stream s = {0};
    em_mark begin = em_run_mark(r);
    int64_t n = 1, done = 0;
    for (int64_t i = 0; i < x.dim[0] && !em_run_stopped(r); i += n, n = step) {
        if (i + n > x.dim[0]) n = x.dim[0] - i;
        em_mark mark = em_run_mark(r);
        em_tensor y = chunk(r, m, &s, em_slice(x, i, n));
        if (!em_tensor_is_empty(y)) {
            em_copy(r, em_slice(out, done, y.dim[0]), y);
            done += y.dim[0];
        }
        em_run_release(r, mark);
    }
    if (!r->err.code) assert_int_equal(done, out.dim[0]);
    em_run_release_all(r, begin);
}

/* frames (1 + 4k, H, W, 3) -> (1 + k, h, w, 16) */
static em_tensor encode(em_run *r, const em_vae *m, em_tensor frames, int64_t step)
{
    const int64_t *in = frames.dim;
    em_tensor z = em_run_tensor(r, EM_F32, EM_SHAPE((in[0] + 3) / 4, in[1] / 8, in[2] / 8, 16));
    stream(r, m, em_vae_encode_chunk, frames, 4 * step, z);
    return z;
}

/* latents (1 + k, h, w, 16) -> (1 + 4k, H, W, 3) */
static em_tensor decode(em_run *r, const em_vae *m, em_tensor z, int64_t step)
{
    const int64_t *in = z.dim;
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(4 * in[0] - 3, in[1] * 8, in[2] * 8, 3));
    stream(r, m, em_vae_decode_chunk, z, step, x);
    return x;
}

/* ---- against the reference ------------------------------------------------------------------- */

/* float32: the order of summation alone. 16 bits: no farther than the reference's own bfloat16 run
 * on a GPU (tiny/report.json). */
typedef struct bounds {
    em_dtype dtype;
    double encode, decode;
} bounds;

static const bounds bound[] = {
    {EM_F32, 2e-5, 2e-5},
    {EM_BF16, 0.010570853368294645, 0.020925631572304346},
    {EM_F16, 0.010570853368294645, 0.020925631572304346},
};

typedef struct comparison {
    fixture *f;
    bounds bound;
} comparison;

static em_tensor golden_video(em_run *r, const fixture *f, const char *name)
{
    const em_safetensors_entry *e = golden_find(f->goldens, name, "");
    assert_non_null(e);
    return em_channels_last(r, em_upload(r, e->data, EM_F32, e->dim, e->ndim));
}

static void compare_encoded_video(em_run *r, void *arg)
{
    comparison *c = arg;
    em_tensor z = encode(r, c->f->model, golden_video(r, c->f, "encode.video.in"), 1);
    z = em_channels_first(r, z);
    if (!r->plans) tiny_expect(r, z, c->f->goldens, "encode.video.out", c->bound.encode);
}

/* A picture, then nothing: what an image-to-video model is conditioned on. */
static void compare_encoded_picture(em_run *r, void *arg)
{
    comparison *c = arg;
    em_tensor frame = golden_video(r, c->f, "encode.first_frame_then_zero.in_frame0");
    em_tensor x = em_run_tensor(r, EM_F32, EM_SHAPE(13, frame.dim[0], frame.dim[1], 3));
    em_fill(r, x, 0);
    em_copy(r, em_slice(x, 0, 1), frame);
    em_tensor z = em_channels_first(r, encode(r, c->f->model, x, 1));
    if (!r->plans)
        tiny_expect(r, z, c->f->goldens, "encode.first_frame_then_zero.out", c->bound.encode);
}

static void compare_decoded(em_run *r, void *arg)
{
    comparison *c = arg;
    em_tensor x = decode(r, c->f->model, golden_video(r, c->f, "decode.in"), 1);
    x = em_channels_first(r, x);
    if (!r->plans) tiny_expect(r, x, c->f->goldens, "decode.out", c->bound.decode);
}

typedef void tiny_runner(em_dtype dtype, tiny_forward *forward, void *arg);

static void compare(void **state, tiny_runner *run, const bounds *b)
{
    comparison c = {*state, *b};
    run(b->dtype, compare_encoded_video, &c);
    run(b->dtype, compare_encoded_picture, &c);
    run(b->dtype, compare_decoded, &c);
}

static void equals_the_reference(void **state)
{
    compare(state, tiny_run_everywhere, &bound[0]);
}

/* On the fast table alone: plain loops take most of a minute a type. */
static void is_as_good_in_bfloat16(void **state)
{
    compare(state, tiny_run_cpu, &bound[1]);
}

static void is_as_good_in_float16(void **state)
{
    compare(state, tiny_run_cpu, &bound[2]);
}

/* ---- the stream ------------------------------------------------------------------------------ */

enum { LATENT_H = 2, LATENT_W = 3, LATENTS = 5, FRAMES = 4 * LATENTS - 3 }; /* not square */

/* (n, h, w, c), values in [-1, 1) */
static em_tensor noise(em_run *r, int64_t n, int64_t h, int64_t w, int64_t c)
{
    static float value[FRAMES * LATENT_H * 8 * LATENT_W * 8 * 3];
    int64_t count = n * h * w * c;
    assert_true((size_t)count <= sizeof value / sizeof *value);
    for (int64_t i = 0; i < count; i++) value[i] = em_synth_unit(1, (uint64_t)i);
    return em_upload(r, value, EM_F32, EM_SHAPE(n, h, w, c));
}

static em_tensor noise_frames(em_run *r, int64_t n)
{
    return noise(r, n, LATENT_H * 8, LATENT_W * 8, 3);
}

static em_tensor noise_latents(em_run *r, int64_t n)
{
    return noise(r, n, LATENT_H, LATENT_W, EM_VAE_CHANNELS);
}

/* The same bits, entry for entry of the shorter one. */
static void assert_prefix(em_run *r, em_tensor part, em_tensor whole)
{
    if (r->plans || r->err.code) return;
    assert_memory_equal(part.data, whole.data, em_tensor_bytes(part));
}

/* No frame depends on a later one, and nothing is left of a stream when the next one begins. */
static void encode_prefixes(em_run *r, void *arg)
{
    fixture *f = arg;
    em_tensor whole = encode(r, f->model, noise_frames(r, FRAMES), 1);
    for (int64_t n = 1; n <= LATENTS; n += n == 2 ? 3 : 1)
        assert_prefix(r, encode(r, f->model, noise_frames(r, 4 * n - 3), 1), whole);
}

static void decode_prefixes(em_run *r, void *arg)
{
    fixture *f = arg;
    em_tensor whole = decode(r, f->model, noise_latents(r, LATENTS), 1);
    for (int64_t n = 1; n <= LATENTS; n += n == 2 ? 3 : 1)
        assert_prefix(r, decode(r, f->model, noise_latents(r, n), 1), whole);
}

static void looks_back_only(void **state)
{
    tiny_run(em_ops_ref(), EM_F32, encode_prefixes, *state);
    tiny_run(em_ops_ref(), EM_F32, decode_prefixes, *state);
}

/* One latent at a time or several: the reference kernels do the same sums. */
static void cut_differently(em_run *r, void *arg)
{
    fixture *f = arg;
    em_tensor x = noise_frames(r, FRAMES), z = noise_latents(r, LATENTS);
    assert_prefix(r, encode(r, f->model, x, 3), encode(r, f->model, x, 1));
    assert_prefix(r, decode(r, f->model, z, 2), decode(r, f->model, z, 1));
}

static void takes_longer_chunks(void **state)
{
    tiny_run(em_ops_ref(), EM_F32, cut_differently, *state);
}

/* The scratch of a clip is that of its third latent: no past is made later. */
static void memory_does_not_grow(void **state)
{
    fixture *f = *state;
    size_t peak[3] = {0};
    for (int i = 0; i < 3; i++) {
        em_ops planner;
        em_ops_plan(&planner, em_ops_ref());
        em_run r = {.ops = &planner, .dtype = EM_BF16, .plans = true};
        em_arena_open_virtual(&r.arena);
        em_vae_stream s = {0};
        for (int64_t n = 0; n < (int64_t[]){2, 3, 40}[i]; n++) {
            em_mark mark = em_run_mark(&r);
            em_vae_decode_chunk(&r, f->model, &s, noise_latents(&r, 1));
            em_run_release(&r, mark);
        }
        assert_ok(r.err.code, r.err);
        peak[i] = r.arena.peak_bytes;
    }
    assert_int_equal(peak[0], peak[1]);
    assert_int_equal(peak[1], peak[2]);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static em_status chunk_status(const fixture *f, vae_chunk *chunk, int64_t done, const int64_t *dim,
                              int ndim)
{
    em_ops planner;
    em_ops_plan(&planner, em_ops_ref());
    em_run r = {.ops = &planner, .dtype = EM_F32, .plans = true};
    em_arena_open_virtual(&r.arena);
    em_vae_stream s = {.chunks = done};
    em_tensor y = chunk(&r, f->model, &s, em_run_tensor(&r, EM_F32, dim, ndim));
    assert_int_equal(em_tensor_is_empty(y), r.err.code != EM_OK);
    assert_int_equal(s.chunks, done + (r.err.code == EM_OK));
    return r.err.code;
}

static void refuses_chunks_that_do_not_fit(void **state)
{
    fixture *f = *state;
    vae_chunk *enc = em_vae_encode_chunk, *dec = em_vae_decode_chunk;
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(1, 16, 24, 3)), EM_OK);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(4, 16, 24, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 1, EM_SHAPE(1, 16, 24, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(1, 12, 24, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(1, 16, 20, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(1, 0, 24, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(1, 16, 24, 4)), EM_INVAL);
    assert_int_equal(chunk_status(f, enc, 0, EM_SHAPE(16, 24, 3)), EM_INVAL);
    assert_int_equal(chunk_status(f, dec, 0, EM_SHAPE(1, 2, 3, 16)), EM_OK);
    assert_int_equal(chunk_status(f, dec, 0, EM_SHAPE(2, 2, 3, 16)), EM_INVAL);
    assert_int_equal(chunk_status(f, dec, 0, EM_SHAPE(1, 2, 3, 8)), EM_INVAL);
    assert_int_equal(chunk_status(f, dec, 0, EM_SHAPE(2, 3, 16)), EM_INVAL);
}

/* Two latents in an arena of `room` bytes, the second of the given width. */
static em_status decode_status(const fixture *f, size_t room, int64_t width)
{
    em_err err = {0};
    em_ops planner;
    em_ops_plan(&planner, em_ops_ref());
    em_residency residency = {.counts_only = true, .drop_unpinned = true};
    em_run r = {.ops = &planner, .residency = &residency, .dtype = EM_F32, .plans = true};
    assert_ok(em_arena_open(&r.arena, &em_device_host, room, true, &err), err);
    em_vae_stream s = {0};
    em_vae_decode_chunk(&r, f->model, &s, noise(&r, 1, 1, 1, EM_VAE_CHANNELS));
    em_tensor y = em_vae_decode_chunk(&r, f->model, &s, noise(&r, 1, 1, width, EM_VAE_CHANNELS));
    assert_int_equal(em_tensor_is_empty(y), r.err.code != EM_OK);
    assert_int_equal(residency.resident_bytes, 0);
    em_arena_close(&r.arena);
    return r.err.code;
}

/* Wherever the scratch runs out, that is the error, and nothing stays pinned. */
static void fails_cleanly(void **state)
{
    int failures = 0;
    for (size_t room = 1024; decode_status(*state, room, 1) != EM_OK; room += 1984) {
        assert_int_equal(decode_status(*state, room, 1), EM_NOMEM);
        failures++;
    }
    assert_true(failures > 10);
}

static void keeps_its_size(void **state)
{
    assert_int_equal(decode_status(*state, 1 << 20, 1), EM_OK);
    assert_int_equal(decode_status(*state, 1 << 20, 2), EM_INVAL);
}

static void needs_every_tensor(void **state)
{
    (void)state;
    em_err err = {0};
    em_ckpt *empty = NULL;
    em_vae *m = NULL;
    em_vae_config cfg = {0};
    assert_ok(em_ckpt_create(&empty, &err), err);
    assert_int_equal(em_vae_config_read(&cfg, empty, &err), EM_MISMATCH);
    assert_int_equal(em_vae_open(&m, &tiny, empty, NULL, &err), EM_MISMATCH);
    assert_non_null(strstr(err.msg, "194 tensors are missing"));
    assert_null(m);
    em_ckpt_close(&empty);
}

static void survives_failed_allocations(void **state)
{
    fixture *f = *state;
    em_err err = {0};
    em_vae *m = NULL;
    uint64_t before = em_alloc_calls();
    assert_ok(em_vae_open(&m, &tiny, f->ckpt, NULL, &err), err);
    uint64_t calls = em_alloc_calls() - before;
    em_vae_close(&m);
    for (uint64_t n = 1; n <= calls; n++) {
        em_alloc_fail_at(n, false);
        em_status st = em_vae_open(&m, &tiny, f->ckpt, NULL, &err);
        em_alloc_fail_at(0, false);
        assert_int_equal(st, EM_NOMEM);
        assert_null(m);
    }
}

/* ---- the released shapes --------------------------------------------------------------------- */

/* Line "vae<tab>NAME<tab>AxBxC" of the list, or NULL at its end. */
static const char *next_row(FILE *list, char row[512])
{
    while (fgets(row, 512, list))
        if (strncmp(row, "vae\t", 4) == 0) return row + 4;
    return NULL;
}

static void names_the_released_tensors(void **state)
{
    (void)state;
    em_err err = {0};
    em_inventory list = {0};
    em_binder *walk = tiny_walk_begin(&list);
    em_vae_visit(walk, &(em_vae_config){.dim = 96});
    assert_ok(em_binder_finish(&walk, &err), err);

    FILE *tsv = fopen(EM_TEST_DATA "/golden/checkpoint-tensors.tsv", "r");
    assert_non_null(tsv);
    char row[512], want[512];
    for (size_t i = 0; i < list.count; i++) {
        const em_safetensors_spec *t = &list.spec[i];
        int n = snprintf(want, sizeof want, "%s\t", t->name);
        for (int d = 0; d < t->ndim; d++)
            n += snprintf(want + n, sizeof want - (size_t)n, "%s%" PRId64, d ? "x" : "", t->dim[d]);
        snprintf(want + n, sizeof want - (size_t)n, "\n");
        const char *found = next_row(tsv, row);
        assert_non_null(found);
        assert_string_equal(want, found);
    }
    assert_null(next_row(tsv, row));
    fclose(tsv);
    em_inventory_close(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(is_as_good_in_bfloat16),
        cmocka_unit_test(is_as_good_in_float16),
        cmocka_unit_test(looks_back_only),
        cmocka_unit_test(takes_longer_chunks),
        cmocka_unit_test(memory_does_not_grow),
        cmocka_unit_test(refuses_chunks_that_do_not_fit),
        cmocka_unit_test(fails_cleanly),
        cmocka_unit_test(keeps_its_size),
        cmocka_unit_test(needs_every_tensor),
        cmocka_unit_test(survives_failed_allocations),
        cmocka_unit_test(names_the_released_tensors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
