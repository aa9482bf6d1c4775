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
endif()
