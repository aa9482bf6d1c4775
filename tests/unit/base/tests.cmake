em_test(base dtype unit)
em_test(base synthetic unit)
em_test(base rng unit)
