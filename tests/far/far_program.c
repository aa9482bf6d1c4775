/* The program with one more device, `far`: built of src/cli/main.c and this, for end-to-end tests
 * of what only a device of its own does. */
#include "far.h"

__attribute__((constructor)) static void add_far(void)
{
    far_register();
}
