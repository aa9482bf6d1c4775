em_test(io file unit)
em_test(io image_in unit golden fault)
em_test(io image_resize unit golden)
em_test(io safetensors unit)
