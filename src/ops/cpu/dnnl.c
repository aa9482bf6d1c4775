/* Written for oneDNN's C API, version 2 (operation descriptors, transparent memory descriptors).
 * Everything that version 3 spells differently is in this file. */
#include "ops/cpu/dnnl.h"

#include "ops/cpu/cpu.h"

#include <oneapi/dnnl/dnnl.h>

/* OpenMP's own function (libgomp and libomp alike). Declared here because <omp.h> comes with the
 * compiler's OpenMP support, which nothing else of ours needs. */
void omp_set_num_threads(int threads);

/* oneDNN parallelises through OpenMP, which remembers a thread count for every thread. It must be
 * one in the thread that creates a primitive (the count goes into its scratch size) and in those
 * that run it. */
void em_cpu_thread_start(void)
{
    omp_set_num_threads(1);
}

static em_status status_of(dnnl_status_t st)
{
    return st == dnnl_success ? EM_OK : st == dnnl_out_of_memory ? EM_NOMEM : EM_DEVICE;
}

static dnnl_data_type_t data_type(em_dtype t)
{
    return t == EM_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* An operation's attributes: scratch comes from the caller; `accumulate` adds to what C holds. */
static dnnl_status_t attributes(dnnl_primitive_attr_t *out, bool accumulate)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_status_t st = dnnl_primitive_attr_create(&attr);
    if (!st) st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!st && accumulate) {
        st = dnnl_post_ops_create(&post);
        if (!st) st = dnnl_post_ops_append_sum(post, 1.0f);
        if (!st) st = dnnl_primitive_attr_set_post_ops(attr, post);
        dnnl_post_ops_destroy(post);
    }
    if (st)
        dnnl_primitive_attr_destroy(attr);
    else
        *out = attr;
    return st;
}

static const dnnl_memory_desc_t *desc_of(void *primitive, dnnl_query_t what, int index)
{
    const_dnnl_primitive_desc_t pd = NULL;
    if (dnnl_primitive_get_primitive_desc(primitive, &pd)) return NULL;
    return dnnl_primitive_desc_query_md(pd, what, index);
}

static size_t desc_bytes(void *primitive, dnnl_query_t what)
{
    const dnnl_memory_desc_t *md = desc_of(primitive, what, 0);
    return md ? dnnl_memory_desc_get_size(md) : 0;
}

static dnnl_status_t create(void **out, dnnl_primitive_desc_t pd)
{
    dnnl_primitive_t primitive;
    dnnl_status_t st = dnnl_primitive_create(&primitive, pd);
    if (!st) *out = primitive;
    dnnl_primitive_desc_destroy(pd);
    return st;
}

/* The operation of a descriptor, and the reorder that packs a plain B for it. */
static em_status open_op(em_dnnl *d, const void *op_desc, const dnnl_memory_desc_t *plain,
                         bool accumulate)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_engine_t engine = NULL;
    *d = (em_dnnl){0};
    em_cpu_thread_start();
    dnnl_status_t st = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (st) return status_of(st);
    d->engine = engine;
    st = attributes(&attr, accumulate);
    if (!st) st = dnnl_primitive_desc_create(&pd, op_desc, attr, engine, NULL);
    if (!st) st = create(&d->op, pd);
    dnnl_primitive_attr_destroy(attr);
    attr = NULL;
    const dnnl_memory_desc_t *packed = st ? NULL : desc_of(d->op, dnnl_query_weights_md, 0);
    if (!st) st = attributes(&attr, false);
    if (!st) st = dnnl_reorder_primitive_desc_create(&pd, plain, engine, packed, engine, attr);
    if (!st) st = create(&d->pack, pd);
    dnnl_primitive_attr_destroy(attr);
    if (st) {
        em_dnnl_close(d);
        return status_of(st);
    }
    d->packed_bytes = dnnl_memory_desc_get_size(packed);
    size_t op_bytes = desc_bytes(d->op, dnnl_query_scratchpad_md);
    size_t pack_bytes = desc_bytes(d->pack, dnnl_query_scratchpad_md);
    d->scratch_bytes = op_bytes > pack_bytes ? op_bytes : pack_bytes;
    return EM_OK;
}

em_status em_dnnl_open_matmul(em_dnnl *d, const em_dnnl_matmul *s)
{
    dnnl_memory_desc_t a, b, c, plain;
    dnnl_matmul_desc_t op;
    dnnl_data_type_t type = data_type(s->type);
    *d = (em_dnnl){0};
    dnnl_status_t st =
        dnnl_memory_desc_init_by_tag(&a, 2, (dnnl_dims_t){s->m, s->k}, type, dnnl_ab);
    if (!st) st = dnnl_memory_desc_init_by_tag(&c, 2, (dnnl_dims_t){s->m, s->n}, dnnl_f32, dnnl_ab);
    if (!st)
        st = dnnl_memory_desc_init_by_strides(&plain, 2, (dnnl_dims_t){s->k, s->n}, type,
                                              (dnnl_dims_t){s->step_k, s->step_n});
    if (!st)
        st = dnnl_memory_desc_init_by_tag(&b, 2, (dnnl_dims_t){s->k, s->n}, type,
                                          dnnl_format_tag_any);
    if (!st && s->like) b = *desc_of(s->like->op, dnnl_query_weights_md, 0);
    if (!st) st = dnnl_matmul_desc_init(&op, &a, &b, NULL, &c);
    return st ? status_of(st) : open_op(d, &op, &plain, s->accumulate);
}

em_status em_dnnl_open_conv(em_dnnl *d, const em_dnnl_conv *s)
{
    const dnnl_dims_t a_dims = {1, s->k, s->in[0], s->in[1], s->in[2]};
    const dnnl_dims_t b_dims = {s->n, s->k, s->kernel[0], s->kernel[1], s->kernel[2]};
    const dnnl_dims_t c_dims = {1, s->n, s->out[0], s->out[1], s->out[2]};
    const dnnl_dims_t strides = {s->stride[0], s->stride[1], s->stride[2]}, none = {0};
    dnnl_memory_desc_t a, b, c, plain;
    dnnl_convolution_desc_t op;
    dnnl_data_type_t type = data_type(s->type);
    *d = (em_dnnl){0};
    dnnl_status_t st = dnnl_memory_desc_init_by_tag(&a, 5, a_dims, type, dnnl_ndhwc);
    if (!st) st = dnnl_memory_desc_init_by_tag(&b, 5, b_dims, type, dnnl_format_tag_any);
    if (!st) st = dnnl_memory_desc_init_by_tag(&plain, 5, b_dims, type, dnnl_oidhw);
    if (!st) st = dnnl_memory_desc_init_by_tag(&c, 5, c_dims, dnnl_f32, dnnl_ndhwc);
    if (!st)
        st =
            dnnl_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct,
                                               &a, &b, NULL, &c, strides, none, none);
    return st ? status_of(st) : open_op(d, &op, &plain, false);
}

void em_dnnl_close(em_dnnl *d)
{
    if (d->pack) dnnl_primitive_destroy(d->pack);
    if (d->op) dnnl_primitive_destroy(d->op);
    if (d->engine) dnnl_engine_destroy(d->engine);
    *d = (em_dnnl){0};
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct operand {
    int arg;            /* DNNL_ARG_… */
    dnnl_query_t query; /* whose descriptor it has */
    void *data;
} operand;

/* Memory objects and streams are small heap objects of oneDNN's; a tile's work dwarfs them. */
static em_status execute(const em_dnnl *d, void *primitive, const operand *o, int count)
{
    enum { MAX_OPERANDS = 4 };
    dnnl_exec_arg_t args[MAX_OPERANDS];
    dnnl_stream_t stream = NULL;
    int n = 0;
    em_cpu_thread_start();
    dnnl_status_t st = dnnl_stream_create(&stream, d->engine, dnnl_stream_default_flags);
    for (; !st && n < count; n++) {
        args[n].arg = o[n].arg;
        st = dnnl_memory_create(&args[n].memory, desc_of(primitive, o[n].query, 0), d->engine,
                                o[n].data);
        if (st) break;
    }
    if (!st) st = dnnl_primitive_execute(primitive, stream, n, args);
    if (!st) st = dnnl_stream_wait(stream);
    while (n > 0) dnnl_memory_destroy(args[--n].memory);
    if (stream) dnnl_stream_destroy(stream);
    return status_of(st);
}

em_status em_dnnl_pack(const em_dnnl *d, void *packed, const void *plain, void *scratch)
{
    const operand o[] = {
        {DNNL_ARG_FROM, dnnl_query_src_md, (void *)plain},
        {DNNL_ARG_TO, dnnl_query_dst_md, packed},
        {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, scratch},
    };
    return execute(d, d->pack, o, sizeof o / sizeof *o);
}

em_status em_dnnl_run(const em_dnnl *d, float *c, const void *a, const void *packed, void *scratch)
{
    const operand o[] = {
        {DNNL_ARG_SRC, dnnl_query_src_md, (void *)a},
        {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, (void *)packed},
        {DNNL_ARG_DST, dnnl_query_dst_md, c},
        {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, scratch},
    };
    return execute(d, d->op, o, sizeof o / sizeof *o);
}

/* ---- the machine ----------------------------------------------------------------------------- */

static bool isa_has(unsigned wanted)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

em_isa em_dnnl_isa(void)
{
    if (isa_has(dnnl_cpu_isa_avx512_core)) return EM_ISA_AVX512;
    return isa_has(dnnl_cpu_isa_avx2) ? EM_ISA_AVX2 : EM_ISA_BASE;
}

bool em_dnnl_has_bf16(void)
{
    return isa_has(dnnl_cpu_isa_avx512_core_bf16);
}
