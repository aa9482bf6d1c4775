/* https: a certificate that nobody vouches for, or that is another server's, ends it. The server is
 * that of the openssl program; without it the tests are skipped. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

enum { SIZE = 200000, MOST = 1 << 20 };

extern char **environ;

typedef struct tls_server {
    pid_t pid;
    int port;
} tls_server;

/* Runs openssl in the folder; *out, if given, is the read end of its stdout. */
static pid_t spawn_openssl(void **state, const char *const argv[], int *out)
{
    const harness *h = *state;
    posix_spawn_file_actions_t files;
    int pipe_fd[2];
    pid_t pid = -1;
    if (pipe(pipe_fd) != 0) abort();
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addchdir_np(&files, h->dir.path);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, pipe_fd[1], 1);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&files, pipe_fd[0]);
    if (posix_spawnp(&pid, "openssl", &files, NULL, (char *const *)argv, environ) != 0) pid = -1;
    posix_spawn_file_actions_destroy(&files);
    close(pipe_fd[1]);
    if (out)
        *out = pipe_fd[0];
    else
        close(pipe_fd[0]);
    return pid;
}

/* A certificate that vouches for itself, NAME.pem with its key. */
static bool make_certificate(void **state, const char *pem, const char *names)
{
    const char *const argv[] = {
        "openssl", "req",   "-x509", "-newkey", "ec",       "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes",  "-days", "2",     "-subj",   "/CN=test", "-addext",  names,
        "-keyout", "key",   "-out",  pem,       NULL};
    int rc = -1;
    pid_t pid = spawn_openssl(state, argv, NULL);
    if (pid < 0 || waitpid(pid, &rc, 0) != pid || rc != 0) return false;
    FILE *key = fopen(tmpdir_path(state, "key"), "r");
    FILE *to = fopen(tmpdir_path(state, pem), "a");
    for (int c; key && to && (c = fgetc(key)) != EOF;) fputc(c, to);
    if (key) fclose(key);
    if (to) fclose(to);
    return true;
}

/* Serves the files of the folder. */
static tls_server serve(void **state, const char *pem)
{
    const char *const argv[] = {"openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                                pem,       "-key",     pem,       "-WWW",        NULL};
    tls_server s = {0};
    int out = -1;
    char line[200] = "";
    s.pid = spawn_openssl(state, argv, &out);
    FILE *f = fdopen(out, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "ACCEPT 127.0.0.1:%d", &s.port) == 1) break;
    if (!s.port) fail_msg("openssl says '%s'", line);
    fclose(f);
    return s;
}

static void end(tls_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
}

static void check(void **state, const char *host, int port, em_status want, const char *says)
{
    char url[100];
    em_fetch_result r;
    em_err err = {0};
    snprintf(url, sizeof url, "https://%s:%d/a.png", host, port);
    em_status st = harness_fetch(state, url, MOST, &r, &err);
    if (st != want || !strstr(err.msg, says)) fail_msg("%s: %d, %s", url, st, err.msg);
}

static void test_certificates(void **state)
{
    harness *h = *state;
    signal(SIGPIPE, SIG_IGN);
    if (!make_certificate(state, "own.pem", "subjectAltName=IP:127.0.0.1,DNS:localhost") ||
        !make_certificate(state, "other.pem", "subjectAltName=DNS:other.example"))
        skip();
    harness_media(state, "a.png", SIZE);
    tls_server own = serve(state, "own.pem"), other = serve(state, "other.pem");
    check(state, "127.0.0.1", own.port, EM_NETWORK, "certificate"); /* unknown to the system */
    assert_int_equal(h->log_bytes, 0);                              /* and not tried again */
    h->options.ca_file = tmpdir_path(state, "own.pem");
    check(state, "127.0.0.1", own.port, EM_OK, "");
    assert_true(same_files(tmpdir_path(state, "got-0"), tmpdir_path(state, "a.png")));
    check(state, "127.0.0.1", other.port, EM_NETWORK, "certificate");
    h->options.ca_file = tmpdir_path(state, "other.pem"); /* trusted, and somebody else's */
    check(state, "127.0.0.1", other.port, EM_NETWORK, "certificate");
    check(state, "127.0.0.1", own.port, EM_NETWORK, "certificate");
    h->options.ca_file = tmpdir_path(state, "none.pem");
    check(state, "127.0.0.1", own.port, EM_NETWORK, "CA cert");
    end(&own);
    end(&other);
}

/* https does not lead to http, not even inside an allowed network. */
static void test_no_tls_there(void **state)
{
    harness *h = *state;
    h->options.tries = 2;
    check(state, "127.0.0.1", net_server_port(h->server), EM_NETWORK, "SSL");
    assert_int_equal(net_server_counts(h->server).requests, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_certificates, harness_setup, harness_teardown),
        cmocka_unit_test_setup_teardown(test_no_tls_there, harness_setup, harness_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
