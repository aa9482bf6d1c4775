em_test(io file unit)
em_test(io safetensors unit)
