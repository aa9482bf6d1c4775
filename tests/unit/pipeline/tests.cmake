em_test(pipeline noise unit golden)
