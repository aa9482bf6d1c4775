option(EM_FUZZ "Link the fuzz targets with libFuzzer (clang, preset fuzz)" OFF)

# em_fuzz(target): tests/fuzz/fuzz_<target>.c over its corpus, as one CTest entry; with libFuzzer,
# `fuzz_<target> FOLDER` goes on from there.
function(em_fuzz target)
  if(EM_FUZZ)
    add_executable(fuzz_${target} fuzz/fuzz_${target}.c)
    target_link_options(fuzz_${target} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(fuzz_${target} fuzz/fuzz_${target}.c fuzz/replay.c)
  endif()
  target_link_libraries(fuzz_${target} PRIVATE em_core)
  add_test(NAME fuzz.${target}
    COMMAND fuzz_${target} -runs=0 ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${target})
  set_tests_properties(fuzz.${target} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()

em_fuzz(safetensors)
em_fuzz(yaml)
em_fuzz(zip)
em_fuzz(pickle)
em_fuzz(pth)
em_fuzz(manifest)
em_fuzz(spiece)
