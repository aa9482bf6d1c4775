/* The monotonic clock. */
#ifndef EM_BASE_TIME_H
#define EM_BASE_TIME_H

double em_now_ms(void); /* milliseconds since an arbitrary start */

#endif
