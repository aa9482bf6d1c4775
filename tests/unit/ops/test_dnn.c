/* ops/cuda/dnn.c and sdpa.c against a stand-in for cuDNN: this program itself, opened as a library.
 * It keeps books of descriptors and refuses what cuDNN would refuse: attributes after the end of a
 * descriptor, engines that there are not, knobs that an engine does not know. No GPU. */
#include "ops/cuda/sdpa.h"

#include "../test.h"
#include "base/alloc.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- the stand-in ---------------------------------------------------------------------------- */

enum { MAX_ATTRIBUTES = 16, MAX_BYTES = 512 };

typedef struct attribute {
    int name;
    int64_t count;
    unsigned char bytes[MAX_BYTES];
} attribute;

typedef struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool final;
    int attributes;
    attribute attribute[MAX_ATTRIBUTES];
    int64_t engine, knobs; /* of an engine, a configuration, a plan */
} descriptor;

/* One engine of the stand-in. */
typedef struct engine {
    int64_t index;
    bool random;         /* not deterministic */
    bool plans;          /* there is a plan */
    bool refuses_knobs;  /* only its own ones will do */
    int64_t scratch;     /* bytes */
    int64_t knob_values; /* it has two knobs, 2 and 40; this and twice this */
} engine;

static struct {
    size_t version;
    const engine *engines; /* what heuristic A offers, in its order */
    int count;
    int live, heuristics, plans, executions; /* descriptors not destroyed; calls */
    int handles;
    descriptor pack;      /* of the last execution */
    descriptor tensor[8]; /* the last one with each id */
    int64_t executed, executed_knobs;
} fake;

#define EXPORT __attribute__((visibility("default"))) cudnnStatus_t

static size_t width_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    default: return sizeof(int);
    }
}

static const attribute *find(const descriptor *d, int name)
{
    for (int i = 0; i < d->attributes; i++)
        if (d->attribute[i].name == name) return &d->attribute[i];
    return NULL;
}

static const descriptor *child(const descriptor *d, int name)
{
    const attribute *a = find(d, name);
    descriptor *c = NULL;
    if (a) memcpy(&c, a->bytes, sizeof c);
    return c;
}

static int64_t number(const descriptor *d, int name, int i)
{
    const attribute *a = find(d, name);
    int64_t v = -1;
    assert_non_null(a);
    memcpy(&v, a->bytes + 8 * i, sizeof v);
    return v;
}

static const engine *engine_of(int64_t index)
{
    for (int i = 0; i < fake.count; i++)
        if (fake.engines[i].index == index) return &fake.engines[i];
    return NULL;
}

__attribute__((visibility("default"))) size_t cudnnGetVersion(void)
{
    return fake.version;
}

__attribute__((visibility("default"))) const char *cudnnGetErrorString(cudnnStatus_t rc)
{
    return rc ? "refused" : "fine";
}

__attribute__((visibility("default"))) void cudnnGetLastErrorString(char *out, size_t n)
{
    if (n) out[0] = '\0';
}

EXPORT cudnnCreate(cudnnHandle_t *out)
{
    *out = (cudnnHandle_t)&fake;
    fake.handles++;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnDestroy(cudnnHandle_t h)
{
    (void)h;
    fake.handles--;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnSetStream(cudnnHandle_t h, cudaStream_t s)
{
    return (void)h, (void)s, CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                    cudnnBackendDescriptor_t *out)
{
    descriptor *d = calloc(1, sizeof *d);
    assert_non_null(d);
    d->type = type;
    fake.live++;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    assert_non_null(d);
    free(d);
    fake.live--;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnBackendSetAttribute(cudnnBackendDescriptor_t to, cudnnBackendAttributeName_t name,
                                cudnnBackendAttributeType_t type, int64_t count, const void *from)
{
    descriptor *d = to;
    size_t bytes = (size_t)count * width_of(type);
    if (!d || d->final || d->attributes == MAX_ATTRIBUTES || bytes > MAX_BYTES)
        return CUDNN_STATUS_BAD_PARAM;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < count; i++)
            if (!((descriptor *const *)from)[i]->final) return CUDNN_STATUS_BAD_PARAM;
    attribute *a = &d->attribute[d->attributes++];
    a->name = name;
    a->count = count;
    memcpy(a->bytes, from, bytes);
    return CUDNN_STATUS_SUCCESS;
}

/* An engine, its configuration, a plan: each takes over what it stands on. */
static cudnnStatus_t settle(descriptor *d)
{
    const engine *e;
    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        fake.tensor[number(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0) % 8] = *d;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
        return d->attributes == 5 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
        d->engine = number(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 0);
        return child(d, CUDNN_ATTR_ENGINE_OPERATION_GRAPH) && engine_of(d->engine)
                   ? CUDNN_STATUS_SUCCESS
                   : CUDNN_STATUS_BAD_PARAM;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
        d->engine = child(d, CUDNN_ATTR_ENGINECFG_ENGINE)->engine;
        d->knobs = find(d, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)
                       ? find(d, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)->count
                       : 0;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        fake.plans++;
        d->engine = child(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine;
        d->knobs = child(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->knobs;
        e = engine_of(d->engine);
        return e->plans && !(e->refuses_knobs && d->knobs) ? CUDNN_STATUS_SUCCESS
                                                           : CUDNN_STATUS_NOT_SUPPORTED;
    default: return CUDNN_STATUS_SUCCESS;
    }
}

EXPORT cudnnBackendFinalize(cudnnBackendDescriptor_t at)
{
    descriptor *d = at;
    if (!d || d->final) return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t rc = settle(d);
    d->final = !rc;
    return rc;
}

/* Configurations of the heuristic: A offers all engines, the others none. */
static int64_t offer(const descriptor *heuristic, int64_t room, void *out)
{
    int mode = -1;
    memcpy(&mode, find(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE)->bytes, sizeof mode);
    if (mode != CUDNN_HEUR_MODE_A) return 0;
    for (int i = 0; i < fake.count && i < room; i++) {
        descriptor *config = ((descriptor **)out)[i];
        config->engine = fake.engines[i].index;
        config->knobs = 2;
        config->final = true;
    }
    if (room) fake.heuristics++;
    return fake.count;
}

static void give(void *out, int64_t value)
{
    memcpy(out, &value, sizeof value);
}

static int64_t answer(const descriptor *d, int name, int64_t room, void *out)
{
    const engine *e = engine_of(d->engine);
    descriptor **to = out;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS: return offer(d, room, out);
    case CUDNN_ATTR_ENGINECFG_ENGINE: return to[0]->engine = d->engine, 1;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: return give(out, d->engine), 1;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        *(int *)out = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        return e->random;
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        for (int i = 0; i < 2; i++) {
            to[i]->engine = i ? 40 : 2;
            to[i]->knobs = e->knob_values * (i + 1);
        }
        return 2;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE: return *(int *)out = (int)d->engine, 1;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE: return give(out, d->knobs), 1;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: return give(out, e->scratch), 1;
    default: fail_msg("attribute %d was asked for", name); return 0;
    }
}

EXPORT cudnnBackendGetAttribute(cudnnBackendDescriptor_t const from,
                                cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                int64_t room, int64_t *count, void *out)
{
    (void)type;
    *count = answer(from, name, room, out);
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan,
                           cudnnBackendDescriptor_t pack)
{
    const descriptor *p = plan;
    assert_ptr_equal(h, &fake);
    assert_true(p->final && ((descriptor *)pack)->final);
    fake.executions++;
    fake.executed = p->engine;
    fake.executed_knobs = p->knobs;
    fake.pack = *(descriptor *)pack;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static const engine usual[] = {
    {.index = 7, .random = true, .plans = true},
    {.index = 5, .plans = false},
    {.index = 9, .plans = true, .scratch = 1 << 30},
    {.index = 3, .plans = true, .scratch = 1000, .knob_values = 64},
    {.index = 4, .plans = true},
};
static const engine *const good = usual + 3; /* and two of them */
static const em_sdpa_shape self = {EM_BF16, 1, 2000, 2000, 12, 128};

static em_cuda_dnn *open_fake(const engine *engines, int count)
{
    em_cuda_dnn *dnn = NULL;
    em_err err = {0};
    memset(&fake, 0, sizeof fake);
    fake.version = EM_DNN_MIN_VERSION;
    fake.engines = engines;
    fake.count = count;
    void *library = dlopen(NULL, RTLD_NOW);
    assert_non_null(library);
    assert_ok(em_cuda_dnn_open(&dnn, library, "the stand-in", NULL, &err), err);
    return dnn;
}

static void close_fake(em_cuda_dnn *dnn)
{
    em_cuda_dnn_close(&dnn);
    assert_null(dnn);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.handles, 0);
}

static void refuses_libraries(void **state)
{
    (void)state;
    em_cuda_dnn *dnn = NULL;
    em_err err = {0};
    memset(&fake, 0, sizeof fake);
    fake.version = 90500;
    assert_int_equal(em_cuda_dnn_open(&dnn, dlopen(NULL, RTLD_NOW), "old.so", NULL, &err),
                     EM_DEVICE);
    assert_non_null(strstr(err.msg, "old.so is cuDNN 9.5.0"));
    void *other = dlopen("libm.so.6", RTLD_NOW);
    assert_non_null(other);
    assert_int_equal(em_cuda_dnn_open(&dnn, other, "libm", NULL, &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "libm has no function cudnn"));
    assert_null(dnn);
    dlclose(other);
}

/* The choice for a graph of no matter what. */
static em_status choose(em_dnn_choice *out, em_cuda_dnn *dnn, const em_dnn_limits *limits,
                        em_err *err)
{
    const em_dnn_view view = {.id = 6, .ndim = 1, .dim = {3}, .stride = {1}};
    em_dnn_graph g;
    em_dnn_begin(&g, dnn);
    cudnnBackendDescriptor_t d = em_dnn_tensor(&g, &view);
    em_dnn_join(&g, 1, &d);
    em_status st = em_dnn_choose(out, &g, limits, err);
    em_dnn_end(&g);
    return st;
}

/* Engines that are random, cannot be planned or want too much are passed over; the knobs of the
 * one that is taken are kept. */
static void takes_the_first_that_works(void **state)
{
    (void)state;
    const em_dnn_limits limits = {.workspace_bytes = 4096};
    em_cuda_dnn *dnn = open_fake(usual, 5);
    em_err err = {0};
    em_dnn_choice c;
    char text[128];
    assert_ok(choose(&c, dnn, &limits, &err), err);
    assert_string_equal(em_dnn_choice_text(text, &c), "engine 3: 2=64 40=128");
    fake.count = 3;
    assert_int_equal(choose(&c, dnn, &limits, &err), EM_DEVICE);
    assert_non_null(strstr(err.msg, "engine 9"));
    close_fake(dnn);
}

/* Without plans the list decides, but for what must not be. */
static void believes_the_list(void **state)
{
    (void)state;
    const em_dnn_limits limits = {.unplanned = true};
    em_cuda_dnn *dnn = open_fake(usual, 5);
    em_err err = {0};
    em_dnn_choice c;
    assert_ok(choose(&c, dnn, &limits, &err), err);
    assert_int_equal(c.engine, 5);
    assert_int_equal(fake.plans, 0);
    close_fake(dnn);
}

static void drops_knobs_last(void **state)
{
    (void)state;
    static const engine stubborn[] = {{.index = 8, .plans = true, .refuses_knobs = true}};
    const em_dnn_limits limits = {0};
    em_cuda_dnn *dnn = open_fake(stubborn, 1);
    em_err err = {0};
    em_dnn_choice c;
    char text[128];
    assert_ok(choose(&c, dnn, &limits, &err), err);
    assert_string_equal(em_dnn_choice_text(text, &c), "engine 8:");
    close_fake(dnn);
}

/* One choice for all lengths; a plan a shape; nothing is decided twice. */
static void remembers(void **state)
{
    (void)state;
    em_cuda_dnn *dnn = open_fake(good, 2);
    em_err err = {0};
    size_t bytes = 0;
    char text[128];
    em_sdpa_shape part = self;
    part.nq = 77;
    assert_ok(em_sdpa_workspace(dnn, &self, &bytes, &err), err);
    assert_int_equal(bytes, 1000);
    assert_string_equal(em_sdpa_engine(text, dnn, &self), "engine 3: 2=64 40=128");
    int live = fake.live;
    assert_ok(em_sdpa_workspace(dnn, &self, &bytes, &err), err);
    assert_int_equal(fake.live, live);
    assert_ok(em_sdpa_workspace(dnn, &part, &bytes, &err), err);
    assert_true(fake.live > live);
    assert_int_equal(fake.heuristics, 1);
    part.dim = 64; /* another layer */
    assert_ok(em_sdpa_workspace(dnn, &part, &bytes, &err), err);
    assert_int_equal(fake.heuristics, 2);
    close_fake(dnn);
}

/* No engine, or none that can be planned: asked once, the same answer for ever. */
static void remembers_refusals(void **state)
{
    (void)state;
    for (int count = 1; count <= 2; count++) {
        em_cuda_dnn *dnn = open_fake(usual, count);
        em_err err = {0};
        size_t bytes = 0;
        assert_int_equal(em_sdpa_workspace(dnn, &self, &bytes, &err), EM_DEVICE);
        int asked = fake.heuristics, planned = fake.plans;
        assert_int_equal(planned, count - 1);
        assert_int_equal(em_sdpa_workspace(dnn, &self, &bytes, &err), EM_DEVICE);
        assert_int_equal(fake.heuristics, asked);
        assert_int_equal(fake.plans, planned);
        close_fake(dnn);
    }
}

/* The pointer that goes with tensor `id` of the last execution. */
static void *executed_with(int64_t id)
{
    const attribute *ids = find(&fake.pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    void *p = NULL;
    for (int i = 0; i < ids->count; i++)
        if (number(&fake.pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == id)
            memcpy(&p, find(&fake.pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->bytes + 8 * i,
                   sizeof p);
    return p;
}

static void executes(void **state)
{
    (void)state;
    em_cuda_dnn *dnn = open_fake(good, 2);
    em_err err = {0};
    int y, q, k, v, ws;
    assert_ok(em_sdpa(dnn, &self, 0.5f, &y, &q, &k, &v, &ws, &err), err);
    assert_int_equal(fake.executions, 1);
    assert_int_equal(fake.executed, 3);
    assert_int_equal(fake.executed_knobs, 2);
    assert_ptr_equal(executed_with(1), &q);
    assert_ptr_equal(executed_with(2), &k);
    assert_ptr_equal(executed_with(3), &v);
    assert_ptr_equal(executed_with(4), &y);
    void *scratch = NULL;
    memcpy(&scratch, find(&fake.pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)->bytes, sizeof scratch);
    assert_ptr_equal(scratch, &ws);
    close_fake(dnn);
}

/* Token-major data, as cuDNN is told: (batch, heads, tokens, channels) with strides to match. */
static void describes_tokens(void **state)
{
    (void)state;
    static const int64_t dim[] = {2, 12, 77, 128}, stride[] = {77 * 1536, 128, 1536, 1};
    em_cuda_dnn *dnn = open_fake(good, 2);
    em_err err = {0};
    size_t bytes = 0;
    em_sdpa_shape part = self;
    part.batch = 2;
    part.nq = 77;
    assert_ok(em_sdpa_workspace(dnn, &part, &bytes, &err), err);
    for (int id = 1; id <= 5; id++) {
        const descriptor *d = &fake.tensor[id];
        int64_t rows = id == 2 || id == 3 ? 2000 : 77; /* keys and values; queries and results */
        assert_int_equal(find(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE)->bytes[0], id == 5);
        for (int i = 0; i < 4 && id < 5; i++) {
            assert_int_equal(number(d, CUDNN_ATTR_TENSOR_DIMENSIONS, i), i == 2 ? rows : dim[i]);
            assert_int_equal(number(d, CUDNN_ATTR_TENSOR_STRIDES, i), i ? stride[i] : rows * 1536);
        }
    }
    close_fake(dnn);
}

static void failures_stick(void **state)
{
    (void)state;
    em_cuda_dnn *dnn = open_fake(good, 2);
    em_dnn_graph g;
    em_dnn_begin(&g, dnn);
    const em_dnn_view view = {
        .id = 6, .type = CUDNN_DATA_HALF, .ndim = 1, .dim = {3}, .stride = {1}};
    cudnnBackendDescriptor_t d = em_dnn_tensor(&g, &view);
    assert_int_equal(g.status, 0);
    em_dnn_finalize(&g, d); /* once more */
    assert_int_not_equal(g.status, 0);
    assert_null(em_dnn_make(&g, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
    em_dnn_end(&g);
    close_fake(dnn);
}

static void survives_without_memory(void **state)
{
    (void)state;
    size_t bytes = 0;
    for (uint64_t n = 1;; n++) {
        em_cuda_dnn *dnn = open_fake(good, 2);
        em_err err = {0};
        em_alloc_fail_at(n, true);
        em_status st = em_sdpa_workspace(dnn, &self, &bytes, &err);
        em_alloc_fail_at(0, false);
        if (st) assert_int_equal(st, EM_NOMEM);
        if (st) assert_ok(em_sdpa_workspace(dnn, &self, &bytes, &err), err);
        close_fake(dnn);
        if (!st) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_libraries), cmocka_unit_test(takes_the_first_that_works),
        cmocka_unit_test(remembers),         cmocka_unit_test(remembers_refusals),
        cmocka_unit_test(believes_the_list), cmocka_unit_test(drops_knobs_last),
        cmocka_unit_test(executes),          cmocka_unit_test(describes_tokens),
        cmocka_unit_test(failures_stick),    cmocka_unit_test(survives_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
