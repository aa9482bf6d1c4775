/* Loudness as pyloudnorm measures it: ITU-R BS.1770's gating, but with cookbook filters of its
 * own. */
#ifndef EM_IO_LOUDNESS_H
#define EM_IO_LOUDNESS_H

#include "base/status.h"

#include <stddef.h>

#define EM_LOUDNESS_TARGET_LUFS (-23.0)

/* Integrated loudness of mono x (n) in LUFS; -INFINITY for silence. EM_INVAL under 0.4 s, where
 * there is no measure. */
em_status em_loudness_measure(double *lufs, const float *x, size_t n, int rate_hz, em_err *err);

typedef enum em_loudness_result {
    EM_LOUDNESS_SCALED,
    EM_LOUDNESS_SILENT,   /* beyond 100 LU: left as it is */
    EM_LOUDNESS_TOO_SHORT /* under 0.4 s: left as it is; worth a warning */
} em_loudness_result;

/* Scales x (n) in place to EM_LOUDNESS_TARGET_LUFS by one plain factor, no limiter. *result says
 * what was done (may be NULL). Fails with EM_NOMEM only, x untouched. */
em_status em_loudness_normalise(float *x, size_t n, int rate_hz, em_loudness_result *result,
                                em_err *err);

#endif
