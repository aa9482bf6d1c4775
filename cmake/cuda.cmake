# The CUDA plug-in.
if(EM_CUDA)
  find_package(CUDAToolkit 12.8 REQUIRED)
  enable_language(CUDA)
  find_path(EM_CUDNN_INCLUDE cudnn_backend.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  add_subdirectory(src/ops/cuda)

  # Linear layers and convolutions alone on a bare GPU; run by hand.
  add_executable(try_gemm EXCLUDE_FROM_ALL tests/cuda/try_gemm.c $<TARGET_OBJECTS:echomimic_cuda>)
  target_link_libraries(try_gemm PRIVATE em_flags CUDA::cudart_static ${CMAKE_DL_LIBS} Threads::Threads m)
  target_include_directories(try_gemm SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  set_target_properties(try_gemm PROPERTIES LINKER_LANGUAGE CXX)
endif()
