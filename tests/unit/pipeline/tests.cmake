em_test(pipeline noise unit golden)
em_test(pipeline sampler unit golden)
