/* The one function of a fuzz target; libFuzzer gives it its name. Returns 0, or aborts on a
 * finding. */
#ifndef EM_FUZZ_H
#define EM_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
