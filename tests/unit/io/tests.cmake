em_test(io file unit)
