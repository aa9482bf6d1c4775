#include "ops/table.h"

#include "../test.h"
#include "far/far.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* `name` and `name:N` go to the registered table, whose answer stands; built-in names stay. */
static void registered_names(void **state)
{
    (void)state;
    assert_null(em_ops_find("far"));
    far_register();
    far_register(); /* once more changes nothing */
    const em_ops *far = em_ops_find("far");
    assert_non_null(far);
    assert_string_equal(far->name, "far");
    assert_string_equal(far->device->name, "far");
    assert_string_equal(em_ops_find("far:1")->name, "far:1");
    assert_ptr_equal(em_ops_find("far:0"), far);
    assert_null(em_ops_find("far:2"));
    assert_null(em_ops_find("far:x"));
    assert_null(em_ops_find("far:"));
    assert_null(em_ops_find("farther"));
    assert_null(em_ops_find("fa"));
    assert_null(em_ops_find(""));
    assert_ptr_equal(em_ops_find("cpu"), em_ops_cpu());
    assert_ptr_equal(em_ops_find("ref"), em_ops_ref());
}

/* How a child that reads one byte there ends: 0, or the number of the signal. */
static int signal_of_reading(const volatile char *p)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGSEGV, SIG_DFL);
        (void)*p;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* far's memory can be filled, computed with and read back, and nothing else. */
static void far_is_far(void **state)
{
    (void)state;
    const float two[] = {1, 2}, local[] = {3, 4};
    float back[2] = {0};
    em_err err = {0};
    far_register();
    em_run r = {.ops = em_ops_find("far"), .dtype = EM_F32};
    assert_ok(em_arena_open(&r.arena, r.ops->device, 4096, true, &err), err);
    em_tensor x = em_upload(&r, two, EM_F32, EM_SHAPE(2));
    em_add(&r, x, x);
    em_download(&r, x, back);
    assert_ok(r.err.code, r.err);
    assert_true(back[0] == 2 && back[1] == 4);
    assert_int_equal(signal_of_reading(x.data), SIGSEGV);

    em_tensor here = em_tensor_of((void *)(uintptr_t)local, EM_F32, EM_SHAPE(2));
    em_add(&r, x, here); /* memory of the host is no operand */
    assert_int_equal(r.err.code, EM_DEVICE);
    assert_non_null(strstr(r.err.msg, "not in memory of the device"));
    em_arena_close(&r.arena);
}

/* A copy arrives when somebody waits for it, and not before. */
static void far_copies_late(void **state)
{
    (void)state;
    float values[4] = {1, 2, 3, 4}, back[4];
    em_err err = {0};
    void *block;
    em_event *e;
    far_register();
    em_device *far = em_ops_find("far")->device;
    assert_ok(far->alloc(far, &block, sizeof values, &err), err);
    assert_ok(far->event_create(far, &e, &err), err);
    assert_ok(far->queue_wait(far, EM_QUEUE_COMPUTE, e, &err), err); /* never recorded */
    assert_ok(far->copy_async(far, block, values, sizeof values, &err), err);
    assert_ok(far->event_record(far, e, EM_QUEUE_COPY, &err), err);
    assert_ok(far->download(far, back, block, sizeof back, &err), err);
    assert_true(back[0] != back[0]);
    values[0] = 9; /* too early: the copy has not been made */
    assert_ok(far->queue_wait(far, EM_QUEUE_COMPUTE, e, &err), err);
    assert_ok(far->download(far, back, block, sizeof back, &err), err);
    assert_true(back[0] == 9 && back[3] == 4);
    far->event_destroy(far, e);
    far->free(far, block, sizeof values);
}

/* A graph keeps what COMPUTE was given and does it when it is launched; what it cannot keep breaks
 * it, and COMPUTE goes on. */
static void far_graphs_wait(void **state)
{
    (void)state;
    float back[2] = {0};
    em_err err = {0};
    em_graph *g = NULL;
    far_register();
    em_run r = {.ops = em_ops_find("far"), .dtype = EM_F32};
    em_device *far = r.ops->device;
    assert_ok(em_arena_open(&r.arena, far, 4096, false, &err), err);
    em_tensor x = em_upload(&r, (const float[]){1, 2}, EM_F32, EM_SHAPE(2));
    assert_ok(far->capture_begin(far, &err), err);
    em_add(&r, x, x);
    assert_ok(far->capture_end(far, &g, &err), err);
    for (int i = 0; i < 3; i++) {
        em_download(&r, x, back);
        assert_true(back[0] == (float)(1 << i) && back[1] == (float)(2 << i));
        assert_ok(far->graph_launch(far, g, &err), err);
    }
    far->graph_destroy(far, g);
    g = NULL;
    assert_ok(far->capture_begin(far, &err), err);
    assert_int_equal(far->sync(far, &err), EM_DEVICE);
    assert_int_equal(far->download(far, back, x.data, sizeof back, &err), EM_DEVICE);
    assert_int_equal(far->capture_end(far, &g, &err), EM_DEVICE);
    assert_null(g);
    em_download(&r, x, back);
    assert_true(back[0] == 8);
    far->graph_destroy(far, NULL);
    em_arena_close(&r.arena);
}

/* Released scratch is poisoned through the device. */
static void far_is_poisoned(void **state)
{
    (void)state;
    unsigned char back[64] = {0}, ones[64];
    const unsigned char zeros[64] = {0};
    em_err err = {0};
    far_register();
    em_device *far = em_ops_find("far")->device;
    em_arena a;
    memset(ones, 0xFF, sizeof ones);
    assert_ok(em_arena_open(&a, far, 1 << 20, true, &err), err);
    em_mark m = em_arena_mark(&a);
    void *p = em_arena_take(&a, 64, false);
    assert_ok(far->download(far, back, p, sizeof back, &err), err);
    assert_memory_equal(back, ones, sizeof ones);
    assert_ok(far->upload(far, p, zeros, sizeof zeros, &err), err);
    em_arena_release(&a, m);
    assert_ok(far->download(far, back, p, sizeof back, &err), err);
    assert_memory_equal(back, ones, sizeof ones);
    assert_ok(far->download(far, back, a.base + a.size_bytes - 64, 64, &err), err);
    assert_memory_equal(back, ones, sizeof ones);
    em_arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registered_names), cmocka_unit_test(far_is_far),
        cmocka_unit_test(far_copies_late),  cmocka_unit_test(far_graphs_wait),
        cmocka_unit_test(far_is_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
