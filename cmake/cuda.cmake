# The CUDA plug-in.
if(EM_CUDA)
  find_package(CUDAToolkit 12.8 REQUIRED)
  enable_language(CUDA)
  find_path(EM_CUDNN_INCLUDE cudnn_backend.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  add_subdirectory(src/ops/cuda)
endif()
