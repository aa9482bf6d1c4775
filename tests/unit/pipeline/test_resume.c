/* A request that is cut short after any step goes on from there and ends with the same bytes; a
 * file that it cannot trust costs a warning and nothing else. */
#include "pipeline/resume.h"

#include "base/alloc.h"
#include "far/far.h"
#include "io/file.h"
#include "io/state_file.h"
#include "pipeline/frames.h"

#include "../tiny_engine.h"
#include "../tmpdir.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { SIDE = TINY_SIDE, STEPS = 4, FRAMES = TINY_FRAMES, ALL = -1 };

static uint8_t portrait[SIDE * SIDE * 3];
static float voice[TINY_SAMPLES];
static tmpdir *models;
static em_engine *engine;
static char warning[1024]; /* the last one */
static const char *resume_path;

static void on_log(void *user, em_level level, const char *msg)
{
    (void)user;
    if (level == EM_LOG_WARN) snprintf(warning, sizeof warning, "%s", msg);
}

static em_engine *open_engine(const char *device, em_weight_dtype dtype)
{
    em_err err = {0};
    em_engine *e = NULL;
    em_engine_params p = tiny_engine_params(models->path);
    p.device = device;
    p.dtype = dtype;
    p.log = (em_log){on_log, NULL};
    assert_ok(em_engine_open(&e, &p, &err), err);
    return e;
}

static int make_inputs(void **state)
{
    far_register();
    tiny_inputs(portrait, voice);
    if (tmpdir_setup(state)) return -1;
    models = *state;
    tiny_models(models->path, 1);
    engine = open_engine("cpu", EM_WEIGHT_FLOAT32);
    return 0;
}

static int drop_inputs(void **state)
{
    em_engine_close(&engine);
    *state = models;
    return tmpdir_teardown(state);
}

static int begin(void **state)
{
    int rc = tmpdir_setup(state);
    resume_path = tmpdir_path(state, "job.resume");
    warning[0] = 0;
    return rc;
}

/* ---- one request ----------------------------------------------------------------------------- */

typedef struct watch {
    uint64_t hash; /* of the frames */
    int frames;
    em_stage stage; /* where to stop, */
    int done;       /* after so many steps or latents; ALL: nowhere */
    bool kill;      /* the process, else the request */
    int first;      /* the first `done` above 0 that denoising reported */
} watch;

static void on_progress(void *user, const em_progress *p)
{
    watch *w = user;
    if (p->stage == EM_STAGE_DENOISE && p->done > 0 && !w->first) w->first = p->done;
    if (p->stage != w->stage || p->done != w->done) return;
    if (w->kill) raise(SIGKILL);
    em_engine_cancel(engine);
}

static em_status on_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    watch *w = user;
    (void)err;
    assert_int_equal(index, w->frames++);
    for (size_t i = 0; i < sizeof portrait; i++) w->hash = (w->hash ^ rgb[i]) * 0x100000001b3ull;
    return EM_OK;
}

static em_params params(em_sampler_kind sampler, em_teacache_mode cache)
{
    em_params p = em_params_default();
    p.prompt = "somebody speaks";
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = FRAMES;
    p.num_inference_steps = STEPS;
    p.sampler = sampler;
    p.teacache = cache;
    p.teacache_threshold = 0.1;
    p.num_skip_start_steps = 2;
    p.resume_path = resume_path;
    p.resume_identity = "weights 1";
    return p;
}

static em_status generate(em_engine *e, const em_params *p, watch *w, em_result *r)
{
    em_err err = {0};
    const em_picture image = {portrait, SIDE, SIDE};
    const em_sound sound = {voice, TINY_SAMPLES, TINY_RATE_HZ};
    const em_sink sink = {.progress = on_progress, .frame = on_frame, .user = w};
    em_status st = em_generate(e, &image, &sound, p, &sink, r, &err);
    em_engine_resume(e);
    if (st && st != EM_CANCELLED) fail_msg("%s", err.msg);
    return st;
}

/* Forwards of steps `from` to the last. */
static int forwards_from(const em_params *p, int from)
{
    int n = 0;
    for (int i = from; i < STEPS; i++)
        n += p->guidance_scale > 1 && i < STEPS * (1 - p->cfg_skip_ratio) ? 2 : 1;
    return n;
}

/* Undisturbed: the frames' hash. */
static uint64_t whole(const em_params *p)
{
    em_params q = *p;
    em_result r = {0};
    watch w = {.done = ALL};
    q.resume_path = NULL;
    assert_int_equal(generate(engine, &q, &w, &r), EM_OK);
    assert_int_equal(w.frames, FRAMES);
    assert_int_equal(r.steps, STEPS);
    assert_int_equal(r.steps_resumed, 0);
    assert_int_equal(r.forwards, forwards_from(p, 0));
    return w.hash;
}

/* Cut after `step` steps, the request goes on to the same frames. */
static void cut_after(const em_params *p, int step, uint64_t want)
{
    em_result r = {0};
    watch first = {.stage = EM_STAGE_DENOISE, .done = step}, then = {.done = ALL};
    assert_int_equal(generate(engine, p, &first, &r), EM_CANCELLED);
    assert_int_equal(access(p->resume_path, F_OK), step ? 0 : -1);
    assert_int_equal(generate(engine, p, &then, &r), EM_OK);
    assert_int_equal(then.frames, FRAMES);
    assert_int_equal(r.steps_resumed, step);
    assert_string_equal(warning, "");
    if (then.hash != want)
        fail_msg("sampler %d, teacache %d: cut after step %d, other frames", p->sampler,
                 p->teacache, step);
    if (step && step < STEPS) assert_int_equal(then.first, step);
    /* what was done is not done again, but for one forward a residual */
    int left = forwards_from(p, step);
    assert_in_range(r.forwards, left, left + (left ? EM_TEACACHE_SLOTS : 0));
    if (p->teacache == EM_TEACACHE_OFF) assert_int_equal(r.forwards, left);
    em_resume_discard(p->resume_path);
    assert_int_equal(access(p->resume_path, F_OK), -1);
}

/* ---- the method ------------------------------------------------------------------------------ */

static void cut_everywhere(const em_params *p)
{
    uint64_t want = whole(p);
    for (int step = 1; step <= STEPS; step++) cut_after(p, step, want);
}

static void goes_on_from_every_step(void **state)
{
    (void)state;
    for (em_sampler_kind s = EM_SAMPLER_UNIPC; s <= EM_SAMPLER_EULER; s++) {
        for (em_teacache_mode c = EM_TEACACHE_OFF; c <= EM_TEACACHE_REFERENCE; c++) {
            em_params p = params(s, c);
            cut_everywhere(&p);
        }
    }
}

/* One branch from the start, and one branch from the middle on. */
static void goes_on_with_one_branch(void **state)
{
    (void)state;
    em_params p = params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH);
    p.guidance_scale = 1;
    cut_everywhere(&p);
    p.guidance_scale = 6;
    p.cfg_skip_ratio = 0.5;
    assert_int_equal(forwards_from(&p, 0), 2 * 2 + 2);
    cut_everywhere(&p);
}

/* Twice in a row: what was resumed can be resumed again. */
static void goes_on_again(void **state)
{
    (void)state;
    em_result r = {0};
    em_params p = params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH);
    uint64_t want = whole(&p);
    cut_after(&p, 0, want); /* before the first step there is nothing to keep */
    for (int step = 1; step < STEPS; step++) {
        watch w = {.stage = EM_STAGE_DENOISE, .done = step};
        assert_int_equal(generate(engine, &p, &w, &r), EM_CANCELLED);
        if (step > 1) assert_int_equal(w.first, step - 1);
    }
    watch last = {.done = ALL};
    assert_int_equal(generate(engine, &p, &last, &r), EM_OK);
    assert_int_equal(r.steps_resumed, STEPS - 1);
    assert_true(last.hash == want);
    assert_string_equal(warning, "");
}

/* Where the host cannot look: what is kept went through uploads and downloads alone. */
static void goes_on_on_a_far_device(void **state)
{
    (void)state;
    static const int cuts[] = {1, 3, STEPS};
    em_engine *near = engine;
    em_params p[2] = {params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH),
                      params(EM_SAMPLER_DPMPP, EM_TEACACHE_REFERENCE)};
    for (int i = 0; i < 2; i++) {
        engine = near;
        uint64_t want = whole(&p[i]);
        engine = open_engine("far", EM_WEIGHT_FLOAT32);
        assert_true(whole(&p[i]) == want);
        for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) cut_after(&p[i], cuts[k], want);
        em_engine_close(&engine);
    }
    engine = near;
}

static void *cancel_later(void *delay_us)
{
    usleep(*(useconds_t *)delay_us);
    em_engine_cancel(engine);
    return NULL;
}

/* Cancelled by another thread, in the middle of whatever is running: only whole steps are kept. */
static void goes_on_from_any_moment(void **state)
{
    (void)state;
    enum { MOMENTS = 8, LEAST_US = 5000 };
    em_params p = params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH);
    uint64_t want = whole(&p);
    for (int i = 0; i < MOMENTS; i++) {
        useconds_t delay = LEAST_US << i % (MOMENTS / 2);
        pthread_t thread;
        em_result r = {0};
        watch w = {.done = ALL};
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, &delay), 0);
        em_status st = generate(engine, &p, &w, &r);
        pthread_join(thread, NULL);
        em_engine_resume(engine);
        if (!st) assert_true(w.hash == want);
    }
    watch w = {.done = ALL};
    assert_int_equal(generate(engine, &p, &w, NULL), EM_OK);
    assert_true(w.hash == want);
    assert_string_equal(warning, "");
}

static void decodes_again_without_a_step(void **state)
{
    (void)state;
    em_params p = params(EM_SAMPLER_DPMPP, EM_TEACACHE_BRANCH);
    uint64_t want = whole(&p);
    em_result r = {0};
    watch cut = {.stage = EM_STAGE_DECODE, .done = 1}, then = {.done = ALL};
    assert_int_equal(generate(engine, &p, &cut, &r), EM_CANCELLED);
    for (int again = 0; again < 2; again++) { /* the file stays until it is discarded */
        then = (watch){.done = ALL};
        assert_int_equal(generate(engine, &p, &then, &r), EM_OK);
        assert_true(then.hash == want);
        assert_int_equal(r.steps_resumed, STEPS);
        assert_int_equal(r.forwards, 0);
        assert_int_equal(then.first, STEPS);
        for (int s = EM_STAGE_ENCODE; s <= EM_STAGE_DENOISE; s++)
            assert_true(r.stage[s].flops == 0);
        assert_true(r.stage[EM_STAGE_DECODE].flops > 0);
    }
}

/* A real death, at a step and in the decoder: the child opens everything by itself. */
static void survives_a_kill(void **state)
{
    (void)state;
    static const struct {
        em_stage stage;
        int done, least;
    } at[] = {{EM_STAGE_DENOISE, 3, 2}, {EM_STAGE_DECODE, 1, STEPS}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        em_params p = params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH);
        uint64_t want = whole(&p);
        int status = 0;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            watch w = {.stage = at[i].stage, .done = at[i].done, .kill = true};
            em_engine *own = open_engine("cpu", EM_WEIGHT_FLOAT32);
            generate(own, &p, &w, NULL);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        em_result r = {0};
        watch w = {.done = ALL};
        assert_int_equal(generate(engine, &p, &w, &r), EM_OK);
        assert_in_range(r.steps_resumed, at[i].least, at[i].least + (at[i].least < STEPS));
        assert_true(w.hash == want);
        em_resume_discard(resume_path);
        assert_int_equal(tmpdir_count(state), 0); /* half-written files of the dead go too */
    }
}

/* ---- files that are not to be trusted -------------------------------------------------------- */

/* The file is refused with `part` in the warning, and the frames are those of a fresh start. */
static void refused_for(em_engine *e, const em_params *p, const char *part, uint64_t want)
{
    em_result r = {0};
    watch w = {.done = ALL};
    warning[0] = 0;
    assert_int_equal(generate(e, p, &w, &r), EM_OK);
    assert_int_equal(r.steps_resumed, 0);
    if (!strstr(warning, part)) fail_msg("'%s' is not in '%s'", part, warning);
    assert_non_null(strstr(warning, p->resume_path));
    assert_true(w.hash == want);
    warning[0] = 0;
}

static void refused(em_engine *e, const em_params *p, const char *part)
{
    em_params fresh = *p;
    watch plain = {.done = ALL};
    fresh.resume_path = NULL;
    assert_int_equal(generate(e, &fresh, &plain, NULL), EM_OK);
    refused_for(e, p, part, plain.hash);
}

/* Leaves a file as of a cut after `step` steps. */
static em_params cut(int step)
{
    em_result r = {0};
    em_params p = params(EM_SAMPLER_UNIPC, EM_TEACACHE_BRANCH);
    watch w = {.stage = EM_STAGE_DENOISE, .done = step};
    em_resume_discard(resume_path);
    assert_int_equal(generate(engine, &p, &w, &r), EM_CANCELLED);
    return p;
}

static void ignores_another_request(void **state)
{
    (void)state;
    static const char *const why = "another request";
    em_params p = cut(3);
    p.resume_identity = "weights 2";
    refused(engine, &p, why);
    p = cut(3);
    p.seed++;
    refused(engine, &p, why);
    p = cut(3);
    p.prompt = "somebody else speaks";
    refused(engine, &p, why);
    p = cut(3);
    p.audio_guidance_scale += 0.5;
    refused(engine, &p, why);
    p = cut(3);
    p.teacache = EM_TEACACHE_OFF;
    refused(engine, &p, why);
    p = cut(3);
    voice[1000] += 0.1f;
    refused(engine, &p, why);
    p = cut(3);
    portrait[100] ^= 64;
    refused(engine, &p, why);
    p = cut(3);
    em_engine *half = open_engine("cpu", EM_WEIGHT_BFLOAT16);
    refused(half, &p, why);
    em_engine_close(&half);
}

static void ignores_what_only_the_decoder_sees(void **state)
{
    (void)state;
    em_params p = cut(3);
    em_result r = {0};
    watch w = {.done = ALL};
    p.color_transfer = !p.color_transfer;
    p.crf++;
    assert_int_equal(generate(engine, &p, &w, &r), EM_OK);
    assert_int_equal(r.steps_resumed, 3);
    assert_true(w.hash == whole(&p));
}

static void ignores_a_damaged_file(void **state)
{
    (void)state;
    char *data = NULL;
    size_t n = 0;
    em_err err = {0};
    em_params p = cut(3);
    assert_ok(em_file_read(&data, &n, resume_path, 1 << 20, &err), err);
    data[n / 2] ^= 1;
    assert_ok(em_file_write(resume_path, data, n, &err), err);
    refused(engine, &p, "checksum");
    data[n / 2] ^= 1;
    assert_ok(em_file_write(resume_path, data, n - 1, &err), err);
    refused(engine, &p, "checksum");
    assert_ok(em_file_write(resume_path, data, 0, &err), err);
    refused(engine, &p, "too short");
    assert_ok(em_file_write(resume_path, "<html>", 6, &err), err);
    refused(engine, &p, "too short");
    em_free(data);
}

/* The file of a cut after step 3, its request and that one's frames. */
typedef struct original {
    em_params p;
    uint64_t want;
    char *data;
    size_t size_bytes;
} original;

/* A file whose checksum fits and whose content cannot be. */
static void forged(const original *o, int number, int64_t value, int block, size_t size_bytes,
                   const char *part)
{
    static float zeros[1 << 12];
    em_err err = {0};
    em_state_file f = {0};
    const unsigned char *key = (const unsigned char *)o->data + 16;
    assert_ok(em_file_write(resume_path, o->data, o->size_bytes, &err), err);
    assert_ok(em_state_read(&f, resume_path, "EMRESUM1", key, 1 << 20, &err), err);
    if (number >= 0) f.number[number] = value;
    if (block >= 0) f.block[block] = (em_state_block){zeros, size_bytes};
    assert_ok(em_state_write(resume_path, &f, &err), err);
    em_state_close(&f);
    refused_for(engine, &o->p, part, o->want);
}

static void ignores_a_forged_file(void **state)
{
    (void)state;
    static const char *const nonsense = "makes no sense", *const misfit = "does not fit the steps";
    em_err err = {0};
    original o = {.p = cut(3)};
    o.want = whole(&o.p);
    assert_ok(em_file_read(&o.data, &o.size_bytes, resume_path, 1 << 20, &err), err);
    forged(&o, 0, 0, -1, 0, nonsense); /* step */
    forged(&o, 0, STEPS + 1, -1, 0, nonsense);
    forged(&o, 0, -3, -1, 0, nonsense);
    forged(&o, 2, 5, 2, 0, misfit);            /* states that this solver does not have there */
    forged(&o, 1, STEPS + 1, -1, 0, nonsense); /* steps */
    forged(&o, 2, 8, -1, 0, nonsense);         /* live */
    forged(&o, 2, 0, -1, 0, nonsense);
    forged(&o, 3, 3, -1, 0, nonsense); /* anchor's step: not before the waypoint */
    forged(&o, 3, 0, -1, 0, misfit);   /* a forward that keeps no residual */
    forged(&o, 3, -1, 4, 0, misfit);   /* none, where one is needed */
    forged(&o, 4, 1, -1, 0, misfit);   /* the other branch's */
    forged(&o, 4, 2, -1, 0, nonsense);
    forged(&o, -1, 0, 0, 4, nonsense); /* sizes */
    forged(&o, -1, 0, 4, 0, nonsense);
    forged(&o, -1, 0, 0, 2052, nonsense);
    em_free(o.data);
}

/* Latents that hold a NaN would fail for ever: the verdict drops them. */
static void a_bad_result_is_not_kept(void **state)
{
    (void)state;
    em_resume *file = NULL;
    em_err err = {0};
    em_result r = {0};
    em_params p = cut(STEPS);
    char *data = NULL;
    size_t n = 0;
    em_resume_params q = {.path = resume_path,
                          .count = 16 * 2 * 4 * 4,
                          .steps = STEPS,
                          .states = EM_SAMPLER_STATES,
                          .anchors = EM_TEACACHE_SLOTS};
    assert_ok(em_file_read(&data, &n, resume_path, 1 << 20, &err), err);
    memcpy(q.key, data + 16, sizeof q.key);
    em_free(data);
    assert_ok(em_resume_open(&file, &q, &err), err);
    assert_true(em_resume_load(file));
    em_resume_at(file)->x[7] = NAN;
    em_resume_save(file);
    em_resume_close(&file);
    watch w = {.done = ALL};
    const em_picture image = {portrait, SIDE, SIDE};
    const em_sound sound = {voice, TINY_SAMPLES, TINY_RATE_HZ};
    const em_sink sink = {.progress = on_progress, .user = &w};
    assert_int_equal(em_generate(engine, &image, &sound, &p, &sink, &r, &err), EM_VERDICT);
    assert_int_equal(access(resume_path, F_OK), -1);
}

static void a_disk_that_refuses_is_a_warning(void **state)
{
    em_result r = {0};
    em_params p = params(EM_SAMPLER_EULER, EM_TEACACHE_OFF);
    watch w = {.done = ALL};
    uint64_t want = whole(&p);
    p.resume_path = tmpdir_path(state, "no/such/folder/a.resume");
    assert_int_equal(generate(engine, &p, &w, &r), EM_OK);
    assert_true(w.hash == want);
    assert_non_null(strstr(warning, "starts over"));
    em_resume_discard(p.resume_path);
    em_resume_discard(NULL);
}

static uint64_t planned_host_bytes(const em_params *p)
{
    em_err err = {0};
    em_result r;
    const em_picture image = {NULL, SIDE, SIDE};
    const em_sound sound = {NULL, TINY_SAMPLES, TINY_RATE_HZ};
    assert_ok(em_plan(engine, &image, &sound, p, &r, &err), err);
    return r.host_bytes;
}

/* Two waypoints, each of the latents, what the solver hands on and, with TeaCache, the latents of a
 * forward a branch: a megabyte here, hundreds for a long clip. */
static void its_memory_is_in_the_forecast(void **state)
{
    (void)state;
    static const struct {
        em_sampler_kind sampler;
        em_teacache_mode cache;
        int blocks;
    } cases[] = {{EM_SAMPLER_EULER, EM_TEACACHE_OFF, 1},
                 {EM_SAMPLER_DPMPP, EM_TEACACHE_OFF, 2},
                 {EM_SAMPLER_UNIPC, EM_TEACACHE_OFF, 4},
                 {EM_SAMPLER_EULER, EM_TEACACHE_BRANCH, 3}};
    const uint64_t latents_bytes =
        sizeof(float) * 16 * (uint64_t)em_latent_frames(FRAMES) * (SIDE / 8) * (SIDE / 8);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        em_params p = params(cases[i].sampler, cases[i].cache);
        uint64_t with = planned_host_bytes(&p);
        p.resume_path = NULL;
        assert_int_equal(with - planned_host_bytes(&p),
                         2 * (uint64_t)cases[i].blocks * latents_bytes);
    }
}

static void survives_any_failed_allocation(void **state)
{
    (void)state;
    const em_resume_params q = {.path = resume_path,
                                .count = 100,
                                .steps = STEPS,
                                .states = EM_SAMPLER_STATES,
                                .anchors = EM_TEACACHE_SLOTS};
    em_resume *r = NULL;
    em_err err = {0};
    em_status st = EM_NOMEM;
    for (uint64_t k = 1; st; k++) {
        em_alloc_fail_at(k, false);
        st = em_resume_open(&r, &q, &err);
        em_alloc_fail_at(0, false);
        assert_true(k < 20 && (st == EM_NOMEM || k > 3));
    }
    em_alloc_fail_at(1, true);
    em_resume_at(r)->sampler.step = 1;
    em_resume_save(r);
    em_resume_flush(r);
    em_alloc_fail_at(0, false);
    em_resume_close(&r);
    assert_int_equal(access(resume_path, F_OK), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(goes_on_from_every_step),
        TEST(goes_on_with_one_branch),
        TEST(goes_on_again),
        TEST(goes_on_on_a_far_device),
        TEST(goes_on_from_any_moment),
        TEST(decodes_again_without_a_step),
        TEST(survives_a_kill),
        TEST(ignores_another_request),
        TEST(ignores_what_only_the_decoder_sees),
        TEST(ignores_a_damaged_file),
        TEST(ignores_a_forged_file),
        TEST(a_bad_result_is_not_kept),
        TEST(a_disk_that_refuses_is_a_warning),
        TEST(its_memory_is_in_the_forecast),
        TEST(survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, make_inputs, drop_inputs);
}
