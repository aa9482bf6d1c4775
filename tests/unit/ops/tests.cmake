em_test(ops ops unit)
em_test(ops plan unit)
em_test(ops ref unit)
em_test(ops registry unit)
em_test(ops run unit)

# cuDNN's driver against a stand-in: the test itself shows cuDNN's functions to dlsym.
if(EM_CUDA)
  em_test(ops dnn unit)
  target_sources(test_ops_dnn PRIVATE ${CMAKE_SOURCE_DIR}/src/ops/cuda/dnn.c ${CMAKE_SOURCE_DIR}/src/ops/cuda/sdpa.c)
  target_include_directories(test_ops_dnn SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} ${EM_CUDNN_INCLUDE})
  set_target_properties(test_ops_dnn PROPERTIES ENABLE_EXPORTS ON)

  # cuBLASLt's driver and the layer on it, in the same way.
  em_test(ops lt unit)
  target_sources(test_ops_lt PRIVATE ${CMAKE_SOURCE_DIR}/src/ops/cuda/linear.c ${CMAKE_SOURCE_DIR}/src/ops/cuda/lt.c)
  target_include_directories(test_ops_lt SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  set_target_properties(test_ops_lt PROPERTIES ENABLE_EXPORTS ON)
endif()
