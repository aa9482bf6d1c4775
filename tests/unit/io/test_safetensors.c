#include "io/safetensors.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../test.h"
#include "../tmpdir.h"

#include <pthread.h>

static em_err err;

/* Length, header, then `zeros` bytes: the file, *size_bytes long; free. Over-reads are for ASan to
 * see. */
static char *build(const char *header, size_t zeros, size_t *size_bytes)
{
    size_t n = strlen(header);
    char *file = calloc(1, 8 + n + zeros);
    for (int i = 0; i < 8; i++) file[i] = (char)((uint64_t)n >> 8 * i);
    memcpy(file + 8, header, n);
    *size_bytes = 8 + n + zeros;
    return file;
}

static em_status parse(const char *header, size_t zeros)
{
    size_t n;
    em_safetensors *f = NULL;
    char *file = build(header, zeros, &n);
    err = (em_err){0};
    em_status st = em_safetensors_parse(&f, file, n, "hostile.safetensors", 0, &err);
    if (st) assert_null(f);
    em_safetensors_close(&f);
    free(file);
    return st;
}

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin        \
    "," #end "]}"

typedef struct row {
    const char *header;
    size_t zeros;
    const char *expect; /* in the sentence; NULL: the file is good */
} row;

static const row rows[] = {
    /* what the format allows */
    {"{}", 0, NULL},
    {"{" T("a", "F32", "2,3", 0, 24) "}", 24, NULL},
    {"  {" T("a", "F32", "2,3", 0, 24) "}  \n", 24, NULL},
    {"{" T("s", "BF16", "", 0, 2) "}", 2, NULL},
    {"{" T("z", "F32", "0,7", 0, 0) "," T("a", "I8", "3", 0, 3) "," T("y", "F32", "0", 3, 3) "}", 3,
     NULL},
    {"{" T("b", "U8", "1", 3, 4) "," T("a", "I8", "3", 0, 3) "}", 4, NULL},
    {"{\"__metadata__\":{\"format\":\"pt\"}," T("a", "BOOL", "1", 0, 1) "}", 1, NULL},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"extra\":[{}]}}", 1, NULL},
    {"{" T("a", "U8", "1,1,1,1,1,1,1,1", 0, 1) "}", 1, NULL},
    {"{" T("\xc3\xa9", "U8", "1", 0, 1) "}", 1, NULL},
    /* the header is not what it must be */
    {"", 0, "not valid JSON"},
    {"{", 0, "not valid JSON"},
    {"{} x", 0, "not valid JSON"},
    {"{\"\xff\":1}", 0, "not valid JSON"},
    {"{\"a\\u0000b\":1}", 0, "not valid JSON"},
    {"[]", 0, "must be a JSON object"},
    {"{" T("a", "U8", "1", 0, 1) "," T("a", "U8", "1", 1, 2) "}", 2, "duplicate"},
    {"{\"__metadata__\":{}, \"__metadata__\":{}}", 0, "duplicate"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ must be an object"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "'k' must be a string"},
    /* an entry is not what it must be */
    {"{\"a\":1}", 0, "tensor 'a': its entry must be an object"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "'dtype' must be a string, it is nothing"},
    {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'dtype' must be a string"},
    {"{" T("a", "F31", "1", 0, 4) "}", 4, "dtype 'F31' is not supported"},
    {"{" T("a", "f32", "1", 0, 4) "}", 4, "dtype 'f32' is not supported"},
    {"{" T("a", "F8_E4M3", "1", 0, 1) "}", 1, "dtype 'F8_E4M3' is not supported"},
    {"{" T("a", "F4", "3", 0, 2) "}", 2, "dtype 'F4' is not supported"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1,
     "'shape' must be an array, it is nothing"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1,
     "'shape' must be an array"},
    {"{" T("a", "U8", "-1", 0, 1) "}", 1, "[0] is negative"},
    {"{" T("a", "U8", "1.0", 0, 1) "}", 1, "[0] is a number with a fraction"},
    {"{" T("a", "U8", "\"1\"", 0, 1) "}", 1, "[0] is a string"},
    {"{" T("a", "U8", "18446744073709551617", 0, 1) "}", 1, "too big integer"},
    {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, "9 dimensions, at most 8"},
    {"{" T("a", "U8", "4294967296,4294967297", 0, 1) "}", 1, "product is too large"},
    {"{" T("a", "F32", "4611686018427387905", 0, 4) "}", 4, "size in bytes is too large"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "'data_offsets' must be an array of two"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "an array of two"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, "an array of two"},
    {"{" T("a", "U8", "1", -1, 0) "}", 1, "[0] is negative"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1e0]}}", 1,
     "[1] is a number with"},
    {"{" T("a", "U8", "1", 1, 0) "}", 1, "end before they begin"},
    {"{" T("a", "F32", "2", 0, 4) "}", 4, "span 4 bytes, shape and dtype need 8"},
    {"{" T("a", "F32", "1", 0, 8) "}", 8, "span 8 bytes, shape and dtype need 4"},
    {"{" T("a\\u001b[2J", "U8", "1", 0, 1) "}", 1, "control character"},
    /* the entries do not cover the file */
    {"{" T("a", "U8", "4", 0, 4) "}", 3, "the file is cut short"},
    {"{" T("a", "U8", "1", 9223372036854775806, 9223372036854775807) "}", 1,
     "the file is cut short"},
    {"{" T("a", "U8", "4", 0, 4) "}", 5, "1 bytes follow the last tensor"},
    {"{}", 1, "1 bytes follow the last tensor"},
    {"{" T("a", "U8", "2", 1, 3) "}", 3, "tensor 'a': its bytes begin at 1, after a hole"},
    {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "1", 3, 4) "}", 4,
     "tensor 'b': its bytes begin at 3, after"},
    {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "2", 1, 3) "}", 3,
     "tensor 'b': its bytes begin at 1, inside"},
    {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "2", 0, 2) "}", 2, "inside another"},
    {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "0", 1, 1) "}", 2, "inside another"},
};

static void every_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        em_status st = parse(r->header, r->zeros);
        if (!r->expect) {
            if (st) fail_msg("%s: refused: %s", r->header, err.msg);
            continue;
        }
        if (st != EM_FORMAT || !strstr(err.msg, r->expect) ||
            !strstr(err.msg, "'hostile.safetensors'")) {
            fail_msg("%s: expected '%s', got %s: %s", r->header, r->expect, em_status_text(st),
                     err.msg);
        }
    }
}

/* Every file that is good turns bad when its end is missing, wherever that is. */
static void every_cut(void **state)
{
    (void)state;
    size_t n;
    char *file = build("{" T("a", "F32", "2,3", 0, 24) "}", 24, &n);
    for (size_t cut = 0; cut < n; cut++) {
        em_safetensors *f = NULL;
        char *exact = malloc(cut ? cut : 1);
        memcpy(exact, file, cut);
        assert_int_equal(em_safetensors_parse(&f, exact, cut, "x", 0, &err), EM_FORMAT);
        free(exact);
    }
    free(file);
}

static em_status parse_length(uint64_t length, size_t cap_bytes)
{
    char file[16] = {0};
    em_safetensors *f = NULL;
    for (int i = 0; i < 8; i++) file[i] = (char)(length >> 8 * i);
    em_status st = em_safetensors_parse(&f, file, sizeof file, "x", cap_bytes, &err);
    assert_null(f);
    return st;
}

static void header_lengths(void **state)
{
    (void)state;
    assert_int_equal(parse_length(9, 0), EM_FORMAT);
    assert_non_null(strstr(err.msg, "should have 9 bytes, 8 are there"));
    assert_int_equal(parse_length(EM_SAFETENSORS_HEADER_BYTES + 1, 0), EM_FORMAT);
    assert_non_null(strstr(err.msg, "above the limit of 16777216"));
    assert_int_equal(parse_length(EM_SAFETENSORS_HEADER_BYTES + 1, 50000000), EM_FORMAT);
    assert_non_null(strstr(err.msg, "8 are there"));
    assert_int_equal(parse_length(100000001, SIZE_MAX), EM_FORMAT);
    assert_non_null(strstr(err.msg, "above the limit of 100000000"));
    assert_int_equal(parse_length(UINT64_MAX, SIZE_MAX), EM_FORMAT);
    assert_non_null(strstr(err.msg, "above the limit"));
    assert_int_equal(parse_length(UINT64_MAX - 7, 0), EM_FORMAT);
}

static void long_names(void **state)
{
    (void)state;
    char name[EM_TENSOR_NAME_BYTES + 2], header[1024];
    for (int n = EM_TENSOR_NAME_BYTES; n <= EM_TENSOR_NAME_BYTES + 1; n++) {
        memset(name, 'n', (size_t)n);
        name[n] = 0;
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", name);
        assert_int_equal(parse(header, 1), n > EM_TENSOR_NAME_BYTES ? EM_FORMAT : EM_OK);
    }
    assert_non_null(strstr(err.msg, "a name of 513 bytes, at most 512"));
}

/* The shortest header that names too many; the count is refused before any entry is looked at. */
static void too_many_tensors(void **state)
{
    (void)state;
    char *header = malloc(EM_SAFETENSORS_HEADER_BYTES), *p = header;
    *p++ = '{'; /* an entry has at most 10 bytes: "f4240":0, */
    for (int i = 0; i <= EM_SAFETENSORS_TENSORS; i++) p += snprintf(p, 12, "\"%x\":0,", i);
    memcpy(p - 1, "}", 2);
    assert_int_equal(parse(header, 0), EM_FORMAT);
    assert_non_null(strstr(err.msg, "1000001 tensors, at most 1000000"));
    free(header);
}

/* Values arrive as they are, in the order of their bytes. */
static void reads_values(void **state)
{
    size_t n;
    em_safetensors *f = NULL;
    char *file = build("{" T("b", "I16", "2", 4, 8) "," T("a", "F32", "1,1", 0, 4) "}", 8, &n);
    memcpy(file + n - 8, &(float){1.5f}, 4);
    memcpy(file + n - 4, (int16_t[]){-2, 3}, 4);
    const char *path = tmpdir_write(state, "m.safetensors", file, n);
    free(file);
    assert_ok(em_safetensors_open(&f, path, 0, &err), err);
    assert_string_equal(em_safetensors_path(f), path);
    assert_int_equal(em_safetensors_count(f), 2);
    const em_safetensors_entry *a = em_safetensors_at(f, 0), *b = em_safetensors_at(f, 1);
    assert_string_equal(a->name, "a");
    assert_int_equal(a->dtype, EM_F32);
    assert_int_equal(a->ndim, 2);
    assert_int_equal(a->dim[0], 1);
    assert_memory_equal(a->data, &(float){1.5f}, 4);
    assert_string_equal(b->name, "b");
    assert_int_equal(b->dtype, EM_I16);
    assert_int_equal(b->size_bytes, 4);
    assert_memory_equal(b->data, ((int16_t[]){-2, 3}), 4);
    em_safetensors_close(&f);
    assert_null(f);

    assert_int_equal(em_safetensors_open(&f, tmpdir_path(state, "none"), 0, &err), EM_IO);
    assert_int_equal(em_safetensors_open(&f, tmpdir_text(state, "e", ""), 0, &err), EM_FORMAT);
    assert_null(f);
}

/* ---- writing ---- */

static const em_safetensors_spec specs[] = {
    {"z.bytes", EM_U8, 1, {3}},       {"b.half", EM_BF16, 2, {2, 1}}, {"a.half", EM_BF16, 1, {3}},
    {"m.float", EM_F32, 0, {0}},      {"empty", EM_F32, 2, {0, 4}},   {"long", EM_I64, 1, {1}},
    {"q\"\\\xc3\xa9", EM_U8, 1, {1}},
};
enum { SPECS = sizeof specs / sizeof *specs };

static em_safetensors_writer *create(const char *path)
{
    em_safetensors_writer *w = NULL;
    assert_ok(em_safetensors_create(&w, path, specs, SPECS, &err), err);
    return w;
}

static size_t spec_size(size_t i)
{
    size_t n = em_dtype_bytes(specs[i].dtype);
    for (int d = 0; d < specs[i].ndim; d++) n *= (size_t)specs[i].dim[d];
    return n;
}

static unsigned char value_at(size_t tensor, size_t byte)
{
    return (unsigned char)(tensor * 37 + byte * 11 + 1);
}

static void write_tensor(em_safetensors_writer *w, size_t i)
{
    unsigned char bytes[64];
    for (size_t k = 0; k < spec_size(i); k++) bytes[k] = value_at(i, k);
    assert_ok(em_safetensors_write(w, i, 0, bytes, spec_size(i), &err), err);
}

static void round_trip(void **state)
{
    static const char *const order[SPECS] = {"long",   "empty",         "m.float", "a.half",
                                             "b.half", "q\"\\\xc3\xa9", "z.bytes"};
    const char *path = tmpdir_path(state, "m.safetensors");
    em_safetensors_writer *w = create(path);
    for (size_t i = SPECS; i-- > 0;) write_tensor(w, i);
    assert_false(em_path_is_file(path));
    assert_ok(em_safetensors_commit(&w, &err), err);
    assert_null(w);

    em_safetensors *f = NULL;
    assert_ok(em_safetensors_open(&f, path, 0, &err), err);
    assert_int_equal(em_safetensors_count(f), SPECS);
    for (size_t i = 0; i < SPECS; i++) {
        const em_safetensors_entry *e = em_safetensors_at(f, i);
        size_t s = 0;
        assert_string_equal(e->name, order[i]);
        while (strcmp(specs[s].name, e->name) != 0) s++;
        assert_int_equal(e->dtype, specs[s].dtype);
        assert_int_equal(e->ndim, specs[s].ndim);
        assert_int_equal(e->size_bytes, spec_size(s));
        assert_int_equal((uintptr_t)e->data % em_dtype_bytes(e->dtype), 0);
        for (int d = 0; d < e->ndim; d++) assert_int_equal(e->dim[d], specs[s].dim[d]);
        for (size_t k = 0; k < e->size_bytes; k++) {
            assert_int_equal(((const unsigned char *)e->data)[k], value_at(s, k));
        }
    }
    em_safetensors_close(&f);
}

static void writer_refuses(void **state)
{
    const char *path = tmpdir_path(state, "m.safetensors");
    em_safetensors_writer *w = create(path);
    assert_int_equal(em_safetensors_write(w, 0, 2, "xx", 2, &err), EM_INVAL);
    assert_int_equal(em_safetensors_write(w, 0, SIZE_MAX, "xx", 2, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "z.bytes"));
    for (size_t i = 1; i < SPECS; i++) write_tensor(w, i);
    assert_ok(em_safetensors_write(w, 0, 1, "xx", 2, &err), err);
    assert_int_equal(em_safetensors_commit(&w, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "'z.bytes' lacks 1 of its 3 bytes"));
    assert_null(w);
    assert_int_equal(tmpdir_count(state), 0);

    const em_safetensors_spec twice[] = {{"a", EM_U8, 0, {0}}, {"a", EM_F32, 0, {0}}};
    assert_int_equal(em_safetensors_create(&w, path, twice, 2, &err), EM_INVAL);
    assert_non_null(strstr(err.msg, "two tensors are named 'a'"));
    const em_safetensors_spec bad[] = {{"a", EM_F32, 2, {INT64_MAX, 2}},
                                       {"a", EM_F32, 1, {-1}},
                                       {"a", EM_F32, 9, {0}},
                                       {"a\n", EM_F32, 0, {0}},
                                       {"a", EM_U8, 1, {INT64_MAX}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(em_safetensors_create(&w, path, &bad[i], 1, &err), EM_OK);
    }
    const em_safetensors_spec sum[] = {{"a", EM_U8, 1, {INT64_MAX}}, {"b", EM_U8, 1, {INT64_MAX}}};
    assert_int_equal(em_safetensors_create(&w, path, sum, 2, &err), EM_INVAL);
    assert_null(w);
    assert_int_equal(tmpdir_count(state), 0);
}

enum { THREADS = 4, BIG = 100003 };

typedef struct share {
    em_safetensors_writer *w;
    int index;
} share;

/* Each thread writes every fourth stretch of 1000 bytes of both tensors. */
static void *write_share(void *arg)
{
    const share *s = arg;
    unsigned char bytes[1000];
    for (size_t t = 0; t < 2; t++) {
        for (size_t at = (size_t)s->index * 1000; at < BIG; at += THREADS * 1000) {
            size_t n = BIG - at < 1000 ? BIG - at : 1000;
            for (size_t k = 0; k < n; k++) bytes[k] = value_at(t, at + k);
            if (em_safetensors_write(s->w, t, at, bytes, n, NULL)) return arg;
        }
    }
    return NULL;
}

static void writes_from_threads(void **state)
{
    const em_safetensors_spec two[] = {{"a", EM_U8, 1, {BIG}}, {"b", EM_I8, 1, {BIG}}};
    const char *path = tmpdir_path(state, "m.safetensors");
    em_safetensors_writer *w = NULL;
    share shares[THREADS];
    pthread_t thread[THREADS];
    assert_ok(em_safetensors_create(&w, path, two, 2, &err), err);
    for (int i = 0; i < THREADS; i++) {
        shares[i] = (share){w, i};
        assert_int_equal(pthread_create(&thread[i], NULL, write_share, &shares[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_ok(em_safetensors_commit(&w, &err), err);
    em_safetensors *f = NULL;
    assert_ok(em_safetensors_open(&f, path, 0, &err), err);
    for (size_t t = 0; t < 2; t++) {
        const unsigned char *p = em_safetensors_at(f, t)->data;
        for (size_t k = 0; k < BIG; k++) assert_int_equal(p[k], value_at(t, k));
    }
    em_safetensors_close(&f);
}

/* Every allocation of reading and of writing fails once, and once for ever. */
static void every_allocation(void **state)
{
    const char *path = tmpdir_path(state, "m.safetensors"), *other = tmpdir_path(state, "n");
    em_safetensors_writer *w = create(path);
    for (size_t i = 0; i < SPECS; i++) write_tensor(w, i);
    assert_ok(em_safetensors_commit(&w, &err), err);
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_safetensors *f = NULL;
            em_alloc_fail_at(n, sticky);
            st = em_safetensors_open(&f, path, 0, &err);
            em_alloc_fail_at(0, false);
            if (st) assert_null(f);
            if (st && st != EM_NOMEM) fail_msg("read, allocation %d: %s", (int)n, err.msg);
            em_safetensors_close(&f);
        }
        st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_alloc_fail_at(n, sticky);
            st = em_safetensors_create(&w, other, specs, SPECS, &err);
            em_alloc_fail_at(0, false);
            if (st) assert_null(w);
            if (st && st != EM_NOMEM) fail_msg("write, allocation %d: %s", (int)n, err.msg);
            em_safetensors_writer_close(&w);
            assert_int_equal(tmpdir_count(state), 1);
        }
    }
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(long_names),
        cmocka_unit_test(too_many_tensors),
        IN_TMPDIR(reads_values),
        IN_TMPDIR(round_trip),
        IN_TMPDIR(writer_refuses),
        IN_TMPDIR(writes_from_threads),
        IN_TMPDIR(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
