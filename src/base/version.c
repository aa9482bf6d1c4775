#include "echomimic.h"

const char *em_version(void)
{
    return EM_VERSION;
}
