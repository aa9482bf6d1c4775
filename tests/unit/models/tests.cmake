em_test(models tokenizer unit golden)
