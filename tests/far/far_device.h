/* What the parts of the device `far` know of each other: far.c (memory, queues, graphs) and
 * far_ops.c (the table). */
#ifndef EM_TESTS_FAR_FAR_DEVICE_H
#define EM_TESTS_FAR_FAR_DEVICE_H

#include "ops/table.h"

extern em_device far_device;

/* The real address of n far bytes; NULL when they are not all in one block. */
void *far_real(const void *far, size_t n);
/* EM_DEVICE with a sentence: `what` was given bytes that are not far away. */
em_status far_refuse(const char *what, em_err *err);

/* An op with its operands in real memory: the result first, in the order of the table. */
typedef struct far_call far_call;
struct far_call {
    em_status (*run)(em_run *r, const far_call *c); /* calls the inner table */
    em_tensor t[1 + EM_LINCOMB_MAX];
    void *ws;
    union {
        em_act act;
        em_attn attn;
        em_conv_args conv;
        em_norm_spec norm;
        em_binary binary;
        float number; /* a value, an epsilon */
        int heads;
        struct {
            int n;
            float c[EM_LINCOMB_MAX];
        } terms;
        struct {
            int64_t dst, src, count;
        } cols;
        struct {
            int h, w;
        } patch;
        const int32_t *idx; /* borrowed for the call: cannot be captured */
    } u;
};

/* Gives an op to COMPUTE: it is done now or, between capture_begin and capture_end, kept. */
em_status far_enqueue(em_run *r, const far_call *c);
/* COMPUTE is asked for something that no graph holds. EM_DEVICE during a capture, which is lost
 * with it. */
em_status far_uncapturable(const char *what, em_err *err);

#endif
