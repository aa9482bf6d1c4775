/* Stands in for fetch.c in a build without libcurl (EM_NET=OFF). */
#include "io/fetch.h"

em_status em_fetch(const char *url, const char *path, const em_fetch_limits *limits, em_err *err)
{
    char shown[256];
    (void)path, (void)limits;
    return em_fail(err, EM_INVAL,
                   "'%s': this build can fetch nothing (no libcurl): give a file, or build with "
                   "-DEM_NET=ON",
                   em_url_public(shown, sizeof shown, url));
}
