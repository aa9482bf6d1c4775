#include "ops/ref/ref.h"

size_t em_ref_linear_workspace(em_run *r, em_tensor y, em_tensor x, em_tensor w)
{
    return (void)r, (void)y, (void)x, (void)w, 0;
}

/* y[m][n] = act(b[n] + sum_k x[m][k] w[n][k]) */
em_status em_ref_linear(em_run *r, em_tensor y, em_tensor x, em_tensor w, em_tensor b, em_act act,
                        void *ws)
{
    (void)r, (void)ws;
    int64_t rows = em_rows(x), n_out = em_cols(y), n_in = em_cols(x);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t n = 0; n < n_out; n++) {
            double sum = em_tensor_is_empty(b) ? 0 : em_ref_get(b, n);
            for (int64_t k = 0; k < n_in; k++)
                sum += (double)em_ref_get(x, m * n_in + k) * em_ref_get(w, n * n_in + k);
            em_ref_set(y, m * n_out + n, em_ref_activate(sum, act));
        }
    return EM_OK;
}
