/* Ctrl-C and SIGTERM: the first ends the work in an orderly way, the second the process at once. */
#ifndef EM_CLI_INTERRUPT_H
#define EM_CLI_INTERRUPT_H

#include "echomimic.h"

#include <stdatomic.h>

void em_interrupt_install(void);

/* True since the first signal; for those who poll. Lives for ever. */
const atomic_bool *em_interrupt_flag(void);

/* One more engine whose request a signal cancels, EM_LANES_MAX at most; NULL: none any more. One
 * that is watched when the signal has come already is cancelled here. */
void em_interrupt_watch(em_engine *engine);

#endif
