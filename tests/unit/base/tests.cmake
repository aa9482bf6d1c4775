em_test(base dtype unit)
