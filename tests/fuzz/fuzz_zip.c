/* Any bytes as a zip archive. What is taken must keep the reader's promise: every member inside the
 * archive, none sharing a byte or a name with another, all sorted. */
#include "fuzz.h"

#include "io/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void require(bool ok)
{
    if (!ok) abort();
}

static void check_member(const em_zip *z, size_t i, const uint8_t *data, size_t size)
{
    em_err err = {0};
    const em_zip_member *m = em_zip_at(z, i);
    const uint8_t *begin = m->data;
    require(begin >= data + 30 && begin <= data + size &&
            m->size_bytes <= (size_t)(data + size - begin));
    require(m->name[0] && strlen(m->name) <= EM_ZIP_NAME_BYTES && em_zip_find(z, m->name) == m);
    require(i == 0 || strcmp(em_zip_at(z, i - 1)->name, m->name) < 0);
    for (size_t k = 0; k < i; k++) {
        const em_zip_member *other = em_zip_at(z, k);
        const uint8_t *b = other->data;
        require(b + other->size_bytes <= begin || begin + m->size_bytes <= b);
    }
    em_status st = em_zip_check(z, m, &err);
    require(st == EM_OK || err.msg[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    em_zip *z = NULL;
    em_err err = {0};
    if (em_zip_parse(&z, data, size, "input", &err)) {
        require(!z && err.code != EM_OK && err.msg[0]);
        return 0;
    }
    require(em_zip_count(z) > 0 && em_zip_first(z));
    for (size_t i = 0; i < em_zip_count(z); i++) check_member(z, i, data, size);
    em_zip_close(&z);
    return 0;
}
