#include "device/cuda.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

em_status em_cuda_status(cudaError_t rc, const char *what, em_err *err)
{
    if (rc == cudaSuccess) return EM_OK;
    cudaGetLastError(); /* one that is not sticky is over with this */
    return em_fail(err, rc == cudaErrorMemoryAllocation ? EM_NOVRAM : EM_DEVICE, "%s: %s", what,
                   cudaGetErrorString(rc));
}

static em_cuda *self(em_device *d)
{
    return (em_cuda *)d;
}

static cudaStream_t stream_of(em_device *d, em_queue q)
{
    return q == EM_QUEUE_COPY ? self(d)->copy : self(d)->compute;
}

/* The runtime's current device belongs to the thread. */
static em_status use(em_device *d, em_err *err)
{
    return em_cuda_status(cudaSetDevice(self(d)->ordinal), "choosing the GPU", err);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void cuda_memory_info(em_device *d, uint64_t *total_bytes, uint64_t *free_bytes)
{
    size_t total = 0, available = 0;
    cudaSetDevice(self(d)->ordinal);
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) total = available = 0;
    *total_bytes = total;
    *free_bytes = available;
}

static em_status cuda_alloc(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    uint64_t total = 0, available = 0;
    void *p = NULL;
    em_status st = use(d, err);
    if (st) return st;
    cudaError_t rc = cudaMalloc(&p, size_bytes ? size_bytes : 1);
    if (rc == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cuda_memory_info(d, &total, &available);
        return em_fail(err, EM_NOVRAM,
                       "%s has no room for %zu bytes: %llu of %llu are free; a smaller "
                       "--vram_budget or --memory_mode lightweight needs less",
                       d->name, size_bytes, (unsigned long long)available,
                       (unsigned long long)total);
    }
    st = em_cuda_status(rc, "taking device memory", err);
    if (!st) *out = p;
    return st;
}

static void cuda_free(em_device *d, void *p, size_t size_bytes)
{
    (void)size_bytes;
    if (!p) return;
    cudaSetDevice(self(d)->ordinal);
    cudaStreamSynchronize(self(d)->compute); /* not the device: other lanes go on */
    cudaStreamSynchronize(self(d)->copy);
    cudaFree(p);
}

static em_status cuda_host_alloc(em_device *d, void **out, size_t size_bytes, em_err *err)
{
    void *p = NULL;
    em_status st = use(d, err);
    if (!st)
        st = em_cuda_status(cudaHostAlloc(&p, size_bytes, cudaHostAllocDefault),
                            "taking page-locked host memory", err);
    if (st == EM_NOVRAM) st = err->code = EM_NOMEM;
    if (!st) *out = p;
    return st;
}

static void cuda_host_free(em_device *d, void *p, size_t size_bytes)
{
    (void)size_bytes;
    cudaSetDevice(self(d)->ordinal);
    if (p) cudaFreeHost(p);
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* From pageable memory: the driver takes the bytes over before it returns. */
static em_status cuda_upload(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                             em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaMemcpyAsync(dst, host_src, size_bytes, cudaMemcpyHostToDevice,
                                          self(d)->compute),
                          "upload", err);
}

static em_status cuda_download(em_device *d, void *host_dst, const void *src, size_t size_bytes,
                               em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    cudaError_t rc =
        cudaMemcpyAsync(host_dst, src, size_bytes, cudaMemcpyDeviceToHost, self(d)->compute);
    if (rc == cudaSuccess) rc = cudaStreamSynchronize(self(d)->compute);
    return em_cuda_status(rc, "download", err);
}

static em_status cuda_download_async(em_device *d, void *host_dst, const void *src,
                                     size_t size_bytes, em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaMemcpyAsync(host_dst, src, size_bytes, cudaMemcpyDeviceToHost,
                                          self(d)->compute),
                          "download", err);
}

static em_status cuda_sync(em_device *d, em_err *err)
{
    return em_cuda_status(cudaStreamSynchronize(self(d)->compute), "computing", err);
}

static em_status cuda_copy_async(em_device *d, void *dst, const void *host_src, size_t size_bytes,
                                 em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaMemcpyAsync(dst, host_src, size_bytes, cudaMemcpyHostToDevice,
                                          self(d)->copy),
                          "copying weights", err);
}

/* ---- events ---------------------------------------------------------------------------------- */

static em_status make_event(em_device *d, em_event **out, unsigned flags, em_err *err)
{
    cudaEvent_t e = NULL;
    em_status st = use(d, err);
    if (!st) st = em_cuda_status(cudaEventCreateWithFlags(&e, flags), "making an event", err);
    if (!st) *out = (em_event *)e;
    return st;
}

static em_status cuda_event_create(em_device *d, em_event **out, em_err *err)
{
    return make_event(d, out, cudaEventDisableTiming, err);
}

static em_status cuda_event_create_timed(em_device *d, em_event **out, em_err *err)
{
    return make_event(d, out, cudaEventDefault, err);
}

static em_status cuda_event_elapsed(em_device *d, em_event *from, em_event *to, double *ms,
                                    em_err *err)
{
    float took = 0;
    em_status st = use(d, err);
    if (st) return st;
    cudaError_t rc = cudaEventElapsedTime(&took, (cudaEvent_t)from, (cudaEvent_t)to);
    if (rc == cudaErrorNotReady) {
        cudaGetLastError();
        *ms = -1;
        return EM_OK;
    }
    st = em_cuda_status(rc, "reading the GPU's clock", err);
    if (!st) *ms = (double)took;
    return st;
}

static void cuda_event_destroy(em_device *d, em_event *e)
{
    cudaSetDevice(self(d)->ordinal);
    if (e) cudaEventDestroy((cudaEvent_t)e);
}

static em_status cuda_event_record(em_device *d, em_event *e, em_queue q, em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaEventRecord((cudaEvent_t)e, stream_of(d, q)), "recording an event",
                          err);
}

static em_status cuda_queue_wait(em_device *d, em_queue q, em_event *e, em_err *err)
{
    return em_cuda_status(cudaStreamWaitEvent(stream_of(d, q), (cudaEvent_t)e, 0),
                          "waiting for an event", err);
}

static em_status cuda_event_sync(em_device *d, em_event *e, em_err *err)
{
    em_status st = e ? use(d, err) : EM_OK;
    if (st || !e) return st;
    return em_cuda_status(cudaEventSynchronize((cudaEvent_t)e), "waiting for the GPU", err);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

/* Relaxed: what other threads and the copy stream call in the meantime is none of its business. */
static em_status cuda_capture_begin(em_device *d, em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaStreamBeginCapture(self(d)->compute, cudaStreamCaptureModeRelaxed),
                          "recording", err);
}

/* A capture that something broke ends here, too: the stream computes again after the call. */
static em_status cuda_capture_end(em_device *d, em_graph **out, em_err *err)
{
    cudaGraph_t captured = NULL;
    cudaGraphExec_t exec = NULL;
    em_status st =
        em_cuda_status(cudaStreamEndCapture(self(d)->compute, &captured), "recording", err);
    if (!st)
        st = em_cuda_status(cudaGraphInstantiateWithFlags(&exec, captured, 0),
                            "making a graph of what was recorded", err);
    if (captured) cudaGraphDestroy(captured);
    if (!st) *out = (em_graph *)exec;
    return st;
}

static em_status cuda_graph_launch(em_device *d, em_graph *g, em_err *err)
{
    em_status st = use(d, err);
    if (st) return st;
    return em_cuda_status(cudaGraphLaunch((cudaGraphExec_t)g, self(d)->compute),
                          "launching a graph", err);
}

/* The driver keeps what is under way until it is done. */
static void cuda_graph_destroy(em_device *d, em_graph *g)
{
    cudaSetDevice(self(d)->ordinal);
    if (g) cudaGraphExecDestroy((cudaGraphExec_t)g);
}

/* ---- open and close -------------------------------------------------------------------------- */

/* What a process takes of a GPU beside the block: the driver's context, our kernels, cuBLASLt and
 * cuDNN. 544 to 549 MiB were measured on an H100 and an H200, driver 580. */
enum { CONTEXT_MIB = 576 };
/* Of host memory: cuBLASLt's and cuDNN's code, pages that come in with their first kernels. A tiny
 * model's process took 223 MiB more than it had when it was opened. */
enum { HOST_CONTEXT_MIB = 256 };

/* Streams and handles of cuBLASLt and cuDNN once more: 12 to 13 MiB a lane were measured on an
 * H200. */
enum { LANE_MIB = 16 };

static const em_device functions = {
    .host_addressable = false,
    .context_bytes = (size_t)CONTEXT_MIB << 20,
    .host_context_bytes = (size_t)HOST_CONTEXT_MIB << 20,
    .lane_bytes = (size_t)LANE_MIB << 20,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .memory_info = cuda_memory_info,
    .upload = cuda_upload,
    .download = cuda_download,
    .download_async = cuda_download_async,
    .sync = cuda_sync,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .copy_async = cuda_copy_async,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .queue_wait = cuda_queue_wait,
    .event_sync = cuda_event_sync,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
    .event_create_timed = cuda_event_create_timed,
    .event_elapsed = cuda_event_elapsed,
};

/* EM_CUDA_FORCE_ARCH=80 chooses the kernels of other cards; ops/plugin.c then loads a plug-in that
 * has them as PTX alone, which is what cards of the future will take. */
static bool forced_to_80(void)
{
    const char *v = getenv("EM_CUDA_FORCE_ARCH");
    return v && strcmp(v, "80") == 0;
}

static em_status describe(em_cuda *c, bool forced, em_err *err)
{
    struct cudaDeviceProp p;
    em_status st = em_cuda_status(cudaGetDeviceProperties(&p, c->ordinal), "asking the GPU", err);
    if (st) return st;
    c->cc = p.major * 10 + p.minor;
    c->sm_count = p.multiProcessorCount;
    snprintf(c->model, sizeof c->model, "%s", p.name);
    if (c->cc < 80)
        return em_fail(err, EM_INVAL,
                       "device cuda:%d: '%s' is too old: compute capability 8.0 or "
                       "newer is needed, it has %d.%d",
                       c->ordinal, c->model, p.major, p.minor);
    if (forced) c->cc = 80;
    return EM_OK;
}

em_status em_cuda_open(em_cuda **out, int ordinal, em_err *err)
{
    bool forced = forced_to_80();
    int count = 0;
    cudaError_t rc = cudaGetDeviceCount(&count);
    if (rc != cudaSuccess) return em_fail(err, EM_INVAL, "device cuda: %s", cudaGetErrorString(rc));
    if (ordinal >= count)
        return em_fail(err, EM_INVAL, "device cuda:%d: this machine has %d GPUs", ordinal, count);
    em_cuda *c = em_alloc(sizeof *c);
    if (!c) return em_fail(err, EM_NOMEM, "no memory for a device");
    c->device = functions;
    c->ordinal = ordinal;
    snprintf(c->name, sizeof c->name, "cuda:%d", ordinal);
    c->device.name = c->name;
    em_status st = use(&c->device, err);
    if (!st) st = describe(c, forced, err);
    if (!st)
        st = em_cuda_status(cudaStreamCreateWithFlags(&c->compute, cudaStreamNonBlocking),
                            "making a stream", err);
    if (!st)
        st = em_cuda_status(cudaStreamCreateWithFlags(&c->copy, cudaStreamNonBlocking),
                            "making a stream", err);
    if (st)
        em_cuda_close(&c);
    else
        *out = c;
    return st;
}

void em_cuda_close(em_cuda **cuda)
{
    em_cuda *c = *cuda;
    if (!c) return;
    if (c->compute) cudaStreamDestroy(c->compute);
    if (c->copy) cudaStreamDestroy(c->copy);
    em_free(c);
    *cuda = NULL;
}
