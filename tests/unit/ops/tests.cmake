em_test(ops ops unit)
em_test(ops plan unit)
em_test(ops ref unit)
em_test(ops run unit)
