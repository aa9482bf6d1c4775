/* libFuzzer's place where there is no libFuzzer: runs every file of the folders given once. Options
 * are passed over, so that `fuzz_x -runs=0 FOLDER` means the same with both. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

/* From a block of exactly its size, so that ASan sees one byte too many. */
static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) return -1;
    long n = ftell(f);
    unsigned char *data = n < 0 ? NULL : malloc(n > 0 ? (size_t)n : 1);
    int rc = -1;
    if (data && fseek(f, 0, SEEK_SET) == 0 && fread(data, 1, (size_t)n, f) == (size_t)n) {
        rc = LLVMFuzzerTestOneInput(data, (size_t)n);
    }
    free(data);
    fclose(f);
    return rc;
}

static int run_folder(const char *path, int *count)
{
    char file[4096];
    DIR *d = opendir(path);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (run_file(file) != 0) {
            closedir(d);
            return -1;
        }
        (*count)++;
    }
    closedir(d);
    return 0;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') continue;
        if (run_folder(argv[i], &count) != 0) {
            fprintf(stderr, "cannot run the files of '%s'\n", argv[i]);
            return 1;
        }
    }
    printf("%d inputs\n", count);
    return count == 0;
}
