/* What the process weighs, as the kernel counts it. */
#ifndef EM_BASE_PROCESS_H
#define EM_BASE_PROCESS_H

#include <stdint.h>

/* Pages of this process that are in memory, its own and those of mapped files: now, and the most
 * since it began. 0 where the system does not tell. Allocates nothing. */
typedef struct em_process_memory {
    uint64_t rss_bytes, rss_peak_bytes;
} em_process_memory;

em_process_memory em_process_memory_now(void);

#endif
