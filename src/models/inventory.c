#include "models/inventory.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/synthetic.h"
#include "io/pth_writer.h"

#include <string.h>

em_status em_inventory_item(void *inventory, const em_bind_item *it, em_err *err)
{
    em_inventory *inv = inventory;
    em_safetensors_spec spec = {.dtype = EM_F32, .ndim = it->ndim};
    for (int i = 0; i < it->ndim; i++) spec.dim[i] = it->dim[i];
    char *name = em_strdup(it->name);
    spec.name = name;
    if (name && EM_PUSH(inv->spec, inv->count, inv->cap, spec)) return EM_OK;
    em_free(name);
    return em_fail(err, EM_NOMEM, "no memory to list tensor '%s'", it->name);
}

void em_inventory_close(em_inventory *inv)
{
    for (size_t i = 0; i < inv->count; i++) em_free((void *)(uintptr_t)inv->spec[i].name);
    em_free(inv->spec);
    *inv = (em_inventory){0};
}

/* ---- the synthetic file ---------------------------------------------------------------------- */

enum { PIECE = 1 << 18 }; /* values made and written at once */

/* What one thread writes with; the first failure of each is kept. */
typedef struct desk {
    void *values; /* owned, PIECE of them */
    em_err err;
} desk;

typedef struct scribe {
    em_safetensors_writer *plain; /* one of the two is open */
    em_pth_writer *torch;
    const em_safetensors_spec *spec; /* the tensor at hand … */
    size_t index, count;             /* … its place in the list, its values */
    uint64_t key;
    em_synth_rule rule;
    desk *desk; /* owned array, one a thread */
    int desks;
} scribe;

static void write_piece(void *arg, size_t piece, int worker)
{
    scribe *s = arg;
    desk *d = &s->desk[worker];
    if (d->err.code) return;
    size_t first = piece * PIECE, left = s->count - first;
    size_t n = left < PIECE ? left : PIECE, item = em_dtype_bytes(s->spec->dtype);
    em_synth_values(d->values, s->spec->dtype, s->key, s->rule, first, n);
    if (s->torch)
        em_pth_write(s->torch, s->index, first * item, d->values, n * item, &d->err);
    else
        em_safetensors_write(s->plain, s->index, first * item, d->values, n * item, &d->err);
}

static em_status write_tensor(scribe *s, const em_safetensors_spec *spec, size_t index,
                              const char *model, uint64_t seed, em_pool *pool, em_err *err)
{
    s->spec = spec;
    s->index = index;
    s->count = 1;
    for (int i = 0; i < spec->ndim; i++)
        if (!em_size_mul(&s->count, s->count, (size_t)spec->dim[i]))
            return em_fail(err, EM_INVAL, "tensor '%s' is too large", spec->name);
    s->key = em_synth_key(model, spec->name, seed);
    s->rule = em_synth_rule_of(model, spec->name, spec->dim, spec->ndim);
    em_parallel(pool, (s->count + PIECE - 1) / PIECE, write_piece, s);
    for (int i = 0; i < s->desks; i++)
        if (s->desk[i].err.code) return em_fail(err, s->desk[i].err.code, "%s", s->desk[i].err.msg);
    return EM_OK;
}

static em_status open_desks(scribe *s, em_pool *pool, em_dtype dtype, em_err *err)
{
    int n = em_pool_threads(pool);
    s->desk = em_alloc_array((size_t)n, sizeof *s->desk);
    for (; s->desk && s->desks < n; s->desks++) {
        s->desk[s->desks].values = em_alloc_array(PIECE, em_dtype_bytes(dtype));
        if (!s->desk[s->desks].values) break;
    }
    return s->desk && s->desks == n ? EM_OK
                                    : em_fail(err, EM_NOMEM, "no memory to write a checkpoint");
}

static void close_desks(scribe *s)
{
    for (int i = 0; i < s->desks; i++) em_free(s->desk[i].values);
    em_free(s->desk);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static em_status open_file(scribe *s, const char *path, const em_safetensors_spec *spec,
                           size_t count, em_err *err)
{
    if (ends_with(path, ".pth") || ends_with(path, ".bin"))
        return em_pth_create(&s->torch, path, spec, count, err);
    return em_safetensors_create(&s->plain, path, spec, count, err);
}

em_status em_inventory_synthesize(const em_inventory *inv, const char *model, uint64_t seed,
                                  em_dtype dtype, const char *path, em_pool *pool, em_err *err)
{
    scribe s = {0};
    em_safetensors_spec *spec = em_alloc_array(inv->count, sizeof *spec);
    em_status st = spec ? open_desks(&s, pool, dtype, err)
                        : em_fail(err, EM_NOMEM, "no memory to write '%s'", path);
    if (st) goto done;
    for (size_t i = 0; i < inv->count; i++) {
        spec[i] = inv->spec[i];
        spec[i].dtype = dtype;
    }
    st = open_file(&s, path, spec, inv->count, err);
    for (size_t i = 0; i < inv->count && !st; i++)
        st = write_tensor(&s, &spec[i], i, model, seed, pool, err);
    if (!st) st = s.torch ? em_pth_commit(&s.torch, err) : em_safetensors_commit(&s.plain, err);
done:
    em_safetensors_writer_close(&s.plain);
    em_pth_writer_close(&s.torch);
    close_desks(&s);
    em_free(spec);
    return st;
}
