em_test(models tokenizer unit golden)
em_test(models inventory unit golden)
em_test(models wan_dit unit golden)
