em_test(base dtype unit)
em_test(base rng unit)
em_test(base synthetic unit)
