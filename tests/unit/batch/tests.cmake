em_test(batch manifest unit fault)
