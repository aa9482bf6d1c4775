/* A small HTTP/1.1 server that misbehaves on request, on loopback alone.
 *
 *     http://127.0.0.1:PORT/TRAITS/STEP,STEP,…/FILE
 *
 * serves ROOT/FILE; folders before FILE make another address of the same file. The n-th request for
 * a path gets the n-th step, later ones the last. A query is ignored, as a storage service ignores
 * all of it but the signature. What it stores of a PUT goes to ROOT/FILE too.
 *
 * TRAITS, letters:  s  strong ETag     w  weak ETag     v  strong, another one each time
 *                   i  ignores Range   p  answers a Range with another part
 *                   e  answers a Range whatever the If-Range says             -  nothing
 *
 * STEP:
 *   ok chunked        the file, with its length or in chunks
 *   close reset       no answer: the connection ends, or is reset
 *   garbage           an answer that is not HTTP
 *   cut tear          half of the file, then the connection ends, or is reset
 *   over under        a length 1000 bytes too large; half the length, all of the file
 *   lastless          half of the file in chunks, without the last one
 *   badchunk          a chunk without a size
 *   stall drip loris  half of the file and then nothing; a byte every 20 ms; so the header
 *   403 503 …         that status with an XML body; =N appends Retry-After: N
 *   html              a page that says sorry, with status 200
 *   empty             no bytes, with status 200
 *   huge endless      a length of 1 TiB; chunks without end; hopendless: behind a redirect
 *   gzip tegzip       64 MiB of zeros in 400 KiB, as Content- or Transfer-Encoding; gzip2: the
 *                     second of two such lines
 *   hop               a redirect to the same address: to what the next step says
 *   to=WHERE          a redirect to WHERE, %XX decoded
 *   headers           header lines without end
 *   mid               of a PUT: a reset after the first 64 KiB
 *   okendless         of a PUT: stored, and an answer without end */
#ifndef EM_TEST_SERVER_H
#define EM_TEST_SERVER_H

#include <stdint.h>

typedef struct net_server net_server;

typedef struct net_counts {
    uint64_t connections, requests;
    uint64_t ranges;     /* answers with status 206 */
    uint64_t body_bytes; /* of files and of what stood in their place, sent */
    uint64_t puts;       /* stored whole */
} net_counts;

/* `address` is "127.0.0.1" or "::1"; NULL when it cannot listen there. A free port. */
net_server *net_server_start(const char *root, const char *address);
int net_server_port(const net_server *s);
net_counts net_server_counts(net_server *s);
/* How often a path ("/-/ok/a.png") was asked for. */
unsigned net_server_asked(net_server *s, const char *path);
void net_server_stop(net_server **s);

#endif
