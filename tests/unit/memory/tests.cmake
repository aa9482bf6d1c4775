em_test(memory arena unit)
em_test(memory budget unit)
em_test(memory residency unit fault)
em_test(memory tensor unit)
