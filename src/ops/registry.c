/* The op tables by the name that --device takes. */
#include "ops/plugin.h"
#include "ops/table.h"

#include <stdio.h>
#include <string.h>

static em_status open_cpu(const em_ops **out, int ordinal, em_err *err)
{
    (void)ordinal, (void)err;
    *out = em_ops_cpu();
    return EM_OK;
}

static em_status open_ref(const em_ops **out, int ordinal, em_err *err)
{
    (void)ordinal, (void)err;
    *out = em_ops_ref();
    return EM_OK;
}

/* A GPU if there is one that works, otherwise the CPU. */
static em_status open_auto(const em_ops **out, int ordinal, em_err *err)
{
    em_err absent = {0};
    return em_plugin_cuda_open(out, ordinal, &absent) ? open_cpu(out, ordinal, err) : EM_OK;
}

enum { MOST = 8 };

/* Filled before threads start: a test may add a table of its own. */
static em_ops_entry entry[MOST] = {
    {"auto", open_auto},
    {"cpu", open_cpu},
    {"ref", open_ref},
    {"cuda", em_plugin_cuda_open},
};
static size_t entries = 4;

void em_ops_register(em_ops_entry e)
{
    if (entries < MOST) entry[entries++] = e;
}

em_status em_ops_open(const em_ops **out, const char *device, em_err *err)
{
    size_t n = strcspn(device, ":");
    int ordinal = 0, used = 0;
    if (device[n] && (sscanf(device + n, ":%3d%n", &ordinal, &used) != 1 || ordinal < 0 ||
                      device[n + (size_t)used]))
        return em_fail(err, EM_INVAL, "device '%s': expected a number behind the colon", device);
    for (size_t i = 0; i < entries; i++)
        if (strlen(entry[i].name) == n && !strncmp(entry[i].name, device, n))
            return entry[i].open(out, ordinal, err);
    return em_fail(err, EM_INVAL, "device '%s' is unknown: use auto, cpu, cuda or cuda:N", device);
}

em_status em_ops_open_lane(const em_ops **out, const char *device, int lane, em_err *err)
{
    const em_ops *ops = NULL;
    em_status st = em_ops_open(&ops, device, err);
    if (!st && lane > 0 && ops->lane) st = ops->lane(&ops, ops, lane, err);
    if (!st) *out = ops;
    return st;
}

const em_ops *em_ops_find(const char *device)
{
    const em_ops *ops = NULL;
    em_err err = {0};
    return em_ops_open(&ops, device, &err) ? NULL : ops;
}
