/* `inspect`: what a checkpoint holds, and what its model misses in it. */
#include "base/alloc.h"
#include "cli/command.h"

em_exit em_command_inspect(em_options *o, em_terminal *t)
{
    (void)o, (void)t;
    return EM_EXIT_OK;
}
