/* hundred PROGRAM SHARE: a hundred jobs of which ten are poisoned, each in a way of its own. The
 * ninety others give the bytes that they give alone, and each of the ten is named with its
 * cause. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOBS = 100, POISONS = 10, EVERY = JOBS / POISONS };

/* Every tenth job. Files are made below; $ is the folder, @ the share folder. */
static const struct {
    const char *image, *audio, *rest;
    const char *cause; /* what the report must say of it … */
    const char *which; /* … and about what */
} poison[POISONS] = {
    {"$/missing.png", "@/demo/ada.wav", "", "does not exist", "missing.png"},
    {"$/letter.png", "@/demo/ada.wav", "", "JPEG, PNG", "letter.png"},
    {"$/cut.png", "@/demo/ada.wav", "", "truncated", "cut.png"},
    {"$/folder", "@/demo/ada.wav", "", "folder", "folder"},
    {"@/demo/ada.png", "$/letter.png", "", "sound", "letter.png"},
    {"@/demo/ada.png", "$/cut.wav", "", "truncated", "cut.wav"},
    {"@/demo/ada.png", "$/blip.wav", "", "give a longer sound", "blip.wav"},
    {"https://127.0.0.1:9/face.png?sig=s3cret", "@/demo/ada.wav", "", "--allow_private",
     "127.0.0.1"},
    {"https://example.org/face.png?X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature="
     "s3cret",
     "@/demo/ada.wav", "", "expired", "example.org"},
    {"@/demo/ada.png", "@/demo/ada.wav", "", "folder",
     "poison_9"}, /* its name is taken: see main */
};

static void expand(char *out, size_t room, const harness *h, const char *text)
{
    const char *at = *text == '$' ? h->dir : *text == '@' ? h->share : "";
    snprintf(out, room, "%s%s", at, *at ? text + 1 : text);
}

static void write_list(const harness *h, const char *path, bool poisoned)
{
    char image[2 * HARNESS_PATH], audio[2 * HARNESS_PATH];
    bool first = true;
    FILE *f = fopen(path, "w");
    if (!f) fail("cannot write %s", path);
    fprintf(f, "[");
    for (int i = 0; i < JOBS; i++) {
        bool bad = i % EVERY == EVERY - 1;
        if (bad && !poisoned) continue;
        expand(image, sizeof image, h, bad ? poison[i / EVERY].image : "@/demo/ada.png");
        expand(audio, sizeof audio, h, bad ? poison[i / EVERY].audio : "@/demo/ada.wav");
        fprintf(f,
                "%s\n{\"portrait_image\": \"%s\", \"portrait_audio\": \"%s\", \"output_name\": "
                "\"%s_%d\", \"seed\": %d%s}",
                first ? "" : ",", image, audio, bad ? "poison" : "good", bad ? i / EVERY : i, i,
                bad ? poison[i / EVERY].rest : "");
        first = false;
    }
    fprintf(f, "\n]\n");
    fclose(f);
}

static void write_part(const harness *h, const char *to, const char *from, size_t n)
{
    char path[2 * HARNESS_PATH], bytes[4096];
    expand(path, sizeof path, h, from);
    FILE *in = fopen(path, "rb"), *out = fopen(harness_path(h, to), "wb");
    if (!in || !out || n > sizeof bytes || fread(bytes, 1, n, in) != n ||
        fwrite(bytes, 1, n, out) != n || fclose(out) != 0)
        fail("cannot write %s", to);
    fclose(in);
}

/* A hundred samples at 16 kHz: less than a frame. */
static void write_blip(const harness *h)
{
    static const unsigned char head[44] = "RIFF\xec\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0"
                                          "\0\x7d\0\0\x02\0\x10\0data\xc8\0\0";
    static const unsigned char silence[200];
    FILE *f = fopen(harness_path(h, "blip.wav"), "wb");
    if (!f || fwrite(head, 1, sizeof head, f) != sizeof head ||
        fwrite(silence, 1, sizeof silence, f) != sizeof silence || fclose(f) != 0)
        fail("cannot write blip.wav");
}

static void run(const harness *h, const char *list, const char *out, int expected)
{
    const char *const more[] = {"--num_inference_steps", "1", NULL};
    int rc = wait_for(start_batch(h, list, out, harness_path(h, "log"), more, NULL));
    if (rc != expected) fail("the batch ended with %d, %d was expected", rc, expected);
}

static void check_good(const char *clean, const char *mixed)
{
    char a[HARNESS_PATH + 64], b[HARNESS_PATH + 64], x[EM_SHA256_HEX_BYTES], y[EM_SHA256_HEX_BYTES];
    for (int i = 0; i < JOBS; i++) {
        if (i % EVERY == EVERY - 1) continue;
        snprintf(a, sizeof a, "%s/good_%d_output.mp4", clean, i);
        snprintf(b, sizeof b, "%s/good_%d_output.mp4", mixed, i);
        if (!hash_file(x, a) || !hash_file(y, b)) fail("good_%d is missing", i);
        if (strcmp(x, y) != 0) fail("good_%d differs from the clean run's", i);
    }
}

static void check_poisoned(json_t *report)
{
    for (int i = 0; i < POISONS; i++) {
        char name[32];
        snprintf(name, sizeof name, "poison_%d", i);
        json_t *item = report_item(report, name);
        const char *state = json_string_value(json_object_get(item, "state"));
        const char *why = json_string_value(json_object_get(item, "error"));
        if (strcmp(state, "failed") != 0 || !why) fail("%s is '%s'", name, state);
        printf("%s: %s\n", name, why);
        if (!strstr(why, poison[i].cause) || !strstr(why, poison[i].which))
            fail("%s should say '%s' about '%s'", name, poison[i].cause, poison[i].which);
        if (strstr(why, "s3cret")) fail("a signature is shown");
    }
}

int main(int argc, char **argv)
{
    harness h;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3) {
        printf("usage: hundred PROGRAM SHARE\n");
        return 2;
    }
    harness_open(&h, argv[1], argv[2]);
    const char *clean_list = harness_path(&h, "clean.json");
    const char *mixed_list = harness_path(&h, "mixed.json");
    const char *clean = harness_path(&h, "clean"), *mixed = harness_path(&h, "mixed");
    char taken[HARNESS_PATH + 64];
    make_folder(harness_path(&h, "folder"));
    make_folder(mixed);
    snprintf(taken, sizeof taken, "%s/poison_9_output.mp4", mixed);
    make_folder(taken);
    write_part(&h, "letter.png", "@/demo/jobs.json", 60);
    write_part(&h, "cut.png", "@/demo/ada.png", 3000);
    write_part(&h, "cut.wav", "@/demo/ada.wav", 3000);
    write_blip(&h);
    write_list(&h, clean_list, false);
    write_list(&h, mixed_list, true);
    run(&h, clean_list, clean, 0);
    run(&h, mixed_list, mixed, 1);
    check_good(clean, mixed);
    json_t *report = read_report(mixed);
    check_poisoned(report);
    json_decref(report);
    printf("%d videos equal, %d jobs failed with their cause\n", JOBS - POISONS, POISONS);
    harness_close(&h);
    return 0;
}
