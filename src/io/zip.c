#include "io/zip.h"

#include "base/alloc.h"
#include "base/hash.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    LOCAL_SIG = 0x04034b50,
    RECORD_SIG = 0x02014b50,
    END_SIG = 0x06054b50,
    END64_SIG = 0x06064b50,
    LOCATOR_SIG = 0x07064b50,

    LOCAL_BYTES = 30,
    RECORD_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,

    FLAG_SIZES_BEHIND = 1 << 3,                            /* the member's own header has none */
    FLAGS_HARMLESS = FLAG_SIZES_BEHIND | 1 << 11 | 3 << 1, /* UTF-8 names; how hard was packed */
    EXTRA_ZIP64 = 1,
    ATTRIBUTE_FOLDER = 0x10, /* DOS's; some readers find such a member empty */
};
static const uint32_t in_64_bits = 0xffffffff; /* a 32-bit field that says: look there */

/* Where the directory says that a member is. */
typedef struct place {
    uint64_t header_bytes, end_bytes; /* from the member's header to behind its bytes */
    size_t member;                    /* its place in the directory */
    bool described;                   /* sizes and CRC follow the bytes */
} place;

struct em_zip {
    char *path;
    const unsigned char *bytes;
    size_t size_bytes;
    uint64_t directory_at, directory_bytes;
    em_zip_member *member; /* sorted by name */
    char *names;           /* owned: all of them, each with a NUL */
    size_t count;
    const char *first; /* name of the first one of the directory */
};

/* EM_FORMAT and "'path': at byte N: …". */
__attribute__((format(printf, 4, 5))) static em_status refuse(const em_zip *z, em_err *err,
                                                              uint64_t at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    em_vfail(err, EM_FORMAT, fmt, ap);
    va_end(ap);
    em_err_prefix(err, "'%s': zip archive, at byte %llu", z->path, (unsigned long long)at);
    return EM_FORMAT;
}

static em_status nomem(const em_zip *z, em_err *err)
{
    return em_fail(err, EM_NOMEM, "out of memory reading '%s'", z->path);
}

static uint32_t le16(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const unsigned char *p)
{
    return le16(p) | le16(p + 2) << 16;
}

static uint64_t le64(const unsigned char *p)
{
    return (uint64_t)le32(p) | (uint64_t)le32(p + 4) << 32;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* What the end record says, or its zip64 twin. */
typedef struct ending {
    uint64_t count, bytes, at;
} ending;

static bool agrees(uint64_t narrow, uint64_t most, uint64_t wide)
{
    return narrow == most || narrow == wide;
}

/* The zip64 end record that the locator before `end_at` points at; *end is replaced. */
static em_status read_end64(ending *end, uint64_t *end_at, const em_zip *z, em_err *err)
{
    uint64_t locator_at = *end_at - LOCATOR_BYTES;
    const unsigned char *l = z->bytes + locator_at;
    uint64_t at = le64(l + 8);
    if (le32(l + 4) != 0 || le32(l + 16) > 1)
        return refuse(z, err, locator_at, "an archive of several volumes is not read");
    if (locator_at < END64_BYTES || at > locator_at - END64_BYTES ||
        le32(z->bytes + at) != END64_SIG)
        return refuse(z, err, locator_at, "the zip64 end record is not at byte %llu",
                      (unsigned long long)at);
    const unsigned char *p = z->bytes + at;
    if (le64(p + 4) != locator_at - at - 12)
        return refuse(z, err, at, "the zip64 end record does not reach to what follows it");
    const ending wide = {.count = le64(p + 32), .bytes = le64(p + 40), .at = le64(p + 48)};
    if (le32(p + 16) != 0 || le32(p + 20) != 0 || le64(p + 24) != wide.count)
        return refuse(z, err, at, "an archive of several volumes is not read");
    if (!agrees(end->count, 0xffff, wide.count) || !agrees(end->bytes, in_64_bits, wide.bytes) ||
        !agrees(end->at, in_64_bits, wide.at))
        return refuse(z, err, at, "the zip64 end record and the end record contradict each other");
    *end = wide;
    *end_at = at;
    return EM_OK;
}

static em_status find_directory(em_zip *z, ending *end, em_err *err)
{
    if (z->size_bytes < END_BYTES || le32(z->bytes + z->size_bytes - END_BYTES) != END_SIG)
        return refuse(z, err, z->size_bytes,
                      "its end record is not there: the file is cut short, or something follows "
                      "the archive");
    uint64_t at = z->size_bytes - END_BYTES;
    const unsigned char *p = z->bytes + at;
    if (le16(p + 20) != 0)
        return refuse(z, err, at, "the end record announces a comment behind it");
    if (le16(p + 4) != 0 || le16(p + 6) != 0 || le16(p + 8) != le16(p + 10))
        return refuse(z, err, at, "an archive of several volumes is not read");
    *end = (ending){.count = le16(p + 10), .bytes = le32(p + 12), .at = le32(p + 16)};
    if (at >= LOCATOR_BYTES && le32(p - LOCATOR_BYTES) == LOCATOR_SIG) {
        em_status st = read_end64(end, &at, z, err);
        if (st) return st;
    }
    if (end->bytes > at || end->at != at - end->bytes)
        return refuse(z, err, at,
                      "the directory should fill bytes %llu to %llu, %llu of them: it "
                      "does not end here",
                      (unsigned long long)end->at, (unsigned long long)at,
                      (unsigned long long)end->bytes);
    if (end->bytes > EM_ZIP_DIRECTORY_BYTES)
        return refuse(z, err, end->at, "a directory of %llu bytes, at most %u are read",
                      (unsigned long long)end->bytes, EM_ZIP_DIRECTORY_BYTES);
    if (end->count == 0 || end->count > EM_ZIP_MEMBERS)
        return refuse(z, err, end->at, "%llu members, 1 to %d are read",
                      (unsigned long long)end->count, EM_ZIP_MEMBERS);
    if (end->count > end->bytes / RECORD_BYTES)
        return refuse(z, err, end->at, "%llu members cannot be in a directory of %llu bytes",
                      (unsigned long long)end->count, (unsigned long long)end->bytes);
    z->directory_at = end->at;
    z->directory_bytes = end->bytes;
    return EM_OK;
}

/* ---- one member ------------------------------------------------------------------------------ */

/* A record of the directory, its numbers in 64 bits. */
typedef struct record {
    uint64_t at;
    uint32_t flags, method, crc, name_bytes, extra_bytes, comment_bytes, volume, attributes;
    uint64_t packed_bytes, size_bytes, header_at;
    const unsigned char *name;
} record;

/* Takes the next number of a zip64 field when the narrow one says so. */
static bool widen(uint64_t *v, const unsigned char **p, size_t *left)
{
    if (*v != in_64_bits) return true;
    if (*left < 8) return false;
    *v = le64(*p);
    *p += 8;
    *left -= 8;
    return true;
}

/* The zip64 field among the extra ones, for those numbers that are there. */
static em_status read_extra(record *r, const em_zip *z, em_err *err)
{
    const unsigned char *p = r->name + r->name_bytes;
    size_t left = r->extra_bytes;
    bool found = false;
    while (left > 0) {
        size_t n = left < 4 ? SIZE_MAX : le16(p + 2);
        if (left < 4 || n > left - 4)
            return refuse(z, err, r->at, "a member's extra fields do not fit their room");
        if (le16(p) == EXTRA_ZIP64) {
            const unsigned char *q = p + 4;
            size_t rest = n;
            if (found) return refuse(z, err, r->at, "a member has two zip64 fields");
            found = true;
            if (!widen(&r->size_bytes, &q, &rest) || !widen(&r->packed_bytes, &q, &rest) ||
                !widen(&r->header_at, &q, &rest))
                return refuse(z, err, r->at, "a member's zip64 field is too short");
        }
        p += 4 + n;
        left -= 4 + n;
    }
    if (!found && (r->size_bytes == in_64_bits || r->packed_bytes == in_64_bits ||
                   r->header_at == in_64_bits))
        return refuse(z, err, r->at, "a member's zip64 field is missing");
    return EM_OK;
}

/* The record at `at`, of which *next_at tells the end. */
static em_status read_record(record *r, uint64_t *next_at, uint64_t at, const em_zip *z,
                             em_err *err)
{
    uint64_t left = z->directory_at + z->directory_bytes - at;
    const unsigned char *p = z->bytes + at;
    if (left < RECORD_BYTES || le32(p) != RECORD_SIG)
        return refuse(z, err, at, "no record of a member, though one is due");
    *r = (record){.at = at,
                  .flags = le16(p + 8),
                  .method = le16(p + 10),
                  .crc = le32(p + 16),
                  .packed_bytes = le32(p + 20),
                  .size_bytes = le32(p + 24),
                  .name_bytes = le16(p + 28),
                  .extra_bytes = le16(p + 30),
                  .comment_bytes = le16(p + 32),
                  .volume = le16(p + 34),
                  .attributes = le32(p + 38),
                  .header_at = le32(p + 42),
                  .name = p + RECORD_BYTES};
    uint64_t need = RECORD_BYTES + (uint64_t)r->name_bytes + r->extra_bytes + r->comment_bytes;
    if (need > left) return refuse(z, err, at, "a member's record does not fit the directory");
    *next_at = at + need;
    return read_extra(r, z, err);
}

static em_status check_name(const record *r, const em_zip *z, em_err *err)
{
    const char *name = (const char *)r->name;
    size_t n = r->name_bytes;
    if (n == 0 || n > EM_ZIP_NAME_BYTES)
        return refuse(z, err, r->at, "a member's name has %zu bytes, 1 to %d are allowed", n,
                      EM_ZIP_NAME_BYTES);
    if (!em_utf8_valid(name, n)) return refuse(z, err, r->at, "a member's name is not UTF-8");
    for (size_t i = 0; i < n; i++)
        if (r->name[i] < 0x20 || r->name[i] == 0x7f)
            return refuse(z, err, r->at, "a member's name has a control character");
    bool up = false;
    for (size_t i = 0; i + 1 < n && !up; i++)
        up = name[i] == '.' && name[i + 1] == '.' && (i == 0 || name[i - 1] == '/') &&
             (i + 2 == n || name[i + 2] == '/');
    if (up || name[0] == '/' || memchr(name, '\\', n))
        return refuse(z, err, r->at, "member '%.*s': its name leads out of the archive", (int)n,
                      name);
    return EM_OK;
}

static em_status check_kind(const record *r, const em_zip *z, em_err *err)
{
    int n = (int)r->name_bytes;
    if (r->flags & ~(uint32_t)FLAGS_HARMLESS)
        return refuse(z, err, r->at, "member '%.*s' is encrypted or patched (flags 0x%x)", n,
                      r->name, r->flags);
    if (r->method != 0)
        return refuse(
            z, err, r->at,
            "member '%.*s' is compressed (method %u): PyTorch stores; the file was packed "
            "again. Unpack it, and zip it without compression",
            n, r->name, r->method);
    if (r->packed_bytes != r->size_bytes)
        return refuse(z, err, r->at, "member '%.*s' is stored in %llu bytes but has %llu", n,
                      r->name, (unsigned long long)r->packed_bytes,
                      (unsigned long long)r->size_bytes);
    if (r->size_bytes && (r->attributes & ATTRIBUTE_FOLDER || r->name[n - 1] == '/'))
        return refuse(z, err, r->at, "member '%.*s' of %llu bytes is marked as a folder", n,
                      r->name, (unsigned long long)r->size_bytes);
    if (r->volume != 0)
        return refuse(z, err, r->at, "member '%.*s' is on another volume", n, r->name);
    return EM_OK;
}

/* Whether the sizes in a member's own header, where it has them, are the directory's. */
static bool same_sizes(const unsigned char *p, const record *r)
{
    if (r->flags & FLAG_SIZES_BEHIND) return true;
    return agrees(le32(p + 18), in_64_bits, r->packed_bytes) &&
           agrees(le32(p + 22), in_64_bits, r->size_bytes) && le32(p + 14) == r->crc;
}

/* The member's own header: it only says where the bytes begin, and must not say anything else than
 * the directory. */
static em_status read_local(em_zip_member *m, place *where, const record *r, const em_zip *z,
                            em_err *err)
{
    int n = (int)r->name_bytes;
    uint64_t room = z->directory_at;
    bool there = r->header_at <= room && room - r->header_at >= LOCAL_BYTES;
    const unsigned char *p = there ? z->bytes + r->header_at : NULL;
    if (!there || le32(p) != LOCAL_SIG)
        return refuse(z, err, r->at, "member '%.*s' should begin at byte %llu: no member does", n,
                      r->name, (unsigned long long)r->header_at);
    room -= r->header_at + LOCAL_BYTES;
    uint64_t name_bytes = le16(p + 26), head = name_bytes + le16(p + 28);
    if (head > room || r->size_bytes > room - head)
        return refuse(z, err, r->at,
                      "member '%.*s' of %llu bytes, from byte %llu on, reaches into the directory",
                      n, r->name, (unsigned long long)r->size_bytes,
                      (unsigned long long)r->header_at);
    if (name_bytes != r->name_bytes || memcmp(p + LOCAL_BYTES, r->name, r->name_bytes) != 0)
        return refuse(z, err, r->header_at, "member '%.*s' has another name here", n, r->name);
    if (le16(p + 8) != 0 || le16(p + 6) != r->flags || !same_sizes(p, r))
        return refuse(z, err, r->header_at,
                      "member '%.*s': the header here and the directory contradict each other", n,
                      r->name);
    m->data = p + LOCAL_BYTES + head;
    m->size_bytes = (size_t)r->size_bytes;
    m->crc = r->crc;
    where->header_bytes = r->header_at;
    where->end_bytes = r->header_at + LOCAL_BYTES + head + r->size_bytes;
    where->described = r->flags & FLAG_SIZES_BEHIND;
    return EM_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const place *x = a, *y = b;
    return x->header_bytes < y->header_bytes ? -1 : x->header_bytes > y->header_bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const em_zip_member *)a)->name, ((const em_zip_member *)b)->name);
}

static int by_folded_name(const void *a, const void *b)
{
    return strcasecmp(((const em_zip_member *)a)->name, ((const em_zip_member *)b)->name);
}

/* The bytes from a member's end to `next`, where the next one begins or the directory, are its
 * sizes and CRC once more, in 32 or 64 bits, with a mark or without; a member that has its sizes in
 * front, and an empty one, may have none. */
static bool is_description(const em_zip *z, const place *at, uint64_t next)
{
    enum { MARK = 0x08074b50, NARROW = 12, WIDE = 20, MARKED = 4 };
    const em_zip_member *m = &z->member[at->member];
    const unsigned char *p = z->bytes + at->end_bytes;
    uint64_t n = next - at->end_bytes;
    if (n == 0) return !at->described || m->size_bytes == 0;
    if (!at->described) return false;
    if (n == NARROW + MARKED || n == WIDE + MARKED) {
        if (le32(p) != MARK) return false;
        p += MARKED;
        n -= MARKED;
    }
    if (n == NARROW)
        return le32(p) == m->crc && le32(p + 4) == m->size_bytes && le32(p + 8) == m->size_bytes;
    return n == WIDE && le32(p) == m->crc && le64(p + 4) == m->size_bytes &&
           le64(p + 12) == m->size_bytes;
}

static em_status check_places(const em_zip *z, place *where, em_err *err)
{
    qsort(where, z->count, sizeof *where, by_place);
    if (where[0].header_bytes != 0)
        return refuse(z, err, 0, "no member begins here: something was put before the archive");
    for (size_t i = 0; i < z->count; i++) {
        const char *name = z->member[where[i].member].name;
        const bool last = i + 1 == z->count;
        uint64_t next = last ? z->directory_at : where[i + 1].header_bytes;
        if (next < where[i].end_bytes)
            return refuse(z, err, next,
                          "member '%s' begins inside member '%s', which ends at byte %llu",
                          z->member[where[i + 1].member].name, name,
                          (unsigned long long)where[i].end_bytes);
        if (!is_description(z, &where[i], next))
            return refuse(z, err, where[i].end_bytes,
                          "what follows member '%s' is not what the directory says of it", name);
    }
    return EM_OK;
}

/* Readers that do not tell capitals apart would find either of two. */
static em_status check_names(const em_zip *z, em_err *err)
{
    qsort(z->member, z->count, sizeof *z->member, by_folded_name);
    for (size_t i = 1; i < z->count; i++)
        if (by_folded_name(&z->member[i - 1], &z->member[i]) == 0)
            return refuse(z, err, z->directory_at, "two members are named '%s'", z->member[i].name);
    qsort(z->member, z->count, sizeof *z->member, by_name);
    return EM_OK;
}

static em_status read_members(em_zip *z, size_t count, place *where, em_err *err)
{
    uint64_t at = z->directory_at;
    char *name = z->names;
    for (; z->count < count; z->count++) {
        record r = {0};
        em_zip_member *m = &z->member[z->count];
        em_status st = read_record(&r, &at, at, z, err);
        if (!st) st = check_name(&r, z, err);
        if (!st) st = check_kind(&r, z, err);
        if (!st) st = read_local(m, &where[z->count], &r, z, err);
        if (st) return st;
        where[z->count].member = z->count;
        m->name = memcpy(name, r.name, r.name_bytes); /* zeroed memory: the NUL is there */
        name += r.name_bytes + 1;
    }
    z->first = z->member[0].name;
    if (at != z->directory_at + z->directory_bytes)
        return refuse(z, err, at, "%llu bytes of the directory follow the last record",
                      (unsigned long long)(z->directory_at + z->directory_bytes - at));
    return EM_OK;
}

static em_status parse(em_zip *z, em_err *err)
{
    ending end = {0};
    em_status st = find_directory(z, &end, err);
    if (st) return st;
    /* Every name is shorter than its record, which also leaves room for the NUL. */
    z->names = em_alloc((size_t)end.bytes);
    z->member = em_alloc_array((size_t)end.count, sizeof *z->member);
    place *where = em_alloc_array((size_t)end.count, sizeof *where);
    st = z->names && z->member && where ? read_members(z, (size_t)end.count, where, err)
                                        : nomem(z, err);
    if (!st) st = check_places(z, where, err);
    if (!st) st = check_names(z, err);
    em_free(where);
    return st;
}

em_status em_zip_parse(em_zip **out, const void *data, size_t size_bytes, const char *path,
                       em_err *err)
{
    em_zip *z = em_alloc(sizeof *z);
    if (z) z->path = em_strdup(path);
    if (!z || !z->path) {
        em_zip_close(&z);
        return em_fail(err, EM_NOMEM, "out of memory reading '%s'", path);
    }
    z->bytes = data;
    z->size_bytes = size_bytes;
    em_status st = parse(z, err);
    if (st) {
        em_zip_close(&z);
        return st;
    }
    *out = z;
    return EM_OK;
}

void em_zip_close(em_zip **zip)
{
    if (!zip || !*zip) return;
    em_zip *z = *zip;
    em_free(z->path);
    em_free(z->member);
    em_free(z->names);
    em_free(z);
    *zip = NULL;
}

size_t em_zip_count(const em_zip *zip)
{
    return zip->count;
}

const em_zip_member *em_zip_at(const em_zip *zip, size_t i)
{
    return &zip->member[i];
}

const em_zip_member *em_zip_find(const em_zip *zip, const char *name)
{
    const em_zip_member key = {.name = name};
    return bsearch(&key, zip->member, zip->count, sizeof key, by_name);
}

const em_zip_member *em_zip_first(const em_zip *zip)
{
    return em_zip_find(zip, zip->first);
}

em_status em_zip_check(const em_zip *zip, const em_zip_member *m, em_err *err)
{
    uint32_t crc = em_crc32(0, m->data, m->size_bytes);
    if (crc == m->crc) return EM_OK;
    return refuse(zip, err, (uint64_t)((const unsigned char *)m->data - zip->bytes),
                  "member '%s' is damaged: its CRC is %08x, the directory says %08x", m->name, crc,
                  m->crc);
}
