/* Any bytes as a SentencePiece model. What is taken tokenises; its ids are those of its pieces. */
#include "fuzz.h"

#include "fuzz_file.h"
#include "models/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Speaker speaks, \xc3\xa4 \xe6\xa8\xa1 <0x41>.";
    em_tokenizer *t = NULL;
    em_err err = {0};
    if (em_tokenizer_open(&t, fuzz_file(data, size), &err)) {
        if (t || err.code == EM_OK || !err.msg[0]) abort();
        return 0;
    }
    int32_t ids[64];
    size_t n = 0;
    if (em_tokenizer_encode(t, text, sizeof text - 1, 64, ids, &n, &err) == EM_OK) {
        if (n == 0 || n > 64) abort();
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || (size_t)ids[i] >= em_tokenizer_size(t)) abort();
    }
    em_tokenizer_close(&t);
    return 0;
}
