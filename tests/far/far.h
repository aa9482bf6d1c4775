/* The device `far`: memory that the host cannot address, to find code that touches device memory
 * without asking. For tests; never in the product.
 *
 *     block     | real bytes (read, write) | far bytes (no access) |
 *                                            ^ what alloc hands out
 *
 * Every op of its table moves each tensor's address back by the size of its block and calls another
 * table: `far` the cpu's, `far:1` the reference's. Whoever reads or writes a far address on the
 * host ends with a segmentation fault; an op that is given host memory fails with a sentence.
 * Copies of the COPY queue happen as late as they may. A graph keeps ops with their addresses and
 * does them when it is launched; what a GPU's does not hold breaks the capture. */
#ifndef EM_TESTS_FAR_FAR_H
#define EM_TESTS_FAR_FAR_H

/* Makes em_ops_find know `far` and `far:1`. */
void far_register(void);

/* What is counted of graphs, and fails when asked to. */
typedef enum far_step {
    FAR_CAPTURE_BEGIN,
    FAR_CAPTURED_OP,
    FAR_CAPTURE_END,
    FAR_LAUNCH,
    FAR_STEPS
} far_step;

/* Counts from zero; the fail_at-th from now on fails (0: none). */
void far_watch(far_step s, int fail_at);
int far_watched(far_step s);
int far_graphs(void); /* that were made and not destroyed */

#endif
