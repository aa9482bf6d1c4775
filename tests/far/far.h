/* The device `far`: memory that the host cannot address, to find code that touches device memory
 * without asking. For tests; never in the product.
 *
 *     block     | real bytes (read, write) | far bytes (no access) |
 *                                            ^ what alloc hands out
 *
 * Every op of its table moves each tensor's address back by the size of its block and calls another
 * table: `far` the cpu's, `far:1` the reference's. Whoever reads or writes a far address on the
 * host ends with a segmentation fault; an op that is given host memory fails with a sentence.
 * Copies of the COPY queue happen as late as they may. */
#ifndef EM_TESTS_FAR_FAR_H
#define EM_TESTS_FAR_FAR_H

/* Makes em_ops_find know `far` and `far:1`. */
void far_register(void);

#endif
