em_test(pipeline guidance unit)
em_test(pipeline noise unit golden)
em_test(pipeline sampler unit golden)
em_test(pipeline teacache unit golden)
