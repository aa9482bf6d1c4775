/* Devices that may be absent: a shared library beside the program, opened when somebody asks for
 * the device. It brings an op table, and with it a device. */
#ifndef EM_OPS_PLUGIN_H
#define EM_OPS_PLUGIN_H

#include "ops/table.h"

/* Raised when em_ops, em_run, em_device or em_tensor change: a plug-in of another build is
 * refused. */
enum { EM_PLUGIN_ABI = 3 };

/* What a plug-in exports. The table lives until the process ends. */
typedef struct em_plugin {
    int abi;             /* EM_PLUGIN_ABI */
    size_t ops_bytes;    /* sizeof(em_ops) */
    const char *version; /* em_version() of the sources it was built from */
    em_status (*open)(const em_ops **out, int ordinal, em_err *err);
} em_plugin;
#define EM_PLUGIN_SYMBOL "em_plugin_cuda"

/* Device `ordinal` of the CUDA plug-in; EM_INVAL with the reason when there is none. */
em_status em_plugin_cuda_open(const em_ops **out, int ordinal, em_err *err);

#endif
