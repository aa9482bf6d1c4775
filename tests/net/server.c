#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 16 << 10, PATH_BYTES = 600, PIECE = 64 << 10, PATHS = 4096, LIVES = 256 };

typedef struct path_count {
    char path[PATH_BYTES];
    unsigned asked;
} path_count;

struct net_server {
    char root[512];
    int listener, port;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    net_counts counts;
    path_count *path[PATHS];
    int paths, live;
    int fds[LIVES]; /* of connections, 0: none */
};

typedef struct link {
    net_server *server;
    int fd;
    char head[HEAD_BYTES]; /* the request */
    size_t head_bytes, head_end;
    char path[PATH_BYTES], traits[16], step[400], file[PATH_BYTES];
    unsigned asked; /* which request for this path, from 1 */
    uint64_t size_bytes, from;
    bool partial;
} link_t;

/* ---- bytes ----------------------------------------------------------------------------------- */

static void add(net_server *s, uint64_t *count, uint64_t n)
{
    pthread_mutex_lock(&s->lock);
    *count += n;
    pthread_mutex_unlock(&s->lock);
}

/* Waits; false: the client has gone, or the server stops. */
static bool nap(link_t *l, int ms)
{
    for (int at = 0; at < ms; at += 20) {
        struct pollfd p = {.fd = l->fd, .events = POLLRDHUP};
        if (poll(&p, 1, ms < 20 ? ms : 20) > 0 || atomic_load(&l->server->stop)) return false;
    }
    return true;
}

static bool put(link_t *l, const void *data, size_t n)
{
    for (const char *p = data; n;) {
        ssize_t sent = send(l->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        p += sent, n -= (size_t)sent;
    }
    return true;
}

static bool put_body(link_t *l, const void *data, size_t n)
{
    if (!put(l, data, n)) return false;
    add(l->server, &l->server->counts.body_bytes, n);
    return true;
}

static bool say(link_t *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool say(link_t *l, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return put(l, text, (size_t)n);
}

static void reset(link_t *l)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static int open_file(link_t *l)
{
    char path[sizeof l->server->root + sizeof l->file];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", l->server->root, l->file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &info) == 0) l->size_bytes = (uint64_t)info.st_size;
    return fd;
}

/* Bytes [from, from + n) of the file. */
static bool put_file(link_t *l, int fd, uint64_t from, uint64_t n, bool chunks)
{
    char piece[PIECE];
    while (n) {
        ssize_t got = pread(fd, piece, n < PIECE ? (size_t)n : PIECE, (off_t)from);
        if (got <= 0) return false;
        if (chunks && !say(l, "%zx\r\n", (size_t)got)) return false;
        if (!put_body(l, piece, (size_t)got) || (chunks && !say(l, "\r\n"))) return false;
        from += (uint64_t)got, n -= (uint64_t)got;
    }
    return true;
}

/* ---- a file, rightly and wrongly ------------------------------------------------------------- */

static bool has(const link_t *l, char trait)
{
    return strchr(l->traits, trait) != NULL;
}

static void put_etag(link_t *l)
{
    if (has(l, 's')) say(l, "ETag: \"%s-%llu\"\r\n", l->file, (unsigned long long)l->size_bytes);
    if (has(l, 'w')) say(l, "ETag: W/\"%s\"\r\n", l->file);
    if (has(l, 'v')) say(l, "ETag: \"%s-%u\"\r\n", l->file, l->asked);
}

/* The head of an answer that holds the file, or the part that was asked for. `length` < 0: in
 * chunks. */
static bool put_head(link_t *l, int64_t length)
{
    unsigned long long from = l->from, last = l->size_bytes - 1, all = l->size_bytes;
    say(l, "HTTP/1.1 %s\r\n", l->partial ? "206 Partial Content" : "200 OK");
    put_etag(l);
    if (l->partial) {
        say(l, "Content-Range: bytes %llu-%llu/%llu\r\n", from, last, all);
        add(l->server, &l->server->counts.ranges, 1);
    }
    if (length < 0) return say(l, "Transfer-Encoding: chunked\r\n\r\n");
    return say(l, "Content-Length: %lld\r\n\r\n", (long long)length);
}

static bool is(const link_t *l, const char *step)
{
    return !strcmp(l->step, step);
}

/* Where the steps differ: what length is claimed, how much is sent, how it ends. True: the
 * connection lives on. */
static bool serve_file(link_t *l, int fd)
{
    uint64_t rest = l->size_bytes - l->from, half = rest / 2;
    bool chunks = is(l, "chunked") || is(l, "lastless");
    bool part = is(l, "cut") || is(l, "tear") || is(l, "stall") || is(l, "lastless");
    int64_t claim = (int64_t)(is(l, "over") ? rest + 1000 : is(l, "under") ? half : rest);
    uint64_t sent = part ? half : rest;
    if (!put_head(l, chunks ? -1 : claim)) return false;
    if (is(l, "drip")) {
        for (uint64_t i = 0; i < rest && nap(l, 20); i++) put_file(l, fd, l->from + i, 1, false);
        return false;
    }
    if (!put_file(l, fd, l->from, sent, chunks)) return false;
    if (is(l, "stall")) nap(l, 60000);
    if (is(l, "tear")) reset(l);
    if (is(l, "chunked")) return say(l, "0\r\n\r\n");
    return is(l, "ok");
}

/* ---- what is not the file -------------------------------------------------------------------- */

/* Deflate by hand: one zero, then copies of 258 bytes at distance 1, in thirteen bits each. */
typedef struct bits {
    unsigned char *data;
    size_t n;
} bits;

static void put_bits(bits *b, unsigned value, int count)
{
    for (int i = 0; i < count; i++, b->n++) b->data[b->n / 8] |= (value >> i & 1) << b->n % 8;
}

static void put_code(bits *b, unsigned code, int count) /* Huffman codes: high bit first */
{
    for (int i = count - 1; i >= 0; i--) put_bits(b, code >> i & 1, 1);
}

static bool serve_bomb(link_t *l)
{
    enum { COPIES = (64 << 20) / 258, ROOM = COPIES * 13 / 8 + 64 };
    static const unsigned char header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    bits b = {.data = calloc(1, ROOM)};
    if (!b.data) return false;
    memcpy(b.data, header, sizeof header);
    b.n = 8 * sizeof header;
    put_bits(&b, 3, 3); /* last block, fixed codes */
    put_code(&b, 0x30, 8);
    for (int i = 0; i < COPIES; i++) {
        put_code(&b, 0xc5, 8);
        put_code(&b, 0, 5);
    }
    put_code(&b, 0, 7);
    size_t n = b.n / 8 + 9;
    if (strncmp(l->step, "gzip", 4) == 0)
        say(l, "HTTP/1.1 200 OK\r\n%sContent-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n",
            is(l, "gzip2") ? "Content-Encoding: identity\r\n" : "", n);
    else
        say(l, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n");
    put_body(l, b.data, n);
    free(b.data);
    return false;
}

static bool serve_page(link_t *l)
{
    static const char page[] = "<!DOCTYPE html>\n<html><head><title>Sorry</title></head>"
                               "<body>Please try again later.</body></html>\n";
    say(l, "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %zu\r\n\r\n",
        sizeof page - 1);
    return put_body(l, page, sizeof page - 1);
}

static bool serve_status(link_t *l)
{
    static const char xml[] = "<?xml version=\"1.0\"?><Error><Code>Refused</Code></Error>\n";
    const char *after = strchr(l->step, '=');
    say(l, "HTTP/1.1 %.3s Refused\r\n", l->step);
    if (after) say(l, "Retry-After: %s\r\n", after + 1);
    say(l, "Content-Length: %zu\r\n\r\n", sizeof xml - 1);
    return put_body(l, xml, sizeof xml - 1);
}

static void decode(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++, out++) {
        unsigned code;
        if (*p == '%' && sscanf(p + 1, "%2x", &code) == 1) {
            *out = (char)code;
            p += 2;
        } else {
            *out = *p;
        }
    }
    *out = 0;
}

static bool serve_redirect(link_t *l)
{
    char where[PATH_BYTES];
    snprintf(where, sizeof where, "%s", is(l, "hop") ? l->path : strchr(l->step, '=') + 1);
    if (!is(l, "hop")) decode(where);
    return say(l, "HTTP/1.1 307 Elsewhere\r\nLocation: %s\r\nContent-Length: 6\r\n\r\nmoved\n",
               where);
}

/* Also behind a redirect, and behind a PUT that was stored. */
static bool serve_endless(link_t *l)
{
    static const char *const heads[] = {"200 OK", "307 Elsewhere\r\nLocation: /-/ok/a.png",
                                        "201 Created"};
    char piece[PIECE];
    memset(piece, 'x', sizeof piece);
    memcpy(piece, "\x89PNG\r\n\x1a\n", 8);
    say(l, "HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n",
        heads[is(l, "hopendless")  ? 1
              : is(l, "okendless") ? 2
                                   : 0]);
    while (!atomic_load(&l->server->stop))
        if (!say(l, "%x\r\n", PIECE) || !put_body(l, piece, PIECE) || !say(l, "\r\n")) break;
    return false;
}

static bool serve_headers(link_t *l)
{
    say(l, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; !atomic_load(&l->server->stop); i++)
        if (!say(l, "X-Filler-%d: %01000d\r\n", i, i)) break;
    return false;
}

static bool serve_slow_header(link_t *l)
{
    for (int i = 0; nap(l, 20); i++)
        if (!say(l, "%c", i < 17 ? "HTTP/1.1 200 OK\r\n"[i] : 'x')) break;
    return false;
}

/* True: the step is one of these; *live: the connection lives on. */
static bool serve_other(link_t *l, bool *live)
{
    *live = false;
    if (is(l, "close")) return true;
    if (is(l, "reset")) return reset(l), true;
    if (is(l, "garbage")) return say(l, "SSH-2.0-OpenSSH_9.2\r\n"), true;
    if (is(l, "html")) return *live = serve_page(l), true;
    if (strstr(l->step, "gzip")) return *live = serve_bomb(l), true;
    if (is(l, "hop") || !strncmp(l->step, "to=", 3)) return *live = serve_redirect(l), true;
    if (strstr(l->step, "endless")) return *live = serve_endless(l), true;
    if (is(l, "headers")) return *live = serve_headers(l), true;
    if (is(l, "loris")) return *live = serve_slow_header(l), true;
    if (is(l, "empty")) return *live = say(l, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), true;
    if (is(l, "huge"))
        return say(l, "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n"), nap(l, 60000),
               true;
    if (is(l, "badchunk"))
        return say(l, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), true;
    if (strspn(l->step, "0123456789") == 3) return *live = serve_status(l), true;
    return false;
}

/* ---- requests -------------------------------------------------------------------------------- */

static const char *header(const link_t *l, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = l->head; (p = strstr(p, "\r\n")) && p[2] != '\r';) {
        p += 2;
        if (!strncasecmp(p, name, n) && p[n] == ':') return p + n + 1 + strspn(p + n + 1, " ");
    }
    return NULL;
}

/* Up to the empty line; what is already here of a body stays behind head_end. */
static bool read_head(link_t *l)
{
    size_t kept = l->head_bytes - l->head_end;
    memmove(l->head, l->head + l->head_end, kept);
    l->head_bytes = kept;
    for (;;) {
        l->head[l->head_bytes] = 0;
        const char *end = strstr(l->head, "\r\n\r\n");
        if (end) return l->head_end = (size_t)(end + 4 - l->head), true;
        bool http = !l->head_bytes || (l->head[0] >= 'A' && l->head[0] <= 'Z');
        if (!http || l->head_bytes + 1 == sizeof l->head) return false;
        ssize_t n = recv(l->fd, l->head + l->head_bytes, sizeof l->head - 1 - l->head_bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        l->head_bytes += (size_t)n;
    }
}

static unsigned count_path(net_server *s, const char *path, unsigned more)
{
    unsigned asked = 0;
    pthread_mutex_lock(&s->lock);
    int i = 0;
    while (i < s->paths && strcmp(s->path[i]->path, path) != 0) i++;
    if (i == s->paths && more && i < PATHS) {
        s->path[i] = calloc(1, sizeof *s->path[i]);
        if (!s->path[i]) abort();
        snprintf(s->path[i]->path, PATH_BYTES, "%s", path);
        s->paths++;
    }
    if (i < s->paths) asked = s->path[i]->asked += more;
    pthread_mutex_unlock(&s->lock);
    return asked;
}

/* "/TRAITS/STEP,STEP/…/FILE": what this request gets. */
static bool route(link_t *l)
{
    char steps[sizeof l->step];
    const char *name = strrchr(l->path, '/');
    if (sscanf(l->path, "/%15[^/]/%399[^/]/", l->traits, steps) != 2 || name[1] == '.')
        return false;
    snprintf(l->file, sizeof l->file, "%s", name + 1);
    const char *p = steps;
    for (unsigned i = 1; i < l->asked && strchr(p, ','); i++) p = strchr(p, ',') + 1;
    snprintf(l->step, sizeof l->step, "%.*s", (int)strcspn(p, ","), p);
    return true;
}

/* A Range behind an If-Range that fits, or behind none. */
static void take_range(link_t *l)
{
    char strong[PATH_BYTES + 32];
    unsigned long long from = 0;
    const char *range = header(l, "Range"), *only_if = header(l, "If-Range");
    l->from = 0;
    l->partial = false;
    if (!range || has(l, 'i') || sscanf(range, "bytes=%llu-", &from) != 1) return;
    int n =
        snprintf(strong, sizeof strong, "\"%s-%llu\"", l->file, (unsigned long long)l->size_bytes);
    bool fits = has(l, 'e') || (has(l, 's') && only_if && !strncmp(only_if, strong, (size_t)n));
    if (only_if && !fits) return;
    if (from >= l->size_bytes) return;
    l->from = from - (has(l, 'p') && from ? 1 : 0);
    l->partial = true;
}

/* Reads the body of a PUT into ROOT/FILE.put; at most `most` bytes of it. */
static uint64_t take_body(link_t *l, uint64_t length, uint64_t most, const char *path)
{
    uint64_t got = 0;
    char piece[PIECE];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    while (fd >= 0 && got < length && got < most) {
        size_t held = l->head_bytes - l->head_end;
        ssize_t n = (ssize_t)(held < PIECE ? held : PIECE);
        if (held) {
            memcpy(piece, l->head + l->head_end, (size_t)n);
            l->head_end += (size_t)n;
        } else {
            n = recv(l->fd, piece, length - got < PIECE ? (size_t)(length - got) : PIECE, 0);
        }
        if (n <= 0 || write(fd, piece, (size_t)n) != n) break;
        got += (uint64_t)n;
    }
    if (fd >= 0) close(fd);
    return got;
}

static bool serve_put(link_t *l)
{
    char path[1200], part[1210];
    const char *claimed = header(l, "Content-Length");
    unsigned long long length = 0;
    bool live = false;
    if (!claimed || sscanf(claimed, "%llu", &length) != 1) return false;
    snprintf(path, sizeof path, "%s/%s", l->server->root, l->file);
    snprintf(part, sizeof part, "%s.put", path);
    if (is(l, "reset")) return reset(l), false;
    uint64_t got = take_body(l, length, is(l, "mid") ? PIECE : UINT64_MAX, part);
    if (is(l, "mid")) return reset(l), unlink(part), false;
    if (!strncmp(l->step, "ok", 2) && got == length && rename(part, path) == 0) {
        add(l->server, &l->server->counts.puts, 1);
        if (is(l, "okendless")) return serve_endless(l);
        return say(l, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    }
    unlink(part);
    if (is(l, "stall")) return nap(l, 60000), false;
    return serve_other(l, &live) && live;
}

static bool serve(link_t *l)
{
    char method[8], target[2048];
    bool live = false;
    add(l->server, &l->server->counts.requests, 1);
    if (sscanf(l->head, "%7s %2047s", method, target) != 2) return false;
    snprintf(l->path, sizeof l->path, "%.*s", (int)strcspn(target, "?#"), target);
    l->asked = count_path(l->server, l->path, 1);
    if (!route(l)) return say(l, "HTTP/1.1 404 Nothing\r\nContent-Length: 0\r\n\r\n");
    if (!strcmp(method, "PUT")) return serve_put(l);
    if (serve_other(l, &live)) return live;
    int fd = open_file(l);
    if (fd < 0) return say(l, "HTTP/1.1 404 Nothing\r\nContent-Length: 0\r\n\r\n");
    take_range(l);
    live = serve_file(l, fd);
    close(fd);
    return live;
}

/* ---- connections ----------------------------------------------------------------------------- */

static void *run_link(void *arg)
{
    link_t *l = arg;
    net_server *s = l->server;
    while (read_head(l) && serve(l)) {
    }
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < LIVES; i++)
        if (s->fds[i] == l->fd) s->fds[i] = 0;
    close(l->fd);
    s->live--;
    pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    free(l);
    return NULL;
}

static void accept_one(net_server *s, int fd)
{
    pthread_t thread;
    link_t *l = calloc(1, sizeof *l);
    if (!l) abort();
    l->server = s;
    l->fd = fd;
    pthread_mutex_lock(&s->lock);
    s->counts.connections++;
    s->live++;
    int i = 0;
    while (i < LIVES && s->fds[i]) i++;
    if (i == LIVES) abort();
    s->fds[i] = fd;
    pthread_mutex_unlock(&s->lock);
    if (pthread_create(&thread, NULL, run_link, l) != 0) abort();
    pthread_detach(thread);
}

static void *run_server(void *arg)
{
    net_server *s = arg;
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {.fd = s->listener, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) accept_one(s, fd);
    }
    return NULL;
}

static int listen_on(const char *address, int *port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    bool six = !strcmp(address, "::1");
    struct sockaddr *a = six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t n = six ? sizeof v6 : sizeof v4;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, a, n) != 0 || listen(fd, 128) != 0 || getsockname(fd, a, &n) != 0) {
        close(fd);
        return -1;
    }
    *port = ntohs(six ? v6.sin6_port : v4.sin_port);
    return fd;
}

net_server *net_server_start(const char *root, const char *address)
{
    net_server *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    snprintf(s->root, sizeof s->root, "%s", root);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->listener = listen_on(address, &s->port);
    if (s->listener < 0 || pthread_create(&s->thread, NULL, run_server, s) != 0) {
        free(s);
        return NULL;
    }
    return s;
}

int net_server_port(const net_server *s)
{
    return s->port;
}

net_counts net_server_counts(net_server *s)
{
    pthread_mutex_lock(&s->lock);
    net_counts c = s->counts;
    pthread_mutex_unlock(&s->lock);
    return c;
}

unsigned net_server_asked(net_server *s, const char *path)
{
    return count_path(s, path, 0);
}

void net_server_stop(net_server **server)
{
    net_server *s = *server;
    if (!s) return;
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    close(s->listener);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < LIVES; i++)
        if (s->fds[i]) shutdown(s->fds[i], SHUT_RDWR);
    while (s->live) pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->paths; i++) free(s->path[i]);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *server = NULL;
}
