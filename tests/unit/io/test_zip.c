#include "io/zip.h"

#include "base/alloc.h"

#include "../test.h"
#include "../torch_file.h"

static em_err err;

/* Three members, of which the last is empty. */
static torch_file good(bool wide)
{
    torch_file f = {0};
    torch_member(&f, "top/data.pkl", "some bytes", 10);
    torch_member(&f, "top/data/0", "0123456789abcdef", 16);
    torch_member(&f, "top/Empty", "", 0);
    torch_finish(&f, wide);
    return f;
}

/* From a block of exactly its size. */
static em_status parse(const void *data, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    err = (em_err){0};
    em_zip *z = NULL;
    em_status st = em_zip_parse(&z, copy, n, "hostile.pth", &err);
    if (st) assert_null(z);
    em_zip_close(&z);
    free(copy);
    return st;
}

static void reads(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        torch_file f = good(wide);
        em_zip *z = NULL;
        assert_ok(em_zip_parse(&z, f.data, f.size, "good.pth", &err), err);
        assert_int_equal(em_zip_count(z), 3);
        assert_string_equal(em_zip_at(z, 0)->name, "top/Empty");
        assert_string_equal(em_zip_first(z)->name, "top/data.pkl");
        const em_zip_member *m = em_zip_find(z, "top/data/0");
        assert_int_equal(m->size_bytes, 16);
        assert_ptr_equal(m->data, f.data + f.body[1]);
        assert_int_equal(f.body[1] % 64, 0);
        assert_int_equal(em_zip_find(z, "top/Empty")->size_bytes, 0);
        assert_null(em_zip_find(z, "top/data/1"));
        assert_null(em_zip_find(z, "top/empty"));
        for (size_t i = 0; i < 3; i++) assert_ok(em_zip_check(z, em_zip_at(z, i), &err), err);
        f.data[f.body[1] + 15] ^= 0x80;
        assert_int_equal(em_zip_check(z, m, &err), EM_FORMAT);
        assert_non_null(strstr(err.msg, "'good.pth': zip archive, at byte"));
        assert_non_null(strstr(err.msg, "member 'top/data/0' is damaged: its CRC is"));
        em_zip_close(&z);
        assert_null(z);
        em_zip_close(&z);
        torch_free(&f);
    }
}

/* Where a row bends the good archive. */
typedef enum region { LOCAL0, LOCAL1, RECORD0, RECORD1, RECORD2, END64, LOCATOR, END } region;

static size_t start(const torch_file *f, region r)
{
    switch (r) {
    case LOCAL0: return f->local[0];
    case LOCAL1: return f->local[1];
    case RECORD0: return f->record[0];
    case RECORD1: return f->record[1];
    case RECORD2: return f->record[2];
    case END64: return f->end64;
    case LOCATOR: return f->locator;
    case END:
    default: return f->end;
    }
}

typedef struct row {
    region where;
    int offset, bytes;
    uint64_t value;
    bool wide;
    const char *expect;
} row;

static const row rows[] = {
    /* the end records */
    {END, 0, 4, 0, 0, "its end record is not there"},
    {END, 4, 2, 1, 0, "several volumes"},
    {END, 6, 2, 1, 0, "several volumes"},
    {END, 8, 2, 2, 0, "several volumes"},
    {END, 8, 4, 0x00020002, 0, "contradict each other"},
    {END, 12, 4, 1, 0, "contradict each other"},
    {END, 16, 4, 1, 0, "contradict each other"},
    {END, 20, 2, 1, 0, "announces a comment"},
    {END, 20, 2, 0xffff, 1, "announces a comment"},
    {LOCATOR, 0, 4, 0, 1, "the directory should fill"},
    {LOCATOR, 0, 4, 0, 0, "the directory should fill"},
    {LOCATOR, 4, 4, 1, 1, "several volumes"},
    {LOCATOR, 8, 8, 0, 1, "the zip64 end record is not at byte 0"},
    {LOCATOR, 8, 8, UINT64_MAX, 1, "the zip64 end record is not at byte 18446744073709551615"},
    {LOCATOR, 16, 4, 2, 1, "several volumes"},
    {END64, 0, 4, 0, 1, "the zip64 end record is not at byte"},
    {END64, 4, 8, 45, 1, "does not reach to what follows it"},
    {END64, 4, 8, UINT64_MAX, 1, "does not reach to what follows it"},
    {END64, 16, 4, 1, 1, "several volumes"},
    {END64, 20, 4, 1, 1, "several volumes"},
    {END64, 24, 8, 2, 1, "several volumes"},
    {END64, 40, 8, 1, 1, "the directory should fill"},
    {END64, 40, 8, UINT64_MAX, 1, "the directory should fill"},
    {END64, 48, 8, 0, 1, "the directory should fill"},
    {END64, 48, 8, UINT64_MAX, 1, "the directory should fill"},
    /* a record of the directory */
    {RECORD0, 0, 4, 0, 0, "no record of a member"},
    {RECORD1, 0, 4, 0x04034b50, 0, "no record of a member"},
    {RECORD0, 8, 2, 0x0809, 0, "member 'top/data.pkl' is encrypted or patched (flags 0x809)"},
    {RECORD0, 8, 2, 0x0848, 0, "encrypted or patched"},
    {RECORD0, 8, 2, 0x0828, 0, "encrypted or patched"},
    {RECORD0, 8, 2, 0x2808, 0, "encrypted or patched"},
    {RECORD1, 10, 2, 8, 0, "member 'top/data/0' is compressed (method 8)"},
    {RECORD1, 10, 2, 93, 0, "is compressed (method 93)"},
    {RECORD1, 20, 4, 15, 0, "is stored in 15 bytes but has 16"},
    {RECORD1, 24, 4, 17, 0, "is stored in 16 bytes but has 17"},
    {RECORD1, 20, 4, 0xffffffff, 0, "zip64 field is missing"},
    {RECORD1, 24, 4, 0xffffffff, 0, "zip64 field is missing"},
    {RECORD1, 42, 4, 0xffffffff, 0, "zip64 field is missing"},
    {RECORD0, 28, 2, 0, 0, "a member's name has 0 bytes"},
    {RECORD0, 28, 2, 0xffff, 0, "does not fit the directory"},
    {RECORD2, 30, 2, 1, 0, "does not fit the directory"},
    {RECORD2, 32, 2, 1, 0, "does not fit the directory"},
    {RECORD0, 32, 2, 58, 0, "no record of a member"},
    {RECORD1, 34, 2, 1, 0, "is on another volume"},
    {RECORD1, 34, 2, 0xffff, 0, "is on another volume"},
    {RECORD1, 38, 4, 0x10, 0, "'top/data/0' of 16 bytes is marked as a folder"},
    {RECORD1, 55, 1, '/', 0, "'top/data//' of 16 bytes is marked as a folder"},
    {RECORD1, 42, 4, 1, 0, "should begin at byte 1: no member does"},
    {RECORD1, 42, 4, 0xfffffffe, 0, "should begin at byte 4294967294: no member does"},
    {RECORD1, 42, 4, 0, 0, "has another name here"},
    {RECORD0, 46, 1, '/', 0, "leads out of the archive"},
    {RECORD0, 46, 4, 0x2f2e2e2f, 0, "leads out of the archive"},
    {RECORD0, 46, 3, 0x2f2e2e, 0, "leads out of the archive"},
    {RECORD0, 49, 3, 0x2e2e2f, 0, NULL}, /* "top/..ta.pkl" is a name like another … */
    {RECORD0, 49, 4, 0x2f2e2e2f, 0, "leads out of the archive"},
    {RECORD0, 50, 1, '\\', 0, "leads out of the archive"},
    {RECORD0, 50, 1, 0, 0, "control character"},
    {RECORD0, 50, 1, 0x1b, 0, "control character"},
    {RECORD0, 50, 1, 0x7f, 0, "control character"},
    {RECORD0, 50, 1, 0xff, 0, "is not UTF-8"},
    {RECORD0, 50, 2, 0xafc0, 0, "is not UTF-8"},
    /* its zip64 field: 46 + 12 bytes of name behind */
    {RECORD0, 58, 2, 2, 1, "zip64 field is missing"},
    {RECORD0, 60, 2, 25, 1, "extra fields do not fit"},
    {RECORD0, 60, 2, 23, 1, "zip64 field is too short"},
    {RECORD0, 60, 2, 0xffff, 1, "extra fields do not fit"},
    {RECORD0, 30, 2, 27, 1, "extra fields do not fit"},
    {RECORD0, 60, 2, 20, 1, "zip64 field is too short"},
    {RECORD0, 62, 8, UINT64_MAX, 1, "is stored in 10 bytes but has 18446744073709551615"},
    {RECORD0, 70, 8, 1ull << 63, 1, "is stored in 9223372036854775808 bytes but has 10"},
    {RECORD0, 78, 8, UINT64_MAX, 1, "should begin at byte 18446744073709551615: no member does"},
    {RECORD0, 78, 8, 1, 1, "should begin at byte 1: no member does"},
    /* the member's own header */
    {LOCAL1, 0, 4, 0, 0, "no member does"},
    {LOCAL0, 6, 2, 0x0800, 0, "contradict each other"},
    {LOCAL0, 8, 2, 8, 0, "contradict each other"},
    {LOCAL1, 26, 2, 9, 0, "has another name here"},
    {LOCAL1, 26, 2, 0xffff, 0, "reaches into the directory"},
    {LOCAL1, 28, 2, 0xffff, 0, "reaches into the directory"},
    {LOCAL1, 30, 1, 'x', 0, "has another name here"},
    {LOCAL0, 28, 2, 250, 0, "begins inside member 'top/data.pkl'"},
};

static void every_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        torch_file f = good(r->wide);
        size_t at = start(&f, r->where) + (size_t)r->offset;
        for (int k = 0; k < r->bytes; k++)
            f.data[at + (size_t)k] = (unsigned char)(r->value >> 8 * k);
        em_status st = parse(f.data, f.size);
        const char *expect =
            r->expect ? r->expect : "has another name here"; /* … that is not here */
        if (st != EM_FORMAT || !strstr(err.msg, expect) ||
            !strstr(err.msg, "'hostile.pth': zip archive, at byte "))
            fail_msg("row %zu: expected '%s', got %s: %s", i, expect, em_status_text(st), err.msg);
        torch_free(&f);
    }
}

/* Changes made in both places, as an attacker would. */
static void consistent_lies(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"top/a", "top/a"}, {"top/a", "top/A"}};
    for (int i = 0; i < 2; i++) {
        torch_file two = {0};
        torch_member(&two, pairs[i][0], "x", 1);
        torch_member(&two, pairs[i][1], "y", 1);
        torch_finish(&two, false);
        assert_int_equal(parse(two.data, two.size), EM_FORMAT);
        assert_non_null(strstr(err.msg, "two members are named 'top/"));
        torch_free(&two);
    }

    /* both records point at one member */
    torch_file same = {0};
    torch_member(&same, "top/a", "x", 1);
    torch_member(&same, "top/b", "y", 1);
    torch_finish(&same, false);
    memcpy(same.data + same.record[1] + 42, same.data + same.record[0] + 42, 4);
    same.data[same.record[1] + 50] = 'a';
    assert_int_equal(parse(same.data, same.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "begins inside member"));
    torch_free(&same);

    static const char *const hostile[] = {"../x", "a/../x", "a/..", "..", "/x", "a\\x"};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        torch_file one = {0};
        torch_member(&one, hostile[i], "x", 1);
        torch_finish(&one, false);
        assert_int_equal(parse(one.data, one.size), EM_FORMAT);
        assert_non_null(strstr(err.msg, "leads out of the archive"));
        torch_free(&one);
    }
    char name[EM_ZIP_NAME_BYTES + 2];
    memset(name, 'n', sizeof name);
    name[EM_ZIP_NAME_BYTES + 1] = 0;
    torch_file longer = {0};
    torch_member(&longer, name, "x", 1);
    torch_finish(&longer, false);
    assert_int_equal(parse(longer.data, longer.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "name has 1025 bytes, 1 to 1024"));
    torch_free(&longer);
}

/* One member "a" of four bytes, whose header and description are as the caller says. */
typedef struct form {
    bool front;         /* sizes and CRC in the member's own header */
    bool mark;          /* what follows begins with one */
    int width;          /* of the sizes there; 0: nothing follows */
    int lie;            /* which number is wrong: 1 CRC, 2 and 3 the sizes; 4 the mark */
    const char *expect; /* NULL: the archive is good */
} form;

static torch_file of_form(const form *c)
{
    torch_file f = {0};
    const uint32_t crc = torch_crc("1234", 4), flags = c->front ? 0 : 8;
    torch_le(&f, 0x04034b50, 4);
    torch_le(&f, 0, 2);
    torch_le(&f, flags, 2);
    torch_le(&f, 0, 6);
    torch_le(&f, c->front ? crc ^ (c->lie == 1) : 0, 4);
    torch_le(&f, c->front ? 4 ^ (c->lie == 2) : 0, 4);
    torch_le(&f, c->front ? 4 ^ (c->lie == 3) : 0, 4);
    torch_le(&f, 1, 4);
    torch_raw(&f, "a1234", 5);
    if (c->width) {
        if (c->mark) torch_le(&f, 0x08074b50 ^ (c->lie == 4), 4);
        torch_le(&f, crc ^ (c->lie == 1), 4);
        torch_le(&f, 4 ^ (c->lie == 2), c->width);
        torch_le(&f, 4 ^ (c->lie == 3), c->width);
    }
    const size_t at = f.size;
    torch_le(&f, 0x02014b50, 4);
    torch_le(&f, 0, 4);
    torch_le(&f, flags, 2);
    torch_le(&f, 0, 6);
    torch_le(&f, crc, 4);
    torch_le(&f, 4, 4);
    torch_le(&f, 4, 4);
    torch_le(&f, 1, 2);
    torch_le(&f, 0, 8);
    torch_le(&f, 0, 8);
    torch_raw(&f, "a", 1);
    const size_t bytes = f.size - at;
    torch_le(&f, 0x06054b50, 4);
    torch_le(&f, 0, 4);
    torch_le(&f, 0x00010001, 4);
    torch_le(&f, bytes, 4);
    torch_le(&f, at, 4);
    torch_le(&f, 0, 2);
    return f;
}

/* Where sizes may stand, as archivers other than torch have it too; they never contradict. */
static void forms(void **state)
{
    (void)state;
    static const char header[] = "contradict each other",
                      behind[] = "what follows member 'a' is not";
    static const form shape[] = {
        {true, false, 0, 0, NULL},    {true, false, 0, 1, header},  {true, false, 0, 2, header},
        {true, false, 0, 3, header},  {true, true, 4, 0, behind},   {false, true, 4, 0, NULL},
        {false, true, 4, 1, behind},  {false, true, 4, 2, behind},  {false, true, 4, 3, behind},
        {false, true, 4, 4, behind},  {false, false, 4, 0, NULL},   {false, false, 4, 1, behind},
        {false, false, 4, 2, behind}, {false, false, 4, 3, behind}, {false, true, 8, 0, NULL},
        {false, true, 8, 1, behind},  {false, true, 8, 2, behind},  {false, true, 8, 3, behind},
        {false, true, 8, 4, behind},  {false, false, 8, 0, NULL},   {false, false, 8, 2, behind},
        {false, false, 8, 3, behind}, {false, true, 6, 0, behind},  {false, false, 0, 0, behind},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        torch_file f = of_form(&shape[i]);
        em_status st = parse(f.data, f.size);
        if (!shape[i].expect && st) fail_msg("row %zu: %s", i, err.msg);
        if (shape[i].expect && (st != EM_FORMAT || !strstr(err.msg, shape[i].expect)))
            fail_msg("row %zu: expected '%s', got %s", i, shape[i].expect, err.msg);
        torch_free(&f);
    }
}

static void around_the_archive(void **state)
{
    (void)state;
    torch_file f = good(false), before = {0};
    torch_raw(&f, "x", 1);
    assert_int_equal(parse(f.data, f.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "something follows the archive"));
    f.size--;

    torch_raw(&before, "#!/bin/sh\n", 10);
    torch_member(&before, "top/a", "x", 1);
    torch_finish(&before, false);
    assert_int_equal(parse(before.data, before.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "something was put before the archive"));
    torch_free(&before);

    torch_file none = {0};
    torch_finish(&none, false);
    assert_int_equal(parse(none.data, none.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "0 members"));
    torch_free(&none);

    /* a count that the directory has no room for */
    torch_file many = good(true);
    many.data[many.end64 + 24] = many.data[many.end64 + 32] = 200;
    assert_int_equal(parse(many.data, many.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "200 members cannot be in a directory of"));
    many.data[many.end64 + 24 + 7] = many.data[many.end64 + 32 + 7] = 0x7f;
    assert_int_equal(parse(many.data, many.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "members, 1 to 1000000 are read"));
    torch_free(&many);

    /* fewer than there are */
    torch_file fewer = good(true);
    fewer.data[fewer.end64 + 24] = fewer.data[fewer.end64 + 32] = 2;
    assert_int_equal(parse(fewer.data, fewer.size), EM_FORMAT);
    assert_non_null(strstr(err.msg, "bytes of the directory follow the last record"));
    torch_free(&fewer);

    for (size_t n = 0; n < f.size; n++)
        if (parse(f.data, n) != EM_FORMAT) fail_msg("%zu of %zu bytes: %s", n, f.size, err.msg);
    torch_free(&f);
}

static void every_allocation(void **state)
{
    (void)state;
    torch_file f = good(true);
    em_status st = EM_NOMEM;
    for (uint64_t n = 1; st; n++) {
        em_zip *z = NULL;
        em_alloc_fail_at(n, false);
        st = em_zip_parse(&z, f.data, f.size, "good.pth", &err);
        em_alloc_fail_at(0, false);
        if (st && st != EM_NOMEM) fail_msg("allocation %d: %s", (int)n, err.msg);
        em_zip_close(&z);
    }
    torch_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(every_rule),
        cmocka_unit_test(consistent_lies),
        cmocka_unit_test(forms),
        cmocka_unit_test(around_the_archive),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
