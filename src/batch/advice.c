/* How many jobs at once: what was measured says, of the clip whose size is nearest. */
#include "batch/state.h"

#include <math.h>
#include <stdio.h>

enum { MOST_LANES = 3 }; /* of any measurement */

/* 16 forwards a clip, one card (bench/parallel.sh, docs/MEMORY.md). */
static const struct {
    const char *card;
    em_memory_mode mode;
    int width, height, frames;
    double seconds[MOST_LANES]; /* a clip, with 1, 2, … lanes */
} measured[] = {
    {"H200", EM_MEMORY_BEEFY, 256, 256, 25, {0.550, 0.430, 0.403}},
    {"H200", EM_MEMORY_BEEFY, 512, 512, 81, {6.226, 5.737, 5.715}},
    {"H100", EM_MEMORY_LIGHTWEIGHT, 256, 256, 25, {0.742, 0.772, 0.826}},
    {"H100", EM_MEMORY_LIGHTWEIGHT, 512, 512, 81, {6.840, 6.530, 6.865}},
};

/* A further lane takes its share of memory: it has to be worth so much. */
static const double WORTH = 0.95;

/* A clip of so many times the size is another matter. */
static const double LIKE = 8;

static double volume(int width, int height, int frames)
{
    return (double)width * height * frames;
}

enum { ROWS = sizeof measured / sizeof *measured };

/* ROWS: nothing like it was measured. auto keeps weights in place where it can, as beefy does. */
static size_t nearest(const em_params *p, em_memory_mode mode)
{
    em_memory_mode like = mode == EM_MEMORY_AUTO ? EM_MEMORY_BEEFY : mode;
    double v = volume(p->sample_size[1], p->sample_size[0], p->video_length), least = log(LIKE);
    size_t best = ROWS;
    for (size_t i = 0; i < ROWS; i++) {
        double far =
            fabs(log(v / volume(measured[i].width, measured[i].height, measured[i].frames)));
        if (measured[i].mode != like || far > least) continue;
        least = far;
        best = i;
    }
    return best;
}

static int best_lanes(const double *seconds)
{
    int best = 1;
    for (int n = 2; n <= MOST_LANES; n++)
        if (seconds[n - 1] < WORTH * seconds[best - 1]) best = n;
    return best;
}

bool em_batch_advice(const em_batch *b, em_memory_mode mode, int lanes, char *text,
                     size_t text_bytes)
{
    const em_batch_item *first = NULL;
    size_t jobs = 0;
    for (size_t i = b->count; i-- > 0;) {
        if (!em_item_waits(&b->item[i])) continue;
        first = &b->item[i];
        jobs++;
    }
    if (jobs < 2 || lanes < 1) return false;
    if ((size_t)lanes > jobs) lanes = (int)jobs; /* there are never more */
    size_t row = nearest(&first->job->params, mode);
    if (row == ROWS) return false;
    const double *seconds = measured[row].seconds;
    int best = best_lanes(seconds), now = lanes < MOST_LANES ? lanes : MOST_LANES;
    if ((size_t)best > jobs) best = (int)jobs;
    if (best == lanes) return false;
    double gain = 100 * (1 - seconds[best - 1] / seconds[now - 1]);
    char effect[64];
    if (gain >= 1)
        snprintf(effect, sizeof effect, "took %.0f %% less time a clip than", gain);
    else
        snprintf(effect, sizeof effect, "%s", "was as fast and takes less memory than");
    snprintf(text, text_bytes,
             "--parallel_jobs %d %s %d where it was measured (%d x %d x %d, %s, one %s)", best,
             effect, now, measured[row].width, measured[row].height, measured[row].frames,
             measured[row].mode == EM_MEMORY_BEEFY ? "beefy" : "lightweight", measured[row].card);
    return true;
}
