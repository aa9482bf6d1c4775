/* The op tables of this build, by the name that --device takes. */
#include "ops/table.h"

#include <string.h>

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
    return NULL;
}
