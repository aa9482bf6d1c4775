/* Stands in for fetch.c and upload.c in a build without libcurl (EM_NET=OFF): every item's verdict
 * is that it cannot be fetched. */
#include "base/alloc.h"
#include "base/array.h"
#include "io/fetch.h"

struct em_fetcher {
    char **url; /* owned, each */
    size_t count, cap;
};

em_fetch_options em_fetch_options_default(void)
{
    return (em_fetch_options){0};
}

em_status em_fetcher_open(em_fetcher **out, const em_fetch_options *options, em_err *err)
{
    (void)options;
    em_fetcher *f = em_alloc(sizeof *f);
    if (!f) return em_fail(err, EM_NOMEM, "no memory for downloads");
    *out = f;
    return EM_OK;
}

em_status em_fetcher_add(em_fetcher *f, const em_fetch_request *request, size_t *handle,
                         em_err *err)
{
    char *url = em_strdup(request->url);
    if (!url || !EM_PUSH(f->url, f->count, f->cap, url)) {
        em_free(url);
        return em_fail(err, EM_NOMEM, "no memory for downloads");
    }
    *handle = f->count - 1;
    return EM_OK;
}

em_status em_fetcher_start(em_fetcher *f, em_err *err)
{
    (void)f, (void)err;
    return EM_OK;
}

static em_status refuse(const char *url, const char *what, em_err *err)
{
    char shown[240];
    return em_fail(err, EM_INVAL,
                   "'%s': this build can %s nothing (no libcurl): build with -DEM_NET=ON",
                   em_url_public(shown, sizeof shown, url), what);
}

em_status em_fetcher_wait(em_fetcher *f, size_t handle, em_fetch_result *out, em_err *err)
{
    (void)out;
    return refuse(f->url[handle], "fetch", err);
}

void em_fetcher_progress(em_fetcher *f, em_fetch_progress *out)
{
    *out = (em_fetch_progress){.items = f->count, .failed = f->count};
}

void em_fetcher_cancel(em_fetcher *f)
{
    (void)f;
}

void em_fetcher_close(em_fetcher **fetcher)
{
    em_fetcher *f = *fetcher;
    if (!f) return;
    while (f->count) em_free(f->url[--f->count]);
    em_free(f->url);
    em_free(f);
    *fetcher = NULL;
}

em_status em_url_upload(const char *url, const char *path, const em_fetch_options *options,
                        int *tries, em_err *err)
{
    (void)path, (void)options;
    if (tries) *tries = 0;
    return refuse(url, "upload", err);
}
