/* How long things take on one queue of a device, by its own clock: pairs of events around each,
 * read when they have happened. All that it will ever need is taken when it is opened. */
#ifndef EM_MEMORY_STOPWATCH_H
#define EM_MEMORY_STOPWATCH_H

#include "device/device.h"

/* Under way at once. Who starts one more waits for the oldest: a host that is as far ahead of the
 * device as that has filled the device's own queue before. */
enum { EM_LAPS = 128 };

typedef struct em_stopwatch {
    em_device *device; /* borrowed */
    em_queue queue;
    struct {
        em_event *from, *to; /* owned */
        double weight;
    } lap[EM_LAPS];
    size_t begun, read; /* laps so far: read <= begun <= read + EM_LAPS */
    double ms; /* of those that were read, times their weights; the caller may set it to 0 */
} em_stopwatch;

/* *out stays NULL, which every function below takes and does nothing with, where the device has no
 * clock. Owned by the caller: em_stopwatch_close. */
em_status em_stopwatch_open(em_stopwatch **out, em_device *d, em_queue queue, em_err *err);
void em_stopwatch_close(em_stopwatch **w);

/* One lap at a time: begin, give the queue what is to be measured, end. A lap of weight 1 stands
 * for itself; of work that comes in many like pieces one may be timed for the others. */
em_status em_stopwatch_begin(em_stopwatch *w, em_err *err);
em_status em_stopwatch_end(em_stopwatch *w, double weight, em_err *err);
/* Adds up the laps that are over by now, without waiting for others: those stay for the next
 * reading. */
em_status em_stopwatch_read(em_stopwatch *w, em_err *err);

#endif
