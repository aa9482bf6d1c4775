#include "memory/residency.h"

#include "base/alloc.h"
#include "base/array.h"
#include "io/file.h"

#include <assert.h>

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

static em_group_use *use_of(const em_residency *r, em_group *g)
{
    return r->counts_only ? &g->planned : &g->real;
}

void em_residency_pin(em_residency *r, em_group *g)
{
    em_group_use *u = use_of(r, g);
    if (u->state == EM_GROUP_COLD || u->serial != r->serial) {
        *u = (em_group_use){.serial = r->serial};
        r->resident_bytes += g->size_bytes;
        if (r->resident_bytes > r->peak_bytes) r->peak_bytes = r->resident_bytes;
    }
    u->state = EM_GROUP_PINNED;
    u->pins++;
}

void em_residency_unpin(em_residency *r, em_group *g)
{
    em_group_use *u = use_of(r, g);
    assert(u->state == EM_GROUP_PINNED && u->pins > 0);
    if (--u->pins) return;
    u->state = r->drop_unpinned ? EM_GROUP_COLD : EM_GROUP_WARM;
    if (!r->drop_unpinned) return;
    r->resident_bytes -= g->size_bytes;
    if (r->counts_only) return;
    for (size_t i = 0; i < g->count; i++)
        em_map_drop(g->tensor[i]->data, em_tensor_bytes(*g->tensor[i]));
}
