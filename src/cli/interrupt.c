#include "cli/interrupt.h"

#include "cli/command.h"

#include <signal.h>
#include <unistd.h>

/* A handler gets no argument: what it needs has to be static. */
static atomic_bool interrupted;
static _Atomic(em_engine *) watched[EM_LANES_MAX]; /* NULL: a free place */

static void on_signal(int number)
{
    (void)number;
    if (atomic_exchange(&interrupted, true)) _exit(EM_EXIT_INTERRUPTED);
    for (int i = 0; i < EM_LANES_MAX; i++) {
        em_engine *e = atomic_load(&watched[i]);
        if (e) em_engine_cancel(e);
    }
}

void em_interrupt_install(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    a.sa_handler = SIG_IGN; /* a reader that goes away is a failed write, not the end */
    sigaction(SIGPIPE, &a, NULL);
}

const atomic_bool *em_interrupt_flag(void)
{
    return &interrupted;
}

void em_interrupt_watch(em_engine *engine)
{
    int i = 0;
    while (engine && i < EM_LANES_MAX && atomic_load(&watched[i])) i++;
    if (engine && i < EM_LANES_MAX) atomic_store(&watched[i], engine);
    for (; !engine && i < EM_LANES_MAX; i++) atomic_store(&watched[i], NULL);
    if (engine && atomic_load(&interrupted)) em_engine_cancel(engine);
}
