/* net_server ROOT [SECONDS]: the server of server.h as a program, for the end-to-end scripts.
 * Prints its port, serves until SIGTERM or the end of its time, and prints what it counted. */
#include "server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    const struct timespec most = {.tv_sec = argc > 2 ? strtol(argv[2], NULL, 10) : 600};
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL); /* the threads inherit it: it is waited for below */
    net_server *s = argc > 1 ? net_server_start(argv[1], "127.0.0.1") : NULL;
    if (!s) {
        fprintf(stderr, "net_server: usage: net_server ROOT [SECONDS], or no port is free\n");
        return 1;
    }
    printf("%d\n", net_server_port(s));
    fflush(stdout);
    sigtimedwait(&stop, NULL, &most);
    net_counts c = net_server_counts(s);
    printf("connections %llu\nrequests %llu\nranges %llu\nbody_bytes %llu\nputs %llu\n",
           (unsigned long long)c.connections, (unsigned long long)c.requests,
           (unsigned long long)c.ranges, (unsigned long long)c.body_bytes,
           (unsigned long long)c.puts);
    net_server_stop(&s);
    return 0;
}
