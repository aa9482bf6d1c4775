/* What every cmocka test includes. */
#ifndef EM_TEST_H
#define EM_TEST_H

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

/* A status that must be EM_OK; prints the sentence when it is not. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        if ((call) != EM_OK) fail_msg("%s: %s", #call, (err).msg);                                 \
    } while (0)

#endif
