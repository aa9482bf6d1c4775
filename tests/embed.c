/* A C program that embeds the engine: the installed header, the shared library, nothing else.
 * embed SHARE: plans a short video of the demo model and makes it in memory. */
#include <echomimic.h>

#include <stdio.h>
#include <string.h>

enum { SIDE = 64, RATE_HZ = 16000 };

static em_status count_frame(void *user, const uint8_t *rgb, int index, em_err *err)
{
    (void)rgb, (void)index, (void)err;
    ++*(int *)user;
    return EM_OK;
}

int main(int argc, char **argv)
{
    static uint8_t rgb[SIDE * SIDE * 3];
    static float mono[RATE_HZ];
    char model[512], speech[512];
    int frames = 0;
    em_err err = {0};
    em_engine *engine = NULL;
    em_result plan = {0}, made = {0};
    em_engine_params where = em_engine_params_default();
    em_params p = em_params_default();
    if (argc != 2) return 2;
    for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = (uint8_t)(i % 251);
    for (int i = 0; i < RATE_HZ; i++) mono[i] = (float)(i * 37 % 200 - 100) / 400;
    snprintf(model, sizeof model, "%s/demo-model", argv[1]);
    snprintf(speech, sizeof speech, "%s/demo-model/wav2vec2", argv[1]);
    where.model_name = model;
    where.wav2vec_model_dir = speech;
    p.sample_size[0] = p.sample_size[1] = SIDE;
    p.video_length = 5;
    p.num_inference_steps = 1;

    const em_picture picture = {rgb, SIDE, SIDE};
    const em_sound sound = {mono, RATE_HZ, RATE_HZ};
    const em_sink sink = {.frame = count_frame, .user = &frames};
    em_status st = em_engine_open(&engine, &where, &err);
    if (!st) st = em_plan(engine, &picture, &sound, &p, &plan, &err);
    if (!st) st = em_generate(engine, &picture, &sound, &p, &sink, &made, &err);
    em_engine_close(&engine);
    if (st) fprintf(stderr, "%s: %s\n", em_status_text(st), err.msg);
    printf("echomimic %s: %d frames, %llu bytes planned, %llu used\n", em_version(), frames,
           (unsigned long long)plan.scratch_bytes, (unsigned long long)made.scratch_bytes);
    return st || frames != 5 || plan.scratch_bytes != made.scratch_bytes;
}
