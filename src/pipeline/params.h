/* The knobs of a request: defaults and ranges, in one table. */
#ifndef EM_PIPELINE_PARAMS_H
#define EM_PIPELINE_PARAMS_H

#include "base/status.h"

#include <stdbool.h>

/* Every number within its range (the table of params.c); the sentence names the flag and the
 * range. */
em_status em_params_check(const em_params *p, em_err *err);

/* The range of a flag, by its name on the command line; false when it has none. */
bool em_params_range(const char *flag, double *least, double *most);

#endif
