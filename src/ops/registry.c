/* The op tables of this build, by the name that --device takes. */
#include "ops/table.h"

#include <string.h>

static em_ops_entry *registered; /* the one list that outlives its callers */

void em_ops_register(em_ops_entry *e)
{
    em_ops_entry **at = &registered;
    while (*at && *at != e) at = &(*at)->next;
    if (*at) return;
    e->next = NULL;
    *at = e;
}

/* "cuda" and "cuda:1" name the device cuda. */
static bool names(const char *device, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(device, name, n) && (device[n] == 0 || device[n] == ':');
}

const em_ops *em_ops_find(const char *device)
{
    static const struct {
        const char *name;
        const em_ops *(*table)(void);
    } tables[] = {
        {"auto", em_ops_cpu},
        {"cpu", em_ops_cpu},
        {"ref", em_ops_ref},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!strcmp(tables[i].name, device)) return tables[i].table();
    for (const em_ops_entry *e = registered; e; e = e->next)
        if (names(device, e->name)) return e->table(device);
    return NULL;
}
