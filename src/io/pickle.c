#include "io/pickle.h"

#include "base/alloc.h"
#include "base/array.h"
#include "base/str.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---------------------------------------------------------------------------------- */

/* The names that a program may mention. The last four are known so that the refusal can say what
 * kind of tensor it is that is not read. */
typedef enum callee {
    ORDERED_DICT,
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    STORAGE_CLASS, /* .b is its dtype */
    OTHER_STORAGE, /* .a, .n: its name in the program */
    UNTYPED_STORAGE,
    OTHER_DTYPE,
    REBUILD_OTHER,
} callee;

typedef enum tag {
    NOTHING,
    BOOLEAN, /* .a */
    INTEGER, /* .a */
    OPAQUE,  /* a number that no tensor needs: float, long integer */
    TEXT,    /* .a offset in the program, .n bytes */
    TUPLE,   /* .a first of .n consecutive values of machine.part */
    LIST,    /* its content is nothing to a tensor */
    DICT,    /* .a index in machine.dict; .b whether it is an OrderedDict */
    GLOBAL,  /* .callee */
    STORAGE, /* .a index in em_pickle.storage */
    TENSOR,  /* .a index in em_pickle.tensor */
} tag;

typedef struct value {
    unsigned char tag, callee, b;
    uint32_t n;
    int64_t a;
} value;

/* Text keys alone are kept: a number is no tensor's name. */
typedef struct pair {
    value key, val;
} pair;

typedef struct dict {
    pair *pair; /* owned */
    size_t count, cap;
    bool used; /* something was put in, under any key */
} dict;

typedef struct machine {
    const unsigned char *p; /* the program */
    size_t size, at, op_at;
    const char *path;
    em_err *err;
    value *stack, *memo, *part; /* owned, like the others */
    size_t depth, stack_cap, memos, memo_cap, parts, part_cap;
    size_t mark[EM_PICKLE_DEPTH], marks;
    dict *dict;
    size_t dicts, dict_cap;
    em_pickle out;
    size_t storage_cap, tensor_cap, item_cap;
    bool untyped; /* a storage whose dtype is said only later: never read, refused by then */
    bool stopped;
} machine;

/* EM_FORMAT and "'path': data.pkl at byte N: …". */
__attribute__((format(printf, 2, 3))) static em_status refuse(const machine *m, const char *fmt,
                                                              ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(m->err, EM_FORMAT, fmt, ap);
    va_end(ap);
    em_err_prefix(m->err, "'%s': data.pkl at byte %zu", m->path, m->op_at);
    return EM_FORMAT;
}

static em_status nomem(const machine *m)
{
    return em_fail(m->err, EM_NOMEM, "out of memory reading '%s'", m->path);
}

static const char *tag_text(value v)
{
    static const char *const text[] = {
        [NOTHING] = "None",      [BOOLEAN] = "a truth value", [INTEGER] = "an integer",
        [OPAQUE] = "a number",   [TEXT] = "a string",         [TUPLE] = "a tuple",
        [LIST] = "a list",       [DICT] = "a dictionary",     [GLOBAL] = "a name",
        [STORAGE] = "a storage", [TENSOR] = "a tensor"};
    return text[v.tag];
}

/* As much of a text as a sentence has room for, whole characters. */
static int shown(const machine *m, value text)
{
    enum { MOST = 80 };
    size_t n = text.n;
    if (n <= MOST) return (int)n;
    for (n = MOST; n > 0 && (m->p[(size_t)text.a + n] & 0xC0) == 0x80;) n--;
    return (int)n;
}

static const char *text_of(const machine *m, value text)
{
    return (const char *)m->p + text.a;
}

static bool text_is(const machine *m, value v, const char *s)
{
    return v.tag == TEXT && v.n == strlen(s) && memcmp(text_of(m, v), s, v.n) == 0;
}

/* ---- the stack ------------------------------------------------------------------------------- */

static em_status push(machine *m, value v)
{
    return EM_PUSH(m->stack, m->depth, m->stack_cap, v) ? EM_OK : nomem(m);
}

/* Values above the innermost mark: no instruction may reach below it. */
static size_t reachable(const machine *m)
{
    return m->depth - (m->marks ? m->mark[m->marks - 1] : 0);
}

static em_status need(const machine *m, size_t n)
{
    if (reachable(m) >= n) return EM_OK;
    return refuse(m, "the instruction takes %zu values, %zu are there", n, reachable(m));
}

/* The value on top of the stack, borrowed until the next push. need() was asked. */
static value *top(machine *m)
{
    return &m->stack[m->depth - 1];
}

static em_status pop_mark(machine *m, size_t *first)
{
    if (!m->marks) return refuse(m, "the instruction takes what follows a mark: there is no mark");
    *first = m->mark[--m->marks];
    return EM_OK;
}

/* n bytes of the program after the instruction. */
static em_status take(machine *m, const unsigned char **out, size_t n)
{
    if (n > m->size - m->at) return refuse(m, "the program ends inside an instruction");
    *out = m->p + m->at;
    m->at += n;
    return EM_OK;
}

/* An unsigned little-endian number of n bytes. */
static em_status take_number(machine *m, uint64_t *out, size_t n)
{
    const unsigned char *p = NULL;
    em_status st = take(m, &p, n);
    if (st) return st;
    assert(p);
    *out = 0;
    for (size_t i = n; i-- > 0;) *out = *out << 8 | p[i];
    return EM_OK;
}

/* ---- constants ------------------------------------------------------------------------------- */

static em_status op_proto(machine *m)
{
    uint64_t version = 0;
    em_status st = take_number(m, &version, 1);
    if (st) return st;
    if (m->op_at != 0) return refuse(m, "the protocol is named a second time");
    if (version != 2) return refuse(m, "protocol %u: torch.save writes 2", (unsigned)version);
    return EM_OK;
}

static em_status op_none(machine *m)
{
    return push(m, (value){.tag = NOTHING});
}

static em_status op_false(machine *m)
{
    return push(m, (value){.tag = BOOLEAN});
}

static em_status op_true(machine *m)
{
    return push(m, (value){.tag = BOOLEAN, .a = 1});
}

static em_status push_int(machine *m, size_t n)
{
    uint64_t v = 0;
    em_status st = take_number(m, &v, n);
    if (st) return st;
    int64_t a = n == 4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v; /* BININT alone has a sign */
    return push(m, (value){.tag = INTEGER, .a = a});
}

static em_status op_binint(machine *m)
{
    return push_int(m, 4);
}

static em_status op_binint1(machine *m)
{
    return push_int(m, 1);
}

static em_status op_binint2(machine *m)
{
    return push_int(m, 2);
}

/* A two's complement of as many bytes as it says. What 64 bits cannot hold is a number of no
 * use. */
static em_status op_long1(machine *m)
{
    const unsigned char *p = NULL;
    uint64_t n = 0;
    em_status st = take_number(m, &n, 1);
    if (!st) st = take(m, &p, n);
    if (st) return st;
    assert(p);
    if (n > EM_PICKLE_INT_BYTES)
        return refuse(m, "an integer of %u bytes, at most %d are read", (unsigned)n,
                      EM_PICKLE_INT_BYTES);
    unsigned char sign = n && p[n - 1] & 0x80 ? 0xff : 0;
    uint64_t v = 0;
    bool fits = true;
    for (size_t i = 0; i < 8; i++) v |= (uint64_t)(i < n ? p[i] : sign) << 8 * i;
    for (size_t i = 8; i < n; i++) fits = fits && p[i] == sign;
    if (v >> 63 != (sign & 1)) fits = false;
    return push(m, (value){.tag = fits ? INTEGER : OPAQUE, .a = (int64_t)v});
}

static em_status op_binfloat(machine *m)
{
    const unsigned char *p = NULL;
    em_status st = take(m, &p, 8);
    return st ? st : push(m, (value){.tag = OPAQUE});
}

static em_status push_text(machine *m, size_t length_bytes)
{
    const unsigned char *p = NULL;
    uint64_t n = 0;
    em_status st = take_number(m, &n, length_bytes);
    if (!st) st = take(m, &p, n);
    if (st) return st;
    if (!em_utf8_valid((const char *)p, n)) return refuse(m, "a string is not UTF-8");
    return push(m, (value){.tag = TEXT, .a = p - m->p, .n = (uint32_t)n});
}

static em_status op_binunicode(machine *m)
{
    return push_text(m, 4);
}

static em_status op_short_binstring(machine *m)
{
    return push_text(m, 1);
}

/* ---- containers ------------------------------------------------------------------------------ */

static em_status op_mark(machine *m)
{
    if (m->marks == EM_PICKLE_DEPTH)
        return refuse(m, "containers inside containers, more than %d deep", EM_PICKLE_DEPTH);
    m->mark[m->marks++] = m->depth;
    return EM_OK;
}

/* The n uppermost values become one tuple. */
static em_status make_tuple(machine *m, size_t n)
{
    const value v = {.tag = TUPLE, .a = (int64_t)m->parts, .n = (uint32_t)n};
    for (size_t i = 0; i < n; i++)
        if (!EM_PUSH(m->part, m->parts, m->part_cap, m->stack[m->depth - n + i])) return nomem(m);
    m->depth -= n;
    return push(m, v);
}

static em_status op_tuple(machine *m)
{
    size_t first = 0;
    em_status st = pop_mark(m, &first);
    return st ? st : make_tuple(m, m->depth - first);
}

static em_status tuple_of(machine *m, size_t n)
{
    em_status st = need(m, n);
    return st ? st : make_tuple(m, n);
}

static em_status op_tuple0(machine *m)
{
    return tuple_of(m, 0);
}

static em_status op_tuple1(machine *m)
{
    return tuple_of(m, 1);
}

static em_status op_tuple2(machine *m)
{
    return tuple_of(m, 2);
}

static em_status op_tuple3(machine *m)
{
    return tuple_of(m, 3);
}

static em_status op_empty_list(machine *m)
{
    return push(m, (value){.tag = LIST});
}

static em_status make_dict(machine *m, value *out, bool ordered)
{
    *out = (value){.tag = DICT, .a = (int64_t)m->dicts, .b = ordered};
    return EM_PUSH(m->dict, m->dicts, m->dict_cap, ((dict){0})) ? EM_OK : nomem(m);
}

static em_status op_empty_dict(machine *m)
{
    value v;
    em_status st = make_dict(m, &v, false);
    return st ? st : push(m, v);
}

/* That the value under the n uppermost ones is a container of that kind; they go. */
static em_status close_items(machine *m, size_t n, tag kind)
{
    m->depth -= n;
    em_status st = need(m, 1);
    if (st) return st;
    if (top(m)->tag != kind)
        return refuse(m, "items are put into %s, %s was due", tag_text(*top(m)),
                      tag_text((value){.tag = (unsigned char)kind}));
    return EM_OK;
}

static em_status op_append(machine *m)
{
    em_status st = need(m, 2);
    return st ? st : close_items(m, 1, LIST);
}

static em_status op_appends(machine *m)
{
    size_t first = 0;
    em_status st = pop_mark(m, &first);
    return st ? st : close_items(m, m->depth - first, LIST);
}

/* The n uppermost values, key and value by turns, go into the dictionary under them. */
static em_status set_items(machine *m, size_t n)
{
    const size_t first = m->depth - n;
    if (n % 2) return refuse(m, "a key without a value");
    em_status st = close_items(m, n, DICT);
    if (st) return st;
    dict *d = &m->dict[top(m)->a];
    for (size_t i = first; i < first + n; i += 2) {
        const pair p = {.key = m->stack[i], .val = m->stack[i + 1]};
        d->used = true;
        if (p.key.tag == INTEGER) continue;
        if (p.key.tag != TEXT)
            return refuse(m, "a dictionary's key is %s, a string was due", tag_text(p.key));
        if (!EM_PUSH(d->pair, d->count, d->cap, p)) return nomem(m);
    }
    return EM_OK;
}

static em_status op_setitem(machine *m)
{
    em_status st = need(m, 3);
    return st ? st : set_items(m, 2);
}

static em_status op_setitems(machine *m)
{
    size_t first = 0;
    em_status st = pop_mark(m, &first);
    return st ? st : set_items(m, m->depth - first);
}

/* ---- names ----------------------------------------------------------------------------------- */

static const struct {
    const char *module, *name;
    callee callee;
    em_dtype dtype;
} known[] = {
    {"collections", "OrderedDict", ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0},
    {"torch", "FloatStorage", STORAGE_CLASS, EM_F32},
    {"torch", "HalfStorage", STORAGE_CLASS, EM_F16},
    {"torch", "BFloat16Storage", STORAGE_CLASS, EM_BF16},
    {"torch", "DoubleStorage", STORAGE_CLASS, EM_F64},
    {"torch", "LongStorage", STORAGE_CLASS, EM_I64},
    {"torch", "IntStorage", STORAGE_CLASS, EM_I32},
    {"torch", "ShortStorage", STORAGE_CLASS, EM_I16},
    {"torch", "CharStorage", STORAGE_CLASS, EM_I8},
    {"torch", "ByteStorage", STORAGE_CLASS, EM_U8},
    {"torch", "BoolStorage", STORAGE_CLASS, EM_BOOL},
    {"torch.storage", "UntypedStorage", UNTYPED_STORAGE, 0},
    {"torch._utils", "_rebuild_tensor_v3", REBUILD_OTHER, 0},
    {"torch", "float8_e4m3fn", OTHER_DTYPE, 0},
    {"torch", "float8_e4m3fnuz", OTHER_DTYPE, 0},
    {"torch", "float8_e5m2", OTHER_DTYPE, 0},
    {"torch", "float8_e5m2fnuz", OTHER_DTYPE, 0},
    {"torch", "float8_e8m0fnu", OTHER_DTYPE, 0},
    {"torch", "float4_e2m1fn_x2", OTHER_DTYPE, 0},
    {"torch", "uint16", OTHER_DTYPE, 0},
    {"torch", "uint32", OTHER_DTYPE, 0},
    {"torch", "uint64", OTHER_DTYPE, 0},
    {"torch", "ComplexFloatStorage", OTHER_STORAGE, 0},
    {"torch", "ComplexDoubleStorage", OTHER_STORAGE, 0},
    {"torch", "QInt8Storage", OTHER_STORAGE, 0},
    {"torch", "QUInt8Storage", OTHER_STORAGE, 0},
    {"torch", "QInt32Storage", OTHER_STORAGE, 0},
    {"torch", "QUInt4x2Storage", OTHER_STORAGE, 0},
    {"torch", "QUInt2x4Storage", OTHER_STORAGE, 0},
};

/* A line of the program, without its end. */
static em_status take_line(machine *m, value *out)
{
    const unsigned char *p = m->p + m->at, *end = memchr(p, '\n', m->size - m->at);
    if (!end) return refuse(m, "the program ends inside an instruction");
    *out = (value){.tag = TEXT, .a = (int64_t)m->at, .n = (uint32_t)(end - p)};
    m->at += (size_t)(end - p) + 1;
    return EM_OK;
}

/* For a sentence: nothing that a terminal obeys. */
static bool printable(const machine *m, value text)
{
    const char *p = text_of(m, text);
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f) return false;
    return em_utf8_valid(p, text.n);
}

static em_status op_global(machine *m)
{
    value module = {0}, name = {0};
    em_status st = take_line(m, &module);
    if (!st) st = take_line(m, &name);
    if (st) return st;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (text_is(m, module, known[i].module) && text_is(m, name, known[i].name))
            return push(m, (value){.tag = GLOBAL,
                                   .callee = (unsigned char)known[i].callee,
                                   .b = (unsigned char)known[i].dtype,
                                   .a = name.a,
                                   .n = name.n});
    if (!printable(m, module) || !printable(m, name))
        return refuse(m, "it asks for a Python object whose name is not text");
    return refuse(
        m,
        "it asks for the Python object '%.*s.%.*s', which no dictionary of tensors needs: "
        "nothing was run. Only a state_dict is read, not a whole module",
        shown(m, module), text_of(m, module), shown(m, name), text_of(m, name));
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* Names end up in messages and in tables of C strings. */
static em_status check_name(const machine *m, value text, const char *what)
{
    if (text.n > EM_TENSOR_NAME_BYTES)
        return refuse(m, "%s '%.*s…' has %u bytes, at most %d are read", what, shown(m, text),
                      text_of(m, text), text.n, EM_TENSOR_NAME_BYTES);
    if (!printable(m, text)) return refuse(m, "%s has a control character", what);
    return EM_OK;
}

/* ('storage', class, key, location, items) -> storage */
static em_status op_binpersid(machine *m)
{
    em_status st = need(m, 1);
    if (st) return st;
    value id = *top(m);
    const value *v = id.tag == TUPLE ? m->part + id.a : NULL;
    if (!v || id.n != 5 || !text_is(m, v[0], "storage"))
        return refuse(m, "a persistent object that is not ('storage', class, key, place, items)");
    if (v[1].tag == GLOBAL && v[1].callee == OTHER_STORAGE)
        return refuse(m, "a tensor of '%.*s': this dtype is not supported", shown(m, v[1]),
                      text_of(m, v[1]));
    if (v[1].tag == GLOBAL && v[1].callee == UNTYPED_STORAGE) {
        m->untyped = true;
        *top(m) = (value){.tag = OPAQUE};
        return EM_OK;
    }
    if (v[1].tag != GLOBAL || v[1].callee != STORAGE_CLASS || v[2].tag != TEXT ||
        v[3].tag != TEXT || v[4].tag != INTEGER)
        return refuse(m, "a storage's class, key, place and items are %s, %s, %s and %s",
                      tag_text(v[1]), tag_text(v[2]), tag_text(v[3]), tag_text(v[4]));
    st = check_name(m, v[2], "a storage's key");
    if (st) return st;
    if (v[4].a < 0) return refuse(m, "a storage of %lld items", (long long)v[4].a);
    const em_pickle_storage s = {.dtype = (em_dtype)v[1].b,
                                 .key = text_of(m, v[2]),
                                 .key_bytes = v[2].n,
                                 .items = (uint64_t)v[4].a,
                                 .at_bytes = m->op_at};
    *top(m) = (value){.tag = STORAGE, .a = (int64_t)m->out.storages};
    return EM_PUSH(m->out.storage, m->out.storages, m->storage_cap, s) ? EM_OK : nomem(m);
}

/* A tuple of numbers, none negative. */
static em_status read_numbers(const machine *m, int64_t out[EM_TENSOR_DIMS], value v,
                              const char *what)
{
    if (v.n > EM_TENSOR_DIMS)
        return refuse(m, "a tensor of %u dimensions, at most %d are supported", v.n,
                      EM_TENSOR_DIMS);
    for (size_t i = 0; i < v.n; i++) {
        value d = m->part[(size_t)v.a + i];
        if (d.tag != INTEGER || d.a < 0)
            return refuse(m, "a tensor's %s [%zu] is %s", what, i,
                          d.tag == INTEGER ? "negative" : tag_text(d));
        out[i] = d.a;
    }
    return EM_OK;
}

/* backward_hooks: always an OrderedDict without content. */
static bool is_no_hooks(const machine *m, value v)
{
    return v.tag == DICT && v.b && !m->dict[v.a].used;
}

/* Only numbers with a fraction have gradients. */
static bool may_require_grad(const machine *m, value tensor, value flag)
{
    em_dtype t = m->out.storage[m->out.tensor[tensor.a].storage].dtype;
    return flag.tag == BOOLEAN && (!flag.a || em_dtype_is_float(t) || t == EM_F64);
}

/* (storage, offset, size, stride, requires_grad, backward_hooks) -> tensor */
static em_status rebuild_tensor(machine *m, value args)
{
    const value *v = m->part + args.a;
    if (args.n != 6 || v[0].tag != STORAGE || v[1].tag != INTEGER || v[2].tag != TUPLE ||
        v[3].tag != TUPLE || !is_no_hooks(m, v[5]))
        return refuse(m, "a tensor is made of something else than (storage, offset, size, stride, "
                         "requires_grad, no hooks)");
    if (v[1].a < 0) return refuse(m, "a tensor's offset is negative");
    if (v[2].n != v[3].n)
        return refuse(m, "a tensor has %u dimensions, but %u strides", v[2].n, v[3].n);
    em_pickle_tensor t = {.storage = (size_t)v[0].a,
                          .ndim = (int)v[2].n,
                          .offset = v[1].a,
                          .at_bytes = m->op_at};
    em_status st = read_numbers(m, t.dim, v[2], "size");
    if (!st) st = read_numbers(m, t.stride, v[3], "stride");
    if (st) return st;
    value made = {.tag = TENSOR, .a = (int64_t)m->out.tensors};
    value flag = v[4];
    if (!EM_PUSH(m->out.tensor, m->out.tensors, m->tensor_cap, t)) return nomem(m);
    if (!may_require_grad(m, made, flag))
        return refuse(m, "a tensor's requires_grad is %s", tag_text(flag));
    *top(m) = made;
    return EM_OK;
}

/* (tensor, requires_grad, backward_hooks) -> the same tensor */
static em_status rebuild_parameter(machine *m, value args)
{
    const value *v = m->part + args.a;
    if (args.n != 3 || v[0].tag != TENSOR || !may_require_grad(m, v[0], v[1]) ||
        !is_no_hooks(m, v[2]))
        return refuse(m, "a parameter is made of something else than (tensor, requires_grad, no "
                         "hooks)");
    *top(m) = v[0];
    return EM_OK;
}

/* The dtype of a tensor that torch stores as bytes, for the refusal. */
static em_status refuse_rebuild(const machine *m, value args)
{
    for (size_t i = 0; i < args.n; i++) {
        value v = m->part[(size_t)args.a + i];
        if (v.tag == GLOBAL && v.callee == OTHER_DTYPE)
            return refuse(m, "a tensor of dtype torch.%.*s: it is not supported", shown(m, v),
                          text_of(m, v));
    }
    return refuse(m, "a tensor that torch rebuilds by '_rebuild_tensor_v3': not supported");
}

static em_status op_reduce(machine *m)
{
    em_status st = need(m, 2);
    if (st) return st;
    value args = *top(m);
    m->depth--;
    value f = *top(m);
    if (f.tag != GLOBAL || args.tag != TUPLE)
        return refuse(m, "%s is called with %s", tag_text(f), tag_text(args));
    switch ((callee)f.callee) {
    case ORDERED_DICT:
        if (args.n) return refuse(m, "an OrderedDict that is made with content");
        return make_dict(m, top(m), true);
    case REBUILD_TENSOR: return rebuild_tensor(m, args);
    case REBUILD_PARAMETER: return rebuild_parameter(m, args);
    case REBUILD_OTHER: return refuse_rebuild(m, args);
    case STORAGE_CLASS:
    case OTHER_STORAGE:
    case UNTYPED_STORAGE:
    case OTHER_DTYPE:
    default: return refuse(m, "'%.*s' is called, which is no function", shown(m, f), text_of(m, f));
    }
}

/* A state_dict's versions ("_metadata"): nothing to a tensor. */
static em_status op_build(machine *m)
{
    em_status st = need(m, 2);
    if (st) return st;
    value state = *top(m);
    m->depth--;
    if (top(m)->tag != DICT || !top(m)->b || state.tag != DICT)
        return refuse(m, "%s is given %s as its state", tag_text(*top(m)), tag_text(state));
    return EM_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Numbers are given in order, as picklers do: the memo is as long as the program needs it. */
static em_status put(machine *m, size_t n)
{
    uint64_t i = 0;
    em_status st = take_number(m, &i, n);
    if (!st) st = need(m, 1);
    if (st) return st;
    if (i != m->memos)
        return refuse(m, "value %llu is remembered, %zu was due", (unsigned long long)i, m->memos);
    return EM_PUSH(m->memo, m->memos, m->memo_cap, *top(m)) ? EM_OK : nomem(m);
}

static em_status get(machine *m, size_t n)
{
    uint64_t i = 0;
    em_status st = take_number(m, &i, n);
    if (st) return st;
    if (i >= m->memos)
        return refuse(m, "value %llu is recalled, %zu are remembered", (unsigned long long)i,
                      m->memos);
    return push(m, m->memo[i]);
}

static em_status op_binput(machine *m)
{
    return put(m, 1);
}

static em_status op_long_binput(machine *m)
{
    return put(m, 4);
}

static em_status op_binget(machine *m)
{
    return get(m, 1);
}

static em_status op_long_binget(machine *m)
{
    return get(m, 4);
}

static em_status op_stop(machine *m)
{
    if (m->marks || m->depth != 1)
        return refuse(m, "the program stops with %zu values and %zu open marks, one value was due",
                      m->depth, m->marks);
    if (m->untyped) return refuse(m, "a storage without a dtype ('UntypedStorage') is not read");
    if (m->at != m->size)
        return refuse(m, "%zu bytes follow the end of the program", m->size - m->at);
    m->stopped = true;
    return EM_OK;
}

/* ---- the machine ----------------------------------------------------------------------------- */

/* Without a function: known by name, for the refusal. */
typedef struct instruction {
    em_status (*run)(machine *m);
    const char *name;
} instruction;

static const instruction instructions[256] = {
    [0x80] = {op_proto, "PROTO"},
    ['.'] = {op_stop, "STOP"},
    ['('] = {op_mark, "MARK"},
    ['c'] = {op_global, "GLOBAL"},
    ['R'] = {op_reduce, "REDUCE"},
    ['b'] = {op_build, "BUILD"},
    ['Q'] = {op_binpersid, "BINPERSID"},
    ['t'] = {op_tuple, "TUPLE"},
    [')'] = {op_tuple0, "EMPTY_TUPLE"},
    [0x85] = {op_tuple1, "TUPLE1"},
    [0x86] = {op_tuple2, "TUPLE2"},
    [0x87] = {op_tuple3, "TUPLE3"},
    [']'] = {op_empty_list, "EMPTY_LIST"},
    ['}'] = {op_empty_dict, "EMPTY_DICT"},
    ['a'] = {op_append, "APPEND"},
    ['e'] = {op_appends, "APPENDS"},
    ['s'] = {op_setitem, "SETITEM"},
    ['u'] = {op_setitems, "SETITEMS"},
    ['N'] = {op_none, "NONE"},
    [0x88] = {op_true, "NEWTRUE"},
    [0x89] = {op_false, "NEWFALSE"},
    ['J'] = {op_binint, "BININT"},
    ['K'] = {op_binint1, "BININT1"},
    ['M'] = {op_binint2, "BININT2"},
    [0x8a] = {op_long1, "LONG1"},
    ['G'] = {op_binfloat, "BINFLOAT"},
    ['X'] = {op_binunicode, "BINUNICODE"},
    ['U'] = {op_short_binstring, "SHORT_BINSTRING"},
    ['q'] = {op_binput, "BINPUT"},
    ['r'] = {op_long_binput, "LONG_BINPUT"},
    ['h'] = {op_binget, "BINGET"},
    ['j'] = {op_long_binget, "LONG_BINGET"},
    /* what makes or calls objects, or belongs to other protocols */
    [0x81] = {NULL, "NEWOBJ"},
    [0x92] = {NULL, "NEWOBJ_EX"},
    [0x93] = {NULL, "STACK_GLOBAL"},
    [0x8f] = {NULL, "EMPTY_SET"},
    [0x95] = {NULL, "FRAME"},
    [0x94] = {NULL, "MEMOIZE"},
    [0x8c] = {NULL, "SHORT_BINUNICODE"},
    [0x82] = {NULL, "EXT1"},
    [0x83] = {NULL, "EXT2"},
    [0x84] = {NULL, "EXT4"},
    ['i'] = {NULL, "INST"},
    ['o'] = {NULL, "OBJ"},
    ['P'] = {NULL, "PERSID"},
    ['0'] = {NULL, "POP"},
    ['1'] = {NULL, "POP_MARK"},
    ['2'] = {NULL, "DUP"},
};

static em_status run(machine *m)
{
    em_status st = EM_OK;
    for (size_t ops = 0; !st && !m->stopped; ops++) {
        m->op_at = m->at;
        if (m->at == m->size) return refuse(m, "the program ends without a STOP");
        if (ops == EM_PICKLE_OPS) return refuse(m, "more than %d instructions", EM_PICKLE_OPS);
        unsigned char op = m->p[m->at++];
        const instruction *in = &instructions[op];
        if (ops == 0 && in->run != op_proto)
            return refuse(m, "a program begins with its protocol, this one with 0x%02x", op);
        if (!in->run)
            return refuse(m,
                          "instruction %s (0x%02x) is not allowed in a checkpoint: nothing was "
                          "run",
                          in->name ? in->name : "unknown", op);
        st = in->run(m);
    }
    return st;
}

/* ---- the dictionary of tensors --------------------------------------------------------------- */

/* The one value under a key; NULL if there is none. */
static em_status find_key(const machine *m, const value **out, const dict *d, const char *key)
{
    *out = NULL;
    for (size_t i = 0; i < d->count; i++) {
        if (!text_is(m, d->pair[i].key, key)) continue;
        if (*out) return refuse(m, "the key '%s' is there twice", key);
        *out = &d->pair[i].val;
    }
    return EM_OK;
}

/* Trainers put the dictionary of tensors into another, beside the step or the optimizer. */
static em_status unwrap(const machine *m, const dict **out, value v)
{
    static const char *const wrapping[] = {"state_dict", "module", "model"};
    enum { KEYS = sizeof wrapping / sizeof *wrapping, MOST = 8 };
    for (int level = 0; level < MOST; level++) {
        const dict *d = &m->dict[v.a];
        const value *inner = NULL;
        for (int i = 0; i < KEYS; i++) {
            const value *found = NULL;
            em_status st = find_key(m, &found, d, wrapping[i]);
            if (st) return st;
            if (!inner && found && found->tag == DICT) inner = found;
        }
        if (!inner) {
            *out = d;
            return EM_OK;
        }
        v = *inner;
    }
    return refuse(m, "dictionaries are wrapped into one another more than %d times", (int)MOST);
}

static int by_name(const void *a, const void *b)
{
    const em_pickle_item *x = a, *y = b;
    size_t n = x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes;
    int order = n ? memcmp(x->name, y->name, n) : 0;
    return order ? order : (x->name_bytes > y->name_bytes) - (x->name_bytes < y->name_bytes);
}

/* A dictionary without tensors is probably the wrong one: its first keys tell which it is. */
static em_status refuse_tensorless(const machine *m, const dict *d)
{
    const size_t n = d->count < 3 ? d->count : 3;
    char keys[300] = "";
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        value k = d->pair[i].key;
        if (!printable(m, k)) continue;
        int wrote = snprintf(keys + len, sizeof keys - len, "%s'%.*s'", len ? ", " : ": ",
                             shown(m, k), text_of(m, k));
        if (wrote > 0) len += (size_t)wrote;
    }
    return refuse(m, "it ends with a dictionary of %zu keys, none of which holds a tensor%s",
                  d->count, keys);
}

static em_status list_items(machine *m)
{
    const dict *d = NULL;
    if (top(m)->tag != DICT)
        return refuse(m, "it ends with %s, a dictionary of tensors was due", tag_text(*top(m)));
    em_status st = unwrap(m, &d, *top(m));
    for (size_t i = 0; !st && i < d->count; i++) {
        value k = d->pair[i].key, v = d->pair[i].val;
        const em_pickle_item item = {.name = text_of(m, k),
                                     .name_bytes = k.n,
                                     .tensor = (size_t)v.a};
        if (v.tag != TENSOR) continue;
        st = check_name(m, k, "a tensor's name");
        if (!st && !EM_PUSH(m->out.item, m->out.items, m->item_cap, item)) st = nomem(m);
    }
    if (st) return st;
    if (!m->out.items) return refuse_tensorless(m, d);
    qsort(m->out.item, m->out.items, sizeof *m->out.item, by_name);
    for (size_t i = 1; i < m->out.items; i++) {
        const em_pickle_item *it = &m->out.item[i];
        const value name = {.a = it->name - (const char *)m->p, .n = (uint32_t)it->name_bytes};
        if (by_name(it - 1, it) == 0)
            return refuse(m, "tensor '%.*s' is there twice", shown(m, name), it->name);
    }
    return EM_OK;
}

static void close_machine(machine *m)
{
    for (size_t i = 0; i < m->dicts; i++) em_free(m->dict[i].pair);
    em_free(m->dict);
    em_free(m->stack);
    em_free(m->memo);
    em_free(m->part);
    em_pickle_close(&m->out);
}

em_status em_pickle_parse(em_pickle *out, const void *data, size_t size_bytes, const char *path,
                          em_err *err)
{
    machine m = {.p = data, .size = size_bytes, .path = path, .err = err};
    em_status st = EM_OK;
    if (size_bytes > EM_PICKLE_BYTES)
        st = refuse(&m, "a program of %zu bytes, at most %u are read", size_bytes, EM_PICKLE_BYTES);
    if (!st) st = run(&m);
    if (!st) st = list_items(&m);
    if (!st) {
        *out = m.out;
        m.out = (em_pickle){0};
    }
    close_machine(&m);
    return st;
}

void em_pickle_close(em_pickle *p)
{
    em_free(p->storage);
    em_free(p->tensor);
    em_free(p->item);
    *p = (em_pickle){0};
}
