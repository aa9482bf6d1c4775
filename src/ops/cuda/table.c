#include "base/alloc.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/dnn.h"
#include "ops/cuda/lt.h"
#include "ops/plugin.h"

#include <pthread.h>

static em_status open_lane(const em_ops **out, const em_ops *of, int lane, em_err *err);

static const em_ops functions = {
    .name = "cuda",
    .lane = open_lane,
    .linear_workspace = em_cuda_linear_workspace,
    .linear = em_cuda_linear,
    .linears = em_cuda_linears,
    .attention_workspace = em_cuda_attention_workspace,
    .attention = em_cuda_attention,
    .conv_workspace = em_cuda_conv_workspace,
    .conv = em_cuda_conv,
    .weight_norm = em_cuda_weight_norm,
    .norm = em_cuda_norm,
    .time_norm = em_cuda_time_norm,
    .act = em_cuda_act,
    .binary = em_cuda_binary,
    .fill = em_cuda_fill,
    .rope = em_cuda_rope,
    .lincomb = em_cuda_lincomb,
    .copy_cols = em_cuda_copy_cols,
    .transpose = em_cuda_transpose,
    .gather = em_cuda_gather,
    .patchify = em_cuda_patchify,
    .unpatchify = em_cuda_unpatchify,
    .upload = em_cuda_upload,
    .download = em_cuda_download,
    .lerp_time = em_cuda_lerp_time,
    .resize_bicubic = em_cuda_resize_bicubic,
    .to_u8 = em_cuda_to_u8,
};

enum { GPUS = 16 };

/* One table a GPU and lane, made when it is first asked for and there until the process ends. A
 * table has streams and library handles, and those serve one thread at a time. */
static struct {
    pthread_mutex_t lock;
    em_ops table[GPUS][EM_LANES_MAX];
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

static em_status open_lt(em_cuda *c, em_err *err)
{
    char path[1024];
    void *library = em_cuda_library("libcublasLt.so.13", path, sizeof path, err);
    return library ? em_cuda_lt_open(&c->lt, library, path, err) : err->code;
}

/* Without cuDNN own kernels do its work, slower. */
static void open_dnn(em_cuda *c)
{
    char path[1024];
    em_err absent = {0};
    void *library = em_cuda_library("libcudnn.so.9", path, sizeof path, &absent);
    if (!library || em_cuda_dnn_open(&c->dnn, library, path, c->compute, &absent)) c->dnn = NULL;
}

static em_status open_table(em_ops *table, int ordinal, em_err *err)
{
    em_cuda *c = NULL;
    em_status st = em_cuda_open(&c, ordinal, err);
    if (!st) st = open_lt(c, err);
    if (st) {
        em_cuda_close(&c);
        return st;
    }
    open_dnn(c);
    *table = functions;
    table->device = &c->device;
    return EM_OK;
}

static em_status find_table(const em_ops **out, int ordinal, int lane, em_err *err)
{
    em_status st = EM_OK;
    if (ordinal < 0 || ordinal >= GPUS)
        return em_fail(err, EM_INVAL, "device cuda:%d: 0 to %d are possible", ordinal, GPUS - 1);
    if (lane < 0 || lane >= EM_LANES_MAX)
        return em_fail(err, EM_INVAL, "device cuda:%d: %d runs at once are possible", ordinal,
                       EM_LANES_MAX);
    pthread_mutex_lock(&opened.lock);
    em_ops *table = &opened.table[ordinal][lane];
    if (!table->device) st = open_table(table, ordinal, err);
    pthread_mutex_unlock(&opened.lock);
    if (!st) *out = table;
    return st;
}

static em_status open_lane(const em_ops **out, const em_ops *of, int lane, em_err *err)
{
    return find_table(out, ((const em_cuda *)of->device)->ordinal, lane, err);
}

static em_status plugin_open(const em_ops **out, int ordinal, em_err *err)
{
    return find_table(out, ordinal, 0, err);
}

__attribute__((visibility("default"))) const em_plugin em_plugin_cuda = {
    .abi = EM_PLUGIN_ABI,
    .ops_bytes = sizeof(em_ops),
    .version = EM_VERSION,
    .open = plugin_open,
};
