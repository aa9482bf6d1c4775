#include "io/pth.h"

#include "base/alloc.h"
#include "io/file.h"

#include "../test.h"
#include "../tmpdir.h"
#include "../torch_file.h"

static em_err err;

/* ---- good files ------------------------------------------------------------------------------ */

typedef struct part {
    const char *name;
    const void *data;
    size_t size;
} part;
#define PART(name, text) name, text, sizeof(text) - 1

/* An archive of these members, up to one without a name. */
static torch_file build(const part *parts)
{
    torch_file f = {0};
    for (; parts->name; parts++) torch_member(&f, parts->name, parts->data, parts->size);
    torch_finish(&f, false);
    return f;
}

/* *bytes must outlive *out: torch_free. */
static em_status parse(em_pth **out, torch_file *bytes, const part *parts)
{
    *bytes = build(parts);
    err = (em_err){0};
    em_status st = em_pth_parse(out, bytes->data, bytes->size, "hostile.pth", &err);
    if (st) assert_null(*out);
    return st;
}

#define S(n) PK_STORAGE("IntStorage", "0", n)
#define IN(text) PK_BEGIN "}" PK_STR1("\1", "a") text "s."
#define ITEMS "\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5\0\0\0\6\0\0\0" /* int32 1 to 6 */
#define LINE PK_TENSOR(S("K\6"), "K\0", "K\6\x85", "K\1\x85")

/* A file without any of the records that newer writers add. */
static void oldest_form(void **state)
{
    (void)state;
    em_pth *f = NULL;
    torch_file t = {0};
    assert_ok(parse(&f, &t,
                    (const part[]){{PART("archive/data.pkl", IN(LINE))},
                                   {PART("archive/data/0", ITEMS)},
                                   {0}}),
              err);
    assert_int_equal(em_pth_count(f), 1);
    const em_pth_entry *e = em_pth_at(f, 0);
    assert_string_equal(e->name, "a");
    assert_int_equal(e->dtype, EM_I32);
    assert_int_equal(e->ndim, 1);
    assert_int_equal(e->dim[0], 6);
    assert_int_equal(e->size_bytes, 24);
    assert_memory_equal(e->data, ITEMS, 24);
    assert_ptr_equal(e->data, em_zip_find(em_pth_archive(f), "archive/data/0")->data);
    assert_string_equal(em_pth_path(f), "hostile.pth");
    em_pth_close(&f);
    assert_null(f);
    em_pth_close(&f);
    torch_free(&t);
}

typedef struct view {
    const char *program;
    size_t program_bytes;
    int ndim, dim[3];
    int want[12]; /* of ints, as many as the shape says */
    bool in_place;
} view;
#define VIEW(offset, shape, stride) PART_OF(IN(PK_TENSOR(S("K\6"), offset, shape, stride)))
#define PART_OF(text) text, sizeof(text) - 1

static const view views[] = {
    {VIEW("K\0", "K\2K\3\x86", "K\3K\1\x86"), 2, {2, 3}, {1, 2, 3, 4, 5, 6}, true},
    {VIEW("K\3", "K\3\x85", "K\1\x85"), 1, {3}, {4, 5, 6}, true},
    {VIEW("K\5", ")", ")"), 0, {0}, {6}, true},
    {VIEW("K\2", "K\1K\3\x86", "K\x63K\1\x86"), 2, {1, 3}, {3, 4, 5}, true}, /* one row: no step */
    {VIEW("K\0", "K\3K\1K\2\x87", "K\2K\x63K\1\x87"), 3, {3, 1, 2}, {1, 2, 3, 4, 5, 6}, true},
    {VIEW("K\0", "K\3K\2\x86", "K\1K\3\x86"),
     2,
     {3, 2},
     {1, 4, 2, 5, 3, 6},
     false}, /* transposed */
    {VIEW("K\1", "K\3\x85", "K\2\x85"), 1, {3}, {2, 4, 6}, false},
    {VIEW("K\0", "K\2K\4\x86", "K\1K\0\x86"), 2, {2, 4}, {1, 1, 1, 1, 2, 2, 2, 2}, false},
    {VIEW("K\0", "K\2K\3K\1\x87", "K\1K\2K\1\x87"), 3, {2, 3, 1}, {1, 3, 5, 2, 4, 6}, false},
    {VIEW("K\6", "K\0K\3\x86", "K\3K\1\x86"), 2, {0, 3}, {0}, true},
    {VIEW("K\0", "K\3K\0\x86", "K\1K\1\x86"), 2, {3, 0}, {0}, true},
};

static void every_view(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        const view *v = &views[i];
        em_pth *f = NULL;
        torch_file t = {0};
        assert_ok(parse(&f, &t,
                        (const part[]){{"t/data.pkl", v->program, v->program_bytes},
                                       {PART("t/data/0", ITEMS)},
                                       {0}}),
                  err);
        const em_pth_entry *e = em_pth_at(f, 0);
        size_t n = 1;
        assert_int_equal(e->ndim, v->ndim);
        for (int d = 0; d < v->ndim; d++) {
            assert_int_equal(e->dim[d], v->dim[d]);
            n *= (size_t)v->dim[d];
        }
        assert_int_equal(e->size_bytes, n * sizeof(int));
        if (n && memcmp(e->data, v->want, n * sizeof(int)) != 0) fail_msg("view %zu", i);
        const em_zip_member *m = em_zip_find(em_pth_archive(f), "t/data/0");
        const char *p = e->data, *begin = m->data;
        if ((p >= begin && p <= begin + m->size_bytes) != v->in_place)
            fail_msg("view %zu is %s", i, v->in_place ? "a copy" : "in place");
        em_pth_close(&f);
        torch_free(&t);
    }
}

/* ---- hostile files --------------------------------------------------------------------------- */

typedef struct row {
    part parts[6];
    const char *expect;
} row;
#define DATA                                                                                       \
    {                                                                                              \
        PART("t/data/0", ITEMS)                                                                    \
    }
#define PKL(text)                                                                                  \
    {                                                                                              \
        PART("t/data.pkl", text)                                                                   \
    }
#define GOOD PKL(IN(LINE)), DATA
#define TENSOR(offset, shape, stride) PKL(IN(PK_TENSOR(S("K\6"), offset, shape, stride))), DATA
#define HUGE "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f" /* 2^63 - 1 */

static const row rows[] = {
    {{GOOD}, NULL},
    {{GOOD,
      {PART("t/byteorder", "little")},
      {PART("t/version", "3\n")},
      {PART("t/.storage_alignment", "64")}},
     NULL},
    {{GOOD, {PART("t/data/1", "spare")}}, NULL},
    /* the archive */
    {{{PART("data.pkl", IN(LINE))}, {PART("data/0", ITEMS)}},
     "member 'data.pkl' is not in one folder"},
    {{GOOD, {PART("u/version", "3")}}, "member 'u/version' is not in one folder with the others"},
    {{DATA}, "it has no member 't/data.pkl'"},
    {{{PART("t/word/document.xml", "<xml>")}}, "a zip archive, but not of PyTorch"},
    {{{PART("t/sub/data.pkl", IN(LINE))}, DATA}, "it has no member 't/data.pkl'"},
    {{GOOD, {PART("t/byteorder", "big")}}, "member 't/byteorder': written on a big-endian machine"},
    {{GOOD, {PART("t/byteorder", "Little")}}, "neither 'little' nor 'big'"},
    {{GOOD, {PART("t/byteorder", "")}}, "neither 'little' nor 'big'"},
    {{GOOD, {PART("t/version", "11\n")}}, "member 't/version' must hold a number from 1 to 10"},
    {{GOOD, {PART("t/version", "0")}}, "must hold a number from 1 to 10"},
    {{GOOD, {PART("t/version", "three")}}, "must hold a number from 1 to 10"},
    {{GOOD, {PART("t/version", "")}}, "must hold a number from 1 to 10"},
    {{GOOD, {PART("t/version", "4294967299")}}, "must hold a number from 1 to 10"},
    {{GOOD, {PART("t/.data/version", "99")}}, "must hold a number from 1 to 10"},
    {{GOOD, {PART("t/.storage_alignment", "-1")}}, "must hold a number from 1 to 999999"},
    {{GOOD, {PART("t/.data/serialization_id", "\xff")}}, "'t/.data/serialization_id' is not text"},
    {{GOOD, {PART("t/constants.pkl", "x")}}, "member 't/constants.pkl': a TorchScript program"},
    {{{PART("t/data.pkl", "")}, DATA}, "data.pkl at byte 0"},
    /* storages: sizes that do not agree are CVE-2026-24747's other half */
    {{PKL(IN(LINE))}, "names storage '0', but there is no member 't/data/0'"},
    {{PKL(IN(LINE)), {PART("t/DATA/0", ITEMS)}}, "there is no member 't/data/0'"},
    {{PKL(IN(LINE)), {PART("t/data/0", "")}},
     "has 6 items of I32, but member 't/data/0' has 0 bytes"},
    {{PKL(IN(LINE)), {PART("t/data/0", ITEMS "x")}}, "has 25 bytes"},
    {{PKL(IN(PK_TENSOR(S("K\5"), "K\0", "K\5\x85", "K\1\x85"))), DATA}, "has 5 items of I32"},
    {{PKL(IN(PK_TENSOR(S(HUGE), "K\0", "K\1\x85", "K\1\x85"))), DATA},
     "has 9223372036854775807 items of I32"},
    {{PKL(IN(PK_TENSOR(S("\x8a\10\6\0\0\0\0\0\0\x40"), "K\0", "K\1\x85", "K\1\x85"))), DATA},
     "has 4611686018427387910 items of I32"},
    {{PKL(PK_BEGIN "}(" PK_STR1("\1", "a") LINE PK_STR1("\1", "b")
              PK_TENSOR(PK_STORAGE("FloatStorage", "0", "K\6"), "K\0", "K\6\x85", "K\1\x85") "u."),
      DATA},
     "storage '0' is F32 here and I32 before"},
    {{PKL(PK_BEGIN "}" PK_STR1("\1", "a") LINE "s" PK_STR1("\1", "o") "}" PK_STR1("\1", "x")
              PK_TENSOR(PK_STORAGE("IntStorage", "9", "K\6"), "K\0", "K\6\x85", "K\1\x85") "ss."),
      DATA},
     "names storage '9', but there is no member 't/data/9'"}, /* though nothing asks for it */
    /* tensors */
    {{TENSOR("K\1", "K\6\x85", "K\1\x85")}, "reaches to item 7 of storage '0', which has 6"},
    {{TENSOR("K\0", "K\7\x85", "K\1\x85")}, "reaches to item 7"},
    {{TENSOR("K\0", "K\2K\2\x86", "K\5K\1\x86")}, "reaches to item 7"},
    {{TENSOR("K\6", ")", ")")}, "reaches to item 7"},
    {{TENSOR("K\7", "K\0\x85", "K\1\x85")}, "reaches to item 7"},
    {{TENSOR(HUGE, ")", ")")}, "reaches to item 9223372036854775808"},
    {{TENSOR("K\0", HUGE "\x85", "K\1\x85")}, "shape or strides are too large"},
    {{TENSOR("K\0", "K\2\x85", HUGE "\x85")}, "reaches to item 9223372036854775808"},
    {{TENSOR("K\0", "K\3\x85", HUGE "\x85")}, "reaches to item"},
    {{TENSOR("K\0", "K\4\x85", HUGE "\x85")}, "shape or strides are too large"},
    {{TENSOR(HUGE, "K\3\x85", HUGE "\x85")}, "shape or strides are too large"},
    {{TENSOR("K\0", HUGE HUGE "\x86", "K\0K\0\x86")}, "shape or strides are too large"},
    {{TENSOR("K\0", "K\0" HUGE HUGE "\x87", "K\0K\0K\0\x87")}, "shape or strides are too large"},
    {{TENSOR("K\0", HUGE "\x85", "K\0\x85")}, "shape or strides are too large"},
    /* 2^28 copies of one number */
    {{TENSOR("K\0", "J\0\0\0\x10\x85", "K\0\x85")}, "its copy of 1073741824 bytes is more than"},
};

static void every_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        em_pth *f = NULL;
        torch_file t = {0};
        em_status st = parse(&f, &t, r->parts);
        if (!r->expect && st) fail_msg("row %zu: refused: %s", i, err.msg);
        if (r->expect &&
            (st != EM_FORMAT || !strstr(err.msg, r->expect) || !strstr(err.msg, "'hostile.pth'")))
            fail_msg("row %zu: expected '%s', got %s: %s", i, r->expect, em_status_text(st),
                     err.msg);
        em_pth_close(&f);
        torch_free(&t);
    }
}

/* ---- files on disk --------------------------------------------------------------------------- */

static void opens(void **state)
{
    em_pth *f = NULL;
    torch_file t = build((const part[]){GOOD, {0}});
    const char *path = tmpdir_write(state, "x.pth", t.data, t.size);
    assert_ok(em_pth_open(&f, path, &err), err);
    assert_memory_equal(em_pth_at(f, 0)->data, ITEMS, 24);
    em_map_drop(em_pth_at(f, 0)->data, 24);
    assert_memory_equal(em_pth_at(f, 0)->data, ITEMS, 24);
    em_pth_close(&f);
    assert_int_equal(em_pth_open(&f, tmpdir_path(state, "none.pth"), &err), EM_IO);
    assert_null(f);
    torch_free(&t);
}

static void every_allocation(void **state)
{
    (void)state;
    torch_file t = build(
        (const part[]){PKL(IN(PK_TENSOR(S("K\6"), "K\0", "K\3K\2\x86", "K\1K\3\x86"))), DATA, {0}});
    for (int sticky = 0; sticky < 2; sticky++) {
        em_status st = EM_NOMEM;
        for (uint64_t n = 1; st; n++) {
            em_pth *f = NULL;
            em_alloc_fail_at(n, sticky);
            st = em_pth_parse(&f, t.data, t.size, "good.pth", &err);
            em_alloc_fail_at(0, false);
            if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
            em_pth_close(&f);
        }
    }
    torch_free(&t);
}

#define IN_TMPDIR(f) cmocka_unit_test_setup_teardown(f, tmpdir_setup, tmpdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oldest_form),      cmocka_unit_test(every_view),
        cmocka_unit_test(every_rule),       IN_TMPDIR(opens),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
