/* The matrix product of vec.h, for builds without oneDNN. Part of vec_body.h, which compiles it
 * once per instruction set. */
#include <stddef.h>

enum { TILE_ROWS = 4, TILE_COLS = 32 };

/* A whole tile of C: its sums stay in registers while k goes by. */
static void product_tile(float *restrict c, const float *restrict a, size_t step_a,
                         const float *restrict b, size_t n, size_t k)
{
    float sum[TILE_ROWS][TILE_COLS];
    for (size_t i = 0; i < TILE_ROWS; i++)
        for (size_t j = 0; j < TILE_COLS; j++) sum[i][j] = c[i * n + j];
    for (size_t p = 0; p < k; p++)
        for (size_t i = 0; i < TILE_ROWS; i++)
            for (size_t j = 0; j < TILE_COLS; j++) sum[i][j] += a[i * step_a + p] * b[p * n + j];
    for (size_t i = 0; i < TILE_ROWS; i++)
        for (size_t j = 0; j < TILE_COLS; j++) c[i * n + j] = sum[i][j];
}

/* What is left at the edges: one row, any width. */
static void product_row(float *restrict c, const float *restrict a, const float *restrict b,
                        size_t width, size_t n, size_t k)
{
    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < width; j++) c[j] += a[p] * b[p * n + j];
}

static void product(float *c, const float *a, size_t step_a, const float *b, size_t m, size_t n,
                    size_t k)
{
    size_t i = 0, tiled = n - n % TILE_COLS;
    for (; i + TILE_ROWS <= m; i += TILE_ROWS) {
        for (size_t j = 0; j < tiled; j += TILE_COLS)
            product_tile(c + i * n + j, a + i * step_a, step_a, b + j, n, k);
        for (size_t l = i; l < i + TILE_ROWS && tiled < n; l++)
            product_row(c + l * n + tiled, a + l * step_a, b + tiled, n - tiled, n, k);
    }
    for (; i < m; i++) product_row(c + i * n, a + i * step_a, b, n, n, k);
}
