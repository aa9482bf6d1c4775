#include "memory/residency.h"

#include "base/alloc.h"
#include "base/array.h"

#include <assert.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

bool em_group_add(em_group *g, em_tensor *slot)
{
    if (!EM_PUSH(g->tensor, g->count, g->cap, slot)) return false;
    g->size_bytes += em_tensor_bytes(*slot);
    return true;
}

void em_group_close(em_group *g)
{
    em_free(g->tensor);
    *g = (em_group){0};
}

/* Whole pages inside the tensor only: its neighbours in the file may be in use. */
static void drop_pages(em_tensor t)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)t.data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)t.data + em_tensor_bytes(t)) & ~(page - 1);
    if (end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void em_residency_pin(em_residency *r, em_group *g)
{
    if (g->state == EM_GROUP_COLD || g->home != r) {
        g->home = r;
        r->resident_bytes += g->size_bytes;
        if (r->resident_bytes > r->peak_bytes) r->peak_bytes = r->resident_bytes;
    }
    g->state = EM_GROUP_PINNED;
    g->pins++;
}

void em_residency_unpin(em_residency *r, em_group *g)
{
    assert(g->state == EM_GROUP_PINNED && g->pins > 0);
    if (--g->pins) return;
    g->state = r->drop_unpinned ? EM_GROUP_COLD : EM_GROUP_WARM;
    if (!r->drop_unpinned) return;
    r->resident_bytes -= g->size_bytes;
    if (r->counts_only) return;
    for (size_t i = 0; i < g->count; i++) drop_pages(*g->tensor[i]);
}
