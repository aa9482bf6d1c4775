/* The header of a RIFF WAVE file: what wav_in.c reads sound by, and y4m_out.c finds its own sound
 * track by. For builds without FFmpeg (EM_MEDIA=OFF). */
#ifndef EM_IO_WAV_H
#define EM_IO_WAV_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct em_wav {
    int rate_hz, channels, bits; /* of a sample: 16, 24, 32 */
    bool is_float;               /* 32 bits only */
    size_t begin, size_bytes;    /* of the samples in the file, whole frames */
} em_wav;

/* Reads the header of a file that is in memory. EM_FORMAT: not a WAV, damaged, truncated, samples
 * of a kind that is not read. `name` is for sentences. */
em_status em_wav_parse(em_wav *out, const uint8_t *data, size_t size_bytes, const char *name,
                       em_err *err);

enum { EM_WAV_HEADER_BYTES = 44 };
/* The header of float32 samples that follow it to the end of the file. */
void em_wav_header(uint8_t out[EM_WAV_HEADER_BYTES], int rate_hz, int channels,
                   uint32_t size_bytes);

#endif
