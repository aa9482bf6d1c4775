/* A video on its way into its file.
 *
 * Frames go through a short queue to a thread that encodes them, so that the decoder does not wait
 * for the encoder; and what is left when the last frame is handed over (the encoder's look-ahead,
 * the index, reading the file back, the disk) happens while the next request is denoised:
 *
 *     em_film_open -> em_generate(..., em_film_sink) -> em_film_end -> next request ...
 *                                                          ... em_film_wait -> em_film_close
 *
 * The bytes are those of encoding on the spot: one thread, the same order. */
#ifndef EM_PIPELINE_FILM_H
#define EM_PIPELINE_FILM_H

#include "echomimic.h"
#include "io/video_out.h"

#include <stdbool.h>

typedef struct em_film em_film;

enum { EM_FILM_QUEUE = 8 }; /* frames between the two threads: two latents' worth */

typedef struct em_film_params {
    const char *output_path; /* the final name, .mp4; copied */
    em_media *media;         /* decoded; borrowed until em_generate has returned */
    int fps, crf;
    em_log log; /* its user pointer outlives the film */
    /* Passed on from em_generate, in its thread; may be NULL. */
    void (*progress)(void *user, const em_progress *p);
    /* Called in the film's thread when the file is complete, was read back and is on the disk, but
     * has no final name yet: the moment to record it. A failure removes it; err is the callback's
     * to fill. May be NULL. */
    em_status (*whole)(void *user, const char *part_path, const em_video_info *video, em_err *err);
    void *user; /* of both; outlives the film */
} em_film_params;

/* Starts the thread; nothing is written before the first frame is near. *out is owned by the
 * caller: em_film_close. */
em_status em_film_open(em_film **out, const em_film_params *p, em_err *err);

/* For em_generate; borrowed until em_film_end or em_film_close. Frames are copied; a failure of the
 * encoder (a full disk) is told at the next frame, and by em_film_wait. */
em_sink em_film_sink(em_film *f);

/* em_generate returned EM_OK, no frame will follow: the thread completes the file, checks it, calls
 * `whole` and renames it. Does not wait. */
void em_film_end(em_film *f);
/* Blocks until the file has its name, or failed to get it. Only after em_film_end. */
em_status em_film_wait(em_film *f, em_err *err);
/* em_film_wait would not block. */
bool em_film_settled(em_film *f);

/* Waits for an ended film; drops one that was not ended, with all that was written. NULL inside is
 * allowed. */
void em_film_close(em_film **f);

#endif
